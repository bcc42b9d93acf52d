"""An archive as jobs of a real SLURM: a task killed, one preempted, a job cancelled; it ends as on one machine."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from held_files import held, hold, let_go, until
from make_bundles import SAMPLE_RATE, tone, write_sound
from real_slurm import PARTITION, URGENT, asked, real_slurm, why_not

from birdinfer.errors import ConfigError
from birdinfer.scale.launchers import LauncherSettings
from birdinfer.scale.plan import open_plan
from birdinfer.scale.run import read_markers
from birdinfer.scale.slurm import SlurmLauncher
from birdinfer.scale.unit import WorkSettings

needs_slurm = pytest.mark.skipif(bool(why_not()), reason=why_not())
N_FILES, N_TASKS = 12, 3


@pytest.fixture(scope="module")
def held_archive(tmp_path_factory):
    """Files of 10 s; at the first of each task its process can be held. Read only."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(N_FILES):
        name = f"held_{number:02}" if number < N_TASKS else f"site_{number:02}"
        write_sound(folder / f"{name}.ogg", tone(10.0, hz=500.0 + 60 * number, seed=number), SAMPLE_RATE)
    return folder


def digests(opened):
    return [marker.sha256 for marker in read_markers(opened, range(opened.plan.n_units))]


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_preempted_and_cancelled_jobs_end_as_on_one_machine(
    held_archive, planned, birdinfer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    alone = planned(held_archive, tmp_path / "alone")
    assert birdinfer("scale", "run", tmp_path / "alone", "--workers", "1", "--quiet")[0] == 0
    opened = planned(held_archive, tmp_path / "plan")
    holding = tmp_path / "holding"
    with real_slurm() as variables:
        for name, value in {**variables, **hold(holding)}.items():
            monkeypatch.setenv(name, value)

        def submit():
            options = (f"tasks={N_TASKS}", f"partition={PARTITION}")
            asking = [word for option in options for word in ("--option", option)]
            code, _, errors = birdinfer("scale", "run", tmp_path / "plan", "--on", "slurm", *asking)
            assert code == 0, errors
            return re.search(r"job (\d+)", errors)[1]

        def queue(job):
            return asked(variables, "squeue", "--jobs", job, "--array", "--noheader", "--format=%T").split()

        job = submit()
        until(lambda: len(held(holding)) == N_TASKS)
        code, _, errors = birdinfer("scale", "run", tmp_path / "plan", "--on", "slurm", "--option", f"tasks={N_TASKS}")
        assert (code, errors.count("\n")) == (2, 1)
        assert "share 0 is in the queue already" in errors
        # The process of one unit, whose task starts another one; then a whole task; then all by a more urgent job.
        first = set(held(holding))
        os.kill(min(first), signal.SIGKILL)
        until(lambda: len(held(holding)) == N_TASKS and set(held(holding)) != first)
        os.kill(parent_of(max(first)), signal.SIGKILL)
        until(lambda: "PENDING" in queue(job))
        assert asked(variables, "sbatch", f"--partition={URGENT}", "--exclusive", "--wrap=true", "--output=/dev/null")
        until(lambda: queue(job) == ["PENDING"] * N_TASKS)
        until(lambda: len(held(holding)) == N_TASKS)
        asked(variables, "scancel", job)
        until(lambda: not queue(job))
        assert opened.missing()
        let_go(holding)
        job = submit()
        until(lambda: not queue(job))
    assert opened.missing() == []
    assert digests(opened) == digests(alone)


def parent_of(pid):
    """The process that started another."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def launcher(*options, **settings):
    return SlurmLauncher(LauncherSettings(options=options, **settings))


def test_a_task_has_a_share_and_what_it_needs(held_archive, planned, tmp_path):
    opened = planned(held_archive)
    asking = launcher(
        "tasks=5", "partition=birds", "account=me", "setup=module load x", workers=4, work=WorkSettings(threads=2)
    )
    array = asking.array(opened, [0, 1, 5, 6, 11])
    assert array.tasks == (0, 1)
    assert array.folder == tmp_path / "plan"
    assert array.command[:6] == (sys.executable, "-m", "birdinfer", "scale", "run", str(tmp_path / "plan"))
    assert array.command[6:12] == ("--shares", "5", "--workers", "4", "--threads", "2")
    assert array.options == ("--partition=birds", "--cpus-per-task=8", "--account=me")
    assert 'step=(srun "$@" --share "$SLURM_ARRAY_TASK_ID")' in array.script
    assert "module load x" in array.script


def test_tasks_are_an_hour_each(held_archive, planned):
    opened = planned(held_archive)
    assert launcher().array(opened, range(N_FILES)).tasks == (0,)


@pytest.mark.parametrize("option", ["tasks=0", "tasks=many", "tasks=2000", "array=0-3", "time=2"])
def test_what_jobs_cannot_have_is_refused(held_archive, planned, option):
    with pytest.raises(ConfigError):
        launcher(option).array(planned(held_archive), range(N_FILES))


def test_shares_are_all_units(held_archive, planned, birdinfer):
    opened = planned(held_archive)
    assert birdinfer("scale", "run", opened.place.uri, "--share", "1", "--shares", "6", "-j", "1", "--quiet")[0] == 0
    assert set(range(N_FILES)) - set(opened.missing()) == {1, 7}
    code, _, error = birdinfer("scale", "run", open_plan(opened.place.uri).place.uri, "--share", "6", "--shares", "6")
    assert (code, error.count("\n")) == (2, 1)
    assert "the last of 6 is 5" in error
