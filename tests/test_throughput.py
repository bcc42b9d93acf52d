"""Throughput counts every lane, and what is compared is measured in turns."""

import threading
import time

import numpy as np
import pytest
from making import write_linear_graph

from birdinfer import throughput as room
from birdinfer.engines import EnginePlan, EngineSpec
from birdinfer.errors import BundleError
from birdinfer.throughput import compare_speed, speeds_in_turns, windows_per_second

INPUTS = np.zeros((2, 1), np.float32)


def waiting(seconds):
    return lambda batch: time.sleep(seconds)


def test_throughput_counts_every_lane():
    """Lanes that wait need no core of their own; half of what three lanes could do leaves room for a busy machine."""
    one = windows_per_second(waiting(0.02), INPUTS, EnginePlan(lanes=1, batch_size=4), 0.1)
    three = windows_per_second(waiting(0.02), INPUTS, EnginePlan(lanes=3, batch_size=4), 0.1)
    assert one < 4 / 0.02
    assert three > 1.5 * one


def test_a_slow_network_runs_two_batches_a_lane_after_one_to_warm_up():
    calls = []
    windows_per_second(lambda batch: calls.append(len(batch)), INPUTS, EnginePlan(lanes=2, batch_size=5), 0.0)
    assert set(calls) == {5}
    assert len(calls) >= 2 * 3


@pytest.mark.timeout(30)
@pytest.mark.parametrize("n_good", [0, 1, 4])
def test_a_lane_that_fails_leaves_no_other_waiting(n_good):
    calls, lock = [], threading.Lock()

    def run(batch):
        with lock:
            calls.append(1)
            if len(calls) > n_good:
                raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        windows_per_second(run, INPUTS, EnginePlan(lanes=3, batch_size=4), 0.01)


def test_what_is_compared_takes_turns_and_every_second_round_goes_backwards(monkeypatch):
    turns = []
    monkeypatch.setattr(room, "windows_per_second", lambda run, heard, plan, seconds: turns.append(run) or len(turns))
    plan = EnginePlan()
    assert speeds_in_turns([("a", plan), ("b", plan)], INPUTS, 3, 0.1) == [[1, 2], [4, 3], [5, 6]]
    assert turns == ["a", "b", "b", "a", "a", "b"]


def test_each_graph_gets_the_median_of_its_own_rounds(tmp_path, monkeypatch):
    write_linear_graph(tmp_path / "a.onnx", 0)
    write_linear_graph(tmp_path / "b.onnx", 1)
    told = iter([10.0, 1.0, 2.0, 900.0, 30.0, 3.0])
    monkeypatch.setattr(room, "windows_per_second", lambda run, heard, plan, seconds: next(told))
    graphs = [(tmp_path / "a.onnx", EnginePlan()), (tmp_path / "b.onnx", EnginePlan(lanes=2))]
    heard = np.zeros((3, 1, 32, 20), np.float32)
    assert compare_speed(graphs, ["logits"], heard, rounds=3) == [30.0, 2.0]


def test_each_graph_runs_in_the_engine_on_the_lanes_and_in_the_batches_of_its_plan(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    from birdinfer.engines.onnxruntime import OnnxRuntimeEngine
    from birdinfer.engines.openvino import OpenVinoEngine

    ran = []
    for engine in (OnnxRuntimeEngine, OpenVinoEngine):
        run = engine.run
        monkeypatch.setattr(
            engine, "run", lambda self, batch, run=run: ran.append((type(self), len(batch))) or run(self, batch)
        )
    write_linear_graph(tmp_path / "a.onnx", 0)
    plans = [EnginePlan(EngineSpec("onnxruntime"), 1, 2), EnginePlan(EngineSpec("openvino"), 2, 3)]
    heard = np.zeros((4, 1, 32, 20), np.float32)
    speeds = compare_speed([(tmp_path / "a.onnx", plan) for plan in plans], ["logits"], heard, rounds=1, seconds=0.01)
    assert len(speeds) == 2
    assert min(speeds) > 0
    assert set(ran) == {(OnnxRuntimeEngine, 2), (OpenVinoEngine, 3)}


def test_a_graph_that_lacks_an_output_is_named(tmp_path):
    write_linear_graph(tmp_path / "a.onnx", 0)
    with pytest.raises(BundleError, match="has no output 'frames'"):
        compare_speed([(tmp_path / "a.onnx", EnginePlan())], ["frames"], np.zeros((1, 1, 32, 20), np.float32))
