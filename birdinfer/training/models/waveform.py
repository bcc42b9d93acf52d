"""Family ``raw``: waveforms [windows, samples] -> clip logits, without any spectrogram.

``small`` is our own, in the manner of wav2vec 2.0 (Baevski et al. 2020): convolutions turn the waveform into steps of
640 samples (20 ms at 32 kHz), a transformer lets them listen to each other, and a linear layer reads the mean and the
maximum over time. 2.1 million parameters with 200 labels:

    window, normalised       [1 x 160,000]   mean 0, standard deviation 1
    convolution 10, every 5   64 x  31,999   each followed by a norm over the window and GELU
    convolution  8, every 4   96 x   7,998
    convolution  4, every 2  128 x   3,998
    convolution  4, every 2  192 x   1,998
    convolution  4, every 2  192 x     998
    convolution  4, every 2  192 x     498
    convolution  4, every 2  192 x     248
    position convolution 31  192 x     248   16 groups, added: gives steps their place among neighbours
    transformer block, 3 x   192 x     248   4 heads, 768 wide inside
    mean and maximum         384
    linear                   labels

``wav2vec2_base`` (``wav2vec2.py``, 94 million parameters) takes the weights of Hugging Face's checkpoints, which were
trained on speech at 16 kHz.
"""

import torch
from torch.nn import functional

from birdinfer.errors import ConfigError
from birdinfer.training.models.base import Blueprint, Logits, Maps, Network
from birdinfer.training.models.pooling import mean_and_maximum
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.models.wav2vec2 import Wav2Vec2, Wav2Vec2Size

_CONVOLUTIONS = ((64, 10, 5), (96, 8, 4), (128, 4, 2), (192, 4, 2), (192, 4, 2), (192, 4, 2), (192, 4, 2))
"""Channels, kernel, stride."""
_WIDTH = _CONVOLUTIONS[-1][0]
_POSITION_KERNEL, _POSITION_GROUPS = 31, 16
_BLOCKS, _HEADS = 3, 4

_VARIANCE_EPSILON = 1e-7
"""Of a full-scale square: -70 dB. What is quieter fades to zeros instead of being blown up."""

_WAV2VEC2 = Wav2Vec2Size()


def build_raw(blueprint: Blueprint) -> torch.nn.Module:
    """The network of a blueprint.

    Raises:
        ConfigError: there is none of this name, or the window is too short for it.
    """
    name = blueprint.config.backbone
    if name == "small":
        _refuse_short(blueprint, _CONVOLUTIONS)
        encoder, width = torch.nn.Sequential(Convolutions(), Context(blueprint.config.drop_path_rate)), _WIDTH
        return RawNetwork(encoder, width, blueprint)
    if name == "wav2vec2_base":
        _refuse_short(blueprint, _WAV2VEC2.convolutions)
        return RawNetwork(Wav2Vec2(_WAV2VEC2, blueprint.config.drop_path_rate), _WAV2VEC2.width, blueprint)
    raise ConfigError("model.backbone", f"{name!r} takes no waveforms", "choose small or wav2vec2_base")


class RawNetwork(Network):
    """Normalised waveform -> encoder -> mean and maximum over time -> linear layer."""

    def __init__(self, backbone: torch.nn.Module, width: int, blueprint: Blueprint) -> None:
        """Put a head on an encoder.

        Args:
            backbone: waveforms [windows, samples] -> [windows, steps, width].
            width: of its steps.
            blueprint: says how many labels there are, and the dropout before the head.
        """
        super().__init__()
        self.backbone = backbone
        self.dropout = torch.nn.Dropout(blueprint.config.drop_rate)
        self.head = torch.nn.Linear(2 * width, blueprint.n_labels)

    def features(self, inputs: torch.Tensor) -> Maps:
        """[windows, samples] -> [windows, steps, features]."""
        return (self.backbone(normalised(inputs)),)

    def classify(self, features: Maps) -> Logits:
        """[windows, steps, features] -> clip logits [windows, labels]."""
        return Logits(self.head(self.dropout(mean_and_maximum(*features))))


def normalised(waveforms: torch.Tensor) -> torch.Tensor:
    """Each window [samples] by itself to mean 0 and standard deviation 1; digital silence to zeros."""
    centred = waveforms - waveforms.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + _VARIANCE_EPSILON).sqrt()


class Convolutions(torch.nn.Module):
    """Waveforms [windows, samples] -> steps [windows, steps, 192]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        n_before = 1
        for n_channels, kernel, stride in _CONVOLUTIONS:
            layers += [
                torch.nn.Conv1d(n_before, n_channels, kernel, stride, bias=False),
                torch.nn.GroupNorm(1, n_channels),
                torch.nn.GELU(),
            ]
            n_before = n_channels
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """[windows, samples] -> [windows, steps, 192]."""
        steps: torch.Tensor = self.layers(waveforms[:, None])
        return steps.transpose(1, 2)


class Context(torch.nn.Module):
    """Steps [windows, steps, 192] -> the same, each knowing of the others."""

    def __init__(self, drop_path_rate: float) -> None:
        super().__init__()
        block = import_timm("timm.models.vision_transformer").Block
        self.position = torch.nn.Conv1d(
            _WIDTH, _WIDTH, _POSITION_KERNEL, padding=_POSITION_KERNEL // 2, groups=_POSITION_GROUPS
        )
        self.blocks = torch.nn.Sequential(
            *(
                block(_WIDTH, _HEADS, qkv_bias=True, drop_path=drop_path_rate * index / (_BLOCKS - 1))
                for index in range(_BLOCKS)
            )
        )
        self.norm = torch.nn.LayerNorm(_WIDTH)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """[windows, steps, 192] -> [windows, steps, 192]."""
        placed = steps + functional.gelu(self.position(steps.transpose(1, 2)).transpose(1, 2))
        normed: torch.Tensor = self.norm(self.blocks(placed))
        return normed


def _refuse_short(blueprint: Blueprint, convolutions: tuple[tuple[int, int, int], ...]) -> None:
    n_steps = blueprint.window_samples()
    for _, kernel, stride in convolutions:
        n_steps = max(0, n_steps - kernel + stride) // stride
    if not n_steps:
        seconds, rate = blueprint.input_config.window.window_seconds, blueprint.input_config.audio.sample_rate
        what = f"is {seconds:g}, at {rate} Hz too short for {blueprint.config.backbone}"
        raise ConfigError("frontend.window.window_seconds", what, "choose a longer window")
