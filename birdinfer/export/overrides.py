"""Keys of a recipe that a finished run may be exported with: how what is learned besides species counts."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from birdinfer.errors import ConfigError
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.recipe.toml import change

_LEARNED_BY = {"labels.nocall_power": "labels.nocall", "labels.taxon_share": "labels.taxon"}
"""Key -> the one with which the run must have been trained."""


def with_overrides(checkpoint: Checkpoint, overrides: Sequence[str]) -> Checkpoint:
    """Change keys of a checkpoint's recipe that need no training.

    Args:
        checkpoint: or its header alone.
        overrides: as ``labels.nocall_power=2``.

    Raises:
        ConfigError: a key is another one, the run has not learned what it weighs, or a value cannot be used.
    """
    recipe = change(checkpoint.recipe, overrides)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key not in _LEARNED_BY:
            raise ConfigError("--set", f"{key} is decided by the training", f"an export sets {', '.join(_LEARNED_BY)}")
        learned = _LEARNED_BY[key]
        if not getattr(recipe.labels, learned.partition(".")[2]):
            raise ConfigError("--set", f"{key} weighs what the run has not learned", f"train it with {learned}")
    return replace(checkpoint, header=msgspec.structs.replace(checkpoint.header, recipe=recipe))
