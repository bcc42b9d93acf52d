"""Many workers share one device: each gets the outputs of its own windows, and batches form while it is busy."""

import threading
import time

import numpy as np
import pytest

from birdinfer.inference.engines import GraphFacts
from birdinfer.inference.engines.cuda import SharedBatches


class Device:
    """Answers each window with its own number; counts who comes at once."""

    facts = GraphFacts("x", (None, 2), {"y": (None,)}, {})

    def __init__(self, fails_at=None):
        self.sizes, self.inside, self.fails_at = [], 0, fails_at

    def run(self, batch):
        self.inside += 1
        assert self.inside == 1, "a device takes one call at a time"
        time.sleep(0.0005)  # others may come meanwhile
        self.sizes.append(len(batch))
        self.inside -= 1
        if self.fails_at is not None and (batch == self.fails_at).any():
            raise RuntimeError("out of memory")
        return {"y": batch.sum(axis=1)}


def run_workers(shared, n_workers, n_calls, size):
    """Each worker runs windows of its own; returns the errors, by worker."""
    problems = {}

    def work(worker):
        try:
            for call in range(n_calls):
                windows = np.full((size, 2), 1000 * worker + call, np.float32)
                assert np.array_equal(shared.run(windows)["y"], windows.sum(axis=1))
        except BaseException as error:
            problems[worker] = error

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(n_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


@pytest.mark.parametrize(("n_workers", "size", "batch_size"), [(1, 3, 8), (8, 2, 8), (6, 5, 12), (4, 9, 6)])
def test_every_worker_gets_its_own_outputs(n_workers, size, batch_size):
    device = Device()
    assert not run_workers(SharedBatches(device, batch_size), n_workers, 20, size)
    assert sum(device.sizes) == n_workers * 20 * size
    assert max(device.sizes) <= max(batch_size, size)


def test_batches_form_while_the_device_is_busy():
    """The device holds its first call until all others wait: they are served by one batch."""
    n_workers, first_may_end = 8, threading.Event()

    class Held(Device):
        def run(self, batch):
            if not self.sizes:
                first_may_end.wait()
            return super().run(batch)

    device = Held()
    shared = SharedBatches(device, 16)
    threads = [threading.Thread(target=shared.run, args=(np.zeros((2, 2), np.float32),)) for _ in range(n_workers)]
    for thread in threads:
        thread.start()
    while len(shared._waiting) < n_workers - 1:
        time.sleep(0.001)
    first_may_end.set()
    for thread in threads:
        thread.join()
    assert device.sizes == [2, 14]


def test_an_error_reaches_the_worker_whose_windows_fail_and_no_other():
    device = Device(fails_at=3007)
    problems = run_workers(SharedBatches(device, 4), 5, 10, 2)
    assert list(problems) == [3]
    assert isinstance(problems[3], RuntimeError)
