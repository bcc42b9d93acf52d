"""Weights to start from: a local .safetensors file into a network, by name and shape; and how a hub is kept safe.

Nothing is unpickled: a local file must be safetensors, and whatever a hub sends is read as tensors and nothing else.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from birdinfer.errors import CheckpointError, InputNotFoundError
from birdinfer.system.cpu import variable
from birdinfer.training.models.timm_import import import_timm

# ---- What a file of weights must be before a network is filled with it: safetensors may come from anyone

Tensors = Mapping[str, torch.Tensor]
"""By name."""

_LISTED = 3
_LONGEST = 200
_RETRAIN = "train it again"

_FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""What a weight may be stored as; a weight of 8 bits is none without its scale."""


def check_fits(path: Path, weights: Tensors, own: Tensors) -> None:
    """Whether tensors are exactly a network's, by name and shape.

    Raises:
        CheckpointError: they are not.
    """
    others = [name for name in weights if name in own and weights[name].shape != own[name].shape]
    found = {
        "missing": [name for name in own if name not in weights],
        "unknown": [name for name in weights if name not in own],
        "of another shape": others,
    }
    problems = [f"{len(names)} {kind}: {', '.join(names[:_LISTED])}" for kind, names in found.items() if names]
    if problems:
        raise CheckpointError(path, f"does not fit its own recipe ({summary('; '.join(problems))})", _RETRAIN)


def check_values(path: Path, weights: Tensors, own: Tensors) -> None:
    """Whether what fits a network by name and shape can be its weights: torch would copy anything.

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


def summary(words: object) -> str:
    """Words out of a file, or about it, but not for ever; ``errors.py`` makes one line of them that can be printed."""
    text = str(words)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


_TORCH_SWITCH = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_BACKBONE = "backbone."
"""Every family keeps the network that it wraps under this name."""
_CHECKPOINT = "model."
"""A checkpoint of birdinfer has this before all names."""


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """``torch.load`` unpickles tensors and nothing else, whatever its caller asks for.

    timm asks for that itself in its newer versions and for most, not all, of its sources; torch's own switch leaves
    no choice.
    """
    with variable(_TORCH_SWITCH, "1"):
        yield


def load_weights(model: torch.nn.Module, path: Path) -> str:
    """Start from a local safetensors file: of timm, or a checkpoint of birdinfer.

    A first convolution for three channels is summed into one, position embeddings of a square picture are resampled to
    ours; tensors of another shape (a classifier for other labels) and unknown names are left out.

    Args:
        model: changed in place.
        path: the file.

    Returns:
        One line: how many tensors were taken, and which were not.

    Raises:
        InputNotFoundError: there is no such file.
        CheckpointError: it is not safetensors, nothing in it fits, or what fits is no finite numbers.
    """
    given, own = _read(path), model.state_dict()
    names = _own_names(given, own)
    fitting = {}
    for name, theirs in names.items():
        tensor = _adapted(name, given[theirs], own[name], model)
        if tensor.shape == own[name].shape:
            fitting[name] = tensor
    if not fitting:
        raise CheckpointError(path, "holds no tensor that fits the model", "is it of the same backbone?")
    check_values(path, fitting, own)
    model.load_state_dict(fitting, strict=False)
    unused = set(given) - {names[name] for name in fitting}
    return f"{path}: {len(fitting)} of {len(own)} tensors taken{_left_out(set(own) - set(fitting), 'kept random')}" + (
        _left_out(unused, "not used")
    )


def check_weights(path: Path) -> None:
    """Whether there is a file to start from.

    Raises:
        InputNotFoundError: there is none.
    """
    if not path.is_file():
        raise InputNotFoundError(path, "no such weights", "set model.weights to a .safetensors file")


def _read(path: Path) -> Tensors:
    check_weights(path)
    try:
        tensors: Tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"is not a safetensors file ({summary(error)})") from error
    return tensors


def _own_names(given: Tensors, own: Tensors) -> dict[str, str]:
    found = {}
    for theirs in given:
        for name in (_BACKBONE + theirs, theirs, theirs.removeprefix(_CHECKPOINT)):
            if name in own:
                found[name] = theirs
                break
    return found


def _adapted(name: str, tensor: torch.Tensor, own: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """The tensor in our shape where there is a way to it, else as it is."""
    if name == f"{_BACKBONE}pos_embed":
        return _resampled(tensor, own, model)
    if tensor.ndim == own.ndim == 4 and (tensor.shape[1], own.shape[1]) == (3, 1):
        return tensor.sum(dim=1, keepdim=True)  # answers to grey as the three did
    if tensor.ndim == own.ndim == 4 and (tensor.shape[1], own.shape[1]) == (1, 3):
        return (tensor / 3).repeat(1, 3, 1, 1)
    return tensor


def _resampled(tensor: torch.Tensor, own: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Position embeddings [1, tokens, width] of a square picture, for the picture that the model takes."""
    grid: tuple[int, int] = model.get_submodule("backbone.patch_embed").grid_size  # type: ignore[assignment]
    n_prefix = own.shape[1] - grid[0] * grid[1]  # class and register tokens, which have no place in the picture
    n_places = tensor.shape[1] - n_prefix if tensor.ndim == 3 else 0
    is_square = n_places > 0 and n_places == math.isqrt(n_places) ** 2
    if tensor.shape == own.shape or not is_square or (tensor.shape[0], tensor.shape[2]) != (1, own.shape[2]):
        return tensor
    resample = import_timm("timm.layers").resample_abs_pos_embed
    resampled: torch.Tensor = resample(tensor, list(grid), num_prefix_tokens=n_prefix)
    return resampled


def _left_out(names: set[str], what: str) -> str:
    if not names:
        return ""
    rest = " ..." if len(names) > _LISTED else ""
    return f"; {len(names)} {what}: {', '.join(sorted(names)[:_LISTED])}{rest}"
