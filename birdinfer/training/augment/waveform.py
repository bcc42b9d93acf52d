"""One training window after another, where it is decoded: float32 [samples] -> the same shape, augmented.

The order is that of a sound's way to the microphone: the bird (stretch, pitch, roll), the place (reverb), what else is
heard there (noise, background), and the recorder (gain).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.config import Hearing
from birdinfer.training.augment.background import random_background
from birdinfer.training.augment.level import LOUDEST_RMS, rms
from birdinfer.training.augment.noise import mix_at_snr, pink_noise, white_noise
from birdinfer.training.augment.reverb import impulse_response, reverberate
from birdinfer.training.augment.vocoder import shift_pitch, stretch
from birdinfer.training.recipe.augment import AugmentConfig

Float32 = npt.NDArray[np.float32]
Rng = np.random.Generator
Step = Callable[[Float32, Rng], Float32]


class WaveformAugment:
    """What a recipe does to waveforms one by one; holds no chance of its own."""

    def __init__(self, config: AugmentConfig, hearing: Hearing, background: Sequence[Path] = ()) -> None:
        """Keep the settings; ``background`` are the files of :func:`find_background`."""
        self._config, self._hearing, self._background = config, hearing, tuple(background)
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
        return stretch(samples, rng.uniform(*self._config.stretch_rate), self._hearing.audio.sample_rate)

    def _pitch(self, samples: Float32, rng: Rng) -> Float32:
        most = self._config.pitch_semitones
        return shift_pitch(samples, rng.uniform(-most, most), self._hearing.audio.sample_rate)

    def _roll(self, samples: Float32, rng: Rng) -> Float32:
        return np.roll(samples, int(rng.integers(len(samples))))

    def _reverb(self, samples: Float32, rng: Rng) -> Float32:
        decay_seconds, wet = rng.uniform(*self._config.reverb_seconds), rng.uniform(*self._config.reverb_wet)
        response = impulse_response(len(samples), decay_seconds, self._hearing.audio.sample_rate, rng)
        return reverberate(samples, response, wet)

    def _white_noise(self, samples: Float32, rng: Rng) -> Float32:
        return mix_at_snr(samples, white_noise(len(samples), rng), rng.uniform(*self._config.noise_snr_db))

    def _pink_noise(self, samples: Float32, rng: Rng) -> Float32:
        noise = pink_noise(len(samples), self._hearing.audio.sample_rate, rng)
        return mix_at_snr(samples, noise, rng.uniform(*self._config.noise_snr_db))

    def _mix_background(self, samples: Float32, rng: Rng) -> Float32:
        noise = random_background(self._background, self._hearing, rng)
        return mix_at_snr(samples, noise, rng.uniform(*self._config.background_snr_db))

    def _gain(self, samples: Float32, rng: Rng) -> Float32:
        most = self._config.gain_db
        return samples * np.float32(10 ** (rng.uniform(-most, most) / 20))
