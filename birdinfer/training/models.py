"""Networks: log-mel [windows, 1, n_mels, frames] -> logits [windows, labels].

A model family is one function and one entry in ``FAMILIES``. Weights to start from are timm's or a local safetensors
file; nothing is ever unpickled.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from birdinfer.errors import CheckpointError, ConfigError, InputNotFoundError
from birdinfer.training.recipe_learning import ModelConfig
from birdinfer.training.torchvision_shim import import_timm

Note = Callable[[str], None]
_LISTED = 3


def build_model(config: ModelConfig, n_labels: int, *, start: bool, note: Note = lambda _: None) -> torch.nn.Module:
    """A network of the recipe's family.

    Args:
        config: which one.
        n_labels: columns of its logits.
        start: whether to load the weights that the recipe starts from; a checkpoint brings its own.
        note: takes a line about weights that did not fit.

    Raises:
        ConfigError: family or backbone are unknown, or timm's weights cannot be fetched.
        InputNotFoundError, CheckpointError: the local weights are missing or damaged.
    """
    if config.family not in FAMILIES:
        raise ConfigError("model.family", f"{config.family!r} is unknown", f"known are {', '.join(FAMILIES)}")
    model = FAMILIES[config.family](config, n_labels, start and config.pretrained and not config.weights)
    if start and config.weights:
        note(load_weights(model, Path(config.weights)))
    return model


def build_cnn(config: ModelConfig, n_labels: int, pretrained: bool) -> torch.nn.Module:
    """A timm backbone with its own pooling and classifier on one input channel."""
    timm = import_timm()
    if not timm.is_model(config.backbone):
        near = difflib.get_close_matches(config.backbone, timm.list_models(), n=3, cutoff=0.5)
        raise ConfigError("model.backbone", f"timm knows no {config.backbone!r}", f"did you mean {', '.join(near)}?")
    try:
        model: torch.nn.Module = timm.create_model(
            config.backbone, pretrained=pretrained, in_chans=1, num_classes=n_labels, **_drops(config)
        )
    except TypeError as error:
        raise ConfigError("model", f"{config.backbone} takes no such setting ({error})", "set it to 0") from error
    except Exception as error:
        # Hub, network and cache fail with a dozen types of several packages; with local weights none of them can.
        if not pretrained:
            raise
        raise ConfigError(
            "model.pretrained",
            f"weights of {config.backbone} cannot be fetched ({str(error).splitlines()[0][:120]})",
            "set model.pretrained=false, or model.weights to a local .safetensors file",
        ) from error
    return model


def load_weights(model: torch.nn.Module, path: Path) -> str:
    """Start from a local safetensors file.

    A first convolution for three channels is summed into one; tensors of another shape (a classifier for other
    labels) and unknown names are left out.

    Returns:
        One line: how many tensors were taken, and which were not.

    Raises:
        InputNotFoundError: there is no such file.
        CheckpointError: it is not safetensors, or nothing in it fits.
    """
    if not path.is_file():
        raise InputNotFoundError(path, "no such weights", "set model.weights to a .safetensors file")
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"is not a safetensors file ({error})") from error
    own = model.state_dict()
    adapted = {name: _one_channel(tensor, own[name]) for name, tensor in given.items() if name in own}
    fitting = {name: tensor for name, tensor in adapted.items() if tensor.shape == own[name].shape}
    if not fitting:
        raise CheckpointError(path, "holds no tensor that fits the model", "is it of the same backbone?")
    model.load_state_dict(fitting, strict=False)
    return f"{path}: {len(fitting)} of {len(own)} tensors taken{_left_out(set(own) - set(fitting), 'kept random')}" + (
        _left_out(set(given) - set(fitting), "not used")
    )


def _one_channel(tensor: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """[out, 3, h, w] -> [out, 1, h, w] where the model wants it; the sum answers to grey as the three did."""
    if tensor.ndim == 4 and own.ndim == 4 and own.shape[1] == 1 and tensor.shape[1] == 3:
        return tensor.sum(dim=1, keepdim=True)
    return tensor


def _left_out(names: set[str], what: str) -> str:
    if not names:
        return ""
    rest = " ..." if len(names) > _LISTED else ""
    return f"; {len(names)} {what}: {', '.join(sorted(names)[:_LISTED])}{rest}"


def _drops(config: ModelConfig) -> dict[str, Any]:
    """Only what is not zero: not every backbone of timm has stochastic depth."""
    drops = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
    return {name: rate for name, rate in drops.items() if rate}


FAMILIES: dict[str, Callable[[ModelConfig, int, bool], torch.nn.Module]] = {"cnn": build_cnn}
