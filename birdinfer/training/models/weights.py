"""Weights to start from: a local file into a network, by name and shape; and how a hub is kept safe.

No object is unpickled: of a local file (``weight_files.py``), and of whatever a hub sends, tensors are read alone.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from birdinfer.errors import CheckpointError
from birdinfer.system.cpu import variable
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.models.weight_files import Tensors, read_weight_file, weight_path

# ---- What a file of weights must be before a network is filled with it: safetensors may come from anyone

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
_COUNTER = "num_batches_tracked"
_FEWEST = 10
"""Tensors of a backbone that are matched by their order: fewer may agree by chance."""
_BACKBONE = "backbone."
"""Every family keeps the network that it wraps under this name."""


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """``torch.load`` unpickles tensors and nothing else, whatever its caller asks for.

    timm asks for that itself in its newer versions and for most, not all, of its sources; torch's own switch leaves
    no choice.
    """
    with variable(_TORCH_SWITCH, "1"):
        yield


def load_weights(model: torch.nn.Module, path: Path, labels: Sequence[str] = ()) -> str:
    """Start from a local file: of timm, of torch, or a checkpoint of birdinfer.

    Names are matched without what training loops put before them (``module.``, ``model.``, ``backbone.`` ...); a weight
    that is stored as length and direction (weight normalisation) is multiplied out. Where
    none fits, tensors are matched in their order if the shapes are those of the network's backbone one after another.
    A first convolution for another number of channels is summed and shared out, position embeddings of a square picture
    are resampled to ours. Rows of a classifier are taken by label where the file names its labels. Tensors of another
    shape and unknown names are left out.

    Args:
        model: changed in place.
        path: the file, or a trained fold's folder.
        labels: columns of the model's logits.

    Returns:
        One line: how many tensors were taken, and which were not.

    Raises:
        InputNotFoundError: there is no such file.
        CheckpointError: it is no file of weights, nothing in it fits, or what fits is no finite numbers.
    """
    given, theirs = read_weight_file(path)
    given, own = multiplied_out(given), model.state_dict()
    names, how = _own_names(given, own), ""
    if not any(name.startswith(_BACKBONE) for name in names):
        in_order = _in_order(given, own)
        names, how = (in_order, " by order and shape") if in_order else (names, "")
    heads = _classifiers(model, own)
    fitting = {}
    for name, other in names.items():
        tensor = _adapted(name, given[other], own[name], model)
        if labels and theirs and tuple(labels) != theirs and name.startswith(heads):
            tensor = _rows_by_label(tensor, own[name], theirs, labels)
        if tensor.shape == own[name].shape:
            fitting[name] = tensor
    if not fitting:
        raise CheckpointError(path, "holds no tensor that fits the model", "is it of the same backbone?")
    check_values(path, fitting, own)
    model.load_state_dict(fitting, strict=False)
    unused = set(given) - {names[name] for name in fitting}
    shared = len(set(labels) & set(theirs))
    by_label = f"; classifier of {shared} of {len(labels)} species taken" if theirs and theirs != tuple(labels) else ""
    return (
        f"{path}: {len(fitting)} of {len(own)} tensors taken{how}{by_label}"
        f"{_left_out(set(own) - set(fitting), 'kept random')}{_left_out(unused, 'not used')}"
    )


_LENGTHS = {".weight_g": ".weight_v", ".parametrizations.weight.original0": ".parametrizations.weight.original1"}
"""Endings of what torch's weight normalisation stores, older and newer: length -> direction."""


def multiplied_out(tensors: Tensors) -> Tensors:
    """Tensors with each weight that is stored as length and direction (Salimans and Kingma 2016) as the weight itself.

    ``weight = g * v / |v|``, the norm over all dimensions in which g has the size 1.
    """
    found = dict(tensors)
    for name, length in tensors.items():
        ending = next((each for each in _LENGTHS if name.endswith(each)), None)
        stem = name.removesuffix(ending or "")
        direction = None if ending is None else tensors.get(stem + _LENGTHS[ending])
        if ending is None or direction is None or length.ndim != direction.ndim:
            continue
        over = [dim for dim, size in enumerate(length.shape) if size == 1 and direction.shape[dim] > 1]
        norm = torch.linalg.vector_norm(direction.double(), dim=over or None, keepdim=True)
        found[f"{stem}.weight"] = (length.double() * direction.double() / norm).to(direction.dtype)
        del found[name], found[stem + _LENGTHS[ending]]
    return found


def check_weights(path: Path) -> None:
    """Whether there is a file to start from; raises InputNotFoundError if there is none."""
    weight_path(path)


_WRAPPERS = frozenset(
    ("model", "module", "backbone", "net", "network", "encoder", "_orig_mod", "base_model", "timm_model", "wav2vec2")
)
"""What training loops put before a network's own names."""


def _own_names(given: Tensors, own: Tensors) -> dict[str, str]:
    """Own name -> the name in the file."""
    found: dict[str, str] = {}
    for theirs in given:
        rest = theirs
        while True:
            name = next((one for one in (_BACKBONE + rest, rest) if one in own), None)
            wrapper, dot, rest = rest.partition(".")
            if name is not None or not dot or wrapper not in _WRAPPERS:
                break
        if name is not None:
            found.setdefault(name, theirs)
    return found


def _in_order(given: Tensors, own: Tensors) -> dict[str, str]:
    """The backbone's names -> those of another library's file with the same layers; none if shapes differ.

    The last two may be a classifier for other labels.
    """
    for left_out in ("", _COUNTER):  # older files do not count batches
        ours = [name for name in own if name.startswith(_BACKBONE) and not (left_out and name.endswith(left_out))]
        theirs = [name for name in given if not (left_out and name.endswith(left_out))]
        pairs = list(zip(ours, theirs, strict=False))
        layers = pairs[: len(ours) - 2]
        if len(layers) >= _FEWEST and len(layers) == len(ours) - 2 and all(
            _same_layer(own[name], given[other]) for name, other in layers
        ):  # fmt: skip
            return dict(pairs)
    return {}


_CHANNELS = {1, 2, 3}
"""Of pictures: what the first convolution of a network may take."""


def _same_layer(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have one shape, but for the channels of a picture."""
    is_first = one.ndim == other.ndim == 4 and {one.shape[1], other.shape[1]} <= _CHANNELS
    return one.shape == other.shape or (is_first and one[:, :1].shape == other[:, :1].shape)


def _classifiers(model: torch.nn.Module, own: Tensors) -> tuple[str, ...]:
    """Beginnings of the names of layers that give logits: all that is not the backbone's, and timm's own classifier."""
    facts = getattr(getattr(model, "backbone", None), "pretrained_cfg", {})
    name = facts.get("classifier") or ()
    inner = [f"{_BACKBONE}{each}." for each in ((name,) if isinstance(name, str) else name)]
    return (*inner, *(each for each in own if not each.startswith(_BACKBONE)))


def _rows_by_label(
    tensor: torch.Tensor, own: torch.Tensor, theirs: Sequence[str], labels: Sequence[str]
) -> torch.Tensor:
    """A classifier's rows for labels that both have, the others as they are; the tensor itself if it is none."""
    if not tensor.ndim or len(tensor) != len(theirs) or own.shape != (len(labels), *tensor.shape[1:]):
        return tensor
    rows, place = own.clone(), {label: index for index, label in enumerate(theirs)}
    if not place.keys() & set(labels):
        return tensor[:0]  # which does not fit
    for index, label in enumerate(labels):
        if label in place:
            rows[index] = tensor[place[label]]
    return rows


def _adapted(name: str, tensor: torch.Tensor, own: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """The tensor in our shape where there is a way to it, else as it is."""
    if name == f"{_BACKBONE}pos_embed":
        return _resampled(tensor, own, model)
    n_own = own.shape[1] if own.ndim == 4 else 0
    if tensor.ndim == own.ndim == 4 and tensor.shape[1] != n_own and {tensor.shape[1], n_own} <= _CHANNELS:
        # The sum answers to grey as all channels did; each of ours gets its share of it.
        return (tensor.sum(dim=1, keepdim=True) / n_own).repeat(1, n_own, 1, 1)
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
