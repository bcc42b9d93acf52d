"""Weights to start from: a local .safetensors file into a network, by name and shape; and how a hub is kept safe.

Nothing is unpickled: a local file must be safetensors, and whatever a hub sends is read as tensors and nothing else.
"""

import contextlib
import importlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from birdinfer.environment import variable
from birdinfer.errors import CheckpointError, InputNotFoundError
from birdinfer.training.torchvision_shim import import_timm
from birdinfer.training.untrusted import check_values, in_short

Tensors = Mapping[str, torch.Tensor]

_LISTED = 3
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
        raise CheckpointError(path, f"is not a safetensors file ({in_short(error)})") from error
    return tensors


def _own_names(given: Tensors, own: Tensors) -> dict[str, str]:
    """Our name -> the file's, of each tensor that both have."""
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
    import_timm()
    resample = importlib.import_module("timm.layers").resample_abs_pos_embed
    resampled: torch.Tensor = resample(tensor, list(grid), num_prefix_tokens=n_prefix)
    return resampled


def _left_out(names: set[str], what: str) -> str:
    if not names:
        return ""
    rest = " ..." if len(names) > _LISTED else ""
    return f"; {len(names)} {what}: {', '.join(sorted(names)[:_LISTED])}{rest}"
