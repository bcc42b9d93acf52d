import subprocess
import sys

import pytest

import birdinfer as package
from birdinfer.cli.app import main
from birdinfer.postprocess.steps import catalogue, parse_step


def test_version(birdinfer):
    assert birdinfer("--version") == (0, f"{package.__version__}\n", "")


def test_help_names_every_command(birdinfer):
    code, out, _ = birdinfer("--help")
    assert code == 0
    for name in ("train", "export", "predict", "demo", "score", "doctor"):
        assert name in out


@pytest.mark.parametrize("command", ["train", "export", "predict", "demo", "score", "doctor"])
def test_every_command_explains_itself(birdinfer, command):
    code, out, _ = birdinfer(command, "-h")
    assert code == 0
    assert "Usage:" in out


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
    assert "No such command 'fly'" in err


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
    assert err.startswith("birdinfer: a fault of ours, or of this machine: RuntimeError: out of luck - ")
    assert err.count("\n") == 1
    monkeypatch.setenv("BIRDINFER_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="out of"):
        main(["score", "a.csv", "b.csv"])


def test_help_imports_nothing_heavy():
    code = """
import sys
from birdinfer.cli.app import main
try:
    main(["--help"])
except SystemExit:
    pass
heavy = {"torch", "timm", "pandas", "numpy", "onnxruntime", "soundfile", "librosa", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_python_dash_m():
    run = subprocess.run([sys.executable, "-m", "birdinfer", "--version"], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == package.__version__
