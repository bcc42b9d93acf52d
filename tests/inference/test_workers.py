"""Workers on many files: the rows they pass on, in which order, and what happens when one of them fails."""

import itertools
import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from make_bundles import SAMPLE_RATE, tone, write_sound
from predict_files import by_name, with_workers

from birdinfer import Predictor, predict_soundscapes
from birdinfer.audio.stream import AudioStream
from birdinfer.errors import BundleError, InputNotFoundError, OutputError
from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine
from birdinfer.inference.predictor import FileScores
from birdinfer.inference.soundscapes import find_soundscapes
from birdinfer.inference.workers import WorkerPool


@pytest.fixture(scope="module")
def predictor(bundle):
    return with_workers(bundle, 2)


class Kept:
    """A sink that remembers."""

    def __init__(self):
        self.opened, self.chunks, self.results = [], {}, []

    def note_opened(self, path):
        assert path not in self.chunks
        self.opened.append(path)

    def add(self, path, rows):
        self.chunks.setdefault(path, []).append(rows)

    def finish(self, result):
        assert (result.path in self.opened) == (result.status != "skipped by budget")
        assert sum(map(len, self.chunks.get(result.path, []))) == result.n_rows
        self.results.append(result)


class Hurried:
    """A scheduler that opens so many files, and cuts off those in work after so many window batches."""

    def __init__(self, predictor, files=99, runs=99):
        self.predictor, self.files, self.runs, self.workers = predictor, files, runs, predictor.plan.workers
        self.noted = []

    def predictor_for(self, path):
        self.files -= 1
        return self.predictor if self.files >= 0 else None

    def is_over(self):
        return self.runs <= 0

    def level_of(self, path):
        return "with less"

    def expected_seconds(self, path):
        return 60.0

    def note_opened(self, path, seconds):
        assert seconds > 0

    def note_batch(self, predictor, batch, read_seconds, score_seconds):
        assert read_seconds >= 0
        assert score_seconds > 0
        self.runs -= 1

    def note_done(self, path, sound_seconds):
        self.noted.append((path.name, sound_seconds))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_nothing(bundle, predictor, soundscapes, workers):
    paths = find_soundscapes([soundscapes])
    results = by_name(predict_soundscapes(with_workers(bundle, workers), paths))
    assert {name: result.probabilities.shape for name, result in results.items()} == {
        "site_0.ogg": (12, 4), "site_1.ogg": (3, 4), "site_2.ogg": (2, 4),
    }  # fmt: skip
    for path in paths:
        assert np.array_equal(results[path.name].probabilities, predictor.predict(path))


def test_workers_share_one_long_file_and_keep_its_order(bundle, predictor, tmp_path):
    write_sound(tmp_path / "long.wav", tone(400.0), SAMPLE_RATE)
    at_work = set()
    (result,) = predict_soundscapes(
        with_workers(bundle, 3), [tmp_path / "long.wav"], lambda *step: at_work.add(threading.get_ident())
    )
    assert result.status == "ok"
    assert result.seconds == 400
    assert np.array_equal(result.probabilities, predictor.predict(tmp_path / "long.wav"))
    assert len(at_work) > 1


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_passed_on_in_order_as_they_are_finished(
    bundle, predictor, soundscapes, tmp_path, monkeypatch, workers
):
    write_sound(tmp_path / "long.wav", tone(400.0), SAMPLE_RATE)
    monkeypatch.setattr("birdinfer.inference.predictor.CHUNK_ROWS", 8)
    paths = [tmp_path / "long.wav", *find_soundscapes([soundscapes])]
    sink = Kept()
    results = list(predict_soundscapes(with_workers(bundle, workers), paths, sink=sink))
    assert [result.probabilities for result in results] == [None] * 4
    assert len(sink.chunks[paths[0]]) > 4
    for path in paths:
        assert np.array_equal(np.concatenate(sink.chunks[path]), predictor.predict(path))
    assert {result.path: result for result in results} == {result.path: result for result in sink.results}


def test_who_cannot_keep_rows_ends_the_run_instead_of_hanging(predictor, soundscapes):
    class Full(Kept):
        def add(self, path, rows):
            raise OutputError("out", "does not take the scores (No space left on device)")

    with pytest.raises(OutputError, match="No space left"):
        list(predict_soundscapes(predictor, find_soundscapes([soundscapes]), sink=Full()))


def test_progress_adds_up(predictor, soundscapes):
    seen = []
    list(predict_soundscapes(predictor, find_soundscapes([soundscapes]), lambda *step: seen.append(step)))
    assert sum(seconds for _, _, seconds in seen) == 17 * 5
    assert sum(share for _, share, _ in seen) == pytest.approx(3, abs=0.3)


def fails_with(error):
    def fail(answers):
        raise error

    return fail


FAILURES = {
    "an exception": (fails_with(RuntimeError("the device is lost")), "cannot be computed (the device is lost)"),
    "no memory": (fails_with(MemoryError()), "cannot be computed (there is not enough memory)"),
    "NaN": (lambda answers: answers * np.nan, "returns NaN - was it trained to an end?"),
    "a window too few": (lambda answers: answers[1:], "returns logits of shape (2, 4) for 3 windows and 4 labels"),
    "a label too many": (lambda answers: np.pad(answers, ((0, 0), (0, 1))), "of shape (3, 5) for 3 windows"),
    "another axis": (lambda answers: answers[:, None], "returns logits of shape (3, 1, 4)"),
    "one number": (lambda answers: np.float32(1), "cannot be computed"),
    "nothing": (lambda answers: None, "cannot be computed"),
}
"""What an engine may do with a batch of three windows and four labels, and what is said of the file."""


def breaking(monkeypatch, failure, is_hit):
    """An engine whose graph fails in one of these ways at the calls that are hit."""
    real, calls = OnnxRuntimeEngine._run, iter(range(10_000))

    def run(self, batch):
        answers = real(self, batch)
        return {name: failure(answer) for name, answer in answers.items()} if is_hit(next(calls)) else answers

    monkeypatch.setattr(OnnxRuntimeEngine, "_run", run)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_model_that_fails_at_a_file_costs_no_other(bundle, predictor, soundscapes, monkeypatch, kind):
    failure, problem = FAILURES[kind]
    paths = find_soundscapes([soundscapes])
    alone = {path.name: predictor.predict(path) for path in paths}
    n_calls = 2 * 4  # two members, four batches of three windows
    breaking(monkeypatch, failure, lambda call: call == n_calls)
    results = by_name(predict_soundscapes(with_workers(bundle, 1), paths))
    assert [result.status for result in results.values()] == ["ok", "failed", "ok"]
    assert problem in results["site_1.ogg"].problem
    for name in ("site_0.ogg", "site_2.ogg"):
        assert np.array_equal(results[name].probabilities, alone[name])


@pytest.mark.parametrize("kind", FAILURES)
def test_a_model_that_fails_at_every_file_ends_the_run_after_three(bundle, soundscapes, monkeypatch, kind):
    breaking(monkeypatch, FAILURES[kind][0], lambda call: True)
    sink = Kept()
    with pytest.raises(BundleError, match="so it was for 3 files, and no window was scored") as caught:
        list(predict_soundscapes(with_workers(bundle, 1), find_soundscapes([soundscapes]), sink=sink))
    assert str(caught.value).startswith("fold0: ")
    assert [result.status for result in sink.results] == ["failed"] * 3


@pytest.mark.parametrize("place", ["open", "file_scores"])
@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), RecursionError("deep"), ZeroDivisionError()])
def test_a_fault_while_a_file_is_opened_costs_no_other(bundle, soundscapes, monkeypatch, place, error):
    real = getattr(Predictor, place)

    def failing(self, path, *name):
        if path.name == "site_1.ogg":
            raise error
        return real(self, path, *name)

    monkeypatch.setattr(Predictor, place, failing)
    results = by_name(predict_soundscapes(with_workers(bundle, 2), find_soundscapes([soundscapes])))
    assert sorted(result.status for result in results.values()) == ["failed", "ok", "ok"]
    assert results["site_1.ogg"].problem in (
        f"{type(error).__name__}: {error}".rstrip(": "),
        "there is not enough memory",
    )


@pytest.mark.parametrize("place", ["add", "finish"])
def test_a_fault_after_the_models_costs_no_other(bundle, soundscapes, monkeypatch, place):
    real, hit = getattr(FileScores, place), []

    def failing(self, *arguments):
        hit.append(self)
        if self is hit[0]:
            raise IndexError("no such row")
        return real(self, *arguments)

    monkeypatch.setattr(FileScores, place, failing)
    results = predict_soundscapes(with_workers(bundle, 1), find_soundscapes([soundscapes]))
    assert sorted(result.status for result in results) == ["failed", "ok", "ok"]


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), OSError(5, "Input/output error")])
def test_a_fault_while_a_file_is_read_keeps_what_was_scored(bundle, tmp_path, monkeypatch, error):
    write_sound(tmp_path / "long.wav", tone(120.0), SAMPLE_RATE)
    real = AudioStream.blocks_at

    def breaking_off(self, rates):
        for number, block in enumerate(real(self, rates)):
            if number == 6:
                raise error
            yield block

    monkeypatch.setattr(AudioStream, "blocks_at", breaking_off)
    (result,) = predict_soundscapes(with_workers(bundle, 1), [tmp_path / "long.wav"])
    assert result.status == ("damaged" if isinstance(error, OSError) else "failed")
    assert result.n_rows > 0
    assert result.problem


@pytest.fixture
def hung():
    """An event that a call waits for which does not return; set at the end, so that no thread is left."""
    event, before = threading.Event(), set(threading.enumerate())
    yield event
    event.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()


@pytest.mark.parametrize("place", ["open", "score_batch"])
def test_a_call_that_does_not_return_is_left_behind_when_the_run_stops(bundle, soundscapes, monkeypatch, hung, place):
    """The other files are done; nothing of the one that hangs comes later."""
    real, at_it, stuck = getattr(Predictor, place), [], threading.Event()
    monkeypatch.setattr("birdinfer.inference.workers._PATIENCE_SECONDS", 0.05)

    def hanging(self, what):
        at_it.append(what)
        if what is at_it[0]:
            stuck.set()
            hung.wait()
        return real(self, what)

    monkeypatch.setattr(Predictor, place, hanging)
    sink = Kept()
    paths = find_soundscapes([soundscapes])
    is_stopped = lambda: len(sink.results) > 1 and stuck.is_set()  # noqa: E731
    results = list(predict_soundscapes(with_workers(bundle, 2), paths, sink=sink, is_stopped=is_stopped))
    assert sorted(result.status for result in results) == ["ok", "ok", "stopped"]
    (left,) = [result for result in results if result.status == "stopped"]
    assert left.problem == "reading or scoring it did not return"
    assert [result.status for result in sink.results] == ["ok", "ok", "failed"]
    n_chunks = {path: len(chunks) for path, chunks in sink.chunks.items()}
    hung.set()
    while any("work" in thread.name for thread in threading.enumerate()):
        time.sleep(0.01)
    assert len(sink.results) == 3
    assert {path: len(chunks) for path, chunks in sink.chunks.items()} == n_chunks


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_gone_ends_the_run_and_keeps_what_is_done(bundle, soundscapes, tmp_path, workers):
    paths = [*find_soundscapes([soundscapes]), *(tmp_path / f"{index}.wav" for index in range(100))]
    sink = Kept()
    with pytest.raises(
        InputNotFoundError, match=r"5 files in a row are not there or cannot be read: .* is gone - bring"
    ):
        list(predict_soundscapes(with_workers(bundle, workers), paths, sink=sink))
    statuses = [result.status for result in sink.results]
    assert statuses.count("ok") >= 4 - workers  # what another worker is at is repeated
    assert 5 <= statuses.count("unreadable") < 10


def test_files_without_sound_or_permission_are_no_disk_that_is_gone(bundle, soundscapes, tmp_path, monkeypatch):
    real = Path.open

    def guarded(self, *arguments, **options):
        if self.name.startswith("private"):
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments, **options)

    for index in range(8):
        (tmp_path / f"private{index}.wav").write_text("secret")
        (tmp_path / f"text{index}.wav").write_text("no sound")
    os.mkfifo(tmp_path / "pipe.wav")
    monkeypatch.setattr(Path, "open", guarded)
    paths = [*sorted(tmp_path.iterdir()), *find_soundscapes([soundscapes])]
    results = list(predict_soundscapes(with_workers(bundle, 1), paths))
    assert [result.status for result in results] == ["unreadable"] * 17 + ["ok"] * 3


def silent_for(monkeypatch, is_hit):
    """An engine that answers NaN to the calls that are hit."""
    real, calls = OnnxRuntimeEngine.run, iter(range(10_000))

    def run(self, batch):
        answers = real(self, batch)
        return {name: answer * np.nan for name, answer in answers.items()} if is_hit(next(calls)) else answers

    monkeypatch.setattr(OnnxRuntimeEngine, "run", run)


def test_a_file_that_a_model_cannot_answer_costs_no_other(bundle, predictor, soundscapes, monkeypatch):
    paths = find_soundscapes([soundscapes])
    alone = predictor.predict(paths[0])
    predictor = with_workers(bundle, 1)
    n_calls = 2 * 2  # two members, two runs of six windows
    silent_for(monkeypatch, lambda call: call == n_calls)
    results = by_name(predict_soundscapes(predictor, paths))
    assert [result.status for result in results.values()] == ["ok", "failed", "ok"]
    assert np.array_equal(results["site_0.ogg"].probabilities, alone)
    lost = results["site_1.ogg"]
    assert (lost.n_rows, lost.expected_seconds) == (0, 15.0)
    assert "returns NaN" in lost.problem


def test_rows_before_the_one_that_a_model_cannot_answer_are_kept(bundle, predictor, soundscapes, monkeypatch):
    monkeypatch.setattr("birdinfer.inference.predictor.CHUNK_ROWS", 1)
    path = soundscapes / "site_0.ogg"
    whole = predictor.predict(path)
    silent_for(monkeypatch, lambda call: call == 2)  # the second run of six, after two members' first
    (result,) = predict_soundscapes(with_workers(bundle, 1), [path])
    assert (result.status, result.n_rows) == ("failed", 6)
    assert np.array_equal(result.probabilities[:5], whole[:5])


def test_a_model_that_never_answers_ends_the_run(bundle, soundscapes, monkeypatch):
    silent_for(monkeypatch, lambda call: True)
    with pytest.raises(BundleError, match=r"fold\d: returns NaN"):
        list(predict_soundscapes(with_workers(bundle, 2), find_soundscapes([soundscapes])))


def test_workers_that_get_nan_for_one_file_together_lose_one_file(bundle, tmp_path, monkeypatch):
    """Four workers on a long recording are not four files."""
    write_sound(tmp_path / "long.wav", tone(400.0), SAMPLE_RATE)
    silent_for(monkeypatch, lambda call: call >= 2 * 4)  # two members, four runs
    (result,) = predict_soundscapes(with_workers(bundle, 4), [tmp_path / "long.wav"])
    assert result.status == "failed"


def test_a_model_that_has_answered_once_is_not_given_up(bundle, soundscapes, monkeypatch):
    """No file is whole, yet the model is sound: the first keeps its beginning."""
    silent_for(monkeypatch, lambda call: call not in (0, 1))  # two members at the first run
    results = list(predict_soundscapes(with_workers(bundle, 1), find_soundscapes([soundscapes])))
    assert [(result.status, result.n_rows) for result in results] == [
        ("failed", 6), ("failed", 0), ("failed", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 3])
def test_files_for_which_there_is_no_time_are_named(bundle, soundscapes, workers):
    scheduler, sink = Hurried(with_workers(bundle, workers), files=2), Kept()
    results = by_name(predict_soundscapes(scheduler, find_soundscapes([soundscapes]), sink=sink))
    assert sorted(result.status for result in results.values()) == ["ok", "ok", "skipped by budget"]
    (left_out,) = [result for result in results.values() if result.status == "skipped by budget"]
    assert (left_out.n_rows, left_out.expected_seconds) == (0, 60.0)
    assert {result.level for result in results.values() if result.n_rows} == {"with less"}
    assert len(sink.results) == len(scheduler.noted) == 3


def test_a_file_is_cut_off_where_time_is_up_and_keeps_its_rows(bundle, predictor, tmp_path):
    write_sound(tmp_path / "long.wav", tone(120.0), SAMPLE_RATE)
    (result,) = predict_soundscapes(Hurried(with_workers(bundle, 1), runs=2), [tmp_path / "long.wav"])
    assert (result.status, result.n_rows, result.expected_seconds) == ("skipped by budget", 12, 120.0)
    assert re.fullmatch(r"time was up after \d+\.0 of 120\.0 s", result.problem)
    assert np.array_equal(result.probabilities[:11], predictor.predict(tmp_path / "long.wav")[:11])


def test_a_file_that_is_whole_is_ok_although_time_is_up(bundle, predictor, tmp_path):
    write_sound(tmp_path / "a.wav", tone(60.0), SAMPLE_RATE)
    (result,) = predict_soundscapes(Hurried(with_workers(bundle, 1), runs=2), [tmp_path / "a.wav"])
    assert (result.status, result.n_rows, result.problem) == ("ok", 12, "")
    assert np.array_equal(result.probabilities, predictor.predict(tmp_path / "a.wav"))


def test_a_run_that_is_stopped_leaves_what_it_is_at(bundle, soundscapes, tmp_path):
    write_sound(tmp_path / "long.wav", tone(1200.0), SAMPLE_RATE)
    paths, sink = [*find_soundscapes([soundscapes]), tmp_path / "long.wav"], Kept()
    results = list(
        predict_soundscapes(with_workers(bundle, 1), paths, sink=sink, is_stopped=lambda: len(sink.results) > 1)
    )
    assert results == sink.results
    assert {result.path for result in results} <= set(paths[:3])
    assert "long.wav" not in by_name(sink.results)
    assert not [thread for thread in threading.enumerate() if "work" in thread.name]


def test_a_worker_that_fails_to_open_a_file_leaves_no_other_waiting(predictor, soundscapes, monkeypatch):
    import birdinfer.inference.predictor as home

    def failing(*_):
        time.sleep(0.3)  # the other worker finds no file left, and waits for this one
        raise MemoryError("no memory")

    monkeypatch.setattr(home, "AudioStream", failing)
    (result,) = predict_soundscapes(predictor, [soundscapes / "site_0.ogg"])
    assert (result.status, result.problem) == ("failed", "there is not enough memory")


def test_a_caller_who_leaves_early_stops_the_workers(predictor, soundscapes, tmp_path, monkeypatch):
    """The engine holds most of the long file back until the workers are to stop."""
    run, stop, stopped, calls = OnnxRuntimeEngine.run, WorkerPool.stop, threading.Event(), itertools.count()

    def held(self, batch):
        if next(calls) > 20:
            stopped.wait()
        return run(self, batch)

    monkeypatch.setattr(OnnxRuntimeEngine, "run", held)
    monkeypatch.setattr(WorkerPool, "stop", lambda *arguments: (stopped.set(), stop(*arguments)))
    write_sound(tmp_path / "long.wav", tone(600.0), SAMPLE_RATE)
    progress = []
    paths = [*find_soundscapes([soundscapes]), tmp_path / "long.wav"]
    running = predict_soundscapes(predictor, paths, lambda path, share, seconds: progress.append(seconds))
    next(running)
    running.close()
    assert sum(progress) < 600
    assert not [thread for thread in threading.enumerate() if "work" in thread.name]
