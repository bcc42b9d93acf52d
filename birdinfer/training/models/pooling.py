"""A feature map [windows, features, h, w] -> one vector a window, or its steps in time; h is frequency and w time."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional


class Average(torch.nn.Module):
    """The mean over all places."""

    def __init__(self, over: tuple[int, ...] = (2, 3)) -> None:
        """Start; ``over`` are the dimensions of the mean, which are gone in the answer."""
        super().__init__()
        self._over = over

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features], or what else is left."""
        return features.mean(dim=self._over)


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

    def __init__(self, over: tuple[int, ...] = (2, 3)) -> None:
        """Start; ``over`` are the dimensions of the mean, which are gone in the answer."""
        super().__init__()
        self._over = over
        self.p = torch.nn.Parameter(torch.tensor(self.START))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> float32 [windows, features], or what else is left."""
        # float32 also under mixed precision: a power of 3 leaves fp16's range at 40.
        powers = features.float().clamp(min=self.SMALLEST).pow(self.p)
        return powers.mean(dim=self._over).pow(1.0 / self.p)


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


def in_steps(sequence: torch.Tensor, n_steps: int) -> torch.Tensor:
    """The mean of the steps that lie in each of fewer, coarser ones: [windows, features, steps] -> [.., n_steps].

    Stages of a network halve their width: a coarser step holds 2, 4 ... finer ones, the last one perhaps fewer.
    """
    n_given = int(sequence.shape[2])  # also while a graph is traced, whose windows all have one width
    n_each = max(1, round(n_given / n_steps))
    short = n_each * n_steps - n_given  # negative: cut off
    # The last step repeated, not an incomplete pool: engines disagree about what that is divided by.
    whole = functional.pad(sequence, (0, short), mode="replicate") if short > 0 else sequence[..., : n_each * n_steps]
    return functional.avg_pool1d(whole, n_each)


def side_by_side(each: Sequence[torch.Tensor]) -> torch.Tensor:
    """[windows, features, ...] of several stages -> [windows, all features, ...]; of one: itself, without a copy."""
    return each[0] if len(each) == 1 else torch.cat(tuple(each), dim=1)
