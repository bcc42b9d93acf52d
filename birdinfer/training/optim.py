"""Optimisers by name: torch's usual three, and all that timm.optim knows."""

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from birdinfer.errors import ConfigError
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.recipe.schema import OptimConfig

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}


def build_optimiser(
    model: torch.nn.Module, config: OptimConfig, network: torch.nn.Module | None = None
) -> torch.optim.Optimizer:
    """The optimiser of a recipe; vectors (biases, norms) are not decayed: pulling a norm's scale to 0 does not help.

    Args:
        model: all that is trained.
        config: says how.
        network: the part of it whose backbone may learn more slowly; None for all of it.

    Raises:
        ConfigError: neither torch nor timm knows one of this name, or the network has no such backbone.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shares = _backbone_shares(model if network is None else network, config)
    groups: list[dict[str, Any]] = []
    for share in sorted({shares.get(id(x), _HEAD) for x in parameters}, reverse=True):
        own = [x for x in parameters if shares.get(id(x), _HEAD) == share]
        # Not of a share of 1 throughout: what older runs have saved of their groups knows none.
        more = {_SHARE: abs(share), _IS_BACKBONE: float(share > 0)} if shares else {}
        groups.append({"params": [x for x in own if x.ndim > 1], "weight_decay": config.weight_decay, **more})
        groups.append({"params": [x for x in own if x.ndim <= 1], "weight_decay": 0.0, **more})
    groups = [group for group in groups if group["params"]]
    if config.name in OPTIMISERS:
        return OPTIMISERS[config.name](groups, lr=config.lr)
    return _of_timm(groups, config)


def set_rate(optimiser: torch.optim.Optimizer, lr: float, is_backbone_frozen: bool) -> None:
    """Set the learning rate of all groups: that of a backbone is its share of it, or 0."""
    for group in optimiser.param_groups:
        is_frozen = is_backbone_frozen and group.get(_IS_BACKBONE, 0.0)
        group["lr"] = 0.0 if is_frozen else lr * group.get(_SHARE, 1.0)


_SHARE, _IS_BACKBONE = "rate_share", "is_backbone"
_HEAD = -1.0
"""Of all that is not the backbone's: the whole rate; negative, so that the two are never one group."""


def _backbone_shares(network: torch.nn.Module, config: OptimConfig) -> dict[int, float]:
    """Share of the learning rate by parameter of the backbone (its id); empty if the recipe makes no difference."""
    if config.backbone_lr_share == config.layer_decay == 1 and not config.frozen_backbone_epochs:
        return {}
    backbone = getattr(network, "backbone", None)
    keys = "optim.backbone_lr_share, layer_decay or frozen_backbone_epochs"
    if backbone is None:
        raise ConfigError(keys, "are set, this family has no backbone", "leave them out")
    own = {id(parameter): config.backbone_lr_share for parameter in backbone.parameters()}
    if config.layer_decay < 1:
        if not hasattr(backbone, "group_matcher"):
            raise ConfigError("optim.layer_decay", "needs a backbone of timm, whose layers are numbered", "set it to 1")
        number = import_timm("timm.models").group_parameters(backbone, backbone.group_matcher(), reverse=True)
        last = max(number.values())
        for name, parameter in backbone.named_parameters():
            own[id(parameter)] *= config.layer_decay ** (last - number[name])
    # timm's own classifier is a head like any other.
    classifier = backbone.get_classifier() if hasattr(backbone, "get_classifier") else None
    heads = {id(x) for x in classifier.parameters()} if isinstance(classifier, torch.nn.Module) else set()
    return {key: share for key, share in own.items() if key not in heads}


def _of_timm(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    optim = import_timm("timm.optim")
    known = sorted({*OPTIMISERS, *map(str, optim.list_optimizers())})
    if config.name not in known:
        near = difflib.get_close_matches(config.name, known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise ConfigError("optim.name", f"{config.name!r} is unknown", hint)
    optimiser: torch.optim.Optimizer = optim.create_optimizer_v2(groups, config.name, lr=config.lr)
    return optimiser


# ---- The learning rate at each step, and when an epoch's score has stopped rising

Scores = Sequence[float | None]
"""Of each epoch so far (``monitor.py``), higher is better; None where it could not be computed."""


class Way(NamedTuple):
    """How far a run is behind its warm-up."""

    share: float
    """Of the steps after the warm-up, 0 to 1."""
    epochs: float
    """After the warm-up."""
    scores: Scores


def learning_rate(step: int, n_steps: int, steps_per_epoch: int, config: OptimConfig, scores: Scores = ()) -> float:
    """The rate at a step: linear warm-up to ``lr``, then the schedule.

    Args:
        step: from 0.
        n_steps: of the whole run.
        steps_per_epoch: steps in an epoch.
        config: which schedule, and its numbers.
        scores: of the epochs before, which ``plateau`` goes by.
    """
    n_warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < n_warmup:
        return config.lr * (step + 1) / n_warmup
    share = min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))
    return config.lr * SCHEDULES[config.schedule](Way(share, (step - n_warmup) / steps_per_epoch, scores), config)


def stale_epochs(scores: Scores) -> int:
    """Epochs since the best score; where there is none, all of them are the best one so far, and none is stale."""
    return [0, *_stale_after_each(scores)][-1]


def _stale_after_each(scores: Scores) -> list[int]:
    best, stale = -math.inf, [0]
    for score in scores:
        stale.append(0 if score is None or score > best else stale[-1] + 1)
        best = max(best, -math.inf if score is None else score)
    return stale[1:]


def _cosine(way: Way, config: OptimConfig) -> float:
    """SGDR (Loshchilov 2017) without restarts."""
    return _half_cosine(way.share, config)


def _restarts(way: Way, config: OptimConfig) -> float:
    return _half_cosine(way.epochs % config.restart_epochs / config.restart_epochs, config)


def _exponential(way: Way, config: OptimConfig) -> float:
    """The same factor each step. A final share of 0 is never reached by factors; it is taken as 1e-4."""
    return float(max(config.final_lr_share, 1e-4) ** way.share)


def _polynomial(way: Way, config: OptimConfig) -> float:
    return config.final_lr_share + (1 - config.final_lr_share) * float((1 - way.share) ** config.decay_power)


def _plateau(way: Way, config: OptimConfig) -> float:
    """Lowered once for each ``plateau_epochs`` in a row without a better score."""
    drops = sum(stale > 0 and stale % config.plateau_epochs == 0 for stale in _stale_after_each(way.scores))
    return float(max(config.final_lr_share, config.plateau_factor**drops))


def _constant(way: Way, config: OptimConfig) -> float:
    return 1.0


def _half_cosine(share: float, config: OptimConfig) -> float:
    return config.final_lr_share + (1 - config.final_lr_share) * 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[Way, OptimConfig], float]] = {
    "cosine": _cosine,
    "restarts": _restarts,
    "exponential": _exponential,
    "polynomial": _polynomial,
    "plateau": _plateau,
    "constant": _constant,
}
