"""Lanes at work on many files: what they hand over, in which order, and what happens when one of them fails."""

import re
import threading
import time

import numpy as np
import pytest
from lanes_of_files import by_name, with_lanes
from making import SAMPLE_RATE, tone, write_sound

from birdinfer import predict_soundscapes
from birdinfer.engines.onnxruntime import OnnxRuntimeEngine
from birdinfer.errors import BundleError, OutputError
from birdinfer.soundscapes import find_soundscapes


@pytest.fixture(scope="module")
def predictor(bundle):
    return with_lanes(bundle, 2)


class Kept:
    """A keeper that remembers."""

    def __init__(self):
        self.opened, self.pieces, self.results = [], {}, []

    def note_opened(self, path):
        assert path not in self.pieces
        self.opened.append(path)

    def add(self, path, rows):
        self.pieces.setdefault(path, []).append(rows)

    def finish(self, result):
        assert (result.path in self.opened) == (result.status != "skipped by budget")
        assert sum(map(len, self.pieces.get(result.path, []))) == result.n_rows
        self.results.append(result)


class Hurried:
    """A pace that opens so many files, and cuts off what is heard after so many runs."""

    def __init__(self, predictor, files=99, runs=99):
        self.predictor, self.files, self.runs, self.lanes = predictor, files, runs, predictor.plan.lanes
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

    def note_run(self, predictor, heard, read_seconds, score_seconds):
        assert read_seconds >= 0
        assert score_seconds > 0
        self.runs -= 1

    def note_done(self, path, sound_seconds):
        self.noted.append((path.name, sound_seconds))


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_lanes_change_nothing(bundle, predictor, soundscapes, lanes):
    paths = find_soundscapes([soundscapes])
    results = by_name(predict_soundscapes(with_lanes(bundle, lanes), paths))
    assert {name: result.probabilities.shape for name, result in results.items()} == {
        "site_0.ogg": (12, 4), "site_1.ogg": (3, 4), "site_2.ogg": (2, 4),
    }  # fmt: skip
    for path in paths:
        assert np.array_equal(results[path.name].probabilities, predictor.predict(path))


def test_lanes_share_one_long_file_and_keep_its_order(bundle, predictor, tmp_path):
    write_sound(tmp_path / "long.wav", tone(400.0), SAMPLE_RATE)
    at_work = set()
    (result,) = predict_soundscapes(
        with_lanes(bundle, 3), [tmp_path / "long.wav"], lambda share, seconds: at_work.add(threading.get_ident())
    )
    assert result.status == "ok"
    assert result.seconds == 400
    assert np.array_equal(result.probabilities, predictor.predict(tmp_path / "long.wav"))
    assert len(at_work) > 1


@pytest.mark.parametrize("lanes", [1, 3])
def test_rows_are_handed_over_in_order_as_they_are_finished(
    bundle, predictor, soundscapes, tmp_path, monkeypatch, lanes
):
    write_sound(tmp_path / "long.wav", tone(400.0), SAMPLE_RATE)
    monkeypatch.setattr("birdinfer.file_scores.PIECE_ROWS", 8)
    paths = [tmp_path / "long.wav", *find_soundscapes([soundscapes])]
    keeper = Kept()
    results = list(predict_soundscapes(with_lanes(bundle, lanes), paths, keep=keeper))
    assert [result.probabilities for result in results] == [None] * 4
    assert len(keeper.pieces[paths[0]]) > 4
    for path in paths:
        assert np.array_equal(np.concatenate(keeper.pieces[path]), predictor.predict(path))
    assert {result.path: result for result in results} == {result.path: result for result in keeper.results}


@pytest.mark.timeout(30)
def test_who_cannot_keep_rows_ends_the_run_instead_of_hanging(predictor, soundscapes):
    class Full(Kept):
        def add(self, path, rows):
            raise OutputError("out", "does not take the scores (No space left on device)")

    with pytest.raises(OutputError, match="No space left"):
        list(predict_soundscapes(predictor, find_soundscapes([soundscapes]), keep=Full()))


def test_progress_adds_up(predictor, soundscapes):
    seen = []
    list(predict_soundscapes(predictor, find_soundscapes([soundscapes]), lambda *step: seen.append(step)))
    assert sum(seconds for _, seconds in seen) == 17 * 5
    assert sum(files for files, _ in seen) == pytest.approx(3, abs=0.3)


def test_an_engine_that_breaks_ends_the_run_instead_of_hanging(predictor, soundscapes, monkeypatch):
    def broken(self, batch):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(OnnxRuntimeEngine, "run", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(predict_soundscapes(predictor, find_soundscapes([soundscapes])))


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
    predictor = with_lanes(bundle, 1)
    n_calls = 2 * 2  # two members, two runs of six windows
    silent_for(monkeypatch, lambda call: call == n_calls)
    results = by_name(predict_soundscapes(predictor, paths))
    assert [result.status for result in results.values()] == ["ok", "non-finite", "ok"]
    assert np.array_equal(results["site_0.ogg"].probabilities, alone)
    lost = results["site_1.ogg"]
    assert (lost.n_rows, lost.expected_seconds) == (0, 15.0)
    assert "answers with what is no number (NaN)" in lost.problem


def test_rows_before_the_one_that_a_model_cannot_answer_are_kept(bundle, predictor, soundscapes, monkeypatch):
    monkeypatch.setattr("birdinfer.file_scores.PIECE_ROWS", 1)
    path = soundscapes / "site_0.ogg"
    whole = predictor.predict(path)
    silent_for(monkeypatch, lambda call: call == 2)  # the second run of six, after two members' first
    (result,) = predict_soundscapes(with_lanes(bundle, 1), [path])
    assert (result.status, result.n_rows) == ("non-finite", 6)
    assert np.array_equal(result.probabilities[:5], whole[:5])


def test_a_model_that_never_answers_ends_the_run(bundle, soundscapes, monkeypatch):
    silent_for(monkeypatch, lambda call: True)
    with pytest.raises(BundleError, match=r"fold\d: answers with what is no number"):
        list(predict_soundscapes(with_lanes(bundle, 2), find_soundscapes([soundscapes])))


def test_lanes_that_meet_one_gap_of_a_model_together_lose_one_file(bundle, tmp_path, monkeypatch):
    """Four lanes on a long recording are not four files."""
    write_sound(tmp_path / "long.wav", tone(400.0), SAMPLE_RATE)
    silent_for(monkeypatch, lambda call: call >= 2 * 4)  # two members, four runs
    (result,) = predict_soundscapes(with_lanes(bundle, 4), [tmp_path / "long.wav"])
    assert result.status == "non-finite"


def test_a_model_that_has_answered_once_is_not_given_up(bundle, soundscapes, monkeypatch):
    """No file is whole, yet the model is sound: the first keeps its beginning."""
    silent_for(monkeypatch, lambda call: call not in (0, 1))  # two members at the first run
    results = list(predict_soundscapes(with_lanes(bundle, 1), find_soundscapes([soundscapes])))
    assert [(result.status, result.n_rows) for result in results] == [
        ("non-finite", 6), ("non-finite", 0), ("non-finite", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("lanes", [1, 3])
def test_files_for_which_there_is_no_time_are_named(bundle, soundscapes, lanes):
    pace, keeper = Hurried(with_lanes(bundle, lanes), files=2), Kept()
    results = by_name(predict_soundscapes(pace, find_soundscapes([soundscapes]), keep=keeper))
    assert sorted(result.status for result in results.values()) == ["ok", "ok", "skipped by budget"]
    (left_out,) = [result for result in results.values() if result.status == "skipped by budget"]
    assert (left_out.n_rows, left_out.expected_seconds) == (0, 60.0)
    assert {result.level for result in results.values() if result.n_rows} == {"with less"}
    assert len(keeper.results) == len(pace.noted) == 3


def test_a_file_is_cut_off_where_time_is_up_and_keeps_its_rows(bundle, predictor, tmp_path):
    write_sound(tmp_path / "long.wav", tone(120.0), SAMPLE_RATE)
    (result,) = predict_soundscapes(Hurried(with_lanes(bundle, 1), runs=2), [tmp_path / "long.wav"])
    assert (result.status, result.n_rows, result.expected_seconds) == ("skipped by budget", 12, 120.0)
    assert re.fullmatch(r"time was up after \d+\.0 of 120\.0 s", result.problem)
    assert np.array_equal(result.probabilities[:11], predictor.predict(tmp_path / "long.wav")[:11])


def test_a_file_that_is_whole_is_ok_although_time_is_up(bundle, predictor, tmp_path):
    write_sound(tmp_path / "a.wav", tone(60.0), SAMPLE_RATE)
    (result,) = predict_soundscapes(Hurried(with_lanes(bundle, 1), runs=2), [tmp_path / "a.wav"])
    assert (result.status, result.n_rows, result.problem) == ("ok", 12, "")
    assert np.array_equal(result.probabilities, predictor.predict(tmp_path / "a.wav"))


def test_a_run_that_is_stopped_leaves_what_it_is_at(bundle, soundscapes, tmp_path):
    write_sound(tmp_path / "long.wav", tone(1200.0), SAMPLE_RATE)
    paths, keeper = [*find_soundscapes([soundscapes]), tmp_path / "long.wav"], Kept()
    results = list(
        predict_soundscapes(with_lanes(bundle, 1), paths, keep=keeper, is_stopped=lambda: len(keeper.results) > 1)
    )
    assert results == keeper.results
    assert {result.path for result in results} <= set(paths[:3])
    assert "long.wav" not in by_name(keeper.results)
    assert not [thread for thread in threading.enumerate() if "work" in thread.name]


@pytest.mark.timeout(30)
def test_a_lane_that_fails_to_open_a_file_leaves_no_other_waiting(predictor, soundscapes, monkeypatch):
    import birdinfer.reader as home

    def failing(*_):
        time.sleep(0.3)  # the other lane finds no file left, and waits for this one
        raise MemoryError("no memory")

    monkeypatch.setattr(home, "AudioStream", failing)
    with pytest.raises(MemoryError):
        list(predict_soundscapes(predictor, [soundscapes / "site_0.ogg"]))


def test_a_caller_who_leaves_early_stops_the_lanes(predictor, soundscapes, tmp_path):
    write_sound(tmp_path / "long.wav", tone(600.0), SAMPLE_RATE)
    running = predict_soundscapes(predictor, [*find_soundscapes([soundscapes]), tmp_path / "long.wav"])
    next(running)
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 5
    assert not [thread for thread in threading.enumerate() if "work" in thread.name]
