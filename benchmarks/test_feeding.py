"""Does sound come as fast as a device can take it? A device that is several times as fast as this machine's network.

The device is a stand-in: a call takes as long as the windows of a whole batch would, and no core. What a core does
beside it, decoding and front end, is real.
"""

import statistics
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from birdinfer import Bundle, Predictor, predict_soundscapes
from birdinfer.inference.engines.cuda import SharedBatches
from birdinfer.inference.predictor import GPU_BATCH_SIZE, make_plan
from birdinfer.system.cpu import available_cores, one_thread_per_worker

ROUNDS = 3
TIMES_AS_FAST = 4
MINUTES = 48


class Device:
    """Answers a constant, one call at a time, each of a whole batch."""

    def __init__(self, facts, outputs, seconds_per_window):
        self.facts, self._outputs, self.n_calls = facts, outputs, 0
        self._seconds, self._lock = seconds_per_window * GPU_BATCH_SIZE, threading.Lock()

    def run(self, batch):
        """Take as long as full batches would."""
        n_calls = -(-len(batch) // GPU_BATCH_SIZE)
        with self._lock:
            time.sleep(n_calls * self._seconds)
            self.n_calls += n_calls
        return {name: np.repeat(output, len(batch), 0) for name, output in self._outputs.items()}


def network_rate(predictor, path):
    """Windows a second of the network alone, on all cores."""
    (batch, *_) = predictor.open(path).batches()
    (group,) = predictor.member_groups
    inputs = group.make_input(batch)

    def work():
        for _ in range(10):
            group.score(0, inputs)

    with one_thread_per_worker():
        group.score(0, inputs)
        threads = [threading.Thread(target=work) for _ in range(available_cores())]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return len(threads) * 10 * len(inputs) / (time.perf_counter() - began)


def on_device(bundle, path, rate):
    """A predictor as on a GPU, whose device computes so many windows a second."""
    plan = make_plan("onnxruntime", 2 * available_cores(), GPU_BATCH_SIZE)
    predictor = Predictor(bundle, plan)
    (group,) = predictor.member_groups
    (loaded,) = group.members
    (batch, *_) = predictor.open(path).batches()
    outputs = loaded.graph.engine.run(group.make_input(batch)[:1])
    device = Device(loaded.graph.facts, outputs, 1 / rate)
    graph = loaded.graph._replace(engine=SharedBatches(device, GPU_BATCH_SIZE))
    predictor.member_groups = (replace(group, members=(replace(loaded, graph=graph),)),)
    predictor.call_windows = GPU_BATCH_SIZE
    return predictor, device


@pytest.mark.parametrize("ending", ["ogg", "flac", "wav"])
def test_a_fast_device_is_kept_busy(ending, b0, soundscapes, table, tmp_path):
    bundle = Bundle.load(b0.folder)
    for index in range(MINUTES):
        source = soundscapes[index % min(8, len(soundscapes))]
        path = tmp_path / f"{index:02d}.{ending}"
        if ending == "ogg":
            path.symlink_to(source)
        else:
            soundfile.write(path, *soundfile.read(source, dtype="int16"))
    paths = sorted(tmp_path.iterdir())
    rate = TIMES_AS_FAST * network_rate(Predictor(bundle, make_plan("onnxruntime", available_cores())), paths[0])
    predictor, device = on_device(bundle, paths[0], rate)
    fed, busy = [], []
    for _ in range(ROUNDS):
        before, began, device.n_calls = time.process_time(), time.perf_counter(), 0
        n_windows = sum(result.n_rows for result in predict_soundscapes(predictor, paths))
        wall = time.perf_counter() - began
        fed.append(n_windows / wall / rate)
        busy.append((time.process_time() - before) / wall / available_cores())
    table.append(
        {
            "what": f"windows of {ending} a second against a device {TIMES_AS_FAST} times as fast as b0 here",
            "measured": f"{statistics.median(fed):.2f} ({min(fed):.2f} to {max(fed):.2f})",
            "bound": ">= 0.90, or all cores decode",
            "detail": f"the device takes {rate:.0f} windows a second; cores busy {statistics.median(busy):.2f}, "
            f"{n_windows / device.n_calls:.0f} windows in each call of {GPU_BATCH_SIZE}",
        }
    )
    assert statistics.median(fed) >= 0.9 or statistics.median(busy) >= 0.95
