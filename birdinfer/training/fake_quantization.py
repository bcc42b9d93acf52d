"""Quantisation-aware training: a network in, the same one as INT8 will compute it out, with gradients.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 3: weights are rounded to S8 with a step per output channel, what a convolution reads is rounded to U8, and
gradients pass as if nothing had been rounded. A norm behind a convolution changes nothing: it scales whole channels.
Ranges are those of the batch, not running averages: there is no state, so a resumed run ends with the same bits.
As in the exported graph, the convolution that reads the spectrogram, the gates and the classifier stay as they are.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from birdinfer.training.models.activation import outside_gates

_S8_LARGEST, _U8_LARGEST = 127, 255
_SMALLEST_STEP = 1e-8
"""Of a channel, or a map, that is all zeros."""


class FakeQuantized(torch.nn.Module):
    """A network that is computed as if in INT8. Its parameters are the network's own, which stays plain."""

    def __init__(self, network: torch.nn.Module) -> None:
        """Look for the convolutions."""
        super().__init__()
        self.network = network
        self._names = _int8_convolutions(network)

    def forward(self, inputs: torch.Tensor) -> Any:
        """What the network says of the inputs, its weights and maps rounded."""
        weights = {
            f"{name}.weight": round_weight(convolution.weight)
            for name, convolution in self._convolutions()
            if _is_plain(convolution)
        }
        with _reading_u8([convolution for _, convolution in self._convolutions()]):
            return torch.func.functional_call(self.network, weights, (inputs,))

    def _convolutions(self) -> Iterator[tuple[str, torch.nn.Conv2d]]:
        for name in self._names:
            yield name, self.network.get_submodule(name)  # type: ignore[misc]


def round_weight(weight: torch.Tensor) -> torch.Tensor:
    """Rounded to 255 steps, as many below zero as above.

    Args:
        weight: [channels out, channels in, height, width].

    Returns:
        The same shape; at most half a step of its channel away, a step being the channel's largest weight / 127.
    """
    steps = weight.detach().abs().amax(dim=(1, 2, 3)).float().clamp(min=_SMALLEST_STEP * _S8_LARGEST) / _S8_LARGEST
    zeros = torch.zeros_like(steps, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(weight.float(), steps, zeros, 0, -_S8_LARGEST, _S8_LARGEST)
    return rounded.to(weight.dtype)


def round_activation(values: torch.Tensor) -> torch.Tensor:
    """Round a map to 256 steps from the batch's lowest to its highest value; 0, which padding needs, is one of them."""
    low, high = torch.aminmax(values.detach().float())
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = ((high - low) / _U8_LARGEST).clamp(min=_SMALLEST_STEP)
    zero = (-low / step).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values.float(), step, zero, 0, _U8_LARGEST).to(values.dtype)


@contextmanager
def _reading_u8(convolutions: list[torch.nn.Conv2d]) -> Iterator[None]:
    with ExitStack() as hooks:
        for convolution in convolutions:
            hooks.enter_context(convolution.register_forward_pre_hook(_round_what_is_read))
        yield


def _round_what_is_read(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (round_activation(arguments[0]), *arguments[1:])


def _int8_convolutions(network: torch.nn.Module) -> list[str]:
    """Names of the convolutions that are exported in INT8: not the first one, and none of a gate."""
    outside = {id(module) for module in outside_gates(network)}
    found = [(name, module) for name, module in network.named_modules() if isinstance(module, torch.nn.Conv2d)]
    return [name for name, module in found[1:] if id(module) in outside]


def _is_plain(convolution: torch.nn.Conv2d) -> bool:
    """Whether it convolves with its weights as they are; NFNet's standardises them at each pass."""
    return not hasattr(convolution, "gain")
