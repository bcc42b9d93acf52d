"""The front end in torch: waveforms with margins [windows, samples] -> model input [windows, channels, rows, columns].

It defines nothing: window, filterbank, floor, smoother, epsilons and resizing matrices are those of
:mod:`birdinfer.features.log_mel`, :mod:`birdinfer.features.pcen` and :mod:`birdinfer.features.normalize`, and a test
proves the two equal on real sound: to 1e-3 dB before and 1e-4 after normalisation (3e-4 band by band, where rounding
weighs more). It exists because a GPU computes a batch of spectrograms in the time a CPU needs for one. On a CPU the
compiled front end of prediction computes them, ten times as fast as torch.
"""

from collections.abc import Callable

import torch

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.features import log_mel as mel
from birdinfer.features import normalize as mel_input
from birdinfer.features import pcen

FrontEnd = Callable[[torch.Tensor], torch.Tensor]
"""Waveforms with margins [windows, samples] -> model input [windows, channels, rows, columns], float32, same device."""


def front_end_on(device: torch.device, config: FrontEndConfig) -> FrontEnd:
    """What computes model inputs fastest on a device."""
    if device.type != "cpu":
        return LogMel(config).to(device)
    return lambda waveforms: as_in_prediction(waveforms, config)


def as_in_prediction(waveforms: torch.Tensor, config: FrontEndConfig) -> torch.Tensor:
    """Model input of waveforms on the CPU, as :class:`LogMel` gives it, with the bits of prediction."""
    rows = waveforms.detach().float().contiguous()
    # The rows are one stretch of sound to it, in which windows lie a row apart and see none of their neighbours.
    return torch.from_numpy(mel.windows_to_input(rows.numpy().reshape(-1), len(rows), config, rows.shape[1]))


class LogMel(torch.nn.Module):
    """``mel.windows_to_input`` for batches of single windows; computes in float32 also under mixed precision."""

    def __init__(self, config: FrontEndConfig) -> None:
        super().__init__()
        self._config = config
        tables = {
            "window": mel.hann_window(config.mel),
            "bank": mel.filterbank(config.mel, config.audio.sample_rate),
            **pcen.smoother(config)._asdict(),
            **mel_input.stretch(config)._asdict(),
        }
        for name, table in tables.items():
            # Not persistent: manifest and recipe define the front end, a checkpoint must not hold a second one.
            self.register_buffer(name, torch.from_numpy(table.copy()), persistent=False)

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Waveforms -> model input.

        Args:
            waveforms: ``margin_samples``, one window, ``margin_samples`` each; float32 [windows, samples].

        Returns:
            Float32 [windows, channels, rows, columns], ``config.sample_shape``: log-mel, PCEN or both, normalised per
            window and resized as the config says.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            power = self._power(waveforms.float())
            channels = [self._normalised(self._compressed(power, each.mel), each.mel) for each in self._config.channels]
            return self._resized(torch.stack(channels, dim=1))

    def _power(self, waveforms: torch.Tensor) -> torch.Tensor:
        """[windows, samples] -> mel power [windows, n_mels, frames], a full-scale sine having 1."""
        config = self._config.mel
        # center=False: frame t then begins at sample t * hop_length, and so is centred there within the margins.
        spectrum = torch.stft(
            waveforms,
            config.n_fft,
            config.hop_length,
            window=self.get_buffer("window"),
            center=False,
            return_complex=True,
        )[..., : self._config.frames_per_window]
        power = torch.view_as_real(spectrum).square().sum(-1)
        return (power.transpose(1, 2) @ self.get_buffer("bank")).transpose(1, 2)

    def _compressed(self, power: torch.Tensor, config: MelConfig) -> torch.Tensor:
        if config.compression == "log":
            return 10.0 * (power + config.floor_power).log10()
        energy = (power + pcen.MIN_POWER) * pcen.FULL_SCALE_POWER
        divisor = (self._running_loudness(energy) + config.pcen_epsilon).pow(config.pcen_gain)
        return (energy / divisor + config.pcen_bias).pow(config.pcen_power) - float(config.pcen_bias**config.pcen_power)

    def _running_loudness(self, energy: torch.Tensor) -> torch.Tensor:
        """PCEN's smoother, a block of frames of all windows at once."""
        within, after = self.get_buffer("within"), self.get_buffer("after")
        before, blocks = energy[..., :1], []
        for start in range(0, energy.shape[-1], pcen.FRAMES_PER_BLOCK):
            block = energy[..., start : start + pcen.FRAMES_PER_BLOCK]
            n_frames = block.shape[-1]
            blocks.append(block @ within[:n_frames, :n_frames] + before * after[:n_frames])
            before = blocks[-1][..., -1:]
        return torch.cat(blocks, dim=-1)

    def _normalised(self, values: torch.Tensor, config: MelConfig) -> torch.Tensor:
        kind = config.normalisation
        if kind == "none":
            return values
        if kind == "minmax":
            low = values.amin((1, 2), keepdim=True)
            return (values - low) / (values.amax((1, 2), keepdim=True) - low + mel_input.NORMALISATION_EPSILON)
        over = (2,) if kind == "frequency" else (1, 2)
        mean = values.mean(over, keepdim=True)
        centred = values - mean
        # About the mean as it was rounded, as numpy does: torch's std takes one of its own.
        spread = centred.square().mean(over, keepdim=True).sqrt()
        if kind == "frequency":
            return centred / spread.clamp(min=mel_input.least_band_spread(config))
        has_spread = spread > mean.abs() * mel_input.ROUNDING_OF_MEAN
        return centred / (spread + mel_input.NORMALISATION_EPSILON).where(has_spread, torch.inf)

    def _resized(self, pictures: torch.Tensor) -> torch.Tensor:
        if self._config.mel.resize == (0, 0):
            return pictures
        return self.get_buffer("rows") @ (pictures @ self.get_buffer("columns"))
