"""Throughput counts every worker, and graphs are compared in turns."""

import threading
import time

import numpy as np
import pytest
from make_bundles import write_linear_graph

from birdinfer.errors import BundleError
from birdinfer.inference.engines import EnginePlan, EngineSpec
from birdinfer.inference.engines import benchmark as home
from birdinfer.inference.engines.benchmark import compare_speed, speeds_in_turns, windows_per_second

INPUTS = np.zeros((2, 1), np.float32)


def test_throughput_counts_every_worker():
    """All calls of all workers after the first of each, over no more than the time that the whole took."""
    calls, began = [], time.perf_counter()

    def run(batch):
        calls.append(1)
        time.sleep(0.005)

    found = windows_per_second(run, INPUTS, EnginePlan(workers=3, batch_size=4), 0.05)
    took = time.perf_counter() - began
    assert found * took >= 4 * (len(calls) - 3)
    assert found <= 3 * 4 / 0.005


def test_a_slow_network_runs_two_batches_for_each_worker_after_one_to_warm_up():
    calls = []
    windows_per_second(lambda batch: calls.append(len(batch)), INPUTS, EnginePlan(workers=2, batch_size=5), 0.0)
    assert set(calls) == {5}
    assert len(calls) >= 2 * 3


@pytest.mark.parametrize("n_good", [0, 1, 4])
def test_a_worker_that_fails_leaves_no_other_waiting(n_good):
    calls, lock = [], threading.Lock()

    def run(batch):
        with lock:
            calls.append(1)
            if len(calls) > n_good:
                raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        windows_per_second(run, INPUTS, EnginePlan(workers=3, batch_size=4), 0.01)


def test_what_is_compared_takes_turns_and_every_second_round_goes_backwards(monkeypatch):
    turns = []
    monkeypatch.setattr(home, "windows_per_second", lambda run, inputs, plan, seconds: turns.append(run) or len(turns))
    plan = EnginePlan()
    assert speeds_in_turns([("a", plan), ("b", plan)], INPUTS, 3, 0.1) == [[1, 2], [4, 3], [5, 6]]
    assert turns == ["a", "b", "b", "a", "a", "b"]


def test_each_graph_gets_the_median_of_its_own_rounds(tmp_path, monkeypatch):
    write_linear_graph(tmp_path / "a.onnx", 0)
    write_linear_graph(tmp_path / "b.onnx", 1)
    measured = iter([10.0, 1.0, 2.0, 900.0, 30.0, 3.0])
    monkeypatch.setattr(home, "windows_per_second", lambda run, inputs, plan, seconds: next(measured))
    graphs = [(tmp_path / "a.onnx", EnginePlan()), (tmp_path / "b.onnx", EnginePlan(workers=2))]
    inputs = np.zeros((3, 1, 32, 20), np.float32)
    assert compare_speed(graphs, ["logits"], inputs, rounds=3) == [30.0, 2.0]


def test_each_graph_runs_with_engine_workers_and_batch_of_its_plan(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine
    from birdinfer.inference.engines.openvino import OpenVinoEngine

    ran = []
    for engine in (OnnxRuntimeEngine, OpenVinoEngine):
        run = engine.run
        monkeypatch.setattr(
            engine, "run", lambda self, batch, run=run: ran.append((type(self), len(batch))) or run(self, batch)
        )
    write_linear_graph(tmp_path / "a.onnx", 0)
    plans = [EnginePlan(EngineSpec("onnxruntime"), 1, 2), EnginePlan(EngineSpec("openvino"), 2, 3)]
    inputs = np.zeros((4, 1, 32, 20), np.float32)
    speeds = compare_speed([(tmp_path / "a.onnx", plan) for plan in plans], ["logits"], inputs, rounds=1, seconds=0.01)
    assert len(speeds) == 2
    assert min(speeds) > 0
    assert set(ran) == {(OnnxRuntimeEngine, 2), (OpenVinoEngine, 3)}


def test_a_graph_that_lacks_an_output_is_named(tmp_path):
    write_linear_graph(tmp_path / "a.onnx", 0)
    with pytest.raises(BundleError, match="has no output 'frames'"):
        compare_speed([(tmp_path / "a.onnx", EnginePlan())], ["frames"], np.zeros((1, 1, 32, 20), np.float32))
