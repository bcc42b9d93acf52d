"""Reverb: a dry window float32 [samples] -> the same window in a hall, a canyon or a forest, as long and as loud.

The room is made up: its impulse response is Gaussian noise that decays exponentially, which is what late reverberation
is (Schroeder 1962, "Natural sounding artificial reverberation"; Moorer 1979, "About this reverberation business").
"""

import numpy as np
import numpy.typing as npt

from birdinfer.training.augment.level import is_sound, rms

Float32 = npt.NDArray[np.float32]


def impulse_response(n_samples: int, decay_seconds: float, sample_rate: int, rng: np.random.Generator) -> Float32:
    """A room's echo of a click, without the click itself.

    Args:
        n_samples: the longest echo that can be heard.
        decay_seconds: T60, the time in which the echo falls by 60 dB; what is fainter is left out.
        sample_rate: Hz.
        rng: decides.

    Returns:
        Float32 [samples], at most ``n_samples``; the first sample, the direct sound's, is 0.
    """
    n_heard = max(2, min(n_samples, round(decay_seconds * sample_rate)))
    decay = 10.0 ** (-3.0 * np.arange(n_heard) / (decay_seconds * sample_rate))
    response = rng.standard_normal(n_heard, np.float32) * decay.astype(np.float32)
    response[0] = 0.0
    return response


def reverberate(samples: Float32, response: Float32, wet: float) -> Float32:
    """Add the echo.

    Args:
        samples: the dry sound, float32 [samples].
        response: the room, as :func:`impulse_response` gives it.
        wet: the echo's share of the result's power, 0 to 1 (as far as echo and sound are not alike).

    Returns:
        Float32 of the same shape, with the same RMS; what sounds at sample t still begins there. Silence stays silence.
    """
    echo = _convolve(samples, response)
    dry_rms, echo_rms = rms(samples), rms(echo)
    if not (is_sound(dry_rms) and is_sound(echo_rms)):
        return samples
    mixed = samples * np.float32((1.0 - wet) ** 0.5) + echo * np.float32(wet**0.5 * dry_rms / echo_rms)
    mixed_rms = rms(mixed)
    return mixed * np.float32(dry_rms / mixed_rms) if is_sound(mixed_rms) else samples


def _convolve(samples: Float32, response: Float32) -> Float32:
    """``np.convolve(samples, response)[:len(samples)]`` by way of the spectrum; 20 times faster and more."""
    # A power of two that holds the whole echo, so that its end does not come round to the beginning.
    n_fft = 1 << (len(samples) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(samples, n_fft) * np.fft.rfft(response, n_fft)
    return np.fft.irfft(spectrum, n_fft)[: len(samples)].astype(np.float32)
