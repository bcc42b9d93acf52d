"""Losses: logits and targets [clips, labels] -> one number. A new loss is one function and one entry in ``LOSSES``."""

import difflib
from collections.abc import Callable

import torch
from torch.nn import functional

from birdinfer.errors import ConfigError
from birdinfer.training.recipe_data import LabelConfig
from birdinfer.training.recipe_learning import LossConfig

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits [clips, labels], targets [clips, labels] (0 to 1) and weights [clips] (0 or 1) -> a scalar."""


def build_loss(config: LossConfig, labels: LabelConfig) -> Loss:
    """The loss of a recipe.

    Raises:
        ConfigError: there is none of this name.
    """
    if config.name not in LOSSES:
        near = difflib.get_close_matches(config.name, LOSSES, n=1, cutoff=0.0)
        raise ConfigError("loss.name", f"{config.name!r} is unknown", f"known are {', '.join(LOSSES)}; {near[0]}?")
    return LOSSES[config.name](labels)


def bce(config: LabelConfig) -> Loss:
    """Binary cross-entropy per species: each is there or not, whatever the others do.

    Smoothing moves targets by ``smoothing`` towards an even guess, 1 / labels.
    """
    smoothing = config.smoothing

    def loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        smoothed = targets * (1 - smoothing) + smoothing / targets.shape[1]
        # float32 also under mixed precision: log(1 + exp(x)) overflows in fp16.
        per_clip = functional.binary_cross_entropy_with_logits(logits.float(), smoothed, reduction="none").mean(1)
        return (per_clip * weights).sum() / weights.sum().clamp(min=1)

    return loss


LOSSES: dict[str, Callable[[LabelConfig], Loss]] = {"bce": bce}
