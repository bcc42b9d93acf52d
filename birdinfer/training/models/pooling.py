"""A feature map [windows, features, h, w] -> one vector a window [windows, features].

``h`` is frequency and ``w`` time. A pooling is one module and one entry in ``POOLINGS``.
"""

from collections.abc import Callable

import torch
from torch.nn import functional


class Average(torch.nn.Module):
    """The mean over all places."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features]."""
        return features.mean(dim=(2, 3))


class Maximum(torch.nn.Module):
    """The loudest place."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features]."""
        return features.amax(dim=(2, 3))


class AveragePlusMaximum(torch.nn.Module):
    """The sum of both."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features]."""
        return features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))


class GeneralisedMean(torch.nn.Module):
    """(mean of x^p)^(1/p), x at least 1e-6, p learnt: GeM (Radenovic et al. 2018, "Fine-tuning CNN Image Retrieval").

    p = 1 is the mean, a large p the maximum.
    """

    START = 3.0
    """The paper's."""
    SMALLEST = 1e-6

    def __init__(self) -> None:
        """Begin with the paper's p."""
        super().__init__()
        self.p = torch.nn.Parameter(torch.tensor(self.START))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> float32 [windows, features]."""
        # float32 also under mixed precision: a power of 3 leaves fp16's range at 40.
        powers = features.float().clamp(min=self.SMALLEST).pow(self.p)
        return powers.mean(dim=(2, 3)).pow(1.0 / self.p)


class MeanFrequency(torch.nn.Module):
    """The mean over frequency, then mean plus maximum over time."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features]."""
        in_time = features.mean(dim=2)
        return in_time.mean(dim=2) + in_time.amax(dim=2)


POOLINGS: dict[str, Callable[[], torch.nn.Module]] = {
    "avg": Average,
    "max": Maximum,
    "avgmax": AveragePlusMaximum,
    "gem": GeneralisedMean,
    "meanfreq": MeanFrequency,
}


def smooth_in_time(sequence: torch.Tensor) -> torch.Tensor:
    """Maximum plus mean of each step and its two neighbours, [windows, features, steps] -> the same shape.

    PANNs (Kong et al. 2020, "PANNs: Large-Scale Pretrained Audio Neural Networks", its decision-level models). Beyond
    the ends there is nothing, not zeros.
    """
    average = functional.avg_pool1d(sequence, 3, stride=1, padding=1, count_include_pad=False)
    return functional.max_pool1d(sequence, 3, stride=1, padding=1) + average


def mean_and_maximum(sequence: torch.Tensor) -> torch.Tensor:
    """[windows, steps, features] -> [windows, 2 x features]: the mean over time, then the maximum."""
    return torch.cat([sequence.mean(dim=1), sequence.amax(dim=1)], dim=1)
