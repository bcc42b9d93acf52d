"""A soup (Wortsman 2022): the weights of several checkpoints of one run, averaged into one network's."""

from collections.abc import Sequence

import torch

from birdinfer.training.checkpoint import MODEL, Checkpoint, Tensors


def average_weights(checkpoints: Sequence[Checkpoint]) -> Tensors:
    """The mean of each tensor, by its name in the model, computed in float64.

    BatchNorm's running statistics are averaged like weights: of epochs of one run they lie close together. (Counting
    them anew over the clips gives NaN for networks that have no BatchNorm to count, as NFNets.) Counters are those of
    the last checkpoint.

    Args:
        checkpoints: at least one, all of one network.
    """
    every = [checkpoint.weights(MODEL) for checkpoint in checkpoints]
    return {name: _mean([weights[name] for weights in every]) for name in every[-1]}


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    last = tensors[-1]
    if not last.is_floating_point():
        return last
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(last.dtype)
