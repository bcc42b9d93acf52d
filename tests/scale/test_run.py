"""The commands, and processes of this machine: what is killed is run again, what cannot be done is one line."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from birdinfer.errors import BirdinferError
from birdinfer.scale import launchers
from birdinfer.scale.launchers import LauncherSettings, LocalLauncher, Report
from birdinfer.scale.places import StoreError
from birdinfer.scale.run import ScaleCallback, run_plan


class Seen(ScaleCallback):
    """Keeps what is reported."""

    def __init__(self):
        self.reports, self.warnings = [], []

    def on_unit(self, report, sound_seconds):
        self.reports.append(report)

    def on_warning(self, line):
        self.warnings.append(line)


STUB = """
import json, os, signal, sys
from pathlib import Path
marks = Path(os.environ["MARKS"])
print(json.dumps({}), flush=True)
print("a line of a library", flush=True)
for line in sys.stdin:
    unit = int(line)
    if unit == 2 and len(list(marks.iterdir())) < int(os.environ["KILLS"]):
        (marks / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if unit == 3 and "ENDS" in os.environ:
        error = "s3://b: access is not allowed - renew them"
        print(json.dumps({"unit": 3, "error": error, "ends_run": True}), flush=True)
    else:
        print(json.dumps({"unit": unit, "n_files": 1}), flush=True)
"""
"""What stands in for ``birdinfer scale work``: it is killed at unit 2 some times."""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Let the launcher start another program in the place of its own."""
    (tmp_path / "marks").mkdir()
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setenv("MARKS", str(tmp_path / "marks"))
    monkeypatch.setenv("KILLS", "0")
    opened = launchers._Process.__init__

    def start(process, command, environment):
        opened(process, [command[0], str(tmp_path / "stub.py")], environment)

    monkeypatch.setattr(launchers._Process, "__init__", start)


class NoPlan:
    """As much of a plan as the launcher reads."""

    class place:
        uri = "plan"


def launch(units, workers=2):
    seen = Seen()
    reports, settings = [], LauncherSettings(workers=workers)
    LocalLauncher(settings).run(NoPlan, units, reports.append, seen.on_warning)
    return reports, seen.warnings


@pytest.mark.parametrize("workers", [1, 3])
def test_every_unit_is_reported_once_though_processes_are_killed(stub, monkeypatch, workers):
    monkeypatch.setenv("KILLS", "3")
    reports, warnings = launch(range(7), workers)
    assert sorted(report.unit for report in reports) == list(range(7))
    assert not any(report.error for report in reports)
    assert warnings == ["a process was lost at unit 2 (SIGKILL), which is run again"] * 3


def test_a_unit_that_always_kills_is_given_up_and_the_others_are_done(stub, monkeypatch):
    monkeypatch.setenv("KILLS", "100")
    reports, _ = launch(range(5))
    assert sorted(report.unit for report in reports) == list(range(5))
    (failed,) = (report for report in reports if report.error)
    assert failed.unit == 2
    assert "5 processes were lost at it, the last by SIGKILL" in failed.error


def test_what_all_others_would_meet_ends_the_run(stub, monkeypatch):
    monkeypatch.setenv("ENDS", "1")
    with pytest.raises(BirdinferError, match="s3://b: access is not allowed - renew them"):
        launch(range(100))


def test_a_unit_that_fails_leaves_the_others_alone(archive, planned):
    class Failing:
        def run(self, opened, units, report, warn):
            for unit in units:
                report(launchers.report_of(unit, StoreError("x", "the store does not answer", "network")))

    outcome = run_plan(planned(archive), Failing())
    assert (outcome.n_done, len(outcome.failed)) == (0, 7)
    assert outcome.failed[0] == Report(0, error=str(StoreError("x", "the store does not answer", "network")))


@pytest.mark.slow
def test_an_archive_from_the_command_line(archive, bundle, birdinfer, tmp_path, monkeypatch):
    """Plan, a run that is killed, the same run again, status, gather; then the folder is that of detect."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=":")
    words = (
        "scale",
        "plan",
        archive,
        "--plan",
        "plan",
        "--bundle",
        bundle,
        "--unit-seconds",
        "1e-9",
        "--price",
        "0.04",
    )
    code, out, err = birdinfer(*words)
    assert code == 0, err
    assert "units of work" in out
    assert "cost" in out
    assert birdinfer(*words)[0] == 2
    killed = []

    def kill_the_first():
        while not killed:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    is_ours = b"work\0" + os.fsencode(tmp_path / "plan") in (process / "cmdline").read_bytes()
                except OSError:
                    continue
                if is_ours:
                    killed.append(os.kill(int(process.name), signal.SIGKILL))
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=kill_the_first)
    thread.start()
    code, out, err = birdinfer("scale", "run", "plan", "-j", "1")
    thread.join()
    assert (code, "7 units" in out) == (3, True), err  # two files are damaged
    assert "a process was lost at unit 0 (SIGKILL), which is run again" in err
    code, out, err = birdinfer("scale", "run", "plan")
    assert (code, "7 of 7 units are done already" in err) == (0, True), err
    code, out, err = birdinfer("scale", "status", "plan")
    assert "unreadable: 1" in out
    assert "siteB/20250227_080000" in out
    code, out, err = birdinfer("scale", "gather", "plan", "-o", "many", "--no-page")
    assert code == 3, err
    assert birdinfer("detect", archive, "--bundle", bundle, "-o", "one", "--no-page")[0] == 3
    assert Path("many/detections.csv").read_bytes() == Path("one/detections.csv").read_bytes()
    assert Path("many/files.csv").read_bytes() == Path("one/files.csv").read_bytes()


def test_work_answers_in_lines_of_json(archive, planned, birdinfer):
    uri = planned(archive).place.uri
    code, out, _ = birdinfer("scale", "work", uri, "--unit", "1", "--unit", "99")
    ready, done, failed = map(json.loads, out.splitlines())
    assert (code, ready) == (3, {})
    assert (done["unit"], done["n_files"]) == (1, 1)
    assert "there is no unit 99, the last is 6" in failed["error"]
    code, out, err = birdinfer("scale", "work", "nowhere", "--unit", "1")
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no plan" in json.loads(out)["error"]
    assert birdinfer("scale", "run", uri, "--on", "moon")[0] == 2
