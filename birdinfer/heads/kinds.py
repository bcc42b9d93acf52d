"""The kinds of heads for single windows: linear, a small network, prototypes. Embeddings and truth -> heads.

* ``linear``: logistic regression. The strength is that of the penalty on its squared weights.
* ``mlp``: a hidden layer of rectified sums before it, with dropout and averaged weights.
* ``prototypes``: the cosine to a point for each species, times a temperature that is fitted for all. The points begin
  at the species' means, and the strength is that of the penalty on their distance from there: the highest leaves them
  at the means, which is best for a clip or two of each species.

All take embeddings that are standardised and scaled to one length: how loud a window is then counts less. Of the 86
British species of the benchmarks linear heads and prototypes separated more that way. A kind fits a head for each of
its strengths; which is the best is found by :mod:`birdinfer.heads.validation`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from birdinfer.heads.fitting import Problem, descend, minimise, seeded
from birdinfer.heads.window_head import HeadActivation, Linear, WindowHead
from birdinfer.typing import Float32

HIDDEN = 128
_DROPOUT = 0.3
_STEPS, _BATCH, _RATE, _DECAY = 300, 256, 2e-3, 1e-2
_LEAST_EPOCHS = 4
_TEMPERATURE = 10.0
"""To begin with."""


class Kind(NamedTuple):
    """How a head of this kind is fitted."""

    strengths: tuple[float, ...]
    """Of its penalty, the strongest first."""
    fit: Callable[[Problem, Sequence[float], int], list[WindowHead]]
    """(windows, strengths, seed) -> a head for each strength."""


def fit_heads(
    kind: str,
    embeddings: Float32,
    truth: Float32,
    weights: Float32,
    *,
    strengths: Sequence[float] = (),
    activation: HeadActivation = "sigmoid",
    seed: int = 0,
) -> list[WindowHead]:
    """Fit a head for each of several strengths of its penalty; the same bits for the same seed.

    Args:
        kind: of :data:`KINDS`.
        embeddings: [windows, numbers].
        truth: 1 present, 0 absent, NaN unknown, [windows, species].
        weights: of the windows, above 0, [windows].
        strengths: above 0, the strongest first; none: those of the kind.
        activation: ``softmax`` needs one species in each window, and no cell unknown.
        seed: of what is drawn.
    """
    chosen = KINDS[kind]
    return chosen.fit(Problem(embeddings, truth, weights, activation), strengths or chosen.strengths, seed)


def _fit_linear(problem: Problem, strengths: Sequence[float], seed: int) -> list[WindowHead]:
    """Each from the one before it: the strongest first is the fastest."""
    n_species = problem.target.shape[1]
    slopes = torch.zeros((problem.inputs.shape[1], n_species), requires_grad=True)
    offsets = torch.zeros(n_species, requires_grad=True)
    heads = []
    for strength in strengths:

        def cost(strength: float = strength) -> torch.Tensor:
            return problem.cost(problem.inputs @ slopes + offsets) + strength / 2 * slopes.square().sum()

        minimise(cost, [slopes, offsets])
        heads.append(problem.head(slopes.detach().numpy(), offsets.detach().numpy()))
    return heads


def _fit_mlp(problem: Problem, strengths: Sequence[float], seed: int) -> list[WindowHead]:
    heads = []
    n_windows, n_numbers = problem.inputs.shape
    n_steps = max(_STEPS, _LEAST_EPOCHS * n_windows // _BATCH)
    for strength in strengths:
        with seeded(seed):
            first, last = torch.nn.Linear(n_numbers, HIDDEN), torch.nn.Linear(HIDDEN, problem.target.shape[1])
            network = torch.nn.Sequential(
                torch.nn.Dropout(_DROPOUT), first, torch.nn.ReLU(), torch.nn.Dropout(_DROPOUT), last
            )

            def cost(rows: torch.Tensor, network: torch.nn.Module = network) -> torch.Tensor:
                return problem.cost(network(problem.inputs[rows]), rows) * (n_windows / len(rows))

            descend(network, cost, n_windows, n_steps=n_steps, batch=_BATCH, rate=_RATE, decay=_DECAY * strength)
        (inner, inner_offsets), (outer, outer_offsets) = (
            (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy()) for layer in (first, last)
        )
        heads.append(problem.head(outer, outer_offsets, hidden=Linear(inner, inner_offsets)))
    return heads


def _fit_prototypes(problem: Problem, strengths: Sequence[float], seed: int) -> list[WindowHead]:
    inputs = problem.inputs / problem.length
    present = problem.target * problem.shares
    # A species without windows begins anywhere: at 0 it would have no direction.
    summed = (inputs.T @ present).T + (present.sum(dim=0) == 0)[:, None]
    means = torch.nn.functional.normalize(summed, dim=1)
    moved = torch.zeros(means.shape, requires_grad=True)
    warmth = torch.tensor(float(np.log(_TEMPERATURE)), requires_grad=True)
    offset = torch.zeros((), requires_grad=True)
    heads = []

    def points() -> torch.Tensor:
        found: torch.Tensor = torch.nn.functional.normalize(means + moved, dim=1) * warmth.exp()
        return found

    for strength in strengths:

        def cost(strength: float = strength) -> torch.Tensor:
            away = (warmth - np.log(_TEMPERATURE)).square()
            # With one clip a species a higher temperature would always fit better.
            held: torch.Tensor = strength * (moved.square().sum() + away)
            return problem.cost(inputs @ points().T + offset) + held

        minimise(cost, [moved, warmth, offset])
        with torch.no_grad():
            weights = (points().T / problem.length).numpy().copy()
        heads.append(problem.head(weights, np.full(len(means), offset.item(), np.float32)))
    return heads


KINDS: Mapping[str, Kind] = {
    "linear": Kind((0.3, 0.1, 0.03), _fit_linear),
    "mlp": Kind((1.0,), _fit_mlp),
    "prototypes": Kind((0.3, 0.1, 0.03), _fit_prototypes),
}
