"""timm's networks on spectrograms: [windows, 1, rows, columns] -> whatever the network makes of it.

Here is all that the families on timm share: the network by its name, one or three input channels, and, for heads of
our own, its feature map [windows, features, rows / stride, columns / stride].
"""

import difflib
from typing import Any, NamedTuple

import torch

from birdinfer.errors import ConfigError
from birdinfer.training.models.blueprint import Blueprint
from birdinfer.training.models.weights import tensors_only
from birdinfer.training.recipe.learning import ModelConfig
from birdinfer.training.torchvision_shim import import_timm

_PROBE_SIZE = 64
"""Rows and columns of the picture that tells how many features a network has; strides of 32 leave 2 x 2."""


def create_backbone(blueprint: Blueprint, **settings: Any) -> torch.nn.Module:
    """A network of timm, with its weights if the blueprint wants them.

    Args:
        blueprint: names it, and how many channels it takes.
        settings: further arguments of ``timm.create_model``.

    Raises:
        ConfigError: timm knows no network, or no weights, of this name, it does not take a setting, or its weights
            cannot be fetched.
    """
    timm, config = import_timm(), blueprint.config
    _refuse_unknown(timm, config.backbone)
    try:
        with tensors_only():
            model: torch.nn.Module = timm.create_model(
                config.backbone, pretrained=blueprint.pretrained, in_chans=config.in_channels, **settings
            )
    except TypeError as error:
        raise ConfigError("model", f"{config.backbone} takes no such setting ({error})", "set it to 0") from error
    except Exception as error:
        # Hub, network and cache fail with a dozen types of several packages; without the hub none of them can.
        if not blueprint.pretrained:
            raise
        raise ConfigError(
            "model.pretrained",
            f"weights of {config.backbone} cannot be fetched ({str(error).splitlines()[0][:120]})",
            "set model.pretrained=false, or model.weights to a local .safetensors file",
        ) from error
    return model


def dropouts(config: ModelConfig, *names: str) -> dict[str, float]:
    """Those of ``drop_rate`` and ``drop_path_rate`` that are not 0: not every backbone has stochastic depth."""
    return {name: getattr(config, name) for name in names if getattr(config, name)}


def coloured(log_mel: torch.Tensor, n_channels: int) -> torch.Tensor:
    """[windows, 1, rows, columns] -> [windows, n_channels, rows, columns], each channel the same."""
    return log_mel if n_channels == 1 else log_mel.expand(-1, n_channels, -1, -1)


class Features(NamedTuple):
    """A timm network without pooling and classifier."""

    backbone: torch.nn.Module
    """[windows, channels, rows, columns] -> [windows, n_features, h, w], h being frequency and w time."""
    n_features: int


def create_features(blueprint: Blueprint) -> Features:
    """A timm network that ends in its feature map.

    What it does to its features before it classifies them (mobilenetv3's last 1 x 1 convolution, convnext's last norm)
    is done at every place of the map, so that no layer lies idle.

    Raises:
        ConfigError: it cannot be built, or has no such map.
    """
    drops = dropouts(blueprint.config, "drop_path_rate")
    backbone = create_backbone(blueprint, num_classes=0, global_pool="", **drops)
    return Features(backbone, _count_features(backbone, blueprint.config))


def _count_features(backbone: torch.nn.Module, config: ModelConfig) -> int:
    """Channels of the feature map.

    Raises:
        ConfigError: there is no feature map.
    """
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, config.in_channels, _PROBE_SIZE, _PROBE_SIZE))
    except (AssertionError, RuntimeError) as error:
        raise _no_map(config) from error
    finally:
        backbone.train(was_training)
    if features.ndim != 4 or features.shape[1] != getattr(backbone, "head_hidden_size", features.shape[1]):
        raise _no_map(config)
    return int(features.shape[1])


def _no_map(config: ModelConfig) -> ConfigError:
    what = f"{config.backbone} gives {config.family} no feature map of any picture"
    return ConfigError("model.backbone", what, 'choose a convolutional network, or family = "vit"')


def _refuse_unknown(timm: Any, backbone: str) -> None:
    """Refuse a network that timm does not know, and weights that it does not know of a network that it does.

    Raises:
        ConfigError: it names the most alike.
    """
    if not timm.is_model(backbone):
        raise _unknown(backbone, timm.list_models())
    try:
        timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:  # is_model looks at what stands before the full stop only
        network = backbone.partition(".")[0]
        raise _unknown(backbone, [network, *timm.list_pretrained(f"{network}.*")]) from error


def _unknown(backbone: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(backbone, known, n=3, cutoff=0.5)
    remedy = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them"
    return ConfigError("model.backbone", f"timm knows no {backbone!r}", remedy)
