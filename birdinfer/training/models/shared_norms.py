"""BatchNorm over all processes that train together: each holds a part of the batch, all normalise by the whole of it.

In: a network and the number of processes; out: the same network, with the same parameters and buffers, whose norms in
training take mean and variance [channels] over everyone's windows (Ioffe and Szegedy 2015, "Batch Normalization", and
its gradient). Without it, four processes of 16 windows would train another network than one of 64. Calls of batch_norm
are taken over rather than modules replaced: timm's norms with an activation inside are reached alike, what is saved
stays as it is, norms that hold still (``norms.py``) are left alone, and so is what NFNet makes of its weights.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import distributed
from torch.nn import functional
from torch.nn.modules import _functions
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


def share_norms(network: torch.nn.Module, n_processes: int) -> torch.nn.Module:
    """The network with shared norms; itself where it has none.

    Args:
        network: any; all processes compute it at the same time, each on as many windows as every other.
        n_processes: how many.
    """
    has_norms = any(isinstance(module, _BatchNorm) for module in network.modules())
    return SharingNorms(network, n_processes) if has_norms else network


class SharingNorms(torch.nn.Module):
    """A network whose norms see the whole batch. Its parameters are the network's own, which stays plain."""

    def __init__(self, network: torch.nn.Module, n_processes: int) -> None:
        """Nothing is changed in the network, which is saved, averaged and validated by itself."""
        super().__init__()
        self.network, self._n_processes = network, n_processes

    def forward(self, inputs: torch.Tensor) -> Any:
        """What the network says of this process's windows."""
        with _Taking(self._n_processes):
            return self.network(inputs)


class _Call(NamedTuple):
    """The arguments of ``torch.nn.functional.batch_norm``."""

    input: torch.Tensor
    running_mean: torch.Tensor | None
    running_var: torch.Tensor | None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5


class _Taking(TorchFunctionMode):
    """While entered, batch_norm of a batch in training is over all processes."""

    def __init__(self, n_processes: int) -> None:
        super().__init__()
        self._n_processes = n_processes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            call = _Call(*args, **kwargs)
            # Without running statistics it is no norm of a batch: NFNet standardises its weights in this way.
            if call.training and call.running_mean is not None and call.running_var is not None:
                return _over_all(call, call.running_mean, call.running_var, self._n_processes)
        return func(*args, **kwargs)


def _over_all(call: _Call, running_mean: torch.Tensor, running_var: torch.Tensor, n_processes: int) -> torch.Tensor:
    if call.input.is_cuda:  # torch's own kernels, which a CPU has not
        fused: torch.Tensor = _functions.SyncBatchNorm.apply(  # type: ignore[no-untyped-call]
            call.input, call.weight, call.bias, running_mean, running_var, call.eps, call.momentum,
            distributed.group.WORLD, n_processes,
        )  # fmt: skip
        return fused
    normalised, mean, var = _SharedNorm.apply(call.input, call.weight, call.bias, call.eps, n_processes)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        n_values = n_processes * (call.input.numel() // len(mean))
        running_mean.lerp_(mean.to(running_mean.dtype), call.momentum)
        running_var.lerp_((var * (n_values / (n_values - 1))).to(running_var.dtype), call.momentum)
    out: torch.Tensor = normalised
    return out


class _SharedNorm(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float, n: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        own_var, own_mean = torch.var_mean(_wide(values), _all_but_channels(values), correction=0)
        parts = [own_mean.new_empty(2, len(own_mean)) for _ in range(n)]
        distributed.all_gather(parts, torch.stack([own_mean, own_var]))
        means, variances = torch.stack(parts).unbind(1)
        # Parts are equally large: the variance of all is the mean of theirs, and of how far their means lie apart.
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        ctx.save_for_backward(values, weight, mean, torch.rsqrt(var + eps))
        ctx.n_values = n * (values.numel() // len(mean))
        ctx.mark_non_differentiable(mean, var)
        out = functional.batch_norm(values, mean, var, weight, bias, training=False, eps=eps)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor, *_: torch.Tensor) -> Any:
        """With g the slope, h = (x - mean) / deviation: (g - mean(g) - h mean(g h)) weight / deviation.

        The means are over all processes; slopes of weight and bias are this process's, as of every other parameter.
        """
        values, weight, mean, inverse = ctx.saved_tensors
        dims, shape = _all_but_channels(values), (1, -1, *(1,) * (values.dim() - 2))
        wide = _wide(slope)
        standard = (_wide(values) - mean.view(shape)) * inverse.view(shape)
        of_bias, of_weight = wide.sum(dims), (wide * standard).sum(dims)
        sums = torch.stack([of_bias, of_weight])
        distributed.all_reduce(sums)
        mean_slope, mean_product = (sums / ctx.n_values).unbind(0)
        scale = inverse if weight is None else inverse * _wide(weight)
        of_values = (wide - mean_slope.view(shape) - standard * mean_product.view(shape)) * scale.view(shape)
        has_weight = weight is not None
        return (
            of_values.to(values.dtype),
            of_weight if has_weight else None,
            of_bias if has_weight else None,
            None,
            None,
        )


def _wide(values: torch.Tensor) -> torch.Tensor:
    """In float32 at least: sums over a batch need it, also in mixed precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _all_but_channels(values: torch.Tensor) -> tuple[int, ...]:
    return (0, *range(2, values.dim()))
