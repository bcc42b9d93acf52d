"""What SLURM's programs say, as one line; small scripts play them."""

import stat

import pytest

from birdinfer.errors import ConfigError
from birdinfer.training.launch import slurm
from birdinfer.training.launch.slurm import JobArray


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """``programs(sinfo="echo birds")`` puts a program of one line of shell in the place of SLURM's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def put(**lines):
        for name, line in lines.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
            (tmp_path / name).chmod(stat.S_IRWXU)

    return put


@pytest.fixture
def array(tmp_path):
    return JobArray(
        name="b0", folder=tmp_path / "runs" / "b0", kind="fold", tasks=(0, 2), script="#!/bin/bash\n",
        command=("birdinfer", "train"),
    )  # fmt: skip


def test_a_machine_without_slurm_is_refused_with_what_it_lacks(programs, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="--cluster: is slurm, there is no sbatch here - run it on a login node"):
        slurm.check_there()
    programs(sbatch="", sinfo="")
    with pytest.raises(ConfigError, match="there is no squeue here"):
        slurm.check_there()
    programs(squeue="")
    slurm.check_there()


def test_partitions_are_those_that_sinfo_names(programs):
    programs(sinfo="echo birds; echo gpu; echo birds")
    slurm.check_partition("gpu,birds")
    with pytest.raises(ConfigError, match=r"^--partition: 'bat' is unknown, this cluster has birds, gpu$"):
        slurm.check_partition("gpu,bat")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1",
            "sbatch: Batch job submission failed: Invalid account",
        ),
        (
            r"printf 'sbatch: fatal: one\n\nsbatch: two\nsbatch: two\n' >&2; exit 3",
            "sbatch: one; two",
        ),
        ("exit 4", "sbatch: fails with exit code 4"),
        (r"printf '\xff\x1b[31mred' >&2; exit 1", "sbatch: � [31mred"),
    ],
)
def test_a_refusal_is_one_line_in_slurms_own_words(programs, array, line, said):
    programs(sbatch=line)
    with pytest.raises(ConfigError) as refused:
        slurm.submit(array)
    assert str(refused.value) == said


def test_a_program_that_is_missing_or_does_not_answer_is_named(programs, monkeypatch):
    with pytest.raises(ConfigError, match=r"^sinfo: cannot be run \(No such file"):
        slurm.check_partition("gpu")
    programs(sinfo="exec /bin/sleep 5")
    monkeypatch.setattr(slurm, "_SECONDS", 0.1)
    with pytest.raises(ConfigError, match=r"^sinfo: has not answered for 0\.1 s"):
        slurm.check_partition("gpu")


@pytest.mark.parametrize("printed", ["41", "41;cluster"])
def test_a_submitted_array_has_its_script_beside_its_logs(programs, array, printed):
    programs(sbatch=f"echo '{printed}'")
    assert slurm.submit(array) == "41"
    assert (array.folder / "logs" / "fold.sbatch").read_text() == array.script


@pytest.mark.parametrize(
    ("line", "is_ours"),
    [
        ("41|2|b0|{folder}", True),
        ("41|1|b0|{folder}", False),
        ("41|2|b0|/elsewhere/runs/b0", False),
        ("41|2|other|{folder}", False),
        ("41|N/A|b0|(null)", False),
    ],
)
def test_a_fold_that_is_in_the_queue_is_not_submitted_again(programs, array, line, is_ours):
    programs(squeue=f"echo '40|0|x|y'; echo '{line.format(folder=array.folder)}'")
    if not is_ours:
        return slurm.check_not_queued(array)
    with pytest.raises(ConfigError, match="fold 2 is in the queue already, as 41_2 - scancel 41, or"):
        slurm.check_not_queued(array)
    return None
