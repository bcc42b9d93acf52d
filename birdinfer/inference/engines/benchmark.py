"""Measure the throughput of graphs on all workers: windows [windows, ...] in, windows per second out.

Wall-clock times of a shared machine drift by tens of per cent within a minute. Graphs that are to be compared are
therefore measured in turns, in rounds, and each gets the median of its rounds.
"""

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from birdinfer.inference.engines import EnginePlan, load_engine
from birdinfer.system.cpu import one_thread_per_worker
from birdinfer.typing import Float32

Run = Callable[[Float32], object]
"""Takes a batch [windows, ...]; its result is ignored."""


def compare_speed(
    graphs: Sequence[tuple[Path, EnginePlan]],
    outputs: Sequence[str],
    inputs: Float32,
    rounds: int = 5,
    seconds: float = 0.4,
) -> list[float]:
    """Compare the speed of graphs that are all loaded and run in turns.

    ``graphs``: each ONNX file and its plan; all take the same input.
    ``inputs``: real windows [windows, ...] of that input, at least one.
    ``seconds``: length of a turn; at least two batches for each worker.
    """
    engines = [load_engine(plan, path, outputs, inputs.shape[1:]) for path, plan in graphs]
    runs = [(engine.run, plan) for engine, (_, plan) in zip(engines, graphs, strict=True)]
    measured = speeds_in_turns(runs, inputs, rounds, seconds)
    return [statistics.median(speeds) for speeds in zip(*measured, strict=True)]


def speeds_in_turns(
    runs: Sequence[tuple[Run, EnginePlan]], inputs: Float32, rounds: int, seconds: float
) -> list[list[float]]:
    """Measure windows per second [rounds][runs]; every second round is in reverse, so that a steady drift cancels.

    ``seconds``: length of a turn; at least two batches for each worker.
    """
    measured = []
    with one_thread_per_worker():
        for index in range(rounds):
            order = list(range(len(runs)))[:: -1 if index % 2 else 1]
            speeds = {turn: windows_per_second(runs[turn][0], inputs, runs[turn][1], seconds) for turn in order}
            measured.append([speeds[turn] for turn in range(len(runs))])
    return measured


def windows_per_second(run: Run, inputs: Float32, plan: EnginePlan, seconds: float) -> float:
    """Measure the throughput of all workers, each running batch after batch, after one batch to warm up.

    ``run``: may be called by several threads at once.
    ``seconds``: for how long; at least two batches for each worker.
    """
    batch = np.ascontiguousarray(np.resize(inputs, (plan.batch_size, *inputs.shape[1:])))
    begin = threading.Barrier(plan.workers + 1)
    stop = threading.Event()
    calls = [0] * plan.workers
    took = [0.0] * plan.workers
    failures: list[Exception] = []

    def work(worker: int) -> None:
        try:
            run(batch)
            begin.wait()
            # Each worker's own clock: on a busy machine the thread that waits for them wakes later than they.
            began = time.perf_counter()
            while not stop.is_set() or calls[worker] < 2:
                run(batch)
                calls[worker] += 1
            took[worker] = time.perf_counter() - began
        except Exception as error:
            failures.append(error)
            begin.abort()  # the others must not wait for this worker

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(plan.workers)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        begin.wait()
    if not failures:
        stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    # Each worker over its own time: one that ends its last batch late would else be counted as idle.
    return sum(n * plan.batch_size / seconds for n, seconds in zip(calls, took, strict=True))
