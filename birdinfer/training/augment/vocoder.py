"""Phase vocoder: a window float32 [samples] -> faster or slower at its pitch, or higher or lower at its speed.

The sound is cut into frames with one hop and overlap-added with another (Flanagan & Golden 1966, "Phase vocoder"). So
that neighbouring frames join without a jump, each bin's phase is turned: by how far it would have run since the frame
before if that one stood ``hop`` samples earlier in the sound itself. That is measured, with a second spectrum ``hop``
samples before each frame, instead of unwrapped (Puckette 1995, "Phase-locked vocoder"); at rate 1 the two spectra are
one and nothing turns. The bins about a peak are turned together with it (identity phase locking, Laroche & Dolson 1999,
"Improved phase vocoder time-scale modification of audio"), so that a peak keeps its shape.

Beyond its ends a window is taken to be reflected, as everywhere in birdinfer.
"""

import math

import numpy as np
import soxr

from birdinfer.typing import Bool, Complex, Float32, Index

_FRAME_SECONDS = 0.032
"""About: a power of two of samples. Syllables of birds last as long and longer, partials lie 100 Hz apart and more."""
_FRAMES_PER_SAMPLE = 4
"""Frames that overlap everywhere: with a Hann window before and after, fewer leave a ripple."""
_FAINTEST = 1e-30
"""Product of two spectra, -300 dB: below it there is no phase, and float32 is about to lose its digits."""
_SPARE_SAMPLES = 256
"""What the resampler takes for silence beyond its input's ends must not enter the window."""


def stretch(samples: Float32, rate: float, sample_rate: int) -> Float32:
    """Play faster or slower at the same pitch, about the window's middle.

    Args:
        samples: float32 [samples].
        rate: > 0; at 1.1 a song takes 1 / 1.1 of its time.
        sample_rate: Hz.

    Returns:
        Float32 of the same shape: the middle of a slower sound, or a faster one that is reflected beyond its ends.
    """
    middle = (len(samples) - 1) / 2
    return _play(samples, middle * (1 - rate), rate, len(samples), sample_rate)


def shift_pitch(samples: Float32, semitones: float, sample_rate: int) -> Float32:
    """Raise or lower every frequency by a factor of 2^(semitones / 12), at the same speed: stretched, then resampled.

    Args:
        samples: float32 [samples].
        semitones: 12 are an octave up. What would lie above half the sample rate is lost.
        sample_rate: Hz.

    Returns:
        Float32 of the same shape.
    """
    factor = 2.0 ** (semitones / 12)
    n_longer = math.ceil((len(samples) + 2 * _SPARE_SAMPLES) * factor)
    longer = _play(samples, -_SPARE_SAMPLES, 1 / factor, n_longer, sample_rate)
    shifted: Float32 = soxr.resample(longer, sample_rate * factor, sample_rate)
    return shifted[_SPARE_SAMPLES : _SPARE_SAMPLES + len(samples)]


def _play(samples: Float32, begin: float, rate: float, n_samples: int, sample_rate: int) -> Float32:
    """``n_samples`` of output, whose sample t sounds as the input does at ``begin + t * rate``."""
    n_fft = 1 << round(math.log2(_FRAME_SECONDS * sample_rate))
    hop = n_fft // _FRAMES_PER_SAMPLE
    n_frames = -(-n_samples // hop) + 1
    centres = np.rint(begin + rate * hop * np.arange(n_frames)).astype(np.intp)
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    now, before = _spectra(samples, centres, hop, window)
    turned = now * _turns(now, before)
    frames = np.fft.irfft(turned, n_fft, axis=1).astype(np.float32) * window
    return _overlap_add(frames, window, hop)[n_fft // 2 : n_fft // 2 + n_samples]


def _spectra(samples: Float32, centres: Index, hop: int, window: Float32) -> tuple[Complex, Complex]:
    """Spectra [frames, bins] of the frames about ``centres``, and of those ``hop`` samples before each of them."""
    half = len(window) // 2
    before = max(0, half + hop - int(centres[0]))
    after = max(0, int(centres[-1]) + half - len(samples))
    padded = np.pad(samples, (before, after), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))
    begins = centres + before - half
    return np.fft.rfft(frames[begins] * window, axis=1), np.fft.rfft(frames[begins - hop] * window, axis=1)


def _turns(now: Complex, before: Complex) -> Complex:
    """How far each bin is turned, as complex numbers of magnitude 1, [frames, bins].

    The frame before ended at the phase of ``now[u - 1]``, turned; this one would have been at that of ``before[u]``.
    """
    products = now[:-1] * before[1:].conj()
    size = np.abs(products)
    has_phase = size > _FAINTEST
    steps = np.where(has_phase, products, 1) / np.where(has_phase, size, 1)
    peaks = _nearest_peaks(now)
    turns = np.ones_like(now)
    # Frame by frame: a peak that has moved continues the turn of whichever peak was near it before.
    for frame in range(1, len(turns)):
        turns[frame] = (turns[frame - 1] * steps[frame - 1])[peaks[frame]]
    return turns


def _nearest_peaks(now: Complex) -> Index:
    """The bin of the spectral peak nearest to each bin, [frames, bins]; a peak is above two bins on either side."""
    power = np.square(now.real) + np.square(now.imag)
    edged = np.pad(power, ((0, 0), (2, 2)), constant_values=-1.0)
    is_peak = np.ones(power.shape, np.bool_)
    for shift in (0, 1, 3, 4):
        is_peak &= power >= edged[:, shift : shift + power.shape[1]]
    return _nearest(is_peak)


def _nearest(is_peak: Bool) -> Index:
    """For each bin the index of the nearest true one in its frame, [frames, bins]; a frame's maximum always is one."""
    n_bins = is_peak.shape[1]
    # As one long row: a peak's region ends half-way to the next one, or with its frame.
    frame, peak = np.divmod(np.flatnonzero(is_peak), n_bins)
    half_way = frame[:-1] * n_bins + (peak[:-1] + peak[1:]) // 2 + 1
    ends = np.where(frame[1:] == frame[:-1], half_way, frame[1:] * n_bins)
    return np.repeat(peak, np.diff(ends, prepend=0, append=is_peak.size)).reshape(is_peak.shape)


def _overlap_add(frames: Float32, window: Float32, hop: int) -> Float32:
    n_frames, n_overlapping = len(frames), len(window) // hop
    total = np.zeros((n_frames + n_overlapping - 1, hop), np.float32)
    weight = np.zeros_like(total)
    for part in range(n_overlapping):
        own = slice(part * hop, (part + 1) * hop)
        total[part : part + n_frames] += frames[:, own]
        weight[part : part + n_frames] += np.square(window[own])
    # Where only a window's edge reaches there is nothing to divide by; those samples are cut off.
    total /= np.maximum(weight, np.float32(1e-3))
    return total.ravel()
