import subprocess
import sys

import pytest

import birdinfer as package
from birdinfer.cli.app import COMMANDS, load_command, main
from birdinfer.postprocess.steps import catalogue, parse_step


def test_version(birdinfer):
    assert birdinfer("--version") == (0, f"{package.__version__}\n", "")


def test_help_names_every_command(birdinfer):
    code, out, _ = birdinfer("--help")
    assert code == 0
    for name in ("train", "export", "predict", "demo", "score", "doctor"):
        assert name in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_as_in_the_table(birdinfer, command):
    code, out, _ = birdinfer(command, "-h")
    assert code == 0
    assert "Usage:" in out
    assert load_command(command).help.split("\n\n")[0].replace("\n", " ") == COMMANDS[command]


def test_the_steps_that_are_listed_can_be_taken(birdinfer):
    code, out, _ = birdinfer("steps")
    assert code == 0
    written = out.splitlines()[::2]
    known = {parse_step(line).__struct_config__.tag for line in written if "=..." not in line}
    assert known | {"mirror_groups", "prior_shift", "histogram_match"} == set(catalogue())
    assert all(line.startswith("    ") for line in out.splitlines()[1::2])


def test_an_unknown_command_is_exit_2(birdinfer):
    code, _, err = birdinfer("fly")
    assert code == 2
    assert err == "birdinfer: command line: there is no command fly - birdinfer --help\n"


def test_ctrl_c_is_exit_130(birdinfer, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("birdinfer.cli.score.score_submission", interrupted)
    assert birdinfer("score", "a.csv", "b.csv") == (130, "", "birdinfer: stopped with Ctrl-C\n")


def test_a_fault_of_ours_is_one_line_and_shows_more_when_asked(birdinfer, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of\n  luck")

    monkeypatch.setattr("birdinfer.cli.score.score_submission", broken)
    code, out, err = birdinfer("score", "a.csv", "b.csv")
    assert (code, out) == (1, "")
    assert err.startswith("birdinfer: a fault in birdinfer, or of this machine: RuntimeError: out of luck - ")
    assert err.count("\n") == 1
    monkeypatch.setenv("BIRDINFER_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="out of"):
        main(["score", "a.csv", "b.csv"])


def test_python_dash_m():
    run = subprocess.run([sys.executable, "-m", "birdinfer", "--version"], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == package.__version__


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "a.csv"), "a.csv: cannot be read or written (Permission denied)"),
        (OSError(28, "No space left on device"), "cannot be read or written (No space left on device)"),
    ],
)
def test_what_a_disk_does_not_allow_is_no_fault_of_birdinfer(birdinfer, monkeypatch, error, line):
    def fail(*_):
        raise error

    monkeypatch.setattr("birdinfer.cli.score.score_submission", fail)
    code, _, err = birdinfer("score", "a.csv", "b.csv")
    assert (code, err) == (2, f"birdinfer: {line}\n")
