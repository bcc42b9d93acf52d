"""How fast graphs run on all lanes at once: windows [windows, ...] in, windows per second out.

Wall-clock times of a shared machine drift by tens of per cent within a minute. What is to be compared is therefore
measured in turns, in rounds, and each gets the median of its rounds.
"""

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.cores import one_thread_per_lane
from birdinfer.engines import EnginePlan, load_engine

Float32 = npt.NDArray[np.float32]
Run = Callable[[Float32], object]
"""Takes a batch [windows, ...]; what it answers is not looked at."""


def compare_speed(
    graphs: Sequence[tuple[Path, EnginePlan]],
    outputs: Sequence[str],
    heard: Float32,
    rounds: int = 5,
    seconds: float = 0.4,
) -> list[float]:
    """Measure graphs beside each other: all are loaded, and run in turns.

    Args:
        graphs: each ONNX file and how it is run; all take the same input.
        outputs: those wanted of each.
        heard: real windows [windows, ...] of that input, at least one.
        rounds: how often each has its turn.
        seconds: how long a turn lasts; two batches a lane at least.

    Returns:
        Windows per second of each, all its lanes together: the median of the rounds.

    Raises:
        BirdinferError: a graph cannot be loaded; see :func:`birdinfer.engines.load_engine`.
    """
    engines = [load_engine(plan, path, outputs, heard.shape[1:]) for path, plan in graphs]
    runs = [(engine.run, plan) for engine, (_, plan) in zip(engines, graphs, strict=True)]
    measured = speeds_in_turns(runs, heard, rounds, seconds)
    return [statistics.median(speeds) for speeds in zip(*measured, strict=True)]


def speeds_in_turns(
    runs: Sequence[tuple[Run, EnginePlan]], heard: Float32, rounds: int, seconds: float
) -> list[list[float]]:
    """Windows per second [rounds][runs]; every second round goes backwards, so that a steady drift cancels.

    Args:
        runs: what is measured, and on how many lanes, in which batches.
        heard: windows [windows, ...], at least one.
        rounds: how often each has its turn.
        seconds: how long a turn lasts; two batches a lane at least.

    Raises:
        Exception: what a run failed with.
    """
    measured = []
    with one_thread_per_lane():
        for index in range(rounds):
            order = list(range(len(runs)))[:: -1 if index % 2 else 1]
            speeds = {turn: windows_per_second(runs[turn][0], heard, runs[turn][1], seconds) for turn in order}
            measured.append([speeds[turn] for turn in range(len(runs))])
    return measured


def windows_per_second(run: Run, inputs: Float32, plan: EnginePlan, seconds: float) -> float:
    """Throughput of all lanes, each taking batch after batch for a moment, after one batch to warm up.

    Args:
        run: may be called by several threads at once.
        inputs: windows [windows, ...], at least one; repeated or cut to one batch.
        plan: how many lanes, and windows in a batch.
        seconds: how long; a slow network runs for two batches a lane at least.

    Raises:
        Exception: what the first lane failed with.
    """
    batch = np.ascontiguousarray(np.resize(inputs, (plan.batch_size, *inputs.shape[1:])))
    begin = threading.Barrier(plan.lanes + 1)
    stop = threading.Event()
    calls = [0] * plan.lanes
    ended = [0.0] * plan.lanes
    failures: list[Exception] = []

    def work(lane: int) -> None:
        try:
            run(batch)
            begin.wait()
            while not stop.is_set() or calls[lane] < 2:
                run(batch)
                calls[lane] += 1
            ended[lane] = time.perf_counter()
        except Exception as error:
            failures.append(error)
            begin.abort()  # nobody waits for a lane that is gone

    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in range(plan.lanes)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        begin.wait()
    began = time.perf_counter()
    if not failures:
        stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    # Each lane over its own time: a lane that ends its last batch late would else be counted as idle.
    return sum(n * plan.batch_size / (end - began) for n, end in zip(calls, ended, strict=True))
