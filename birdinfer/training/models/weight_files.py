"""Files of weights -> tensors by name, and the labels of their classifier where the file says so.

Read are safetensors, the folder of a trained fold, and what ``torch.save`` wrote (.pth, .pt, .ckpt, .bin): of that,
tensors and plain containers alone, never objects of other classes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from birdinfer.errors import CheckpointError, InputNotFoundError
from birdinfer.runs.layout import BEST
from birdinfer.training.outputs import output_names, shared_taxa

TORCH_ENDINGS = frozenset({".pth", ".pt", ".ckpt", ".bin", ".tar"})
_NESTED = ("state_dict_ema", "state_dict", "model_state_dict", "model_ema", "model", "net", "weights")
"""Where training loops keep the weights in what they save, the averaged ones first."""
_STATE = "birdinfer"
_LONGEST = 200

Tensors = Mapping[str, torch.Tensor]
"""By name."""


class WeightFile(NamedTuple):
    """What a file holds."""

    tensors: Tensors
    labels: tuple[str, ...] = ()
    """Of a checkpoint of birdinfer: columns of its logits; () where the file does not say."""


def weight_path(path: Path) -> Path:
    """Find the file that ``model.weights`` means: a file itself, or the best weights of a fold's folder.

    Raises:
        InputNotFoundError: there is none.
    """
    found = path / BEST if path.is_dir() else path
    if not found.is_file():
        hint = "set model.weights to a .safetensors file, or to a trained fold as runs/NAME/fold0"
        raise InputNotFoundError(found, "no such weights", hint)
    return found


def read_weight_file(path: Path) -> WeightFile:
    """Read a file of weights.

    Raises:
        InputNotFoundError: there is no such file.
        CheckpointError: it is damaged, or holds other things than tensors.
    """
    found = weight_path(path)
    return _read_torch(found) if found.suffix.lower() in TORCH_ENDINGS else _read_safetensors(found)


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return WeightFile(tensors, _labels((file.metadata() or {}).get(_STATE, "")))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"is not a safetensors file ({_short(error)})") from error


def _labels(state: str) -> tuple[str, ...]:
    try:
        header = json.loads(state)
        learned = header.get("recipe", {}).get("labels", {})
        taxa = shared_taxa(map(str, header.get("taxa", ()))) if learned.get("taxon") else ()
        labels = tuple(str(species["label"]) for species in header["species"])
        return output_names(labels, taxa, bool(learned.get("nocall")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def _read_torch(path: Path) -> WeightFile:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes torch raise has no common type
        if type(error).__name__ == "UnpicklingError":
            hint = "save its state_dict() alone, by torch.save or as safetensors"
            raise CheckpointError(path, "holds other things than tensors, or is no file of torch", hint) from error
        raise CheckpointError(path, f"is no file of torch ({_short(error)})") from error
    tensors = _unpacked(content)
    if not tensors:
        raise CheckpointError(path, "holds no tensors by name", f"looked for in {', '.join(_NESTED)}")
    return WeightFile(tensors)


def _unpacked(content: Any) -> Tensors:
    """The tensors of what a training loop has saved."""
    if not isinstance(content, Mapping):
        return {}
    own = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    nested = (_unpacked(content[name]) for name in _NESTED if isinstance(content.get(name), Mapping))
    return next((found for found in nested if found), own)


def _short(error: object) -> str:
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
