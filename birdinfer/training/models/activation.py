"""The curves of a timm network between its layers: a network in, the same one with ReLU on its feature maps out.

ReLU is the one activation that costs nothing in INT8: it vanishes into the range of the convolution before it, and all
256 steps of U8 lie on one side of zero. SiLU costs ONNX Runtime a lookup and a product of two maps, and a part of its
steps for a tail that matters little; hard-swish costs as much.
What stands inside a gate (squeeze-excite, ECA) stays: it works on one number a channel.
"""

import math
from typing import Any

import torch
from torch.nn import functional

from birdinfer.training.models.timm_import import import_timm

_COSTLY = {
    "layers.activations": ("Swish", "HardSwish", "GELU", "GELUTanh", "QuickGELU", "Mish", "HardMish"),
    "models.nfnet": ("GammaAct",),
}
"""timm's own, besides torch's; where each lives."""
_COSTLY_OF_TORCH = (torch.nn.SiLU, torch.nn.GELU, torch.nn.Hardswish, torch.nn.Mish)
_GATE = "gate"
"""timm's attentions over channels all end in a child of this name."""
_RELU_FACTOR = 1.7139588594436646
"""timm's, measured; in theory sqrt(2 / (1 - 1 / pi)) = 1.7129, what makes ReLU of noise have variance 1."""


def swap_for_relu(model: torch.nn.Module) -> str:
    """Put ReLU in the place of every costly activation on a feature map.

    A network without norms (NFNet) scales each convolution, or each activation, so that noise of variance 1 leaves
    with variance 1; its factor follows the activation (Brock et al. 2021, "Characterizing signal propagation to close
    the performance gap in unnormalized ResNets").

    Args:
        model: changed in place; names and shapes of its tensors stay.

    Returns:
        One line: how many were swapped.
    """
    costly = _costly_types()
    places = [(parent, name) for parent in outside_gates(model) for name in _costly_children(parent, costly)]
    if not places:
        return "model.activation: no SiLU or the like was found, nothing is swapped"
    for parent, name in places:
        setattr(parent, name, _relu_for(getattr(parent, name)))
    _follow_in_convolutions(model)
    return f"{len(places)} activations swapped for ReLU"


def count_costly(model: torch.nn.Module) -> int:
    """How many activations :func:`swap_for_relu` would swap."""
    costly = _costly_types()
    return sum(len(_costly_children(parent, costly)) for parent in outside_gates(model))


def _costly_types() -> tuple[type[torch.nn.Module], ...]:
    of_timm = [getattr(_timm(module), name) for module, names in _COSTLY.items() for name in names]
    return (*_COSTLY_OF_TORCH, *of_timm)


def outside_gates(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The module and all in it, but for attentions over channels and what they hold."""
    if hasattr(module, _GATE):
        return []
    return [module, *(each for child in module.children() for each in outside_gates(child))]


def _costly_children(parent: torch.nn.Module, costly: tuple[type[torch.nn.Module], ...]) -> list[str]:
    return [name for name, child in parent.named_children() if isinstance(child, costly) and not _is_relu(child)]


def _is_relu(activation: torch.nn.Module) -> bool:
    return getattr(activation, "act_fn", None) is functional.relu


def _relu_for(activation: Any) -> torch.nn.Module:
    in_place = bool(getattr(activation, "inplace", False))
    if isinstance(activation, _timm("models.nfnet").GammaAct):
        scaled: torch.nn.Module = type(activation)("relu", _RELU_FACTOR, in_place)
        return scaled
    return torch.nn.ReLU(in_place)


def _follow_in_convolutions(model: torch.nn.Module) -> None:
    """Where an NFNet has its factor in the convolutions, each of them has the one of its activations; now ReLU's."""
    scaled = _timm("layers.std_conv").ScaledStdConv2d, _timm("layers.std_conv").ScaledStdConv2dSame
    for module in model.modules():
        if isinstance(module, scaled):
            unscaled = module.weight[0].numel() ** -0.5
            # A factor of 1 says that the activations have it.
            module.scale = module.scale if math.isclose(module.scale, unscaled) else _RELU_FACTOR * unscaled


def _timm(module: str) -> Any:
    return import_timm(f"timm.{module}")
