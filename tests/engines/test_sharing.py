"""Many lanes before one device: everyone gets the answers to its own windows, and batches form while it is busy."""

import threading
import time

import numpy as np
import pytest

from birdinfer.engines import GraphFacts
from birdinfer.engines.sharing import SharedBatches


class Device:
    """Answers each window with its own number; counts who comes at once."""

    facts = GraphFacts("x", (None, 2), {"y": (None,)}, {})

    def __init__(self, fails_at=None):
        self.sizes, self.inside, self.fails_at = [], 0, fails_at

    def run(self, batch):
        self.inside += 1
        assert self.inside == 1, "a device takes one call at a time"
        time.sleep(0.002)
        self.sizes.append(len(batch))
        self.inside -= 1
        if self.fails_at is not None and (batch == self.fails_at).any():
            raise RuntimeError("out of memory")
        return {"y": batch.sum(axis=1)}


def run_lanes(shared, n_lanes, n_calls, size):
    """Each lane asks for windows of its own; returns what went wrong, by lane."""
    problems = {}

    def work(lane):
        try:
            for call in range(n_calls):
                windows = np.full((size, 2), 1000 * lane + call, np.float32)
                assert np.array_equal(shared.run(windows)["y"], windows.sum(axis=1))
        except BaseException as error:
            problems[lane] = error

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(n_lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    return problems


@pytest.mark.parametrize(("n_lanes", "size", "batch_size"), [(1, 3, 8), (8, 2, 8), (6, 5, 12), (4, 9, 6)])
def test_every_lane_gets_its_own_answers(n_lanes, size, batch_size):
    device = Device()
    assert not run_lanes(SharedBatches(device, batch_size), n_lanes, 20, size)
    assert sum(device.sizes) == n_lanes * 20 * size
    assert max(device.sizes) <= max(batch_size, size)


def test_batches_form_while_the_device_is_busy():
    device = Device()
    run_lanes(SharedBatches(device, 16), 8, 20, 2)
    assert np.mean(device.sizes) > 6
    assert len(device.sizes) < 8 * 20 / 2


def test_an_error_reaches_those_whose_windows_were_in_the_batch_and_nobody_waits_for_ever():
    device = Device(fails_at=3007)
    problems = run_lanes(SharedBatches(device, 4), 5, 10, 2)
    assert 3 in problems
    assert all(isinstance(error, RuntimeError) for error in problems.values())
