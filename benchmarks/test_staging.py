"""An archive in a store whose streams are slow: how busy its core is kept while sound is fetched ahead."""

import time

import fake_store
import numpy as np
import pytest
import soundfile

from birdinfer.callbacks import Callback
from birdinfer.inference.bundle import Bundle
from birdinfer.scale.places import Place
from birdinfer.scale.plan import PlanSettings, make_plan_at
from birdinfer.scale.unit import Worker

N_FILES, SECONDS, RATE = 32, 300, 32_000
SMOKE = {"N_FILES": 3, "SECONDS": 20}
STREAM_BYTES = 20_000_000  # a second
LEAST_BUSY = 0.9


@pytest.mark.slow
def test_a_store_of_slow_streams_keeps_a_core_busy(b0, table, tmp_path, monkeypatch):
    if reason := fake_store.why_not():
        pytest.skip(reason)
    folder = tmp_path / "archive"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(N_FILES):  # noise: FLAC cannot make it smaller
        samples = noise.normal(0, 0.1, SECONDS * RATE).astype(np.float32)
        soundfile.write(folder / f"{number:02}.flac", samples, RATE, subtype="PCM_16")
    with fake_store.fake_store(bytes_a_second=STREAM_BYTES) as store:
        for name, value in store.items():
            monkeypatch.setenv(name, value)
        archive, plan = (f"s3://{fake_store.BUCKET}/{name}" for name in ("archive", "plan"))
        Place(archive).files.put(f"{folder}/", f"{archive}/", recursive=True)
        settings = PlanSettings(engine="onnxruntime", unit_seconds=5.0)
        opened = make_plan_at(plan, [archive], Bundle.load(b0.folder), settings, Callback())
        with Worker(plan) as worker:
            began, began_core = time.perf_counter(), time.process_time()
            outcomes = list(worker.run(range(opened.plan.n_units)))
            wall, core = time.perf_counter() - began, time.process_time() - began_core
    markers = [marker for _, marker in outcomes if marker is not None]
    assert len(markers) == len(outcomes)
    assert len([file for marker in markers for file in marker.files]) == N_FILES
    assert all(marker.n_problems == 0 for marker in markers)
    rate = opened.plan.n_bytes / wall / 1e6
    table.append(
        {
            "what": f"an archive in a store of {STREAM_BYTES / 1e6:.0f} MB/s a stream, one efficientnet_b0 on one core",
            "measured": f"busy {core / wall:.1%}",
            "bound": f">= {LEAST_BUSY:.0%}",
            "detail": f"{opened.plan.n_units} units, {wall:.0f} s, {rate:.0f} MB/s fetched",
        }
    )
    assert core / wall >= LEAST_BUSY
