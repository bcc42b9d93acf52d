"""What measuring the channels of a minute costs beside its prediction, and what choosing the loudest one costs."""

import time

import numpy as np
import pytest
import soundfile

from birdinfer import Bundle, Predictor
from birdinfer.audio.levels import LevelMeter
from birdinfer.audio.stream import AudioStream
from birdinfer.system.cpu import one_thread_per_worker

ROUNDS = 40
BLOCK_SECONDS = 10


def least_seconds(*works, rounds=ROUNDS):
    """The least of each, taken in turns, so that a busy machine is busy for all of them."""
    least = [float("inf")] * len(works)
    for _ in range(rounds):
        for index, work in enumerate(works):
            began = time.perf_counter()
            work()
            least[index] = min(least[index], time.perf_counter() - began)
    return least


@pytest.mark.timeout(600)
def test_levels_cost_less_than_a_fiftieth_of_the_run(b0, soundscapes, table, tmp_path):
    wave, rate = soundfile.read(soundscapes[0], dtype="float32")
    frames = np.stack([wave, wave[::-1]], 1)
    soundfile.write(tmp_path / "mono.wav", wave, rate)
    soundfile.write(tmp_path / "stereo.wav", frames, rate)

    def measure(frames):
        meter = LevelMeter()
        for begin in range(0, len(frames), BLOCK_SECONDS * rate):
            meter.add(frames[begin : begin + BLOCK_SECONDS * rate], rate, 2.0**-15)
        assert len(meter.levels()) == frames.shape[1]

    def choose():
        with AudioStream(tmp_path / "stereo.wav", rate, "loudest"):
            pass

    predictor = Predictor(Bundle.load(b0.folder))
    with one_thread_per_worker():
        (run,) = least_seconds(lambda: predictor.predict(tmp_path / "mono.wav"), rounds=3)
        mono, stereo, chosen = least_seconds(lambda: measure(wave[:, None]), lambda: measure(frames), choose)
    for what, seconds, bound in (
        ("levels of a minute, mono", mono, 0.02),
        ("levels of a minute, two channels", stereo, 0.02),
        ("choosing the loudest of two channels of a minute", chosen, 0.05),
    ):
        row = {"what": what, "measured": f"{100 * seconds / run:.2f} % of the run", "bound": f"< {bound:.0%}"}
        table.append(row | {"detail": f"{1_000 * seconds:.1f} of {1_000 * run:.0f} ms, efficientnet_b0 in fp32"})
        assert seconds / run < bound
