import json
import re
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import soundfile
from making import LABELS, SAMPLE_RATE, tone, write_sound

from birdinfer import Bundle, Predictor, predict_soundscapes
from birdinfer.config import TimelineConfig
from birdinfer.engines.onnxruntime import OnnxRuntimeEngine
from birdinfer.errors import AudioError, BundleError, InputNotFoundError, OutputError
from birdinfer.mel import windows_to_input
from birdinfer.predictor import make_plan
from birdinfer.soundscapes import find_soundscapes, header_seconds
from birdinfer.windows import cut_runs, place


@pytest.fixture(scope="module")
def predictor(bundle):
    return with_lanes(bundle, 2)


def with_lanes(bundle, lanes, engine="onnxruntime"):
    return Predictor(Bundle.load(bundle), make_plan(engine, lanes))


def engines(predictor):
    (listener,) = predictor.listeners
    return listener.hearing, [loaded.graph.engine for loaded in listener.members]


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


def by_name(results):
    return {result.path.name: result for result in results}


def test_scores_equal_the_plain_way(predictor, soundscapes):
    """Window by window, member by member, without lanes: the definition that the pipeline must reproduce."""
    wave, _ = soundfile.read(soundscapes / "site_1.ogg", dtype="float32")
    padded = np.pad(wave, 512, mode="reflect")
    config, loaded = engines(predictor)
    plain = []
    for index in range(3):
        window = padded[index * 160_000 : (index + 1) * 160_000 + 1024]
        logits = [engine.run(windows_to_input(window, 1, config))["logits"][0] for engine in loaded]
        opinions = [1 / (1 + np.exp(-one)) for one in logits]
        plain.append(np.mean(opinions, axis=0))
    plain = np.array(plain)
    smoothed = [
        (0.6 * plain[0] + 0.2 * plain[1]) / 0.8,
        0.2 * plain[0] + 0.6 * plain[1] + 0.2 * plain[2],
        (0.6 * plain[2] + 0.2 * plain[1]) / 0.8,
    ]
    np.testing.assert_allclose(predictor.predict(soundscapes / "site_1.ogg"), smoothed, atol=1e-5)


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


def test_pitfall_1_scores_do_not_depend_on_the_batch(predictor, soundscapes):
    config, (engine, _) = engines(predictor)
    wave, _ = soundfile.read(soundscapes / "site_0.ogg", dtype="float32")
    wave[160_000:320_000] *= 30  # one window far louder than the rest
    (run,) = cut_runs([wave], 12, place(config, TimelineConfig(), config.window))
    batch = windows_to_input(run.samples, 12, config)

    def ask(windows):
        return engine.run(np.ascontiguousarray(windows))["logits"]

    alone = np.concatenate([ask(batch[index : index + 1]) for index in range(12)])
    order = np.random.default_rng(0).permutation(12)
    padded = np.concatenate([batch, np.zeros_like(batch)])
    np.testing.assert_allclose(ask(batch), alone, atol=1e-6)
    np.testing.assert_allclose(ask(batch[order]), alone[order], atol=1e-6)
    np.testing.assert_allclose(ask(padded)[:12], alone, atol=1e-6)


@pytest.mark.parametrize("seconds", [59.999, 60.0, 60.001])
def test_pitfall_5_twelve_windows_from_a_minute_more_or_less(predictor, tmp_path, seconds):
    write_sound(tmp_path / "a.wav", tone(seconds), SAMPLE_RATE)
    assert predictor.predict(tmp_path / "a.wav").shape == (12, 4)


def test_pitfall_6_a_silent_file_has_finite_scores(predictor, tmp_path):
    write_sound(tmp_path / "a.wav", np.zeros(10 * SAMPLE_RATE), SAMPLE_RATE)
    assert np.isfinite(predictor.predict(tmp_path / "a.wav")).all()


def test_pitfall_7_sessions_have_no_threads_of_their_own(bundle, soundscapes):
    """Five members on two lanes: the process may hold the lanes and the main thread, not a pool per session."""
    code = f"""
import json, os, threading
from pathlib import Path
from birdinfer import Bundle, Predictor, predict_soundscapes
from birdinfer.predictor import make_plan
from birdinfer.soundscapes import find_soundscapes, header_seconds
count = lambda: len(os.listdir("/proc/self/task"))
predictor = Predictor(Bundle.load({str(bundle)!r}), make_plan("onnxruntime", lanes=2))
before, most = count(), 0
def look(*step):
    global most
    most = max(most, count())
list(predict_soundscapes(predictor, find_soundscapes([Path({str(soundscapes)!r})]), look))
print(json.dumps([before, most]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, most = json.loads(run.stdout)
    assert most <= before + 2
    assert before <= 1 + _blas_threads()


def _blas_threads():
    """OpenBLAS starts a worker per further core at import; they sleep while it is pinned."""
    from birdinfer.cores import available_cores

    return available_cores()


def test_pitfall_8_sound_is_let_go(predictor, tmp_path):
    """Of twenty minutes of sound (154 MB) each lane holds a run of windows (7.7 MB) and its spectrogram at a time."""
    for index in range(4):
        write_sound(tmp_path / f"{index}.wav", tone(300.0, seed=index), SAMPLE_RATE)
    paths = find_soundscapes([tmp_path])
    tracemalloc.start()
    try:
        results = list(predict_soundscapes(predictor, paths))
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(result.probabilities.nbytes for result in results) == 4 * 60 * len(LABELS) * 4
    assert kept < 1_000_000
    assert most < 80_000_000


def test_pitfall_9_a_file_knows_nothing_of_the_others(predictor, soundscapes, tmp_path):
    alone = predictor.predict(soundscapes / "site_2.ogg")
    write_sound(tmp_path / "loud.wav", np.clip(50 * tone(30.0), -1, 1), SAMPLE_RATE)
    paths = [tmp_path / "loud.wav", *find_soundscapes([soundscapes])]
    assert np.array_equal(by_name(predict_soundscapes(predictor, paths))["site_2.ogg"].probabilities, alone)


def test_pitfall_13_bad_files_cost_no_good_ones(predictor, soundscapes, tmp_path):
    (tmp_path / "empty.ogg").write_bytes(b"")
    (tmp_path / "text.ogg").write_text("hello")
    (tmp_path / "cut.ogg").write_bytes((soundscapes / "site_0.ogg").read_bytes()[:100_000])
    write_sound(tmp_path / "no_samples.wav", np.zeros(0), SAMPLE_RATE)
    write_sound(tmp_path / "short.wav", tone(0.2), SAMPLE_RATE)
    paths = [*find_soundscapes([tmp_path]), *find_soundscapes([soundscapes])]
    results = by_name(predict_soundscapes(predictor, paths))
    assert {name: result.status for name, result in results.items()} == {
        "empty.ogg": "unreadable", "text.ogg": "unreadable", "no_samples.wav": "unreadable", "cut.ogg": "truncated",
        "short.wav": "too short", "site_0.ogg": "ok", "site_1.ogg": "ok", "site_2.ogg": "ok",
    }  # fmt: skip
    assert results["cut.ogg"].problem.startswith("truncated after")
    assert results["short.wav"].probabilities.shape == (1, 4)
    assert all("\n" not in result.problem for result in results.values())


def test_a_file_that_fails_half_way_keeps_its_scores(predictor, soundscapes, monkeypatch):
    import birdinfer.reader as home

    class Failing(home.AudioStream):
        n_good = 3

        def blocks_at(self, rates):
            yield from list(super().blocks_at(rates))[: self.n_good]
            raise OSError("Input/output error")

    monkeypatch.setattr(home, "AudioStream", Failing)
    (result,) = predict_soundscapes(predictor, [soundscapes / "site_0.ogg"])
    assert (result.status, result.problem) == ("damaged", "Input/output error")
    assert len(result.probabilities) == 6  # three blocks of 10 s
    monkeypatch.setattr(Failing, "n_good", 0)
    (result,) = predict_soundscapes(predictor, [soundscapes / "site_0.ogg"])
    assert (result.status, result.problem, result.n_rows) == ("unreadable", "Input/output error", 0)


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


def test_find_goes_to_the_bottom_and_ignores_case(tmp_path):
    for name in ("b/c/2.WAV", "a/1.Ogg", "a/notes.txt", "0.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_soundscapes([tmp_path, tmp_path / "a" / "notes.txt", tmp_path / "0.flac"])
    assert [path.name for path in found] == ["0.flac", "1.Ogg", "2.WAV", "notes.txt"]


def test_what_macos_lays_beside_files_is_no_sound_file_and_a_recording_of_such_a_name_is(tmp_path):
    (tmp_path / "._a.wav").write_bytes(bytes.fromhex("0005160700020000") + bytes(100))
    for name in ("a.wav", "._b.wav"):
        write_sound(tmp_path / name, tone(1.0), SAMPLE_RATE)
    assert [path.name for path in find_soundscapes([tmp_path])] == ["._b.wav", "a.wav"]


def test_find_says_what_is_missing(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file or folder"):
        find_soundscapes([tmp_path / "gone"])
    with pytest.raises(InputNotFoundError, match=r"cannot be looked for \(File name too long\)"):
        find_soundscapes([tmp_path / ("a" * 300)])
    with pytest.raises(InputNotFoundError, match="holds no sound file"):
        find_soundscapes([tmp_path])
    for name in ("a/x.ogg", "b/x.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(AudioError, match="has the same name as"):
        find_soundscapes([tmp_path])


def test_a_header_tells_how_long_a_file_is_where_that_can_be(soundscapes, tmp_path):
    write_sound(tmp_path / "empty.wav", np.zeros(0), SAMPLE_RATE)
    (tmp_path / "text.wav").write_text("hello")
    write_sound(tmp_path / "a.flac", tone(2.0), SAMPLE_RATE)
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    raw[21] |= 0x0F  # the upper 4 of 36 bits that count samples: 23 days
    (tmp_path / "days.flac").write_bytes(raw)
    told = {path.name: header_seconds(path) for path in [*tmp_path.iterdir(), soundscapes / "site_1.ogg"]}
    assert told == {"a.flac": 2.0, "site_1.ogg": 15.0, "empty.wav": None, "text.wav": None, "days.flac": None}


def test_pitfall_10_openvino_has_one_core_that_outlives_its_engines(bundle, soundscapes):
    """A Core that dies unloads plugins under others: the process crashed minutes later, in innocent code."""
    pytest.importorskip("openvino")
    code = f"""
import gc
from birdinfer import Bundle, Predictor
from birdinfer.engines import openvino
for _ in range(3):
    Predictor(Bundle.load({str(bundle)!r}), "openvino").predict({str(soundscapes / "site_2.ogg")!r})
    gc.collect()
assert openvino._core() is openvino._core()
assert openvino._core.cache_info().misses == 1
import sklearn.model_selection
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_openvino_gives_the_scores_of_onnx_runtime(bundle, predictor, soundscapes):
    pytest.importorskip("openvino")
    other = with_lanes(bundle, 2, "openvino")
    paths = find_soundscapes([soundscapes])
    for result in predict_soundscapes(other, paths):
        np.testing.assert_allclose(result.probabilities, predictor.predict(result.path), atol=1e-5)
