"""Noise: white and pink, float32 [samples], and how a sound and a noise are mixed at a ratio that is asked for."""

import numpy as np
import numpy.typing as npt

from birdinfer.training.augment.level import is_sound, rms

Float32 = npt.NDArray[np.float32]

_LOWEST_HZ = 20.0
"""Pink noise falls from here on. Without a limit half of its power would lie below 50 Hz, where no front end listens,
and the ratio that is asked for would be one to something unheard."""


def mix_at_snr(signal: Float32, noise: Float32, snr_db: float) -> Float32:
    """Add noise, scaled so that 20 log10(rms(signal) / rms(noise)) is ``snr_db``; both [samples], float32.

    Where one of them is silent (or a damaged file, see :mod:`level`) there is no ratio, and the signal stays as it is.
    """
    signal_rms, noise_rms = rms(signal), rms(noise)
    if not (is_sound(signal_rms) and is_sound(noise_rms)):
        return signal
    return signal + noise * np.float32(signal_rms / noise_rms * 10 ** (-snr_db / 20))


def white_noise(n_samples: int, rng: np.random.Generator) -> Float32:
    """Gaussian noise, as loud in every Hz; float32 [n_samples], RMS about 1."""
    return rng.standard_normal(n_samples, np.float32)


def pink_noise(n_samples: int, sample_rate: int, rng: np.random.Generator) -> Float32:
    """Gaussian noise whose power falls as 1/f, as loud in every octave; wind, rain and streams lie near it.

    Every frequency's real and imaginary part are drawn by themselves and scaled by the root of the power wanted there
    (Timmer & Koenig 1995, "On generating power law noise"); below 20 Hz the power is even, at 0 Hz there is none.

    Args:
        n_samples: how many, odd or even.
        sample_rate: Hz.
        rng: decides.

    Returns:
        Float32 [n_samples] without a mean; its level is of no meaning.
    """
    frequencies_hz = np.fft.rfftfreq(n_samples, 1 / sample_rate)
    amplitudes = np.maximum(frequencies_hz, _LOWEST_HZ) ** -0.5
    amplitudes[0] = 0.0
    parts = rng.standard_normal((2, len(amplitudes)))
    return np.fft.irfft(amplitudes * (parts[0] + 1j * parts[1]), n_samples).astype(np.float32) * np.float32(n_samples)
