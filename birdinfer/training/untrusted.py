"""What a file of weights must be before a network is filled with it: safetensors may come from anyone.

In: labels and tensors that were read, and the tensors of the network that they are for, whose values are not looked at
(a sketch on torch's device ``meta`` does). Out: nothing, or one line that says what is wrong.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from birdinfer.errors import CheckpointError
from birdinfer.labels import Species, check_labels

Tensors = Mapping[str, torch.Tensor]
"""By name."""

_LISTED = 3
_LONGEST = 200
_RETRAIN = "train it again"

_FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""What a weight may be stored as; a weight of 8 bits is none without its scale."""


def check_species(path: Path, species: tuple[Species, ...]) -> None:
    """Whether labels can be columns of tables and words on a terminal.

    Raises:
        LabelError: there is none, one is empty, or one stands twice.
        CheckpointError: one holds a line break or another control character.
    """
    labels = check_labels((one.label for one in species), str(path))
    for label in labels:
        if any(sign < " " or sign == "\x7f" for sign in label):
            raise CheckpointError(
                path, f"label {in_short(repr(label))} holds a control character", "rename the species"
            )


def check_fits(path: Path, weights: Tensors, own: Tensors) -> None:
    """Whether tensors are exactly a network's, by name and shape.

    Raises:
        CheckpointError: they are not.
    """
    others = [name for name in weights if name in own and weights[name].shape != own[name].shape]
    faults = {
        "missing": [name for name in own if name not in weights],
        "unknown": [name for name in weights if name not in own],
        "of another shape": others,
    }
    told = [f"{len(names)} {fault}: {', '.join(names[:_LISTED])}" for fault, names in faults.items() if names]
    if told:
        raise CheckpointError(path, f"does not fit its own recipe ({in_short('; '.join(told))})", _RETRAIN)


def check_values(path: Path, weights: Tensors, own: Tensors) -> None:
    """Whether what fits a network by name and shape can be its weights: torch would copy anything.

    Args:
        path: where the weights come from.
        weights: by names of the network.
        own: the network's own; their values are not looked at.

    Raises:
        CheckpointError: a tensor is of a type that does not hold such weights, or not finite.
    """
    for name, tensor in weights.items():
        wanted = own[name].dtype
        if tensor.dtype != wanted and not (wanted in _FLOATS and tensor.dtype in _FLOATS):
            raise CheckpointError(path, f"holds {name} as {tensor.dtype}, needed is {wanted}", _RETRAIN)
        if wanted in _FLOATS and not tensor.isfinite().all():
            what = f"holds numbers in {name} that are not finite"
            raise CheckpointError(path, what, "its training diverged, or it is damaged: train it again")


def in_short(words: object) -> str:
    """Words out of a file, or about it, but not for ever; ``errors.py`` makes one line of them that can be printed."""
    text = str(words)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
