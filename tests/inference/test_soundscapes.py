import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
from make_bundles import LABELS, SAMPLE_RATE, tone, write_sound
from predict_files import by_name, with_workers

from birdinfer import predict_soundscapes
from birdinfer.audio.windows import cut_batches, make_grid
from birdinfer.config import AggregationConfig
from birdinfer.errors import InputNotFoundError
from birdinfer.features.log_mel import windows_to_input
from birdinfer.inference.soundscapes import find_soundscapes, header_seconds


@pytest.fixture(scope="module")
def predictor(bundle):
    return with_workers(bundle, 2)


def engines(predictor):
    (member_group,) = predictor.member_groups
    return member_group.input_config, [loaded.graph.engine for loaded in member_group.members]


def test_scores_equal_the_plain_way(predictor, soundscapes):
    """Window by window, member by member, without workers: the definition that the pipeline must reproduce."""
    wave, _ = soundfile.read(soundscapes / "site_1.ogg", dtype="float32")
    padded = np.pad(wave, 512, mode="reflect")
    config, loaded = engines(predictor)
    plain = []
    for index in range(3):
        window = padded[index * 160_000 : (index + 1) * 160_000 + 1024]
        logits = [engine.run(windows_to_input(window, 1, config))["logits"][0] for engine in loaded]
        member_scores = [1 / (1 + np.exp(-one)) for one in logits]
        plain.append(np.mean(member_scores, axis=0))
    plain = np.array(plain)
    smoothed = [
        (0.6 * plain[0] + 0.2 * plain[1]) / 0.8,
        0.2 * plain[0] + 0.6 * plain[1] + 0.2 * plain[2],
        (0.6 * plain[2] + 0.2 * plain[1]) / 0.8,
    ]
    np.testing.assert_allclose(predictor.predict(soundscapes / "site_1.ogg"), smoothed, atol=1e-5)


def test_pitfall_1_scores_do_not_depend_on_the_batch(predictor, soundscapes):
    config, (engine, _) = engines(predictor)
    wave, _ = soundfile.read(soundscapes / "site_0.ogg", dtype="float32")
    wave[160_000:320_000] *= 30  # one window far louder than the rest
    (run,) = cut_batches([wave], 12, make_grid(config, AggregationConfig(), config.window))
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
    """Five members on two workers: the process may hold the workers and the main thread, not a pool per session."""
    code = f"""
import json, os, threading
from pathlib import Path
from birdinfer import Bundle, Predictor, predict_soundscapes
from birdinfer.inference.predictor import make_plan
from birdinfer.inference.soundscapes import find_soundscapes, header_seconds
count = lambda: len(os.listdir("/proc/self/task"))
predictor = Predictor(Bundle.load({str(bundle)!r}), make_plan("onnxruntime", workers=2))
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
    from birdinfer.system.cpu import available_cores

    return available_cores()


def test_pitfall_8_sound_is_let_go(predictor, tmp_path):
    """Of 20 minutes of sound (154 MB) each worker holds one batch of windows (7.7 MB) and its spectrogram at a time."""
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
    import birdinfer.inference.predictor as home

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


def test_find_soundscapes_lists_recordings_or_raises(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file or folder"):
        find_soundscapes([tmp_path / "gone"])
    with pytest.raises(InputNotFoundError, match="holds no sound file"):
        find_soundscapes([tmp_path])
    (tmp_path / "a.wav").touch()
    assert find_soundscapes([tmp_path]) == [tmp_path / "a.wav"]


def test_header_seconds_of_plausible_headers(soundscapes, tmp_path):
    write_sound(tmp_path / "empty.wav", np.zeros(0), SAMPLE_RATE)
    (tmp_path / "text.wav").write_text("hello")
    write_sound(tmp_path / "a.flac", tone(2.0), SAMPLE_RATE)
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    raw[21] |= 0x0F  # the upper 4 of 36 bits that count samples: 23 days
    (tmp_path / "days.flac").write_bytes(raw)
    seconds = {path.name: header_seconds(path) for path in [*tmp_path.iterdir(), soundscapes / "site_1.ogg"]}
    assert seconds == {"a.flac": 2.0, "site_1.ogg": 15.0, "empty.wav": None, "text.wav": None, "days.flac": 2.0}


def test_pitfall_10_openvino_has_one_core_that_outlives_its_engines(bundle, soundscapes):
    """A Core that dies unloads plugins under others: the process crashed minutes later, in innocent code."""
    pytest.importorskip("openvino")
    code = f"""
import gc
from birdinfer import Bundle, Predictor
from birdinfer.inference.engines import openvino
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
    other = with_workers(bundle, 2, "openvino")
    paths = find_soundscapes([soundscapes])
    for result in predict_soundscapes(other, paths):
        np.testing.assert_allclose(result.probabilities, predictor.predict(result.path), atol=1e-5)
