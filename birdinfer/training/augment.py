"""Augmentation: what is done to training windows, and to nothing else.

Waveforms (float32 [samples], or [clips, samples] where two are mixed) and spectrograms (normalised log-mel
[clips, 1, n_mels, frames]) keep their shape. Random numbers come from generators made of (seed, epoch, index), never
from global state: a window is augmented alike whichever process decodes it, and alike after a resume.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.audio import AUDIO_SUFFIXES, probe
from birdinfer.config import FrontEndConfig
from birdinfer.errors import AudioError, ConfigError
from birdinfer.training.recipe_augment import AugmentConfig
from birdinfer.windows import read_window

Float32 = npt.NDArray[np.float32]
Rng = np.random.Generator

_SILENCE_RMS = 1e-7
"""-140 dB: nothing to measure a signal-to-noise ratio by."""


def find_background(folder: str, data_dir: Path) -> tuple[Path, ...]:
    """The sound files to mix in, sorted; none if ``folder`` is "".

    Args:
        folder: ``augment.background_dir``, relative to the working folder or else to ``data_dir``.
        data_dir: the data's folder.

    Raises:
        ConfigError: there is no such folder, or no sound in it.
    """
    if not folder:
        return ()
    found = next((place for place in (Path(folder), data_dir / folder) if place.is_dir()), None)
    if found is None:
        raise ConfigError(
            "augment.background_dir",
            f"{folder!r} is no folder, neither here nor in {data_dir}",
            'name one with --set augment.background_dir=DIR, or "" for no background',
        )
    files = tuple(path for path in sorted(found.rglob("*")) if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ConfigError("augment.background_dir", f"{found} holds no sound files")
    return files


class WaveformAugment:
    """Gain, roll and background for one window at a time."""

    def __init__(self, config: AugmentConfig, frontend: FrontEndConfig, background: Sequence[Path] = ()) -> None:
        """Keep the settings; ``background`` are the files of :func:`find_background`."""
        self._config = config
        self._frontend = frontend
        self._background = tuple(background)

    def __call__(self, samples: Float32, rng: Rng) -> Float32:
        """Augment one window with its margins, float32 [samples]; the same generator gives the same result."""
        config = self._config
        if rng.random() < config.roll_probability:
            samples = np.roll(samples, int(rng.integers(len(samples))))
        if self._background and rng.random() < config.background_probability:
            samples = mix_at_snr(samples, self._noise(rng), rng.uniform(*config.background_snr_db))
        if rng.random() < config.gain_probability:
            samples = samples * np.float32(10 ** (rng.uniform(-config.gain_db, config.gain_db) / 20))
        return samples

    def _noise(self, rng: Rng) -> Float32:
        """A random window of a random background file; silence where it cannot be decoded."""
        path = self._background[int(rng.integers(len(self._background)))]
        place = rng.random()
        try:
            spare_seconds = max(0.0, probe(path).duration_seconds - self._frontend.window.window_seconds)
            return read_window(path, place * spare_seconds, self._frontend)
        except AudioError:
            return np.zeros(self._frontend.window_samples + 2 * self._frontend.margin_samples, np.float32)


def mix_at_snr(signal: Float32, noise: Float32, snr_db: float) -> Float32:
    """Add noise, scaled so that 20 log10(rms(signal) / rms(noise)) is ``snr_db``; both [samples], float32.

    Where one of them is silent there is no ratio, and the signal stays as it is.
    """
    signal_rms, noise_rms = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) for x in (signal, noise))
    if min(signal_rms, noise_rms) < _SILENCE_RMS:
        return signal
    return signal + noise * np.float32(signal_rms / noise_rms * 10 ** (-snr_db / 20))


def mix_up(
    waveforms: torch.Tensor, targets: torch.Tensor, config: AugmentConfig, rng: Rng
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixup (Zhang 2017) on waveforms: some clips are mixed with another of the batch.

    Args:
        waveforms: [clips, samples].
        targets: [clips, labels], 0 to 1.
        config: how often, Beta's alpha, and whether labels take the maximum or are mixed.
        rng: decides.

    Returns:
        Waveforms and targets of the same shapes.
    """
    n_clips = len(waveforms)
    second = rng.beta(config.mixup_alpha, config.mixup_alpha, n_clips) * (
        rng.random(n_clips) < config.mixup_probability
    )
    partner = torch.from_numpy(rng.permutation(n_clips)).to(waveforms.device)
    share = torch.from_numpy(second.astype(np.float32)).to(waveforms.device)[:, None]
    mixed = waveforms * (1 - share) + waveforms[partner] * share
    if config.mixup_labels == "mixed":
        return mixed, targets * (1 - share) + targets[partner] * share
    return mixed, torch.where(share > 0, torch.maximum(targets, targets[partner]), targets)


def mask(spectrograms: torch.Tensor, config: AugmentConfig, rng: Rng) -> torch.Tensor:
    """SpecAugment (Park 2019): hide bands and stretches of time behind the spectrogram's own mean.

    Args:
        spectrograms: [clips, 1, n_mels, frames].
        config: how many masks and how wide.
        rng: decides.

    Returns:
        The same shape.
    """
    n_clips, _, n_mels, n_frames = spectrograms.shape
    chosen = rng.random(n_clips) < config.mask_probability
    in_time = _hidden(n_clips, n_frames, config.time_masks, config.time_mask_share, rng)
    in_frequency = _hidden(n_clips, n_mels, config.frequency_masks, config.frequency_mask_share, rng)
    hidden = (in_frequency[:, :, None] | in_time[:, None, :]) & chosen[:, None, None]
    mean = spectrograms.mean(dim=(2, 3), keepdim=True)
    return torch.where(torch.from_numpy(hidden[:, None]).to(spectrograms.device), mean, spectrograms)


def _hidden(n_clips: int, length: int, n_masks: int, widest_share: float, rng: Rng) -> npt.NDArray[np.bool_]:
    """Which of ``length`` places are masked, [clips, length]: ``n_masks`` intervals of 0 to the widest each."""
    width = rng.uniform(0, widest_share * length, (n_clips, n_masks, 1))
    begin = rng.uniform(0, 1, (n_clips, n_masks, 1)) * (length - width)
    place = np.arange(length) + 0.5
    return np.asarray(((place >= begin) & (place < begin + width)).any(axis=1))
