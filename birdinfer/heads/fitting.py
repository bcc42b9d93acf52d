"""What all heads are fitted by: standardised windows, a cost in which species and recordings count alike, two descents.

Present and absent windows of a species count alike, however few it has, and so do recordings, however long they are.
That makes every species as likely as not; the mean prior of all species is added to the offsets, so that probabilities
of a sigmoid are of a usable size while a rare species is not ranked below a common one. (King and Zeng 2001, "Logistic
Regression in Rare Events Data", section 4.1, with one prior for all species.)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from birdinfer.heads.window_head import HeadActivation, Layer, Linear, Normalise, Rectify, Scale, WindowHead
from birdinfer.typing import Float32, Float64, Index

NEVER = -15.0
"""Logit of a species without a window to learn from."""
_ITERATIONS = 100
_AVERAGED_FROM = 0.65
"""Share of the steps after which weights are averaged."""


class Problem:
    """Labelled windows, and what a head's logits for them cost."""

    def __init__(self, embeddings: Float32, truth: Float32, weights: Float32, activation: HeadActivation) -> None:
        """Standardise embeddings [windows, numbers]; arguments as of :func:`birdinfer.heads.kinds.fit_heads`."""
        self._activation: HeadActivation = activation
        mean, spread = embeddings.mean(axis=0), embeddings.std(axis=0)
        # What never changes says nothing.
        is_dead = spread <= 1e-6 * max(float(spread.max()), 1e-30)
        factors = np.where(is_dead, 0, 1 / np.where(is_dead, 1, spread)).astype(np.float32)
        self._scale = Scale(factors, (-mean * factors).astype(np.float32))
        self.length = float(np.sqrt(embeddings.shape[1]))
        """Of each window's inputs, as if all of its numbers were 1 or -1."""
        self.inputs = torch.from_numpy(Normalise()(self._scale(embeddings)) * np.float32(self.length))
        """[windows, numbers]: standardised, then scaled to one length."""
        shares, self._positive = _balanced(truth, weights)
        self.target, self.shares = torch.from_numpy(np.nan_to_num(truth)), torch.from_numpy(shares)

    def cost(self, logits: torch.Tensor, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Sum the cost of the logits [rows, species] of all windows, or of some."""
        target, shares = self.target[rows], self.shares[rows]
        if self._activation == "softmax":
            present = target * shares
            return -(log_softmax(logits, dim=1) * present).sum() / (self.target * self.shares).sum()
        return binary_cross_entropy_with_logits(logits, target, shares, reduction="sum")

    def head(self, weights: Float32, offsets: Float32, hidden: Linear | None = None) -> WindowHead:
        """Make the head of weights for :attr:`inputs`, with the mean prior; a species without windows gets NEVER."""
        is_known = (self._positive > 0) & (self._positive < 1)
        has_prior = self._activation == "sigmoid" and is_known.any()
        prior = np.log(self._positive[is_known] / (1 - self._positive[is_known])).mean() if has_prior else 0.0
        offsets = np.where(self._positive > 0, offsets + prior, NEVER).astype(np.float32)
        weights = np.where(self._positive > 0, weights, 0.0).astype(np.float32)
        length = np.float32(self.length)
        layers: tuple[Layer, ...] = (Linear(weights * length, offsets),)
        if hidden is not None:
            layers = (Linear(hidden.weights * length, hidden.offsets), Rectify(), Linear(weights, offsets))
        return WindowHead(layers=(self._scale, Normalise(), *layers), activation=self._activation)


def minimise(cost: Callable[[], torch.Tensor], values: list[torch.Tensor]) -> None:
    """Change the values until the cost is least, by all windows at once (L-BFGS)."""
    optimiser = torch.optim.LBFGS(
        values, max_iter=_ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        total = cost()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(step)  # type: ignore[no-untyped-call]


def descend(
    network: torch.nn.Module,
    cost: Callable[[torch.Tensor], torch.Tensor],
    n_items: int,
    *,
    n_steps: int,
    batch: int,
    rate: float,
    decay: float,
) -> None:
    """Train a network by AdamW with a one-cycle rate, and leave it with its averaged weights, in evaluation mode.

    Args:
        network: in training mode; random numbers are those of :func:`seeded`.
        cost: of the items with these numbers [batch].
        n_items: from which batches are drawn, each once before any is drawn again.
        n_steps: batches.
        batch: most items in one.
        rate: the highest of the cycle.
        decay: of the weights.
    """  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=n_steps)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    for step, rows in enumerate(_batches(n_items, batch, n_steps)):
        optimiser.zero_grad()
        cost(rows).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step >= _AVERAGED_FROM * n_steps:
            averaged.update_parameters(network)
    network.load_state_dict(averaged.module.state_dict())
    network.eval()


def _batches(n_items: int, batch: int, n_steps: int) -> Iterator[torch.Tensor]:
    waiting = torch.zeros(0, dtype=torch.int64)
    for _ in range(n_steps):
        if len(waiting) < min(batch, n_items):
            waiting = torch.randperm(n_items)
        yield waiting[:batch]
        waiting = waiting[batch:]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random numbers of torch from a seed, and leave the process's own as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _balanced(truth: Float32, weights: Float32) -> tuple[Float32, Float64]:
    """The share of each cell in its species' cost [windows, species], and how much of a species is present [species].

    Present and absent ones sum to a half each; a species without either costs nothing.
    """
    known = np.isfinite(truth)
    shares = np.where(known, weights[:, np.newaxis], 0.0)
    present, absent = np.where(truth == 1, shares, 0.0), np.where(truth == 0, shares, 0.0)
    sums = present.sum(axis=0), absent.sum(axis=0)
    each = sum(0.5 * np.divide(part, total, out=np.zeros_like(part), where=total > 0)
               for part, total in zip((present, absent), sums, strict=True))  # fmt: skip
    total = sums[0] + sums[1]
    positive = np.divide(sums[0], total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(each, np.float32), positive


def window_weights(clips: Index) -> Float32:
    """Weigh the windows [n] of clips so that each clip counts alike; their mean is 1."""
    weights = 1.0 / np.bincount(clips)[clips]
    return np.asarray(weights / weights.mean(), np.float32)
