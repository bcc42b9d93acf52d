"""One training window after another, where it is decoded: float32 [samples] -> the same shape, augmented.

The order is that of a sound's way to the microphone: the bird (stretch, pitch, roll), the place (reverb), the sounds
around (noise, background), and the recorder (gain).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from birdinfer.config import InputConfig
from birdinfer.training.augment.background import random_background
from birdinfer.training.augment.level import LOUDEST_RMS, is_sound, rms
from birdinfer.training.augment.vocoder import shift_pitch, stretch
from birdinfer.training.recipe.schema import AugmentConfig
from birdinfer.typing import Float32

# ---- Noise


_LOWEST_HZ = 20.0
"""Pink noise falls from here on. Without a limit half of its power would lie below 50 Hz, below the range of every
front end, and the signal-to-noise ratio would be relative to noise that no network gets."""


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


# ---- Reverb


def impulse_response(n_samples: int, decay_seconds: float, sample_rate: int, rng: np.random.Generator) -> Float32:
    """The echo of a click, without the click itself.

    Args:
        n_samples: the longest echo that fits.
        decay_seconds: T60, the time in which the echo falls by 60 dB; what is fainter is left out.
        sample_rate: Hz.
        rng: decides.

    Returns:
        Float32 [samples], at most ``n_samples``; the first sample, the direct sound's, is 0.
    """
    n_echo = max(2, min(n_samples, round(decay_seconds * sample_rate)))
    decay = 10.0 ** (-3.0 * np.arange(n_echo) / (decay_seconds * sample_rate))
    response = rng.standard_normal(n_echo, np.float32) * decay.astype(np.float32)
    response[0] = 0.0
    return response


def reverberate(samples: Float32, response: Float32, wet: float) -> Float32:
    """Add the echo.

    Args:
        samples: the dry sound, float32 [samples].
        response: the echo of a click, as :func:`impulse_response` gives it.
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


Rng = np.random.Generator
Step = Callable[[Float32, Rng], Float32]


class WaveformAugment:
    """What a recipe does to waveforms one by one; holds no chance of its own."""

    def __init__(self, config: AugmentConfig, input_config: InputConfig, background: Sequence[Path] = ()) -> None:
        self._config, self._input_config, self._background = config, input_config, tuple(background)
        self._steps: tuple[tuple[float, Step], ...] = (
            (config.stretch_probability, self._stretch),
            (config.pitch_probability, self._pitch),
            (config.roll_probability, self._roll),
            (config.reverb_probability, self._reverb),
            (config.white_noise_probability, self._white_noise),
            (config.pink_noise_probability, self._pink_noise),
            (config.background_probability if background else 0.0, self._mix_background),
            (config.gain_probability, self._gain),
        )

    def __call__(self, samples: Float32, rng: Rng) -> Float32:
        """Augment one window.

        Args:
            samples: one window with its margins, float32 [samples], finite.
            rng: decides; the same generator gives the same result.

        Returns:
            Float32 of the same shape, finite, never clipped, possibly beyond -1 to 1. A window louder than
            :data:`~birdinfer.training.augment.level.LOUDEST_RMS` stays as it is.
        """
        if not 0 < rms(samples) <= LOUDEST_RMS:
            return samples
        for probability, step in self._steps:
            if rng.random() < probability:
                samples = step(samples, rng)
        return samples

    def _stretch(self, samples: Float32, rng: Rng) -> Float32:
        return stretch(samples, rng.uniform(*self._config.stretch_rate), self._input_config.audio.sample_rate)

    def _pitch(self, samples: Float32, rng: Rng) -> Float32:
        most = self._config.pitch_semitones
        return shift_pitch(samples, rng.uniform(-most, most), self._input_config.audio.sample_rate)

    def _roll(self, samples: Float32, rng: Rng) -> Float32:
        return np.roll(samples, int(rng.integers(len(samples))))

    def _reverb(self, samples: Float32, rng: Rng) -> Float32:
        decay_seconds, wet = rng.uniform(*self._config.reverb_seconds), rng.uniform(*self._config.reverb_wet)
        response = impulse_response(len(samples), decay_seconds, self._input_config.audio.sample_rate, rng)
        return reverberate(samples, response, wet)

    def _white_noise(self, samples: Float32, rng: Rng) -> Float32:
        return mix_at_snr(samples, white_noise(len(samples), rng), rng.uniform(*self._config.noise_snr_db))

    def _pink_noise(self, samples: Float32, rng: Rng) -> Float32:
        noise = pink_noise(len(samples), self._input_config.audio.sample_rate, rng)
        return mix_at_snr(samples, noise, rng.uniform(*self._config.noise_snr_db))

    def _mix_background(self, samples: Float32, rng: Rng) -> Float32:
        noise = random_background(self._background, self._input_config, rng)
        return mix_at_snr(samples, noise, rng.uniform(*self._config.background_snr_db))

    def _gain(self, samples: Float32, rng: Rng) -> Float32:
        most = self._config.gain_db
        return samples * np.float32(10 ** (rng.uniform(-most, most) / 20))
