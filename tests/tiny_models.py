"""One tiny network of each family, and what it takes: windows of 1 s at 8 kHz."""

import msgspec
import torch
from tiny_clips import TINY_FRONTEND

from birdinfer.config import WaveformConfig
from birdinfer.training.recipe.schema import ModelConfig

WAVEFORM = WaveformConfig(TINY_FRONTEND.audio, TINY_FRONTEND.window)
TINY = {
    "cnn": ModelConfig("cnn", "test_efficientnet"),
    "cnn-gem": ModelConfig("cnn", "test_efficientnet", pooling="gem", in_channels=3),
    "sed": ModelConfig("sed", "test_efficientnet", hidden=16),
    "cnn-stages": ModelConfig("cnn", "test_efficientnet", pooling="gem", feature_stages=2),
    "sed-stages": ModelConfig("sed", "test_efficientnet", hidden=16, feature_stages=3),
    "gru": ModelConfig("rnn", "gru", hidden=16),
    "lstm": ModelConfig("rnn", "lstm", hidden=16, layers=1),
    "vit": ModelConfig("vit", "test_vit"),
    "raw": ModelConfig("raw", "small"),
}
LOG_PCEN = msgspec.structs.replace(
    TINY_FRONTEND, mel=msgspec.structs.replace(TINY_FRONTEND.mel, compression="log_pcen")
)
"""Of two channels."""


def windows(config, n=3, seed=0):
    """(what a family takes, random windows of it)."""
    rng = torch.Generator().manual_seed(seed)
    if config.family == "raw":
        return WAVEFORM, 0.1 * torch.randn(n, WAVEFORM.window_samples, generator=rng)
    return TINY_FRONTEND, torch.randn(n, 1, *TINY_FRONTEND.input_shape, generator=rng)
