"""Which items an epoch consists of, and in which order: the recipe's sampling_power, upsample_to and cap_at.

In: the species of each item (a clip, or a window of one). Out: indices [n_items] for any epoch, each a pure function of
(recipe, seed, epoch), so that a resumed run draws what it would have drawn. An epoch is the same length whatever it
draws: the sum over species of their items, raised to ``upsample_to`` and cut to ``cap_at``.
"""

from collections.abc import Sequence

import numpy as np

from birdinfer.training.recipe.schema import DataConfig
from birdinfer.typing import Index, Int64

_ORDER, _TURN = 301, 302
"""First element of a generator's seed: streams for different purposes never meet."""


class EpochSampler:
    """Draws epochs."""

    def __init__(self, labels: Sequence[str], config: DataConfig, seed: int) -> None:
        """Sort the items by species."""
        _, species, self._counts = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True, return_counts=True)
        self._items = np.split(np.argsort(species, kind="stable"), np.cumsum(self._counts)[:-1])
        self._config, self._seed = config, seed
        self._most = np.full_like(self._counts, config.cap_at or np.iinfo(self._counts.dtype).max)
        self._n_drawn = np.minimum(np.maximum(self._counts, config.upsample_to), self._most)
        self.n_items = int(self._n_drawn.sum())
        """Items in an epoch, repetitions included."""

    def epoch(self, epoch: int) -> Index:
        """The items of an epoch, shuffled.

        Args:
            epoch: from 0.

        Returns:
            Index [n_items] into the labels. With ``sampling_power`` 0 each species' items stand in it equally often,
            give or take one; else they are drawn with replacement.
        """
        rng = np.random.default_rng((_ORDER, self._seed, epoch))
        if not self.n_items:
            return np.zeros(0, np.intp)
        if self._config.sampling_power == 0:
            drawn = [_repeated(self._pool(one, epoch), self._n_drawn[one], rng) for one in range(len(self._items))]
        else:
            counts = self._weighted_counts(rng)
            drawn = [rng.choice(self._pool(one, epoch), counts[one]) for one in np.flatnonzero(counts).tolist()]
        return rng.permutation(np.concatenate(drawn))

    def _pool(self, species: int, epoch: int) -> Index:
        """The items of a species that may be drawn in the epoch: all, or ``cap_at`` of them, whose turn it is.

        Within a cycle of epochs all have had their turn; each cycle deals them out in another order.
        """
        items, cap = self._items[species], self._most[species]
        if len(items) <= cap:
            return items
        cycle, turn = divmod(epoch, -(-len(items) // int(cap)))
        dealt = np.random.default_rng((_TURN, self._seed, cycle, species)).permutation(items)
        return np.take(dealt, np.arange(turn * cap, (turn + 1) * cap), mode="wrap")

    def _weighted_counts(self, rng: np.random.Generator) -> Int64:
        """How often each species is drawn: an item weighs (items of its species)^power; then within its bounds."""
        weights = self._counts ** (1 + self._config.sampling_power)
        least = np.minimum(self._config.upsample_to, self._most)
        counts = rng.multinomial(self.n_items, weights / weights.sum())
        counts = np.minimum(np.maximum(counts, least), self._most)
        if surplus := max(0, int(counts.sum()) - self.n_items):
            counts -= rng.multivariate_hypergeometric(counts - least, surplus, method="marginals")
        # Each round ends it, or fills a species up to its cap.
        while missing := self.n_items - int(counts.sum()):
            below = np.flatnonzero(counts < self._most)
            counts[below] += rng.multinomial(missing, weights[below] / weights[below].sum())
            counts = np.minimum(counts, self._most)
        return counts


def _repeated(items: Index, n_times: int, rng: np.random.Generator) -> Index:
    """``n_times`` items: each as often as the others, and a random choice of them once more."""
    rounds, rest = divmod(int(n_times), len(items))
    return np.concatenate([np.tile(items, rounds), rng.permutation(items)[:rest]])
