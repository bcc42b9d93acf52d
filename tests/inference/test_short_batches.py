"""Files too short to fill a call of the graphs are scored together, with the same scores, and fail one by one."""

import numpy as np
import pytest
from make_bundles import SAMPLE_RATE, tone, write_sound
from predict_files import by_name, with_workers

from birdinfer import predict_soundscapes
from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine

SECONDS = (5, 5, 5, 20, 5, 10, 35, 5, 5)


@pytest.fixture
def short_files(tmp_path):
    paths = [tmp_path / f"{index}.wav" for index in range(len(SECONDS))]
    for index, (path, seconds) in enumerate(zip(paths, SECONDS, strict=True)):
        write_sound(path, tone(float(seconds), seed=index), SAMPLE_RATE)
    return paths


def with_fixed_batches(bundle, workers):
    predictor = with_workers(bundle, workers)
    assert predictor.call_windows == 1
    predictor.call_windows = predictor.plan.batch_size
    return predictor


def watched(monkeypatch, answer=lambda answers, batch: answers):
    """Windows of each call of an engine."""
    real, counts = OnnxRuntimeEngine.run, []

    def run(self, batch):
        counts.append(len(batch))
        return answer(real(self, batch), batch)

    monkeypatch.setattr(OnnxRuntimeEngine, "run", run)
    return counts


@pytest.mark.parametrize("workers", [1, 3])
def test_scores_are_the_same_and_calls_are_full(bundle, short_files, monkeypatch, workers):
    predictor = with_fixed_batches(bundle, workers)
    alone = {path.name: predictor.predict(path) for path in short_files}
    counts = watched(monkeypatch)
    results = by_name(predict_soundscapes(predictor, short_files))
    assert [result.status for result in results.values()] == ["ok"] * len(SECONDS)
    for name, scores in alone.items():
        assert np.array_equal(results[name].probabilities, scores)
    assert sum(counts) == 2 * sum(SECONDS) // 5  # two members
    n_padded = sum(-count % predictor.plan.batch_size for count in counts)
    assert n_padded <= 2 * 2 * workers  # at the end


def test_one_that_fails_costs_none_of_those_beside_it(bundle, short_files, monkeypatch):
    predictor = with_fixed_batches(bundle, 1)
    alone = {path.name: predictor.predict(path) for path in short_files}
    inputs = []
    watched(monkeypatch, lambda answers, batch: (inputs.append(batch.copy()), answers)[1])
    predictor.predict(short_files[1])
    loud = inputs[0][0]

    def nan(answers, batch):
        is_hit = any(np.array_equal(window, loud) for window in batch)
        return {name: answer * np.nan for name, answer in answers.items()} if is_hit else answers

    watched(monkeypatch, nan)
    results = by_name(predict_soundscapes(predictor, short_files))
    assert [name for name, result in results.items() if result.status != "ok"] == ["1.wav"]
    assert "returns NaN" in results["1.wav"].problem
    for name, result in results.items():
        assert name == "1.wav" or np.array_equal(result.probabilities, alone[name])
