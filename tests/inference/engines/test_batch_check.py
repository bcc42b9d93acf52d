"""A graph that may mix up its batch is tried before its scores count."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from external_graphs import write_external_graph, write_list

from birdinfer import Bundle, Predictor
from birdinfer.errors import BirdinferError, BundleError
from birdinfer.inference.bundle import file_sha256
from birdinfer.inference.engines.base import EnginePlan, GraphFacts
from birdinfer.inference.engines.batch_check import BatchCheckedEngine
from birdinfer.inference.external.add_model import add_model

FACTS = GraphFacts("x", (None, 8), {"y": (None, 2)}, {})
MIXERS = {
    "the loudest": lambda x: x / np.abs(x).max(),
    "the mean": lambda x: x - x.mean(axis=0),
    "its place": lambda x: x + np.arange(len(x))[:, None],
    "the number of windows": lambda x: x * len(x),
    "another shape": lambda x: x[:, : 8 // len(x)],
}


class Engine:
    def __init__(self, function):
        self.facts, self.calls, self._function = FACTS, [], function

    def run(self, batch):
        self.calls.append(batch.shape)
        return {"y": self._function(batch)}


def fail_on_several(x):
    if len(x) > 1:
        raise RuntimeError("Reshape\nfails")
    return x


@pytest.mark.parametrize("mixer", MIXERS)
def test_run_refuses_scores_that_depend_on(mixer):
    with pytest.raises(BundleError, match=r"g.onnx: scores a window differently in a batch than alone - "):
        BatchCheckedEngine(Engine(MIXERS[mixer]), Path("g.onnx")).run(np.ones((3, 8), np.float32))


def test_run_refuses_a_graph_that_takes_one_window_only():
    engine = BatchCheckedEngine(Engine(fail_on_several), Path("g.onnx"))
    with pytest.raises(BundleError, match=r"cannot be run on several windows at once \(Reshape fails\) - "):
        engine.run(np.ones((1, 8), np.float32))


@pytest.mark.parametrize("loudest", [0.01, 0.3, 1.0])
def test_run_leaves_a_graph_that_fails_at_some_windows_to_the_files(loudest):
    def fail_if_loud(x):
        if np.abs(x).max() > loudest:
            raise RuntimeError("index out of range")
        return 2 * x

    engine = BatchCheckedEngine(Engine(fail_if_loud), Path("g.onnx"))
    assert (engine.run(np.full((2, 8), 0.001, np.float32))["y"] == np.float32(0.002)).all()
    with pytest.raises(RuntimeError, match="index out of range"):
        engine.run(np.full((2, 8), 3, np.float32))


def test_run_tries_once_for_all_threads_and_changes_nothing():
    within = Engine(lambda x: 2 * x)
    engine = BatchCheckedEngine(within, Path("g.onnx"))
    together = threading.Barrier(4)

    def run(_):
        together.wait(30)
        return engine.run(np.full((2, 8), 3, np.float32))["y"]

    with ThreadPoolExecutor(4) as pool:
        assert all((scores == 6).all() for scores in pool.map(run, range(4)))
    assert within.calls.count((2, 8)) == 4
    assert len(within.calls) == 6


def test_a_bundle_made_by_hand_works_as_the_hint_says(tmp_path, soundscapes):
    """Its graph scales by the loudest window of its batch: refused, and with one window a call the same bits always."""
    labels = write_list(tmp_path / "labels.txt", "a", "b")
    folder = tmp_path / "bundle"
    add_model(write_external_graph(tmp_path / "g.onnx", 2), labels, folder)
    graph = write_external_graph(folder / "g.onnx", 2, depends_on_batch=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    (member,) = manifest["members"]
    member["graphs"]["fp32"]["sha256"] = file_sha256(graph)

    def scores(batch, **plan):
        (folder / "manifest.json").write_text(json.dumps(manifest | {"members": [member | {"batch": batch}]}))
        predictor = Predictor(Bundle.load(folder), EnginePlan(**plan))
        return predictor.predict(soundscapes / "site_1.ogg").tobytes()

    with pytest.raises(
        BirdinferError, match=r"scores a window differently in a batch than alone - .* \"batch\": \"one\""
    ):
        scores(None, batch_size=3)
    assert scores("one", batch_size=1) == scores("one", batch_size=3) == scores("one", batch_size=64)
