"""Losses: what a network said of a batch and what was wanted -> one number. A new one is a function and a table entry.

In: :class:`~birdinfer.training.models.base.Logits` in any precision and
:class:`~birdinfer.training.data.targets.Targets`. Out: a float32 scalar, a mean weighted by windows, cells and classes,
so that it hangs neither on the batch's size nor on how much of it is masked; 0, with gradients of 0, where nothing has
weight. Targets may be anything from 0 to 1: a loss for presence counts by the target, the one for absence by what is
left to 1.
"""

import difflib
import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from birdinfer.errors import ConfigError
from birdinfer.training.data.targets import Targets
from birdinfer.training.models.base import Logits
from birdinfer.training.recipe.schema import LossConfig

WeightOf = Callable[[Targets], torch.Tensor]
"""Targets of a part of a batch -> what the part counts in the mean over the whole of it, a float32 scalar."""

LossOfLogits = Callable[[torch.Tensor, Targets, torch.Tensor, LossConfig], torch.Tensor]
"""Logits [windows, labels] in float32, targets, weights of the classes [labels], configuration -> a scalar."""

_SMALLEST = 1e-12
"""Below this a probability is taken for it: x^gamma has no finite slope at 0 for gamma < 1."""


def build_loss(config: LossConfig, clips_per_label: Sequence[int]) -> Callable[[Logits, Targets], torch.Tensor]:
    """The loss of a recipe, on the clip's logits and, where there are any, on the loudest frame's.

    Args:
        config: the recipe's section ``loss``.
        clips_per_label: training clips of each label, [labels]; weighs the classes.

    Raises:
        ConfigError: there is none of this name, or its alpha is neither a share nor -1.
    """
    if config.name not in LOSSES:
        near = difflib.get_close_matches(config.name, LOSSES, n=1, cutoff=0.0)
        raise ConfigError("loss.name", f"{config.name!r} is unknown", f"known are {', '.join(LOSSES)}; {near[0]}?")
    if -1 < config.focal_alpha < 0:
        raise ConfigError("loss.focal_alpha", f"is {config.focal_alpha:g}, allowed are 0 to 1, and -1 for no weight")
    classes_beside = _beside(class_weights(clips_per_label, config.class_weight_power))

    def loss(logits: Logits, targets: Targets) -> torch.Tensor:
        classes = classes_beside(targets.values)
        # float32 also under mixed precision: log(1 + exp(x)) overflows in fp16.
        answers = [(1.0, logits.clip.float())]
        if logits.frames is not None:
            share = config.frame_share
            answers = [(1 - share, logits.clip.float()), (share, logits.frames.float().amax(dim=1))]
        parts = [share * LOSSES[config.name](each, targets, classes, config) for share, each in answers]
        return torch.stack(parts).sum()

    return loss


def build_weight(config: LossConfig, clips_per_label: Sequence[int]) -> WeightOf:
    """What a part of a batch counts: the weights that the recipe's loss divides by, added up.

    The loss of a batch is the mean of its parts' losses with these weights, however it is cut. Soft AUC, which knows no
    pairs from one part to another, is then the mean over the pairs that are there, each part counting by its cells.
    """
    classes_beside = _beside(class_weights(clips_per_label, config.class_weight_power))

    def of_cells(targets: Targets) -> torch.Tensor:
        return _weights(targets, classes_beside(targets.values)).sum()

    def of_windows(targets: Targets) -> torch.Tensor:
        return _window_weights(targets).sum()

    return of_windows if config.name == "ce" else of_cells


def class_weights(clips_per_label: Sequence[int], power: float) -> torch.Tensor:
    """(clips of a label)^power, scaled to a mean of 1; float32 [labels]. A label without clips counts as one of one."""
    weights = torch.tensor(clips_per_label, dtype=torch.float64).clamp(min=1) ** power
    return (weights / weights.mean()).float()


def _beside(weights: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Gives the weights on the device of a tensor; copied there once."""
    on_device = {weights.device: weights}

    def beside(other: torch.Tensor) -> torch.Tensor:
        if other.device not in on_device:
            on_device[other.device] = weights.to(other.device)
        return on_device[other.device]

    return beside


def bce(logits: torch.Tensor, targets: Targets, classes: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Binary cross-entropy per species: each is there or not, whatever the others do."""
    costs = functional.binary_cross_entropy_with_logits(logits, targets.values, reduction="none")
    return _mean(costs, _weights(targets, classes))


def ce(logits: torch.Tensor, targets: Targets, classes: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Cross-entropy over the species: -sum t log softmax(z), of soft targets as of hard ones, several 1s included.

    A masked species also leaves the softmax: its logit neither helps nor harms the others.
    """
    is_there = targets.cell_weights > 0
    # The least finite number, not -inf: of a window that is masked as a whole, a softmax over -inf would be nan.
    logits = logits.masked_fill(~is_there, torch.finfo(logits.dtype).min)
    costs = -targets.values * functional.log_softmax(logits, dim=1)
    costs = torch.where(is_there, costs * targets.cell_weights * classes, 0).sum(dim=1)
    return _mean(costs, _window_weights(targets))


def focal(logits: torch.Tensor, targets: Targets, classes: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Focal loss (Lin 2017): alpha (1 - p_t)^gamma times the binary cross-entropy.

    p_t is the probability given to what is true. Between 0 and 1 a target mixes both sides of p_t and of alpha.
    """
    values = targets.values
    costs = functional.binary_cross_entropy_with_logits(logits, values, reduction="none")
    missed = values * torch.sigmoid(-logits) + (1 - values) * torch.sigmoid(logits)
    costs = costs * missed.clamp(min=_SMALLEST) ** config.focal_gamma
    if config.focal_alpha >= 0:
        costs = costs * (config.focal_alpha * values + (1 - config.focal_alpha) * (1 - values))
    return _mean(costs, _weights(targets, classes))


def focal_bce(logits: torch.Tensor, targets: Targets, classes: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Focal loss plus ``bce_share`` of the binary cross-entropy."""
    return focal(logits, targets, classes, config) + config.bce_share * bce(logits, targets, classes, config)


def asymmetric(logits: torch.Tensor, targets: Targets, classes: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Asymmetric loss (Ridnik 2021): presence costs (1-p)^g+ -log(p), absence q^g- -log(1-q) with q = max(0, p - clip).

    Summed over cells in the paper, their mean here, so that a learning rate fits all losses alike.
    """
    positive = -functional.logsigmoid(logits) * torch.sigmoid(-logits).clamp(min=_SMALLEST) ** (
        config.asymmetric_gamma_positive
    )
    # log(1 - q) = log(min(1, 1 - p + clip)), from logarithms: 1 - p itself is 0 in float32 from logits of 17 on.
    log_clip = math.log(config.asymmetric_clip) if config.asymmetric_clip else -math.inf
    log_absent = torch.logaddexp(functional.logsigmoid(-logits), torch.full_like(logits, log_clip)).clamp(max=0)
    negative = -log_absent * (-torch.expm1(log_absent)).clamp(min=_SMALLEST) ** config.asymmetric_gamma_negative
    costs = targets.values * positive + (1 - targets.values) * negative
    return _mean(costs, _weights(targets, classes))


def soft_auc(logits: torch.Tensor, targets: Targets, classes: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Soft AUC (winners of BirdCLEF 2025 and 2026) plus ``bce_share`` of the binary cross-entropy.

    Of each label, every pair of windows costs softplus(-(z_i - z_j)), a smooth count of the pairs that stand in the
    wrong order (1 - AUC), weighted by how much i is present and j absent, t_i (1 - t_j), and by both cells' weights.
    A label that is everywhere or nowhere in the batch has no such pair, only its binary cross-entropy.
    """
    cells = targets.cell_weights * targets.window_weights[:, None]
    present, absent = targets.values * cells, (1 - targets.values) * cells
    # From the cells that are present: a few, unless labels are smoothed; then it is all pairs of windows, each label.
    windows, labels = torch.nonzero(present, as_tuple=True)
    weights = (present[windows, labels] * classes[labels])[:, None] * absent[:, labels].T
    weights = weights.scatter(1, windows[:, None], 0.0)  # a window is no pair with itself
    ahead = logits[windows, labels][:, None] - logits[:, labels].T
    return _mean(functional.softplus(-ahead), weights) + config.bce_share * bce(logits, targets, classes, config)


def _weights(targets: Targets, classes: torch.Tensor) -> torch.Tensor:
    return targets.cell_weights * targets.window_weights[:, None] * classes


def _window_weights(targets: Targets) -> torch.Tensor:
    """What each window counts, [windows]; nothing where all of it is masked."""
    return targets.window_weights * (targets.cell_weights > 0).any(dim=1)


def _mean(costs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    total = weights.sum()
    return (costs * weights).sum() / torch.where(total > 0, total, 1.0)


LOSSES: dict[str, LossOfLogits] = {
    "bce": bce,
    "ce": ce,
    "focal": focal,
    "focal_bce": focal_bce,
    "asymmetric": asymmetric,
    "soft_auc": soft_auc,
}
