"""Which items an epoch consists of, and in which order: the recipe's sampling_power, upsample_to and cap_at.

In: the species of each item (a clip, or a window of one). Out: indices [n_items] for any epoch, each a pure function of
(recipe, seed, epoch), so that a resumed run draws what it would have drawn. An epoch is the same length whatever it
draws: the sum over species of their items, raised to ``upsample_to`` and cut to ``cap_at``. Sources that have a share
of each batch (``data.sources``) are drawn beside these items, by :class:`SharedSampler`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from birdinfer.training.recipe.data_config import DataConfig
from birdinfer.typing import Float32, Index, Int64

_ORDER, _TURN, _SHARED_TURN, _SHARED_DRAW, _PLACES = 301, 302, 303, 304, 305
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


# ---- Sources with a share of each batch


class SharedItems(NamedTuple):
    """Items of a source that fill a share of each batch."""

    share: float
    """0 to 1."""
    items: Index
    """Numbers of items; one that stands several times is drawn as often."""
    weights: Float32 | None = None
    """[items], how often each is drawn; None: all alike, in turn."""


class SharedSampler:
    """Draws epochs of batches in which sources have their shares."""

    def __init__(self, pool: EpochSampler, pool_items: Index, shared: Sequence[SharedItems], size: int, seed: int):
        """Decide how long an epoch is: until the items without a share have been drawn once.

        Args:
            pool: draws from the items without a share.
            pool_items: their numbers, [items].
            shared: the sources.
            size: of a batch, over all processes.
            seed: of the recipe.
        """
        self._pool, self._pool_items, self._shared, self._size, self._seed = pool, pool_items, shared, size, seed
        left = 1 - math.fsum(one.share for one in shared)
        self._n_steps = max(1, int(pool.n_items / left) // size)
        self.n_items = self._n_steps * size
        """Items in an epoch, repetitions included: whole batches."""

    def epoch(self, epoch: int) -> Index:
        """The items of an epoch, batch after batch, each batch shuffled.

        Args:
            epoch: from 0.

        Returns:
            Index [n_items]. Items of each source are spread evenly over the epoch, so that a batch has its share of
            them, give or take one for each source; over epochs the shares are exact.
        """
        queues, n_left = [], self.n_items
        for number, one in enumerate(self._shared):
            # A hundred-millionth more: a share of 0.1 of 10 is 1, though not to the last bit.
            begin, end = (math.floor(one.share * self.n_items * each + 1e-8) for each in (epoch, epoch + 1))
            queues.append(self._drawn(number, epoch, begin, min(end - begin, n_left)))
            n_left -= len(queues[-1])
        queues.append(np.resize(self._pool_items[self._pool.epoch(epoch)], n_left))
        place = np.concatenate([(np.arange(len(queue)) + 0.5) / max(1, len(queue)) for queue in queues])
        order = np.concatenate(queues)[np.argsort(place, kind="stable")]
        rng = np.random.default_rng((_PLACES, self._seed, epoch))
        return rng.permuted(order.reshape(self._n_steps, self._size), axis=1).ravel()

    def _drawn(self, number: int, epoch: int, first: int, n_items: int) -> Index:
        """``n_items`` of a source, of which ``first`` have been drawn in earlier epochs."""
        shared = self._shared[number]
        if shared.weights is not None:
            rng = np.random.default_rng((_SHARED_DRAW, self._seed, number, epoch))
            weights = shared.weights.astype(np.float64)
            drawn: Index = rng.choice(shared.items, n_items, p=weights / weights.sum())
            return drawn
        n_all = len(shared.items)
        rounds = range(first // n_all, -(-(first + n_items) // n_all))
        dealt = [np.random.default_rng((_SHARED_TURN, self._seed, number, turn)).permutation(n_all) for turn in rounds]
        begin = first - rounds.start * n_all
        turn: Index = np.concatenate([np.zeros(0, np.intp), *dealt])[begin : begin + n_items]
        return shared.items[turn]


def repeats(labels: Sequence[Iterable[str]], least: int) -> Int64:
    """How often each item is repeated so that every label of any item has ``least`` of them; [items], from 1.

    >>> repeats([["a", "b"], ["b"], ["b"]], 3)
    array([3, 1, 1])
    """
    counts = Counter(label for its in labels for label in its)
    needed = [max((-(-least // counts[label]) for label in its), default=1) for its in labels]
    return np.maximum(1, np.array(needed, np.int64))
