"""A run that is killed, stopped, resumed or short of time: what is on disk is valid at every moment."""

import csv
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from make_bundles import LABELS, SAMPLE_RATE, tone, write_bundle, write_sound
from onnx import TensorProto, helper, numpy_helper

from birdinfer import Bundle, Predictor
from birdinfer.callbacks import Callback
from birdinfer.errors import BundleError
from birdinfer.inference.bundle import file_sha256
from birdinfer.prediction.run import PredictionCallback, PredictionSettings, Tables, default_engine, predict_to_csv
from birdinfer.prediction.store import RunStore, count_done


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Ten good files of half a minute, and four with problems."""
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
    run = subprocess.run([*command(many, bundle, out), "-q"], capture_output=True, text=True)
    assert run.returncode == 3, run.stderr
    return both(out)


def command(soundscapes, bundle, out, *options):
    program = [sys.executable, "-m", "birdinfer", "predict"]
    return [*program, str(soundscapes), "-o", str(out), "--bundle", str(bundle), *options]


def progress_of(out):
    return out.with_name(out.name + ".progress")


def n_done(out):
    return count_done(progress_of(out))


def start_and_hold(arguments, n_calls, read=None):
    """Start a run whose engine answers ``n_calls`` calls and holds the next until the run is killed or stopped.

    No clock decides how far it comes: it prints a line for each call, of which this reads ``read``, by default all, and
    a file that needs a call is not finished afterwards.
    """
    program = (
        "import itertools, os, sys, threading\n"
        "from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine as E\n"
        "from birdinfer.inference.workers import WorkerPool as P\n"
        "real, stop, stopped, calls = E.run, P.stop, threading.Event(), itertools.count(1)\n"
        "def run(self, batch):\n"
        "    os.write(1, b'call\\n')\n"
        f"    if next(calls) > {n_calls}: stopped.wait()\n"
        "    return real(self, batch)\n"
        "def stopping(*arguments):\n"
        "    stopped.set()\n"
        "    stop(*arguments)\n"
        "E.run, P.stop = run, stopping\n"
        "from birdinfer.cli.app import main\n"
        "main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments[3:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(n_calls + 1 if read is None else read):
        assert process.stdout.readline() == "call\n", process.communicate()[1]
    return process


def start_and_kill(arguments, out, n_files):
    """Kill a run of two workers after it has finished ``n_files`` files or more, each of two calls, but not all."""
    run = start_and_hold(arguments, 2 * n_files + 2)
    while n_done(out) < n_files and run.poll() is None:
        time.sleep(0.005)
    run.kill()
    run.communicate()


def slowed(arguments, seconds):
    """The same command with an engine that takes so long for each call."""
    program = (
        "import sys, time\n"
        "from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine as E\n"
        f"real = E.run\ndef run(self, batch):\n    time.sleep({seconds})\n    return real(self, batch)\n"
        "E.run = run\nfrom birdinfer.cli.app import main\nmain(sys.argv[1:])"
    )
    return [sys.executable, "-c", program, *arguments[3:]]


@pytest.mark.parametrize("moment", range(4))
def test_resume_after_kills_ends_with_the_same_bytes(birdinfer, many, bundle, undisturbed, tmp_path, moment):
    out, rng = tmp_path / "s.csv", random.Random(moment)
    repeated = 0
    for attempt in range(3):
        before = n_done(out)
        arguments = command(many, bundle, out, "--resume", "-q", "-j", "2")
        run = start_and_hold(arguments, 6, read=7 if attempt == 0 else rng.randint(1, 7))
        time.sleep(rng.random() * 0.1)  # whatever it is doing then
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
    assert n_done(out) == 14  # two are not well, and may be repeated


def files_in(folder):
    """The bytes of all files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed_embeddings(many, embedding_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed_embeddings")
    settings = PredictionSettings(output=folder / "s.csv", embeddings=folder / "e")
    predict_to_csv(embedding_bundle, [many], settings)
    return files_in(folder / "e")


@pytest.mark.parametrize("moment", range(2))
def test_embeddings_after_kills_are_the_same_bytes(
    birdinfer, many, embedding_bundle, undisturbed_embeddings, tmp_path, moment
):
    out, rng, kept = tmp_path / "s.csv", random.Random(moment), ("--embeddings", str(tmp_path / "e"))
    for _ in range(2):
        run = start_and_hold(command(many, embedding_bundle.folder, out, "--resume", "-q", "-j", "2", *kept), 9)
        time.sleep(rng.random() * 0.1)  # whatever it is doing then
        run.kill()
        run.communicate()
        assert not (tmp_path / "e" / "fold0" / "index.csv").exists()
    assert n_done(out)
    words = ("predict", many, "-o", out, "--bundle", embedding_bundle.folder, "--resume", "-j", "1", *kept)
    assert birdinfer(*words)[0] == 3
    assert files_in(tmp_path / "e") == undisturbed_embeddings


@pytest.mark.parametrize(
    ("number", "code", "text"), [(signal.SIGINT, 130, "with Ctrl-C"), (signal.SIGTERM, 143, "by SIGTERM")]
)
def test_a_stopped_run_leaves_a_valid_table_and_resumes(
    birdinfer, many, bundle, undisturbed, tmp_path, number, code, text
):
    out = tmp_path / "s.csv"
    run = start_and_hold(command(many, bundle, out, "-q", "-j", "2"), 8)
    run.send_signal(number)
    _, stderr = run.communicate()
    assert run.returncode == code
    done = n_done(out)
    assert stderr == f"{done} of 14 files are done; --resume continues\nbirdinfer: stopped {text}\n"
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
    out.write_text("row_id,of before")
    run = start_and_hold(command(many, bundle, out, "-q", "-j", "2"), 8)
    run.send_signal(signal.SIGTERM)
    _, stderr = run.communicate()
    assert f"({out} is as it was)" in stderr
    assert out.read_text() == "row_id,of before"


def test_a_run_that_is_stopped_before_its_first_file_leaves_nothing(bundle, tmp_path):
    out = tmp_path / "s.csv"
    write_sound(tmp_path / "long.wav", np.zeros(600 * SAMPLE_RATE, np.int16), SAMPLE_RATE)
    run = start_and_hold(command(tmp_path / "long.wav", bundle, out, "-j", "1"), 1)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate()
    assert (run.returncode, stderr) == (130, "birdinfer: stopped with Ctrl-C\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.wav"]


@pytest.mark.parametrize(("number", "left"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.parametrize("budget_seconds", [None, 60.0])
def test_a_signal_before_the_first_file_is_answered_at_once(
    bundle, many, tmp_path, monkeypatch, number, left, budget_seconds
):
    """While headers are read, engines are measured or models are loaded, there is nothing to save."""

    def interrupted(*_, **__):
        os.kill(os.getpid(), number)
        pytest.fail("was not interrupted")

    loading = "birdinfer.inference.predictor.Predictor.__init__"
    place = loading if budget_seconds is None else "birdinfer.prediction.run.header_seconds"
    monkeypatch.setattr(place, interrupted)
    settings = PredictionSettings(output=tmp_path / "s.csv", budget_seconds=budget_seconds, engine="onnxruntime")
    with pytest.raises(left):
        predict_to_csv(Bundle.load(bundle), [many / "good_0.wav"], settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["while tables are written", "while pictures are drawn"])
def test_a_signal_after_the_last_file_costs_no_table_and_draws_no_more(
    birdinfer, bundle, soundscapes, tmp_path, monkeypatch, moment
):
    drawn, is_table = [], moment == "while tables are written"

    def interrupt():
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGINT)

    def draw(self, path, name, scores):
        drawn.append(path)
        interrupt()

    def write(self, score_store, results):
        interrupt()
        return self.write(score_store, results)

    monkeypatch.setattr("birdinfer.cli.predict.SoundscapePlots.draw", draw)
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
    assert " 0 x real time" in stderr  # what an earlier run has processed is not this one's speed


def test_a_side_table_that_cannot_be_written_is_named_before_hours_of_work(birdinfer, bundle, soundscapes, tmp_path):
    (tmp_path / "s.files.csv").mkdir()
    code, _, stderr = birdinfer("predict", soundscapes, "-o", tmp_path / "s.csv", "--bundle", bundle)
    assert (code, stderr.count("\n")) == (2, 1)
    assert f"{tmp_path / 's.files.csv'}: is a folder" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.files.csv"]


def test_resume_and_force_exclude_each_other(birdinfer, many, bundle, tmp_path):
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "--force")
    assert (code, stderr) == (2, "birdinfer: --force: starts again, and --resume continues - give one of them\n")


def test_finished_files_of_a_stopped_run_are_not_lost_by_mistake(birdinfer, many, bundle, undisturbed, tmp_path):
    out = tmp_path / "s.csv"
    start_and_kill(command(many, bundle, out, "-q", "-j", "2"), out, 5)
    done = n_done(out)
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle)
    assert code == 2
    assert f"a stopped run has left {done} finished files in {progress_of(out)} - continue with --resume" in stderr
    assert n_done(out) == done
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "--overlap", "2.5")
    assert code == 2
    assert "holds a run of another bundle, or with other options - run it as it was" in stderr
    assert n_done(out) == done
    assert birdinfer("predict", many, "-o", out, "--bundle", bundle, "--force")[0] == 3
    assert both(out) == undisturbed


def test_resume_keeps_the_engine_that_auto_took(birdinfer, many, bundle, tmp_path, monkeypatch):
    out = tmp_path / "s.csv"
    monkeypatch.setattr("birdinfer.inference.autotune.MEASURE_SECONDS", 0.01)
    start_and_kill(command(many, bundle, out, "-q", "-j", "2"), out, 5)
    monkeypatch.setattr("birdinfer.inference.autotune.autotune", None)  # it would fail if it were asked
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "--engine", "auto")
    assert code == 3
    assert "(onnxruntime:fp32, " in stderr


def copied(many, folder, names=None):
    """A folder with the files of another, or with some of them."""
    folder.mkdir()
    for path in many.iterdir():
        if names is None or path.name in names:
            shutil.copy2(path, folder)
    return folder


def test_resume_processes_new_files(birdinfer, many, bundle, undisturbed, tmp_path):
    """A recorder keeps recording: files that were added since the run was stopped are processed, too."""
    folder, out = copied(many, tmp_path / "many", ["good_0.wav", "good_1.wav", "bad.ogg"]), tmp_path / "s.csv"
    assert birdinfer("predict", folder, "-o", out, "--bundle", bundle)[0] == 3
    for path in many.iterdir():
        shutil.copy2(path, folder)
    code, _, stderr = birdinfer("predict", folder, "-o", out, "--bundle", bundle, "--resume")
    assert code == 3
    assert "3 of 14 files are done already, 1 of them are not well and are repeated" in stderr
    assert out.read_bytes() == undisturbed[0]


@pytest.mark.slow
def test_inputs_that_lack_finished_files_are_refused(birdinfer, many, bundle, undisturbed, tmp_path):
    """Half a disk is not the disk: no row is lost because a folder is not mounted."""
    out = tmp_path / "s.csv"
    start_and_kill(command(many, bundle, out, "-q", "-j", "2"), out, 5)
    done = n_done(out)
    code, _, stderr = birdinfer("predict", many / "short.wav", "-o", out, "--bundle", bundle, "--resume")
    assert code == 2
    assert "finished files that are not among the inputs" in stderr
    assert "name the inputs of the stopped run" in stderr
    assert n_done(out) == done
    assert birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "-q")[0] == 3
    assert both(out) == undisturbed


def test_a_run_that_has_ended_with_problems_is_repeated_or_replaced_as_asked(birdinfer, many, bundle, tmp_path):
    folder, out = copied(many, tmp_path / "many", ["good_0.wav", "good_1.wav", "bad.ogg"]), tmp_path / "s.csv"
    options = ("predict", folder, "-o", out, "--bundle", bundle)
    code, _, stderr = birdinfer(*options)
    assert code == 3
    assert "--resume repeats the files with which something is wrong, and adds new ones" in stderr
    assert birdinfer(*options)[0] == 3  # started again without a question: nothing is left to be done
    shutil.copy2(folder / "good_0.wav", folder / "bad.ogg")  # copied again, and whole
    code, _, stderr = birdinfer(*options, "--resume")
    assert code == 0, stderr
    assert [row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]] == ["ok"] * 3
    assert not progress_of(out).exists()


def test_a_disk_that_goes_away_costs_nothing(birdinfer, many, bundle, undisturbed, tmp_path, monkeypatch):
    """Gone in the middle, again and again: in the end the bytes are those of a run without it."""
    folder, out = copied(many, tmp_path / "many"), tmp_path / "s.csv"
    gone, real, left = tmp_path / "gone", Predictor.open, [0]

    def opened(self, path):
        if not left[0] and folder.exists():
            folder.rename(gone)
        left[0] -= 1
        return real(self, path)

    monkeypatch.setattr(Predictor, "open", opened)
    done = 0
    for _ in range(2):
        left[0] = 4
        code, _, stderr = birdinfer("predict", folder, "-o", out, "--bundle", bundle, "--resume", "-j", "1")
        assert code == 2
        assert "5 files in a row are not there or cannot be read: their disk or folder is gone" in stderr
        statuses = [row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]]
        assert len(statuses) == 14
        now = sum(status in ("ok", "silent", "too short") for status in statuses)
        assert now > done
        assert len(rows_of(out)) > 6 * (now - 3)
        done = now
        assert birdinfer("predict", folder, "-o", out, "--bundle", bundle, "--resume")[0] == 2  # no such folder
        gone.rename(folder)
    monkeypatch.undo()
    assert birdinfer("predict", folder, "-o", out, "--bundle", bundle, "--resume")[0] == 3
    assert out.read_bytes() == undisturbed[0]


def write_endless_bundle(folder):
    """A bundle whose graph never answers: a loop without an end."""
    write_bundle(folder, members=1)
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["more_out"]), helper.make_node("Add", ["value", "one"], ["sum"])],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("more_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    model = onnx.load(folder / "fold0.onnx")
    (multiply,) = [node for node in model.graph.node if node.op_type == "MatMul"]
    multiply.input[0] = "endless"
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    loop = helper.make_node("Loop", ["", "always", "scaled"], ["endless"], body=body)
    nodes = [*model.graph.node]
    nodes.insert(nodes.index(multiply), loop)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, folder / "fold0.onnx")
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    sha256 = json.loads(text)["members"][0]["graphs"]["fp32"]["sha256"]
    manifest.write_text(text.replace(sha256, file_sha256(folder / "fold0.onnx")))
    return folder


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    return write_endless_bundle(tmp_path_factory.mktemp("endless") / "endless")


@pytest.mark.parametrize(
    ("ending", "code", "options"),
    [
        (signal.SIGINT, 130, ()),
        pytest.param(signal.SIGTERM, 143, (), marks=pytest.mark.slow),
        (signal.SIGTERM, 143, ("--engine", "auto")),
        ("budget", 4, ()),
        pytest.param("budget", 4, ("--engine", "auto"), marks=pytest.mark.slow),
    ],
)
def test_a_graph_that_never_answers_holds_neither_signal_nor_deadline(
    soundscapes, endless, tmp_path, ending, code, options
):
    """The call cannot be ended from Python: the process leaves without it, with tables and without a lock."""
    out, timed = tmp_path / "out" / "s.csv", ("--time-budget", "3s") if ending == "budget" else ()
    arguments = [*command(soundscapes, endless, out), *options, *timed]
    run = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    if ending != "budget":
        ready = out.with_name(".s.csv.progress.lock") if options else progress_of(out) / "run.sqlite"
        while not ready.exists():
            time.sleep(0.01)
        time.sleep(1.0)  # by then it is in the call, most likely; it has to end so or so
        run.send_signal(ending)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == code, stderr
    assert "Traceback" not in stderr
    assert not list(out.parent.glob(".*"))
    if ending == "budget" or not options:
        assert len(rows_of(out)) == 1 + (17 if ending == "budget" else 0)  # without a budget no header was read
        statuses = {row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]}
        assert statuses == {"skipped by budget" if ending == "budget" else "stopped"}


@pytest.mark.parametrize("ending", ["budget", "stop"])
def test_a_header_that_never_comes_holds_neither_signal_nor_deadline(bundle, many, tmp_path, ending):
    """A file on a network disk that is gone: what is known of the others is used."""
    code = (
        "import sys, threading\n"
        "import birdinfer.audio.stream as stream\n"
        "real = stream.NativeSound.__init__\n"
        "def init(self, path):\n"
        "    if path.name == 'good_1.wav':\n"
        "        print('reading', flush=True)\n"
        "        threading.Event().wait()\n"
        "    real(self, path)\n"
        "stream.NativeSound.__init__ = init\n"
        "from birdinfer.cli.app import main\n"
        "main(sys.argv[1:])"
    )
    out, budget = tmp_path / "s.csv", ("--time-budget", "5s") if ending == "budget" else ()
    arguments = command(many, bundle, out, "-j", "2", *budget)[3:]
    run = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "reading\n"
    if ending == "stop":
        while n_done(out) < 13:
            time.sleep(0.01)
        run.send_signal(signal.SIGTERM)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == (4 if ending == "budget" else 143), stderr
    status = {Path(row[0]).name: row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]}
    assert len(status) == 14
    assert status["good_1.wav"] == ("skipped by budget" if ending == "budget" else "stopped")
    if ending == "stop":
        assert list(status.values()).count("stopped") == 1


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&1 | true", ">/dev/full", ">&-"])
def test_a_screen_that_is_gone_costs_nothing(many, bundle, undisturbed, tmp_path, redirection):
    out = tmp_path / "s.csv"
    shell = f"set -o pipefail; {shlex.join(command(many, bundle, out))} {redirection}"
    run = subprocess.run(["bash", "-c", shell], capture_output=True, check=False)
    assert run.returncode == 3
    assert both(out) == undisturbed


@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["again", "resume"])
def test_a_model_that_never_works_leaves_a_table_and_says_so(birdinfer, many, bundle, tmp_path, monkeypatch, options):
    def broken(self, batch):
        raise RuntimeError("the device is lost")

    monkeypatch.setattr("birdinfer.inference.engines.onnxruntime.OnnxRuntimeEngine.run", broken)
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "-j", "1")
    assert code == 2
    assert "fold0: cannot be computed (the device is lost) (so it was for 3 files" in stderr
    assert "4 of 14 files were tried, none could be scored" in stderr
    assert [row[0] for row in rows_of(out)] == ["row_id"]
    monkeypatch.undo()
    continued = birdinfer("predict", many, "-o", out, "--bundle", bundle, *options, "-j", "1")
    assert continued[0] == 3, continued[2]


def test_a_damaged_progress_is_mended_and_said(birdinfer, many, bundle, undisturbed, tmp_path):
    out = tmp_path / "s.csv"
    start_and_kill(command(many, bundle, out, "-q", "-j", "2"), out, 5)
    with RunStore(out, len(LABELS)) as store:
        assert store.n_done() >= 5  # which writes the log into the database
    database = progress_of(out) / "run.sqlite"
    raw = bytearray(database.read_bytes())
    raw[-4096:] = bytes(4096)
    database.write_bytes(raw)
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume")
    assert code == 3, stderr
    assert "was damaged: what can be read of it, " in stderr
    assert both(out) == undisturbed


def test_leftovers_of_a_killed_writer_are_removed(birdinfer, many, bundle, tmp_path):
    (tmp_path / ".s.csv.abcd.part").write_text("half a table")
    (tmp_path / ".other.csv.abcd.part").write_text("another program's")
    assert birdinfer("predict", many / "short.wav", "-o", tmp_path / "s.csv", "--bundle", bundle)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.csv.abcd.part", "s.csv", "s.files.csv"]


def test_two_runs_do_not_write_one_table(birdinfer, many, bundle, tmp_path):
    out = tmp_path / "s.csv"
    with RunStore(out, len(LABELS)):
        code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle)
    assert code == 2
    assert f"{out}: another process is writing it" in stderr


def test_ample_time_changes_no_byte(birdinfer, many, bundle, undisturbed, tmp_path):
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", many, "-o", out, "--bundle", bundle, "--time-budget", "10m")
    assert code == 3
    assert both(out) == undisturbed
    assert "forecast" in stderr


def test_no_time_at_all_gives_the_prior_everywhere(birdinfer, many, bundle, undisturbed, tmp_path):
    out, sample = tmp_path / "s.csv", tmp_path / "sample.csv"
    sample.write_bytes(undisturbed[0])
    options = ("--sample-submission", sample, "--bundle", bundle, "--time-budget", "0.001s")
    code, _, stderr = birdinfer("predict", many, "-o", out, *options)
    assert code == 4
    rows = rows_of(out)[1:]
    assert [row[0] for row in rows] == [row[0] for row in rows_of(sample)[1:]]
    np.testing.assert_allclose(
        np.array([row[1:] for row in rows], float), [[0.1, 0.2, 0.3, 0.4]] * len(rows), rtol=1e-6
    )
    statuses = {row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]}
    assert statuses == {"skipped by budget"}
    assert "14 skipped by budget" in stderr


def test_resume_processes_what_a_budget_left_out(birdinfer, many, bundle, undisturbed, tmp_path):
    out = tmp_path / "s.csv"
    run = subprocess.run(
        slowed(command(many, bundle, out, "--time-budget", "2.5s", "-j", "1"), 0.4), capture_output=True, text=True
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
    """The trial that is under way is the last; the run continues with the default engine."""
    monkeypatch.setattr("birdinfer.prediction.run._MEASURED_SHARE", 1e-5)
    options = ("--engine", "auto", "--time-budget", "10m")
    code, _, stderr = birdinfer("predict", many / "good_0.wav", "-o", tmp_path / "s.csv", "--bundle", bundle, *options)
    assert code == 0
    assert "--engine auto: measuring takes longer than 0.0 s; continuing with onnxruntime:fp32" in stderr


def test_with_a_budget_a_valid_table_is_there_from_the_beginning(many, bundle, tmp_path):
    """Killed without a warning, too."""
    out = tmp_path / "s.csv"
    start_and_kill(command(many, bundle, out, "-q", "-j", "2", "--time-budget", "5m"), out, 3)
    rows = rows_of(out)
    assert len(rows) > 60
    assert np.isfinite(np.array([row[1:] for row in rows[1:]], float)).all()


def count_tables(monkeypatch):
    """Which files were done each time that the tables were written."""
    written, real = [], Tables.write

    def write(self, score_store, results):
        written.append([result.path.stem for result in results if result.status != "stopped"])
        return real(self, score_store, results)

    monkeypatch.setattr(Tables, "write", write)
    return written


def test_resume_with_a_budget_knows_from_the_beginning_what_its_tables_take(
    birdinfer, many, bundle, undisturbed, tmp_path, monkeypatch
):
    out = tmp_path / "s.csv"
    start_and_kill(command(many, bundle, out, "-q", "-j", "2", "--time-budget", "5m"), out, 5)
    done, written = n_done(out), count_tables(monkeypatch)
    assert birdinfer("predict", many, "-o", out, "--bundle", bundle, "--resume", "--time-budget", "5m")[0] == 3
    assert [len(stems) for stems in written] == [done, 14]
    assert both(out) == undisturbed


def test_with_a_budget_both_tables_are_there_from_the_beginning(bundle, many, tmp_path, monkeypatch):
    """Writing them is what is foreseen at the end, and an older side table is not left beside a newer table."""

    def load(*_):
        assert [row[1] for row in rows_of(tmp_path / "s.files.csv")[1:]] == ["stopped"] * 2
        assert len(rows_of(tmp_path / "s.csv")) == 1 + 12
        raise BundleError("engine", "is not there")

    (tmp_path / "s.files.csv").write_text("file,status,old")
    paths = [many / "good_0.wav", many / "good_1.wav"]
    monkeypatch.setattr("birdinfer.prediction.run.make_plan", load)
    with pytest.raises(BundleError):
        predict_to_csv(Bundle.load(bundle), paths, PredictionSettings(output=tmp_path / "s.csv", budget_seconds=60.0))


def test_with_a_budget_the_table_is_renewed_while_the_run_continues(birdinfer, many, bundle, tmp_path, monkeypatch):
    written = count_tables(monkeypatch)
    monkeypatch.setattr(Tables, "_RENEWAL_SECONDS", 0.0)
    monkeypatch.setattr(Tables, "_RENEWAL_TIMES", 0)
    monkeypatch.setattr("birdinfer.inference.workers._POLL_SECONDS", 0.01)
    assert birdinfer("predict", many, "-o", tmp_path / "s.csv", "--bundle", bundle, "--time-budget", "5m")[0] == 3
    assert len(written) > 3
    good = Predictor(Bundle.load(bundle)).predict(many / "good_3.wav")
    found = [row[1:] for row in rows_of(tmp_path / "s.csv") if row[0].startswith("good_3_")]
    np.testing.assert_allclose(np.array(found, float), good, atol=1e-6)


def test_predict_to_csv_with_resume_and_budget_from_python(many, bundle, undisturbed, tmp_path):
    """As README has it."""
    out = tmp_path / "s.csv"
    start_and_kill(command(many, bundle, out, "-q", "-j", "2"), out, 5)
    settings = PredictionSettings(output=out, resume=True, budget_seconds=85 * 60)
    outcome = predict_to_csv(Bundle.load(bundle), [many], settings)
    assert (outcome.n_left_out, outcome.n_damaged) == (0, 2)
    assert both(out) == undisturbed


def test_default_engine_is_the_one_that_is_installed(monkeypatch):
    warnings = []

    class Warned(Callback):
        def on_warning(self, line):
            warnings.append(line)

    place = "birdinfer.prediction.run"
    assert default_engine(Warned()) == "onnxruntime"
    monkeypatch.setattr(f"{place}.has_cuda", lambda: True)
    monkeypatch.setattr(f"{place}.find_gpu", lambda: "")
    assert default_engine(Warned()) == "cuda"
    monkeypatch.setattr(f"{place}.find_gpu", lambda: "the NVIDIA driver finds no device")
    assert default_engine(Warned()) == "onnxruntime"
    assert warnings == ["no GPU is used: the NVIDIA driver finds no device; continuing with the CPU"]
    monkeypatch.setattr(f"{place}.find_spec", lambda name: name == "openvino")
    assert default_engine(Warned()) == "openvino"


def test_a_graph_that_fails_at_loud_files_costs_those_alone(birdinfer, tmp_path):
    """A stranger's bundle, with all checks between it and the table."""
    bundle = Path(__file__).parents[3] / "shared" / "cases" / "system" / "bundles" / "fl"
    if not bundle.is_dir():
        pytest.skip("needs the bundles of strangers (../shared/cases), which are not part of the repository")
    noise = np.random.default_rng(0).normal(0, 0.05, 10 * SAMPLE_RATE)
    for name, level in (("a", 1.0), ("b", 5.0), ("c", 1.0), ("d", 5.0), ("e", 5.0), ("f", 5.0)):
        write_sound(tmp_path / f"{name}.wav", level * noise, SAMPLE_RATE)
    out = tmp_path / "s.csv"
    for resume in ((), ("--resume",)):
        assert birdinfer("predict", tmp_path, "-o", out, "--bundle", bundle, "-j", "1", *resume)[0] == 3
        assert [row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]] == ["ok", "failed", "ok"] + ["failed"] * 3
        assert [row[0] for row in rows_of(out)] == ["row_id", "a_5", "a_10", "c_5", "c_10"]


def test_progress_sums_to_all_sound(bundle, tmp_path):
    """By the size of the files: a long recording among short ones is most of the work."""
    shares, seconds = [], []

    class Reported(PredictionCallback):
        def on_sound(self, share, sound_seconds):
            shares.append(share)
            seconds.append(sound_seconds)

    write_sound(tmp_path / "long.wav", tone(300.0), SAMPLE_RATE)
    write_sound(tmp_path / "short.wav", tone(10.0), SAMPLE_RATE)
    settings = PredictionSettings(output=tmp_path / "s.csv", workers=1)
    predict_to_csv(Bundle.load(bundle), [tmp_path / "long.wav", tmp_path / "short.wav"], settings, Reported())
    assert sum(shares) == pytest.approx(1, abs=0.02)
    assert sum(seconds) == pytest.approx(310, abs=5)
    assert max(shares) == pytest.approx(30 / 310, rel=0.05)  # half a minute of five
