"""Folds as jobs of a real SLURM: one killed, one at its time limit, one preempted; they end as if nothing had been."""

import contextlib
import io
import json
import os
import shlex
import signal
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import torch
from one_fold import changed
from real_slurm import GRACEFUL, PARTITION, URGENT, asked, real_slurm, why_not

from birdinfer.cli.app import main
from birdinfer.runs.layout import BEST, LAST
from birdinfer.training.checkpoint import load_checkpoint, load_header
from birdinfer.training.launch import slurm
from birdinfer.training.launch.slurm import SEARCH, JobArray, script, shipped
from birdinfer.training.recipe.toml import load_recipe, write_recipe
from birdinfer.training.run import Run, train_run
from birdinfer.training.summary import METRICS

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
EPOCHS = 6
LONGEST_WAIT = 300.0
"""Seconds for one thing that SLURM is to do, on a machine that does much else."""
NAME = "it's 100% $HOME"
"""Of a run, its folder and its jobs: what a shell and SLURM itself would read something into."""
WORDS = ("train", "--recipe", "my recipe.toml", "--cluster", "slurm", "--device", "cpu")


@pytest.fixture(scope="module")
def cluster():
    """SLURM runs, and the programs that we start find it."""
    with real_slurm() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield lambda *command: asked(variables, *command)


@pytest.fixture(scope="module")
def place(cluster, plain_recipe, clips_dir, tmp_path_factory):
    """Where jobs are submitted: a recipe whose folds take some seconds, and links to clips."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "data").symlink_to(clips_dir)
    long = msgspec.structs.replace(plain_recipe, name=NAME)
    long = changed(long, loop={"epochs": EPOCHS, "batch_size": 4, "checkpoint_every_steps": 1})
    (folder / "my recipe.toml").write_text(write_recipe(long))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def submit(*options):
    """``birdinfer train`` for the cluster, as it is typed; what it prints."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.redirect_stderr(io.StringIO()) as printed_errors,
        pytest.raises(SystemExit) as left,
    ):
        main([*WORDS, *options])
    assert not left.value.code, printed_errors.getvalue()
    return printed.getvalue()


def number(printed):
    return printed.split(": job ")[1].split(",")[0]


def until(holds):
    """Wait; the assertion shows what never came."""
    end = time.monotonic() + LONGEST_WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def states(cluster, job):
    """Of each task that is in the queue."""
    lines = cluster("squeue", "--jobs", job, "--array", "--noheader", "--format=%K %T").splitlines()
    return {int(task): state for task, state in (line.split() for line in lines)}


def steps_done(fold_dir):
    path = fold_dir / LAST
    progress = load_header(path).progress if path.exists() else None
    return 0 if progress is None else progress.epoch * 4 + progress.step


def worker_of(run_dir, fold):
    """The process that trains a fold; srun was given the same words and more."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().rstrip("\0").split("\0")
            here = (path.parent / "cwd").resolve() == run_dir.parents[1]
            if (
                here
                and words[1:3] == ["-m", "birdinfer"]
                and run_dir.name in words
                and words[-3:-1] == ["--fold", fold]
            ):
                return int(path.parent.name)
    raise AssertionError(f"no process trains fold {fold}")


def has_pending(pid, number):
    """Whether a process that stands still will find a signal when it continues."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def freeze(run_dir, *folds):
    """Let folds be begun and saved once, and stand still then: whatever happens to them, happens in the middle."""
    moving = set(folds)
    end = time.monotonic() + LONGEST_WAIT
    while moving:
        assert time.monotonic() < end, f"folds {moving} do not begin"
        time.sleep(0.02)
        for fold in [each for each in moving if steps_done(run_dir / f"fold{each}")]:
            os.kill(worker_of(run_dir, str(fold)), signal.SIGSTOP)
            moving.remove(fold)


class Disturbed(NamedTuple):
    run_dir: Path
    job: str
    printed: str
    restarts: dict[int, int]
    """Of each task."""
    two: str
    """The job of a fold that two processes train, once nothing is preempted any more."""
    cancelled: str
    """The job of a fold that stands still, to be cancelled."""


def disturb(place, cluster):
    """Three folds: the first preempted, the second killed, the third stopped as at its time limit."""
    run_dir = place / "runs" / NAME
    printed = submit("--fold", "all", "--partition", PARTITION, "--cpus-per-task", "1")
    job = number(printed)
    freeze(run_dir, 0, 1, 2)

    os.kill(worker_of(run_dir, "1"), signal.SIGKILL)
    third = worker_of(run_dir, "2")
    cluster("scancel", "--signal=USR1", "--batch", f"{job}_2")
    until(lambda: has_pending(third, signal.SIGTERM))
    os.kill(third, signal.SIGCONT)
    until(lambda: states(cluster, job) == {0: "RUNNING", 1: "PENDING", 2: "PENDING"})

    assert cluster("sbatch", f"--partition={URGENT}", "--exclusive", "--wrap=true", "--output=/dev/null")
    until(lambda: states(cluster, job).get(0) == "PENDING")
    # What else is to be tested begins while these wait for their credentials to expire.
    two = number(submit("--name", "two", "--processes", "2", "--set", "loop.epochs=1"))
    cancelled = number(submit("--name", "cancelled", "--partition", PARTITION))
    freeze(place / "runs" / "cancelled", 0)
    restarts = {}
    for task in range(3):
        until(lambda task=task: states(cluster, job).get(task) != "PENDING")
        shown = cluster("scontrol", "show", "job", f"{job}_{task}")
        restarts[task] = int(shown.split("Restarts=")[1].split()[0])
    until(lambda: not states(cluster, job))
    return Disturbed(run_dir, job, printed, restarts, two, cancelled)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_folds_that_are_killed_preempted_or_out_of_time_end_as_if_nothing_had_been(place, cluster, birdinfer, tmp_path):
    # All in one: it takes half a minute, and each worker of pytest-xdist would start it again.
    disturbed = disturb(place, cluster)
    check_that_it_shows_how_to_watch_the_job(disturbed)
    check_that_it_continued_where_it_was_stopped_in_the_same_log(disturbed, 0, "DUE TO PREEMPTION")
    check_that_it_continued_where_it_was_stopped_in_the_same_log(disturbed, 1, "killed (exit code 137)")
    check_that_it_continued_where_it_was_stopped_in_the_same_log(disturbed, 2, "birdinfer: time limit")
    check_that_the_summary_has_all_folds(disturbed)
    check_that_the_weights_are_those_of_a_quiet_run(disturbed, place, tmp_path)
    check_that_what_is_trained_is_not_trained_over(birdinfer)
    check_that_what_a_user_cancels_is_saved_and_stays_cancelled(disturbed, place, cluster)
    check_that_several_processes_train_one_fold(disturbed, place, cluster)


def check_that_it_shows_how_to_watch_the_job(disturbed):
    logs = Path("runs") / NAME / "logs"
    assert disturbed.printed.splitlines() == [
        f"{Path('runs') / NAME}: job {disturbed.job}, folds 0, 1, 2",
        f"  logs   {logs}/fold*-{disturbed.job}.out",
        f"  watch  tail -F {shlex.quote(f'{logs}/fold0-{disturbed.job}.out')}",
        f"squeue -j {disturbed.job} shows them, scancel {disturbed.job} ends them",
    ]


def check_that_it_continued_where_it_was_stopped_in_the_same_log(disturbed, fold, said):
    log = (disturbed.run_dir / "logs" / f"fold{fold}-{disturbed.job}.out").read_text()
    before, after = log.split(said)[0], log.split(said)[-1]
    assert f"fold {fold}: 16 clips to train" in before
    assert "resumed at step" not in before
    assert "resumed at step" in after
    assert disturbed.restarts[fold] == 1


def check_that_the_summary_has_all_folds(disturbed):
    summary = json.loads((disturbed.run_dir / "summary.json").read_text())
    assert [fold["fold"] for fold in summary["folds"]] == [0, 1, 2]
    assert summary["n_failed"] == 0
    assert summary["out_of_fold_macro_auc"] > 0


def check_that_the_weights_are_those_of_a_quiet_run(disturbed, place, tmp_path):
    quiet = Run(
        recipe=load_recipe(place / "my recipe.toml"),
        data_dir=place / "data",
        run_dir=tmp_path / NAME,
        folds=None,
        device="cpu",
    )
    train_run(quiet)
    for fold in range(3):
        mine, theirs = (load_checkpoint(run / f"fold{fold}" / BEST) for run in (disturbed.run_dir, quiet.run_dir))
        assert mine.header.progress.best_epoch == theirs.header.progress.best_epoch
        assert mine.tensors.keys() == theirs.tensors.keys()
        assert [key for key, tensor in mine.tensors.items() if not torch.equal(tensor, theirs.tensors[key])] == []


def check_that_what_is_trained_is_not_trained_over(birdinfer):
    code, _, error = birdinfer(*WORDS, "--quiet", "--fold", "1", "--partition", PARTITION)
    assert (code, len(error.splitlines())) == (2, 1)
    assert "fold1/last.safetensors: is already there - continue with --resume" in error


def test_a_fold_that_is_in_the_queue_is_refused_and_another_is_not(place, cluster, birdinfer):
    assert birdinfer(*WORDS, "--fold", "1", "--name", "waiting", "--sbatch", "hold")[0] == 0
    code, _, error = birdinfer(*WORDS, "--fold", "0,1", "--name", "waiting")
    assert (code, error.count("\n")) == (2, 1)
    assert "fold 1 is in the queue already, as" in error
    code, printed, _ = birdinfer(*WORDS, "--fold", "0", "--name", "waiting", "--sbatch", "hold")
    assert code == 0
    cluster("scancel", number(printed), error.split("scancel ")[1].split(",")[0])


def check_that_what_a_user_cancels_is_saved_and_stays_cancelled(disturbed, place, cluster):
    job, run_dir = disturbed.cancelled, place / "runs" / "cancelled"
    saved = steps_done(run_dir / "fold0")
    cluster("scancel", job)
    until(lambda: not states(cluster, job))
    log = (run_dir / "logs" / f"fold0-{job}.out").read_text()
    assert "stopped by SIGTERM" in log
    assert "continues where" not in log
    assert saved <= steps_done(run_dir / "fold0") < 4 * EPOCHS
    assert "JobState=CANCELLED" in cluster("scontrol", "show", "job", f"{job}_0")


def check_that_several_processes_train_one_fold(disturbed, place, cluster):
    until(lambda: not states(cluster, disturbed.two))
    log = place / "runs" / "two" / "logs" / f"fold0-{disturbed.two}.out"
    assert (place / "runs" / "two" / "fold0" / METRICS).is_file(), log.read_text()
    assert json.loads((place / "runs" / "two" / "fold0" / METRICS).read_text())["processes"] == 2


@pytest.mark.parametrize(
    ("option", "error"),
    [
        (
            ("--partition", "bats"),
            f"--partition: 'bats' is unknown, this cluster has {PARTITION}, {GRACEFUL}, {URGENT}",
        ),
        (("--partition", f"{PARTITION},bats"), "--partition: 'bats' is unknown"),
        (("--time", "soon"), "sbatch: Invalid --time specification"),
        (
            ("--mem", "9000000G"),
            "sbatch: Memory specification can not be satisfied; Batch job submission failed: Requested",
        ),
        (("--gres", "gpu:1"), "sbatch: Invalid generic resource (gres) specification"),
        (("--sbatch", "aconut=birds"), "sbatch: unrecognized option '--aconut=birds'"),
    ],
)
def test_what_the_cluster_cannot_do_is_refused_in_one_line(place, cluster, birdinfer, option, error):
    code, printed, errors = birdinfer(*WORDS, "--quiet", "--name", "refused", *option)
    assert (code, printed, len(errors.splitlines())) == (2, "", 1)
    assert error in errors
    assert not cluster("squeue", "--name=refused", "--noheader")


def bare(folder, kind, line, *options, tasks=(0, 1)):
    """A job that needs no Python."""
    return JobArray(
        name=folder.name, folder=folder, kind=kind, tasks=tasks, script=script(shipped(SEARCH)),
        command=("bash", "-c", line), options=options,
    )  # fmt: skip


def test_a_preempted_job_returns_to_the_queue_when_it_has_saved(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saving = 'trap "sleep 0.2; touch saved; exit 143" TERM; touch begun; while true; do sleep 0.05; done'
    job = slurm.submit(bare(tmp_path, "preempted", saving, f"--partition={GRACEFUL}", tasks=(0,)))
    until((tmp_path / "begun").exists)
    assert cluster("sbatch", f"--partition={URGENT}", "--exclusive", "--wrap=true", "--output=/dev/null")
    until(lambda: states(cluster, job) == {0: "PENDING"})
    cluster("scancel", job)
    assert (tmp_path / "saved").exists()
    assert "birdinfer: preempted" in (tmp_path / "logs" / f"preempted0-{job}.out").read_text()


def test_jobs_that_wait_for_others_run_after_them_or_not_at_all(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = slurm.submit(bare(tmp_path, "first", "sleep 0.3; echo done >> first"))
    after = slurm.submit(bare(tmp_path, "after", "cat first > after$SLURM_ARRAY_TASK_ID"), first)
    failing = slurm.submit(bare(tmp_path, "failing", "exit 3"))
    never = slurm.submit(bare(tmp_path, "never", "touch never"), failing)
    for job in (first, after, failing, never):
        until(lambda job=job: not states(cluster, job))
    assert [(tmp_path / f"after{task}").read_text() for task in (0, 1)] == ["done\ndone\n"] * 2
    assert not (tmp_path / "never").exists()
