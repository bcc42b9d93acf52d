"""Arrays as sbatch and as a shell would read them."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.launch.slurm import JobArray, as_shell, sbatch_words

AWKWARD = ("it's", '"$HOME"', "a  b", "100%", "$(touch hacked)", "`touch hacked`", "--set", "x=[1, 2]", "*", "é")
FAKE_SBATCH = '#!/bin/bash\nprintf "%s\\n" "$@" >> said\necho 4$(grep -c -- --parsable said)\n'


def folds(folder=Path("runs/b0"), tasks=(0, 1, 2), command=("birdinfer", "train"), script="#!/bin/bash\n"):
    return JobArray(
        name=folder.name, folder=folder, kind="fold", tasks=tasks, script=script, command=command,
        options=("--partition=gpu",),
    )  # fmt: skip


def option(words, name):
    (value,) = [word.partition("=")[2] for word in words if word.startswith(f"--{name}=")]
    return value


@pytest.mark.parametrize(
    ("tasks", "spans"), [((0,), "0"), ((0, 1, 2), "0-2"), ((0, 3), "0,3"), ((4, 0, 1, 6, 5), "0-1,4-6")]
)
def test_the_number_of_a_task_is_its_fold(tasks, spans):
    assert option(sbatch_words(folds(tasks=tasks)), "array") == spans


@given(st.sets(st.integers(0, 40), min_size=1))
def test_spans_hold_all_tasks_and_no_other(tasks):
    found = []
    for span in option(sbatch_words(folds(tasks=tuple(tasks))), "array").split(","):
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1)
    assert found == sorted(tasks)


def test_the_command_comes_last_word_for_word():
    words = sbatch_words(folds(command=AWKWARD))
    assert words[-len(AWKWARD) - 2 :] == ["--partition=gpu", "runs/b0/logs/fold.sbatch", *AWKWARD]


def test_jobs_work_where_they_were_submitted_and_their_logs_have_a_place_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = sbatch_words(folds(Path("my runs/100%")))
    assert option(words, "chdir") == str(tmp_path)
    # A percent sign stands for something in SLURM's file names, two of them for one.
    assert option(words, "output") == f"{tmp_path}/my runs/100%%/logs/fold%a-%A.out"
    assert option(words, "comment") == f"{tmp_path}/my runs/100%"
    assert option(words, "job-name") == "100%"


def test_what_waits_for_a_job_goes_when_that_fails():
    words = sbatch_words(folds(), after="41")
    assert option(words, "dependency") == "afterok:41"
    assert option(words, "kill-on-invalid-dep") == "yes"
    assert not any(word.startswith("--dependency") for word in sbatch_words(folds()))


def test_the_shell_script_does_what_submitting_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sbatch").write_text(FAKE_SBATCH)
    (tmp_path / "sbatch").chmod(0o755)
    text = "#!/bin/bash\ncat <<'END'\n$HOME\nEND\nEND_\n"
    first = folds(Path("runs/it's $HOME"), command=AWKWARD, script=text)
    second = folds(Path("runs/best"))
    shell = as_shell([first, second], [(Path("runs/it's $HOME/recipe.toml"), 'name = "$HOME"\n')], chained=True)
    done = subprocess.run(
        ["bash", "-e"], input=shell, capture_output=True, text=True, check=True, timeout=10,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": "/nowhere"},
    )  # fmt: skip
    assert done.stdout == "41\n42\n"
    assert (tmp_path / first.script_path).read_text() == text
    assert (tmp_path / "runs/it's $HOME/recipe.toml").read_text() == 'name = "$HOME"\n'
    assert (tmp_path / "said").read_text().splitlines() == [*sbatch_words(first)[1:], *sbatch_words(second, "41")[1:]]
    assert not (tmp_path / "hacked").exists()


def test_arrays_that_are_not_chained_wait_for_nothing():
    assert "dependency" not in as_shell([folds(), folds()])
