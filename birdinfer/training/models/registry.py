"""Networks: log-mel [windows, channels, rows, columns], or waveforms [windows, samples], -> :class:`Logits`.

A model family is one file, one function and one entry in ``FAMILIES``. Weights to start from are timm's or a local
file; no object is ever unpickled.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from birdinfer.config import InputConfig
from birdinfer.errors import ConfigError
from birdinfer.training.models.activation import swap_for_relu
from birdinfer.training.models.base import Activation, Blueprint
from birdinfer.training.models.image import build_cnn, build_vit
from birdinfer.training.models.sequence import build_rnn, build_sed
from birdinfer.training.models.waveform import build_raw
from birdinfer.training.models.weights import load_weights
from birdinfer.training.recipe.schema import ModelConfig

__all__ = ["FAMILIES", "Activation", "Family", "build_model"]

Note = Callable[[str], None]


class Family(NamedTuple):
    """One kind of network."""

    build: Callable[[Blueprint], torch.nn.Module]
    unused: tuple[str, ...]
    """Keys of the recipe that it has no use for: set to something, they are refused rather than passed over."""


_OF_MAPS = ("pooling", "feature_stages", "activation")

FAMILIES = {
    "cnn": Family(build_cnn, ()),
    "sed": Family(build_sed, ()),
    "rnn": Family(build_rnn, ("pretrained", "in_channels", "channels", *_OF_MAPS, "drop_path_rate")),
    "vit": Family(build_vit, _OF_MAPS),
    "raw": Family(build_raw, ("pretrained", "in_channels", "channels", *_OF_MAPS)),
}


def build_model(
    config: ModelConfig,
    n_labels: int,
    input_config: InputConfig,
    *,
    start: bool,
    activation: Activation = "sigmoid",
    note: Note = lambda _: None,
    labels: Sequence[str] = (),
) -> torch.nn.Module:
    """A network of the recipe's family, on the CPU, in training mode.

    Args:
        config: which one.
        n_labels: columns of its logits.
        input_config: what it takes: windows of ``input_shape``, or waveforms of ``window_samples``.
        start: whether to load the weights that the recipe starts from; a checkpoint brings its own.
        activation: what will make its logits into probabilities; a detector pools its frames accordingly.
        note: takes a line about activations that were swapped, and one about weights that did not fit.
        labels: columns of its logits, by which rows of another network's classifier are taken.

    Returns:
        A module whose answer is :class:`~birdinfer.training.models.base.Logits`.

    Raises:
        ConfigError: family, backbone or another key cannot be used, or timm's weights cannot be fetched.
        InputNotFoundError, CheckpointError: the local weights are missing or damaged.
    """
    family = _family(config)
    fetch = start and config.pretrained and not config.weights
    model = family.build(
        Blueprint(config=config, n_labels=n_labels, input_config=input_config, activation=activation, pretrained=fetch)
    )
    if config.activation == "relu":
        note(swap_for_relu(model))
    if start and config.weights:
        note(load_weights(model, Path(config.weights), labels))
    return model


def _family(config: ModelConfig) -> Family:
    if config.family not in FAMILIES:
        raise ConfigError("model.family", f"{config.family!r} is unknown", f"known are {', '.join(FAMILIES)}")
    family = FAMILIES[config.family]
    for key in family.unused:
        value, default = getattr(config, key), getattr(ModelConfig(), key)
        if value != default:
            raise ConfigError(
                f"model.{key}", f"is {value!r}, {config.family} has no use for it", f"set it to {default}"
            )
    return family
