"""What a family's builder is given, and what it may count on."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from birdinfer.config import FrontEndConfig, InputConfig, WaveformConfig
from birdinfer.errors import ConfigError
from birdinfer.training.recipe.schema import ModelConfig

Activation = Literal["sigmoid", "softmax"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """A network to build."""

    config: ModelConfig
    n_labels: int
    input_config: InputConfig
    activation: Activation
    pretrained: bool
    """Whether to fetch timm's weights."""

    def input_shape(self) -> tuple[int, int]:
        """Rows and columns of the spectrogram that it takes.

        Raises:
            ConfigError: the input is a waveform.
        """
        if not isinstance(self.input_config, FrontEndConfig):
            raise self._refusal("takes a log-mel, it was given waveforms")
        return self.input_config.input_shape

    def n_channels(self) -> int:
        """Channels of the picture that a network of timm gets: ``in_channels``, and never fewer than the front end's.

        Raises:
            ConfigError: the input is a waveform.
        """
        if not isinstance(self.input_config, FrontEndConfig):
            raise self._refusal("takes a log-mel, it was given waveforms")
        return max(self.config.in_channels, len(self.input_config.channels))

    def window_samples(self) -> int:
        """Samples of the waveform that it takes.

        Raises:
            ConfigError: the input is a log-mel.
        """
        if not isinstance(self.input_config, WaveformConfig):
            raise self._refusal("takes waveforms, it was given a log-mel")
        return self.input_config.window_samples

    def _refusal(self, what: str) -> ConfigError:
        return ConfigError(
            "model.family", f"{self.config.family} {what}", "build it with the recipe's own input_config"
        )


# ---- What every network answers, and is made of


class Logits(NamedTuple):
    """A network's answer to a batch of windows, before sigmoid or softmax."""

    clip: torch.Tensor
    """[windows, labels]"""
    frames: torch.Tensor | None = None
    """[windows, frames, labels] of a sound event detector; None for other networks."""


Maps = tuple[torch.Tensor, ...]
"""Feature maps [windows, features, rows, columns] of one or several stages of a network, or steps [windows, steps,
features]."""


class Network(torch.nn.Module):
    """A network in two parts, so that what is between them can be compared with a teacher's embedding."""

    merge: torch.nn.Module | None
    """Makes :class:`Logits` of all that was learned into those of the species, except in training (``merge.py``)."""

    def __init__(self) -> None:
        """Begin without; parts are added by the family."""
        super().__init__()
        self.merge = None

    def features(self, inputs: torch.Tensor) -> Maps:
        """Inputs -> features."""
        raise NotImplementedError

    def classify(self, features: Maps) -> Logits:
        """Features -> logits."""
        raise NotImplementedError

    def forward(self, inputs: torch.Tensor) -> Logits:
        """Log-mels [windows, channels, rows, columns], or waveforms [windows, samples], -> logits."""
        logits = self.classify(self.features(inputs))
        if self.training or self.merge is None:
            return logits
        merged: Logits = self.merge(logits)
        return merged
