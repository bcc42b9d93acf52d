import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from birdinfer.export.fold.measure import measure_kernel
from birdinfer.export.fold.spectrum import match_spectrum


def framed(taps, hop, first, n_frames, offsets=0.0):
    """Apply weights [channels, length] to frames of waveforms, with silence beyond their ends."""
    length = taps.shape[1]

    def run(waveforms):
        before = max(0, -first)
        padded = np.pad(waveforms, ((0, 0), (before, first + before + n_frames * hop + length)))
        begins = first + before + hop * np.arange(n_frames)
        return (padded[:, begins[:, None] + np.arange(length)] @ taps.T + offsets).astype(np.float32)

    return run


@settings(deadline=None, max_examples=15)
@given(
    hop=st.integers(3, 60), more=st.integers(0, 100), channels=st.integers(1, 6), first=st.integers(-40, 40),
    seed=st.integers(0, 100),
)  # fmt: skip
@example(hop=53, more=47, channels=1, first=-14, seed=0)
def test_measure_kernel_finds_the_weights(hop, more, channels, first, seed):
    length = hop + more
    taps = np.random.default_rng(seed).uniform(0.1, 1, (channels, length)) * 10
    n_frames = (4_000 - length) // hop
    found = measure_kernel(framed(taps, hop, first, n_frames, offsets=0.5), 4_000)
    assert (found.hop, found.first, found.n_frames) == (hop, first, n_frames)
    np.testing.assert_allclose(found.taps, taps, rtol=1e-4)
    np.testing.assert_allclose(found.offsets, 0.5)


@pytest.mark.parametrize(
    "run",
    [
        lambda waveforms: waveforms[:, : 4_000 // 40 * 40].reshape(len(waveforms), -1, 40)[:, ::-1],  # backwards
        lambda waveforms: np.cumsum(waveforms, axis=1)[:, ::40, None],
        lambda waveforms: np.abs(waveforms[:, ::40, None]),
        lambda waveforms: waveforms[:, ::40, None] * np.linspace(0, 1, 100)[None, :, None],
        lambda waveforms: waveforms[:, :40],
        lambda waveforms: np.zeros((len(waveforms), 100, 3), np.float32),
    ],
)
def test_measure_kernel_refuses_what_does_not_move_with_the_sound(run):
    assert measure_kernel(lambda waveforms: run(waveforms).astype(np.float32), 4_000) is None


@pytest.mark.parametrize("n_fft", [64, 100, 128])
@pytest.mark.parametrize("win_length", [64, 50])
def test_match_spectrum_of_a_window_within_the_transform(n_fft, win_length):
    lead = (n_fft - win_length) // 2
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
    rows = np.fft.rfft(np.eye(n_fft)[lead : lead + win_length] * hann[:, None], axis=1).T
    taps = np.concatenate([rows.real, -rows.imag])[:, 1:].astype(np.float32)  # an impulse does not find the first 0
    found = match_spectrum(taps, [len(rows)])
    assert len(found.window) == n_fft
    np.testing.assert_array_equal(found.bins[: len(rows)], np.arange(len(rows)))
    sound = np.random.default_rng(0).normal(size=n_fft)
    values = np.fft.rfft(found.window * sound)[found.bins]
    wanted = found.signs * np.where(found.is_imaginary, values.imag, values.real)
    np.testing.assert_allclose(taps @ sound[found.lead :][: win_length - 1], wanted, atol=1e-4)


def test_match_spectrum_refuses_other_weights():
    rng = np.random.default_rng(0)
    assert match_spectrum(rng.random((66, 64)).astype(np.float32), [33]) is None
    assert match_spectrum(rng.normal(size=(66, 64)).astype(np.float32), [33]) is None
    assert match_spectrum(np.ones((4, 64), np.float32), [33]) is None
