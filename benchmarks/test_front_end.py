"""What a minute of sound costs in THE front end on one core: compiled, in numpy, and librosa window by window."""

import time

import numpy as np
import pytest
import soundfile

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.features import kernels
from birdinfer.features import log_mel as mel
from birdinfer.system.cpu import one_thread_per_worker

ROUNDS = 15
N_WINDOWS = 12

SETTINGS = {
    "1024/128": (FrontEndConfig(mel=MelConfig(n_fft=1024, n_mels=128)), 0.3),
    "2048/256": (FrontEndConfig(mel=MelConfig(n_fft=2048, n_mels=256, f_min_hz=0.0, f_max_hz=16_000.0)), 0.25),
}
"""n_fft and mels: the settings, and the largest share of numpy's rfft of the same frames where the kernel is built."""


@pytest.fixture(scope="module")
def minute(soundscapes):
    """A minute of a soundscape with margins, repeated if it is shorter."""
    wave, rate = soundfile.read(soundscapes[0], dtype="float32", always_2d=True)
    assert rate == 32_000
    return np.resize(wave[:, 0], 60 * rate + 4_096)


def least_ms(*works):
    """The least milliseconds of each, taken in turns, so that a busy machine is busy for all of them."""
    times = [[] for _ in works]
    with one_thread_per_worker():
        for _ in range(ROUNDS):
            for work, spent in zip(works, times, strict=True):
                began = time.perf_counter()
                work()
                spent.append(1e3 * (time.perf_counter() - began))
    return [min(spent) for spent in times]


def librosa_windows(minute, config):
    """What notebooks do: librosa, one window after the other, z-score."""
    librosa = pytest.importorskip("librosa")
    settings, rate = config.mel, config.audio.sample_rate
    for begin in range(0, N_WINDOWS * config.window_samples, config.window_samples):
        power = librosa.feature.melspectrogram(
            y=minute[begin : begin + config.window_samples + settings.n_fft], sr=rate, n_fft=settings.n_fft,
            hop_length=settings.hop_length, n_mels=settings.n_mels, fmin=settings.f_min_hz, fmax=settings.f_max_hz,
            center=False,
        )  # fmt: skip
        decibels = librosa.power_to_db(power)
        decibels = (decibels - decibels.mean()) / decibels.std()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_minute(name, minute, table, monkeypatch):
    config, bound = SETTINGS[name]
    samples = minute[: N_WINDOWS * config.window_samples + config.mel.n_fft]

    def front_end():
        return mel.windows_to_input(samples, N_WINDOWS, config)

    def in_numpy():
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "library", lambda: None)
            return mel.windows_to_input(samples, N_WINDOWS, config)

    np.testing.assert_allclose(front_end(), in_numpy(), atol=1e-3)
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.mel.n_fft)[:: config.mel.hop_length].copy()
    ours, numpys, librosas, transforms = least_ms(
        front_end, in_numpy, lambda: librosa_windows(minute, config), lambda: np.fft.rfft(frames)
    )
    compiled = mel.front_end_name() == "compiled"
    table.append(
        {
            "what": f"front end, {name} mels, a minute on one core",
            "measured": f"{ours / transforms:.2f} of numpy's rfft alone ({mel.front_end_name()})",
            "bound": f"<= {bound:g}" if compiled else "none without the kernel",
            "detail": f"{ours:.1f} ms, rfft {transforms:.1f}; numpy's front end {numpys:.1f} ms; "
            f"librosa window by window {librosas:.1f} ms, {librosas / ours:.1f} x",
        }
    )
    assert librosas > numpys
    assert not compiled or ours <= bound * transforms
