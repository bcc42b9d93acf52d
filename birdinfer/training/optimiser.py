"""Optimisers by name: torch's usual three, and all that timm.optim knows."""

import difflib
from collections.abc import Callable
from typing import Any

import torch

from birdinfer.errors import ConfigError
from birdinfer.training.recipe.learning import OptimConfig
from birdinfer.training.torchvision_shim import import_timm

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}


def build_optimiser(model: torch.nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of a recipe; vectors (biases, norms) are not decayed: pulling a norm's scale to 0 helps nobody.

    Raises:
        ConfigError: neither torch nor timm knows one of this name.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [x for x in parameters if x.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [x for x in parameters if x.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name in OPTIMISERS:
        return OPTIMISERS[config.name](groups, lr=config.lr)
    return _of_timm(groups, config)


def _of_timm(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    import_timm()
    from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]

    known = sorted({*OPTIMISERS, *map(str, list_optimizers())})
    if config.name not in known:
        near = difflib.get_close_matches(config.name, known, n=3, cutoff=0.4)
        remedy = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise ConfigError("optim.name", f"{config.name!r} is unknown", remedy)
    optimiser: torch.optim.Optimizer = create_optimizer_v2(groups, config.name, lr=config.lr)
    return optimiser
