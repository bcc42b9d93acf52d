"""``birdinfer export``: what it is asked, what it prints where, and how it ends."""

import inspect
import io
import json
import os
import sys

import pytest
from rich.console import Console
from tiny_clips import write_clips
from untrained_runs import hasten, loud, write_run

from birdinfer.cli.export import ExportProgress, export
from birdinfer.cli.progress import StatusBar
from birdinfer.export.acceptance.decision import Limits
from birdinfer.export.int8.qdq import find_format
from birdinfer.export.settings import ExportSettings

FEW = ("--calibration-windows", "8", "--max-auc-fall", "0.1", "--min-spearman", "0.9")


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def run(data, tmp_path, monkeypatch):
    """runs/tiny of one fold, in the folder where the command is called."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs" / "tiny", data)


def test_takes_the_latest_run(run, data, tmp_path, birdinfer):
    write_run(tmp_path / "runs" / "older", data)
    os.utime(tmp_path / "runs" / "older" / "fold0" / "best.safetensors", (1, 1))
    code, out, err = birdinfer("export", "--onnx")
    assert (code, out) == (0, "")
    assert "exports/tiny: 1 member, 4 labels" in err
    assert "next: birdinfer predict SOUNDSCAPES --bundle exports/tiny -o submission.csv\n" in err
    assert json.loads((tmp_path / "exports" / "tiny" / "manifest.json").read_text())["name"] == "tiny"


def test_without_a_run_says_how_to_make_one(tmp_path, birdinfer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = birdinfer("export")
    assert (code, err.count("\n")) == (2, 1)
    assert "runs: holds no trained run - birdinfer train --fold 0 makes one" in err


def test_without_torch_says_what_to_install(birdinfer, monkeypatch):
    monkeypatch.setitem(sys.modules, "birdinfer.export.run", None)
    code, _, err = birdinfer("export")
    assert code == 2
    assert 'pip install "birdinfer[export]"' in err


def test_int8_that_passes_is_reported_with_its_figures(run, birdinfer, tmp_path):
    code, _, err = birdinfer("export", "--quantize", "static", *FEW)
    assert code == 0
    assert "fold0: int8 static taken: 2.00 times as fast as fp32" in err
    assert "-o submission.csv --engine auto" in err
    assert (tmp_path / "exports" / "tiny" / "fold0.int8.onnx").is_file()


def test_int8_that_fails_says_why_and_is_no_failure_of_the_command(data, tmp_path, birdinfer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "loud", data, network_of=loud)
    code, out, err = birdinfer("export", "--quantize", "static", *FEW, "--report")
    (line,) = (line for line in err.splitlines() if "refused" in line)
    reason = line.removeprefix("fold0: int8 static refused: ")
    assert code == 0
    assert reason.startswith("macro AUC falls by 0.")
    assert "allowed is 0.1; Spearman " in reason
    assert "; tried: ranges by percentile, minmax; sets of activations left in fp32: " in reason
    assert reason in out
    manifest = json.loads((tmp_path / "exports" / "loud" / "manifest.json").read_text())
    assert manifest["members"][0]["variants"][1]["refused"] == reason
    assert sorted(path.name for path in (tmp_path / "exports" / "loud").iterdir()) == [
        "fold0.onnx",
        "folds.csv",
        "manifest.json",
    ]


def test_the_table_goes_where_results_go_and_all_else_beside_it(run, birdinfer):
    code, out, err = birdinfer("export", "--quantize", "static", *FEW, "--report")
    heading, fp32, int8 = out.splitlines()
    assert code == 0
    assert heading.split()[:4] == ["member", "variant", "MB", "windows/s"]
    assert fp32.split()[:2] == ["fold0", "fp32"]
    assert int8.split()[:3] == ["fold0", "int8", "static"]
    assert int8.rstrip().endswith("taken")
    assert "calibrating ..." in err
    assert "windows/s" not in err.split("int8 static taken")[1]


def test_fp32_alone_is_measured_for_the_table(run, birdinfer):
    code, out, _ = birdinfer("export", "--report")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["member", "fold0"]


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("--quantize", "int4", "static, dynamic, nncf"),
        ("--half", "fp8", "fp16, bf16"),
        ("--target", "z80", "any-x86, vnni, arm"),
    ],
)
def test_unknown_names_are_refused_with_those_that_are_known(run, birdinfer, tmp_path, option, value, choices):
    code, out, err = birdinfer("export", option, value)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert repr(value) in err
    assert choices in err
    assert not (tmp_path / "exports").exists()


def test_limits_that_cannot_be_meant_are_refused(run, birdinfer, tmp_path):
    code, _, err = birdinfer("export", "--quantize", "static", "--min-spearman", "98")
    assert (code, err.count("\n")) == (2, 1)
    assert "min_spearman: is 98, allowed are -1 to 1" in err
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("half", ["--judge-on", "--truth"])
def test_labelled_soundscapes_need_folder_and_table(run, birdinfer, half):
    code, _, err = birdinfer("export", half, "somewhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "--judge-on: needs --truth, and --truth needs it - name folder and table, or neither" in err


def test_every_name_counts_once_and_the_order_stays(run, birdinfer, tmp_path):
    options = [part for name in ("dynamic", "static", "dynamic") for part in ("--quantize", name)]
    code, _, _ = birdinfer("export", *options, *FEW)
    manifest = json.loads((tmp_path / "exports" / "tiny" / "manifest.json").read_text())
    assert code == 0
    assert [variant["name"] for variant in manifest["members"][0]["variants"]] == [
        "fp32",
        "int8 dynamic",
        "int8 static",
    ]


def test_native_is_a_target(run, birdinfer, tmp_path):
    code, _, err = birdinfer("export", "--quantize", "static", "--target", "native", *FEW)
    assert code == 0
    assert find_format("native").name in err


class TestProgress:
    def printed(self, is_terminal):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=is_terminal, width=100, highlight=False)
        with StatusBar(console=console) as status:
            progress = ExportProgress(status)
            progress.on_progress("calibrating", 1, 8)
            progress.on_progress("calibrating", 8, 8)
            progress.on_message("fold0: [b]done[/b]")
            progress.on_progress("a search [dim]", 1, 4)
        return screen.getvalue()

    def test_a_log_has_a_line_for_each_task_and_outcome(self):
        assert self.printed(False) == "calibrating ...\nfold0: [b]done[/b]\na search [dim] ...\n"

    def test_a_terminal_shows_a_bar_of_the_running_task(self):
        shown = self.printed(True)
        last = shown.rsplit("\r", 1)[-1]
        assert "a search [dim]" in last
        assert "calibrating" not in last
        assert "fold0: [b]done[/b]" in shown
        assert "calibrating ..." not in shown


def test_defaults_of_the_command_are_those_of_the_exporter():
    """They are written out where --help reads them, which imports nothing."""
    defaults = {name: one.default for name, one in inspect.signature(export).parameters.items()}
    limits, settings = Limits(), ExportSettings()
    assert defaults["max_auc_fall"] == limits.max_auc_drop
    assert defaults["max_auc_fall_upper"] == limits.max_auc_drop_upper
    assert defaults["min_spearman"] == limits.min_spearman
    assert defaults["min_speedup"] == limits.min_times_fp32
    assert defaults["target"] == settings.target
    assert defaults["calibration_windows"] == settings.n_calibration_windows
