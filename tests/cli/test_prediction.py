"""A run under fire: killed, stopped, gone on with, short of time. What is on the disk is good at every moment."""

import csv
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from making import LABELS, SAMPLE_RATE, tone, write_sound

from birdinfer import Bundle, Predictor
from birdinfer.cli.prediction import Wanted, predict_to_submission
from birdinfer.cli.prediction_tables import Tables
from birdinfer.errors import BundleError
from birdinfer.journal import Journal
from birdinfer.predictor import make_plan


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Files of many kinds: good ones of half a minute, and four that are not well."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(10):
        write_sound(folder / f"good_{index}.wav", tone(30.0, seed=index, hz=500.0 * (index + 1)), SAMPLE_RATE)
    (folder / "bad.ogg").write_text("not sound")
    (folder / "cut.wav").write_bytes((folder / "good_0.wav").read_bytes()[:300_000])
    write_sound(folder / "silent.wav", np.zeros(10 * SAMPLE_RATE), SAMPLE_RATE)
    write_sound(folder / "short.wav", tone(0.1), SAMPLE_RATE)
    return folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def both(out):
    """The bytes of a table and its side table."""
    return out.read_bytes(), out.with_suffix(".files.csv").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(many, bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "s.csv"
    run = subprocess.run([*command(many, bundle, out), "-q"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 3, run.stderr
    return both(out)


def command(soundscapes, bundle, out, *options):
    program = [sys.executable, "-m", "birdinfer", "predict"]
    return [*program, str(soundscapes), "-o", str(out), "--bundle", str(bundle), *options]


def progress_of(out):
    return out.with_name(out.name + ".progress")


def n_done(out):
    path = progress_of(out) / "done.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def start_and_wait(arguments, out, n_files):
    """Start a run that waits for nobody, and wait until so many files are done."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while n_done(out) < n_files and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return process


def slowed(arguments, seconds):
    """The same command with an engine that takes its time, so that a signal meets it at work."""
    program = (
        "import sys, time\n"
        "from birdinfer.engines.onnxruntime import OnnxRuntimeEngine as E\n"
        f"real = E.run\ndef run(self, batch):\n    time.sleep({seconds})\n    return real(self, batch)\n"
        "E.run = run\nfrom birdinfer.cli.app import main\nmain(sys.argv[1:])"
    )
    return [sys.executable, "-c", program, *arguments[3:]]


@pytest.mark.parametrize("moment", range(4))
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(birdinfer, many, bundle, undisturbed, tmp_path, moment):
    out, rng = tmp_path / "s.csv", random.Random(moment)
    repeated = 0
    for _ in range(3):
        before = n_done(out)
        run = start_and_wait(slowed(command(many, bundle, out, "--resume", "-q", "-j", "2"), 0.02), out, before + 2)
        time.sleep(rng.random() * 0.1)
        run.kill()
        run.communicate()
        assert not out.exists()
        repeated += n_done(out) < before
    assert repeated == 0
    done = n_done(out)
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "-j", "1")
    assert code == 3
    assert f"{done} of 14 files are done already" in stderr
    assert both(out) == undisturbed
    assert not progress_of(out).exists()


@pytest.mark.parametrize(
    ("number", "code", "told"), [(signal.SIGINT, 130, "with Ctrl-C"), (signal.SIGTERM, 143, "by SIGTERM")]
)
def test_a_stopped_run_leaves_a_valid_table_and_goes_on(
    birdinfer, many, bundle, undisturbed, tmp_path, number, code, told
):
    out = tmp_path / "s.csv"
    run = start_and_wait(slowed(command(many, bundle, out, "-q"), 0.05), out, 3)
    run.send_signal(number)
    _, stderr = run.communicate(timeout=30)
    assert run.returncode == code
    done = n_done(out)
    assert stderr == f"{done} of 14 files are done; --resume goes on\nbirdinfer: stopped {told}\n"
    rows = rows_of(out)
    assert rows[0] == ["row_id", *LABELS]
    assert np.isfinite(np.array([row[1:] for row in rows[1:]], float)).all()
    statuses = [row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]]
    assert len(statuses) == 14
    assert statuses.count("stopped") == 14 - done
    assert birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "-q")[0] == 3
    assert both(out) == undisturbed


def test_a_stopped_run_leaves_an_older_table_alone(many, bundle, tmp_path):
    out = tmp_path / "s.csv"
    out.write_text("the old table")
    run = start_and_wait(slowed(command(many, bundle, out, "-q"), 0.05), out, 3)
    run.send_signal(signal.SIGTERM)
    _, stderr = run.communicate(timeout=30)
    assert f"({out} is as it was)" in stderr
    assert out.read_text() == "the old table"


def test_a_run_that_is_stopped_before_its_first_file_leaves_nothing(bundle, tmp_path):
    out = tmp_path / "s.csv"
    write_sound(tmp_path / "long.wav", np.zeros(600 * SAMPLE_RATE, np.int16), SAMPLE_RATE)
    arguments = slowed(command(tmp_path / "long.wav", bundle, out, "-j", "1"), 0.1)
    run = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (progress_of(out) / "scores.f32").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=30)
    assert (run.returncode, stderr) == (130, "birdinfer: stopped with Ctrl-C\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.wav"]


@pytest.mark.parametrize(("number", "left"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.parametrize("budget_seconds", [None, 60.0])
def test_a_signal_before_the_first_file_is_answered_at_once(
    bundle, many, tmp_path, monkeypatch, number, left, budget_seconds
):
    """While headers are read, engines are measured or models are loaded, there is nothing to save."""

    def interrupted(*_):
        os.kill(os.getpid(), number)
        pytest.fail("went on")

    loading = "birdinfer.predictor.Predictor.__init__"
    place = loading if budget_seconds is None else "birdinfer.soundscapes.header_seconds"
    monkeypatch.setattr(place, interrupted)
    wanted = Wanted(tmp_path / "s.csv", budget_seconds=budget_seconds)
    with pytest.raises(left):
        predict_to_submission(
            Bundle.load(bundle), [many / "good_0.wav"], wanted, lambda before: make_plan("onnxruntime")
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["while tables are written", "while pictures are drawn"])
def test_a_signal_after_the_last_file_costs_no_table_and_draws_no_more(
    birdinfer, bundle, soundscapes, tmp_path, monkeypatch, moment
):
    drawn, is_table = [], moment == "while tables are written"

    def interrupt():
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGINT)

    def draw(path, spool):
        drawn.append(path)
        interrupt()

    def write(self, spool, results):
        interrupt()
        return self.write(spool, results)

    monkeypatch.setattr("birdinfer.cli.prediction.plotter", lambda *_: draw)
    if is_table:
        monkeypatch.setattr(Tables, "write", write)
    out = tmp_path / "s.csv"
    options = ("-o", out, "--bundle", bundle, "-q", "--plots", tmp_path / "pictures")
    assert birdinfer("predict", soundscapes, *options) == (130, "", "birdinfer: stopped with Ctrl-C\n")
    assert len(rows_of(out)) == 1 + 17
    assert len(rows_of(out.with_suffix(".files.csv"))) == 1 + 3
    assert len(drawn) == (0 if is_table else 1)
    code, _, stderr = birdinfer("predict", soundscapes, "-o", out, "--bundle", bundle, "--resume")
    assert code == 0
    assert "3 of 3 files are done already" in stderr
    assert " 0 x real time" in stderr  # what another run has heard is no speed of this one


def test_a_side_table_that_cannot_be_written_is_named_before_hours_of_work(birdinfer, bundle, soundscapes, tmp_path):
    (tmp_path / "s.files.csv").mkdir()
    code, _, stderr = birdinfer("predict", soundscapes, "-o", tmp_path / "s.csv", "--bundle", bundle)
    assert (code, stderr.count("\n")) == (2, 1)
    assert f"{tmp_path / 's.files.csv'}: is a folder" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.files.csv"]


def test_to_go_on_and_to_begin_anew_cannot_both_be_asked_for(birdinfer, many, bundle, tmp_path):
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "--force")
    assert (code, stderr) == (2, "birdinfer: --force: begins anew, and --resume goes on - give one of them\n")


def test_what_a_stopped_run_has_done_is_not_lost_by_mistake(birdinfer, many, bundle, undisturbed, tmp_path):
    out = tmp_path / "s.csv"
    run = start_and_wait(slowed(command(many, bundle, out, "-q"), 0.05), out, 3)
    run.kill()
    run.communicate()
    done = n_done(out)
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle)
    assert code == 2
    assert (
        f"a run that was stopped has left {done} finished files in {progress_of(out)} - go on with --resume" in stderr
    )
    assert n_done(out) == done
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "--overlap", "2.5")
    assert code == 2
    assert "holds a run of another bundle, or with other options - run it as it was" in stderr
    assert n_done(out) == done
    assert birdinfer("predict", many, "-o", out, "--bundle", bundle, "--force")[0] == 3
    assert both(out) == undisturbed


def test_a_run_that_goes_on_keeps_the_engine_that_auto_took(birdinfer, many, bundle, tmp_path, monkeypatch):
    out = tmp_path / "s.csv"
    monkeypatch.setattr("birdinfer.chooser.MEASURE_SECONDS", 0.01)
    run = start_and_wait(slowed(command(many, bundle, out, "-q"), 0.05), out, 3)
    run.kill()
    run.communicate()
    monkeypatch.setattr("birdinfer.cli.choosing.choose_and_tell", None)  # it would fail if it were asked
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "--engine", "auto")
    assert code == 3
    assert "(onnxruntime:fp32, " in stderr


def test_new_files_are_heard_by_a_run_that_goes_on(birdinfer, many, bundle, undisturbed, tmp_path):
    """A recorder goes on recording: what has come since the run was stopped is heard, too."""
    out = tmp_path / "s.csv"
    few = [many / f"good_{index}.wav" for index in range(5)]
    run = start_and_wait(slowed(command(many, bundle, out, "-q"), 0.05), out, 2)
    run.kill()
    run.communicate()
    assert birdinfer("predict", *few, "-o", out, "--bundle", bundle, "--resume")[0] == 0
    assert [row[0].rsplit("/")[-1] for row in rows_of(out.with_suffix(".files.csv"))[1:]] == [path.name for path in few]


def test_what_a_run_left_that_was_killed_while_it_wrote_is_removed(birdinfer, many, bundle, tmp_path):
    (tmp_path / ".s.csv.abcd.part").write_text("half a table")
    (tmp_path / ".other.csv.abcd.part").write_text("somebody else's")
    assert birdinfer("predict", many / "short.wav", "-o", tmp_path / "s.csv", "--bundle", bundle)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.csv.abcd.part", "s.csv", "s.files.csv"]


def test_two_runs_do_not_write_one_table(birdinfer, many, bundle, tmp_path):
    out = tmp_path / "s.csv"
    with Journal(out, len(LABELS)):
        code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle)
    assert code == 2
    assert f"{out}: another process is writing it" in stderr


def test_ample_time_changes_no_byte(birdinfer, many, bundle, undisturbed, tmp_path):
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--time-budget", "10m")
    assert code == 3
    assert both(out) == undisturbed
    assert "forecast" in stderr


def test_no_time_at_all_gives_the_prior_everywhere(birdinfer, many, bundle, tmp_path):
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--time-budget", "0.001s")
    assert code == 4
    rows = rows_of(out)[1:]
    assert len(rows) == 10 * 6 + 6 + 6 + 2 + 1  # 30 s each, cut.wav as it claims, bad.ogg as most; silent, short
    np.testing.assert_allclose(
        np.array([row[1:] for row in rows], float), [[0.1, 0.2, 0.3, 0.4]] * len(rows), rtol=1e-6
    )
    statuses = {row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]}
    assert statuses == {"skipped by budget"}
    assert "14 skipped by budget" in stderr


def test_what_time_left_out_is_heard_by_a_run_that_goes_on(birdinfer, many, bundle, undisturbed, tmp_path):
    out = tmp_path / "s.csv"
    run = subprocess.run(
        slowed(command(many, bundle, out, "--time-budget", "2.5s"), 0.4), capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 4, run.stderr
    assert birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume")[0] == 3
    assert both(out) == undisturbed


def test_with_a_budget_files_without_sound_cost_no_good_one(birdinfer, many, bundle, tmp_path):
    """Most headers are there and samples are not, as a recorder leaves them whose battery died."""
    for index in range(3):
        write_sound(tmp_path / f"empty_{index}.wav", np.zeros(0), SAMPLE_RATE)
    inputs = [*sorted(tmp_path.iterdir()), many / "good_3.wav"]
    code, _, stderr = birdinfer("predict", *inputs, "-o", tmp_path / "s.csv", "--bundle", bundle, "--time-budget", "5m")
    assert code == 3, stderr
    assert "1 ok" in stderr
    assert "3 unreadable" in stderr


def test_measuring_engines_leaves_the_budget_to_the_run(birdinfer, many, bundle, tmp_path, monkeypatch):
    """The trial that is under way is the last; the run goes on with what is usual."""
    monkeypatch.setattr("birdinfer.cli.predict._MEASURED_SHARE", 1e-5)
    options = ("--engine", "auto", "--time-budget", "10m")
    code, _, stderr = birdinfer("predict", many / "good_0.wav", "-o", tmp_path / "s.csv", "--bundle", bundle, *options)
    assert code == 0
    assert "--engine auto: measuring takes longer than 0.0 s; going on with onnxruntime:fp32" in stderr


def test_with_a_budget_a_valid_table_is_there_from_the_beginning(many, bundle, tmp_path):
    """Killed without a warning, too."""
    out = tmp_path / "s.csv"
    run = start_and_wait(slowed(command(many, bundle, out, "-q", "--time-budget", "5m"), 0.05), out, 1)
    run.kill()
    run.communicate()
    rows = rows_of(out)
    assert len(rows) > 60
    assert np.isfinite(np.array([row[1:] for row in rows[1:]], float)).all()


def count_tables(monkeypatch):
    """Which files were done each time that the tables were written."""
    written, real = [], Tables.write

    def write(self, spool, results):
        written.append([result.path.stem for result in results if result.status != "stopped"])
        return real(self, spool, results)

    monkeypatch.setattr(Tables, "write", write)
    return written


def test_with_a_budget_a_run_that_goes_on_knows_from_the_beginning_what_its_tables_take(
    birdinfer, many, bundle, undisturbed, tmp_path, monkeypatch
):
    out = tmp_path / "s.csv"
    run = start_and_wait(slowed(command(many, bundle, out, "-q", "--time-budget", "5m"), 0.05), out, 3)
    run.kill()
    run.communicate()
    done, written = n_done(out), count_tables(monkeypatch)
    assert birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "--time-budget", "5m")[0] == 3
    assert [len(stems) for stems in written] == [done, 14]
    assert both(out) == undisturbed


def test_with_a_budget_both_tables_are_there_from_the_beginning(bundle, many, tmp_path):
    """Writing them is what is foreseen at the end, and an older side table is not left beside a newer table."""

    def choose(before):
        assert [row[1] for row in rows_of(tmp_path / "s.files.csv")[1:]] == ["stopped"] * 2
        assert len(rows_of(tmp_path / "s.csv")) == 1 + 12
        raise BundleError("engine", "is not there")

    (tmp_path / "s.files.csv").write_text("old")
    paths = [many / "good_0.wav", many / "good_1.wav"]
    with pytest.raises(BundleError):
        predict_to_submission(Bundle.load(bundle), paths, Wanted(tmp_path / "s.csv", budget_seconds=60.0), choose)


def test_with_a_budget_the_table_is_renewed_as_the_run_goes_on(birdinfer, many, bundle, tmp_path, monkeypatch):
    written = count_tables(monkeypatch)
    monkeypatch.setattr(Tables, "_RENEWAL_SECONDS", 0.0)
    monkeypatch.setattr(Tables, "_RENEWAL_TIMES", 0)
    monkeypatch.setattr("birdinfer.lanes._LOOK_UP_SECONDS", 0.01)
    assert birdinfer("predict", many, "-o", tmp_path / "s.csv", "--bundle", bundle, "--time-budget", "5m")[0] == 3
    assert len(written) > 3
    good = Predictor(Bundle.load(bundle)).predict(many / "good_3.wav")
    found = [row[1:] for row in rows_of(tmp_path / "s.csv") if row[0].startswith("good_3_")]
    np.testing.assert_allclose(np.array(found, float), good, atol=1e-6)
