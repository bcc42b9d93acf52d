"""The front end in torch: waveforms with margins [windows, samples] -> normalised log-mel [windows, 1, n_mels, frames].

It defines nothing: window, filterbank, floor and epsilon are those of :mod:`birdinfer.mel`, and a test proves the two
equal to 1e-3 dB. It exists because a GPU computes a batch of spectrograms in the time a CPU needs for one.
"""

import torch

from birdinfer import mel
from birdinfer.config import FrontEndConfig


class LogMel(torch.nn.Module):
    """``mel.windows_to_input`` for batches of single windows; computes in float32 also under mixed precision."""

    def __init__(self, config: FrontEndConfig) -> None:
        """Copy the numpy definition's arrays to torch."""
        super().__init__()
        self._config = config
        # Not persistent: the manifest and the recipe define the front end, a checkpoint must not hold a second one.
        window, bank = mel.hann_window(config.mel), mel.filterbank(config.mel, config.audio.sample_rate)
        self.register_buffer("window", torch.from_numpy(window.copy()), persistent=False)
        self.register_buffer("bank", torch.from_numpy(bank.copy()), persistent=False)

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Waveforms -> model input.

        Args:
            waveforms: ``margin_samples``, one window, ``margin_samples`` each; float32 [windows, samples].

        Returns:
            Float32 [windows, 1, n_mels, frames_per_window]; dB, normalised per window as the config says.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            return self._normalised(self._decibels(waveforms.float()))[:, None]

    def _decibels(self, waveforms: torch.Tensor) -> torch.Tensor:
        """[windows, samples] -> dB [windows, n_mels, frames]."""
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
        loudness = power.transpose(1, 2) @ self.get_buffer("bank") + mel.floor_power(config)
        return 10.0 * loudness.log10().transpose(1, 2)

    def _normalised(self, decibels: torch.Tensor) -> torch.Tensor:
        kind = self._config.mel.normalisation
        if kind == "none":
            return decibels
        if kind == "minmax":
            low = decibels.amin((1, 2), keepdim=True)
            spread = decibels.amax((1, 2), keepdim=True) - low
        else:
            low = decibels.mean((1, 2), keepdim=True)
            spread = decibels.std((1, 2), keepdim=True, correction=0)
        return (decibels - low) / (spread + mel.NORMALISATION_EPSILON)
