"""BatchNorm in training: frozen, as it will be in prediction, and synchronised over processes.

In training a norm divides by the spread of its own batch. A window that is far louder than others, or has more
contrast, is made ordinary layer by layer, and no loss ever sees what the running statistics make of it in prediction:
in a deep network its activations grow with every layer, to a hundred times those of other windows. Such a window's
logits mean little, and in 8 bits nothing is left for the others. Trained for some epochs with frozen norms, as in
quantisation-aware training (Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference",
section 3.2), the network learns to do without.

Of several processes each holds a part of the batch, and all normalise by the statistics of the whole batch, so that
two processes end where one does. ``torch.nn.SyncBatchNorm`` (and timm's ``convert_sync_batchnorm``, which is built on
it) refuses tensors on a CPU, and replaces the modules of a network that is saved and exported as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import distributed
from torch.nn import functional
from torch.nn.modules import _functions
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


def freeze_norms(model: torch.nn.Module) -> None:
    """Let every BatchNorm of a network in training mode use its running statistics and leave them as they are.

    Their weights and biases still learn. ``model.train()`` undoes it.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def sync_norms(network: torch.nn.Module, n_processes: int) -> torch.nn.Module:
    """Wrap a network so that its norms use the whole batch; a network without norms is returned as it is."""
    has_norms = any(isinstance(module, _BatchNorm) for module in network.modules())
    return SyncedNorms(network, n_processes) if has_norms else network


class SyncedNorms(torch.nn.Module):
    """A network whose norms use the whole batch. Its parameters are the network's own, which is not changed."""

    def __init__(self, network: torch.nn.Module, n_processes: int) -> None:
        super().__init__()
        self.network, self._n_processes = network, n_processes

    def forward(self, inputs: torch.Tensor) -> Any:
        """Compute this process's windows."""
        with _Synchronised(self._n_processes):
            return self.network(inputs)


class _Synchronised(TorchFunctionMode):
    """While entered, ``batch_norm`` of a batch in training is over all processes."""

    def __init__(self, n_processes: int) -> None:
        super().__init__()
        self._n_processes = n_processes

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.batch_norm:
            return _batch_norm(self._n_processes, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    n_processes: int,
    values: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    # Without running statistics it is no norm of a batch: NFNet standardises its weights in this way.
    if not training or running_mean is None or running_var is None:
        return functional.batch_norm(values, running_mean, running_var, weight, bias, training, momentum, eps)
    if values.is_cuda:  # torch's own kernels, which a CPU does not have
        fused: torch.Tensor = _functions.SyncBatchNorm.apply(  # type: ignore[no-untyped-call]
            values, weight, bias, running_mean, running_var, eps, momentum, distributed.group.WORLD, n_processes
        )
        return fused
    # In float32 at least: sums over a batch need it, also in mixed precision.
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    dims = (0, *range(2, values.dim()))
    # Parts are equally large: the mean of their means is the mean of all. Two passes, for squares cancel.
    mean = _mean_of_all(wide.mean(dims, keepdim=True), n_processes)
    var = _mean_of_all((wide - mean).square().mean(dims, keepdim=True), n_processes)
    with torch.no_grad():
        n_values = n_processes * (values.numel() // values.shape[1])
        running_mean.lerp_(mean.flatten().to(running_mean.dtype), momentum)
        running_var.lerp_((var * (n_values / (n_values - 1))).flatten().to(running_var.dtype), momentum)
    out = (wide - mean) * torch.rsqrt(var + eps)
    if weight is not None and bias is not None:
        out = out * weight.view(mean.shape) + bias.view(mean.shape)
    return out.to(values.dtype)


def _mean_of_all(values: torch.Tensor, n_processes: int) -> torch.Tensor:
    mean: torch.Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return mean / n_processes


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _Sum.forward(ctx, gradient)
