"""Components and shares -> which component goes where: every species, and all clips together, in proportion.

In: what each component holds (species -> clips) and the shares of the bins that are held out (a fold, a validation, a
test). Out: a bin per component. scikit-learn's StratifiedGroupKFold weighs whole groups by a standard deviation over
species and promises no balance: of 20 clips without groups it may put 6 into one fold and 4 into another. Here, where
every component is one clip and the shares are equal, species and totals differ by one clip at most between bins.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

OUTSIDE = -1
"""In no bin: what the shares leave over, and what a species cannot spare."""

Content = Mapping[str, int]
"""Species -> clips of one component."""


def allocate(components: Sequence[Content], shares: Sequence[float], rng: np.random.Generator) -> list[int]:
    """Put components into bins, none of which ever holds all clips of a species.

    Large components come first, each to where Pearson's chi-square of species and totals against the shares grows
    least; then single clips, species by species, always to the bin that has fewest of the species, then fewest in all.

    Args:
        components: what each of them holds; their order matters only to ``rng``.
        shares: of the bins, > 0, with a sum of at most 1; what is missing from 1 stays outside.
        rng: shuffles components of one size and bins that are equal.

    Returns:
        Bin per component from 0, or :data:`OUTSIDE`.
    """
    bins = _Bins(components, shares, rng)
    sizes = [sum(content.values()) for content in components]
    rank = rng.permutation(len(components))
    free = []
    for index, content in enumerate(components):
        if any(bins.components_left[label] == 1 for label in content):
            bins.put(index, bins.outside)
        else:
            free.append(index)
    bins.fix_totals()
    for index in sorted((index for index in free if sizes[index] > 1), key=lambda index: (-sizes[index], rank[index])):
        bins.put(index, bins.least_uneven(index))
    singles = [(next(iter(components[index])), rank[index], index) for index in free if sizes[index] == 1]
    for label, _, index in sorted(singles):
        bins.put(index, bins.emptiest(index, label))
    return [OUTSIDE if where == bins.outside else where for where in bins.where]


class _Bins:
    """What lies where so far. The last bin is what stays outside; its share may be 0."""

    def __init__(self, components: Sequence[Content], shares: Sequence[float], rng: np.random.Generator) -> None:
        self.outside = len(shares)
        rest = 1.0 - math.fsum(shares)
        self._shares = [*shares, rest] if rest > 1e-9 else list(shares)  # fifths, sevenths: their sum is not quite 1
        self._components = components
        self._ties = rng.random((len(components), len(self._shares)))
        self.where = [self.outside] * len(components)
        self.components_left = Counter(label for content in components for label in content)
        self._left: Counter[str] = Counter()
        for content in components:
            self._left.update(content)
        self._counts = {label: [0] * (self.outside + 1) for label in self._left}
        self._totals = [0] * (self.outside + 1)

    def fix_totals(self) -> None:
        """Call when all that must stay outside lies there: from now on, shares are of what can still be shared."""
        has_rest = len(self._shares) > self.outside
        self._n = {
            label: unlaid + (self._counts[label][self.outside] if has_rest else 0)
            for label, unlaid in self._left.items()
        }
        self._n_all = sum(self._n.values())

    def put(self, index: int, where: int) -> None:
        self.where[index] = where
        for label, n in self._components[index].items():
            self.components_left[label] -= 1
            self._left[label] -= n
            self._counts[label][where] += n
            self._totals[where] += n

    def least_uneven(self, index: int) -> int:
        """The bin where the sum of (clips - expected)^2 / expected, over species and for the total, grows least.

        n clips more in a bin of c, where N clips with share w are expected to give w N, add n (c + n / 2) / (w N) to
        half of it, apart from what is the same for all bins.
        """
        content = self._components[index]
        size = sum(content.values())

        def growth(where: int) -> tuple[float, float]:
            share = self._shares[where]
            of_species = sum(n * (self._counts[label][where] + n / 2) / self._n[label] for label, n in content.items())
            of_all = size * (self._totals[where] + size / 2) / self._n_all
            return (of_species + of_all) / share, self._ties[index, where]

        return min(self._allowed(index), key=growth, default=self.outside)

    def emptiest(self, index: int, label: str) -> int:
        """The bin with fewest of a species, measured by the whole clips that its share gives it; then of all."""
        counts, n_put = self._counts[label], sum(self._totals[: len(self._shares)])

        def filled(where: int) -> tuple[int, float, float]:
            share = self._shares[where]
            due = math.floor(share * self._n[label])
            return counts[where] - due, self._totals[where] - share * n_put, self._ties[index, where]

        return min(self._allowed(index), key=filled, default=self.outside)

    def _allowed(self, index: int) -> list[int]:
        last = [self._counts[label] for label in self._components[index] if self.components_left[label] == 1]
        return [
            where
            for where in range(len(self._shares))
            if where == self.outside or not any(counts[where] == sum(counts) for counts in last)
        ]
