"""Blend the members of an ensemble: probabilities of several models, each [rows, labels it knows] -> [rows, species].

A bundle states the blend as data (:class:`Blend`); :func:`make_blend` turns it into a function for its members. Every
cell is computed from that cell of the members alone, so that neither other rows nor the size of a chunk change a bit
of it. A species is blended over the members that know it and have a weight above 0; a species that no member knows gets
the bundle's fallback. In and out are probabilities, float32 in [0, 1].

Ranks (:mod:`birdinfer.inference.rank_blend`) need the rows of all files. Of them, what is computed here is the mean of
each group: [rows, groups * species], one group's species behind the other's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.inference.rank_blend import RankGroup, check_groups, fill_groups
from birdinfer.typing import Float32, Index

Columns = Index | None
"""Columns of the bundle that a member knows; None: all of them."""
Blender = Callable[[Sequence[Float32]], Float32]
"""One [rows, labels it knows] for each member -> [rows, species]; the input is not changed."""

How = Literal["mean", "geometric", "rms", "minimum", "maximum", "median", "gate"]

EPSILON = np.float32(2.0**-25)
"""Added under the logarithm of the geometric mean: half of the step of float32 just below 1. A smaller probability,
even 0, has no more weight than a silence as certain as the most certain call in float32."""


class Blend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the members' probabilities are combined.

    >>> blend = make_blend(Blend("maximum"), ["a", "b"], [1.0, 1.0], [None, None], fallback=[0.0])
    >>> blend([np.array([[0.25]], np.float32), np.array([[0.75]], np.float32)]).tolist()
    [[0.75]]
    """

    how: How | Literal["rank"] = "mean"
    """Computed from each species' probabilities p and the members' weights w:

    * ``mean``: sum(w p) / sum(w);
    * ``geometric``: exp(sum(w log(p + e)) / sum(w)) - e with e = 2^-25 (fourth place of BirdCLEF 2024): close to the
      lowest;
    * ``rms``: sqrt(sum(w p^2) / sum(w)) (first place of 2023): close to the highest;
    * ``minimum`` (first place of 2024), ``maximum``, ``median`` (of an even number, the mean of the middle two): of all
      members with a weight above 0, however large it is;
    * ``gate``: member ``by`` with probability g scales the others' mean b: b where g >= threshold, else
      b g / threshold (continuity gate, second place of 2026);
    * ``rank``: the mean of each of ``groups``, then the weighted mean of their ranks over the rows of all files."""

    by: str = ""
    """Of a gate: the name of the gating member, whose weight has no effect. A species that it does not know passes
    unchanged; for one that no other member knows, its own probability is taken."""
    threshold: float | None = None
    """Of a gate: probability from which on everything passes, 0 to 1; 0 is no gate."""
    groups: dict[str, RankGroup] = {}
    """Of ranks, by name, in order: every member stands in one. See :meth:`filled`."""

    def __post_init__(self) -> None:
        if self.groups and self.how != "rank":
            raise ValueError(f"groups are those of ranks, but how is {self.how!r}")
        if self.how == "gate":
            if not self.by or self.threshold is None:
                raise ValueError("how is 'gate', which needs by (the member that decides) and threshold")
            if not 0 <= self.threshold <= 1:
                raise ValueError(f"threshold is {self.threshold}, allowed are 0 to 1")
        elif self.by or self.threshold is not None:
            raise ValueError(f"by and threshold are those of a gate, but how is {self.how!r}")

    def among(self, names: Collection[str]) -> "Blend":
        """Return the blend for some of the members: a gate without its gating member, or without others, is a mean."""
        if self.how == "rank":
            left = {
                name: msgspec.structs.replace(group, members=tuple(each for each in group.members if each in names))
                for name, group in self.groups.items()
            }
            return msgspec.structs.replace(self, groups=left)
        lost = self.how == "gate" and (self.by not in names or len(names) == 1)
        return Blend() if lost else self

    def without(self, member: str) -> "Blend":
        """Take a member out of its group; a group that is empty then is gone."""
        groups = {
            name: msgspec.structs.replace(group, members=tuple(each for each in group.members if each != member))
            for name, group in self.groups.items()
        }
        return msgspec.structs.replace(self, groups={name: group for name, group in groups.items() if group.members})

    def filled(self, families: Mapping[str, tuple[str, ...]]) -> "Blend":
        """Put the members that are in no group into those of their families; ConfigError for a group without any."""
        return msgspec.structs.replace(self, groups=fill_groups(self.groups, families)) if self.how == "rank" else self

    def n_columns(self, n_species: int) -> int:
        """Count the columns of scores that are kept of a row: one for each species, for ranks in each group."""
        return n_species * max(1, len(self.groups))

    def uses(self, member: str) -> bool:
        """Whether a member of weight above 0, or the gating one, can have an effect."""
        groups = [(name, group) for name, group in self.groups.items() if member in group.members]
        gating = {group.gate.by for group in self.groups.values() if group.gate}
        return self.how != "rank" or any(group.has_weight or name in gating for name, group in groups)


def check_live(blend: Blend, hint: str) -> None:
    """Refuse ranks where recordings are not scored all together; ConfigError, with what to do instead."""
    if blend.how == "rank":
        raise ConfigError("blend", "is by rank, which compares all rows of a run: one recording alone has none", hint)


def make_blend(
    blend: Blend, names: Sequence[str], weights: Sequence[float], columns: Sequence[Columns], fallback: Sequence[float]
) -> Blender:
    """Make the function that blends these members; for ranks, what averages those of each group.

    ``weights``: one >= 0 for each member, with a sum above 0.
    ``fallback``: probability of each species, for those that no member knows (or only members of weight 0).
    """
    check_blend(blend, names, weights)
    if blend.how == "rank":
        return GroupMeans([group.members for group in blend.groups.values()], names, weights, columns, fallback)
    if blend.how != "gate":
        return SpeciesBlend(_MEANS[blend.how], weights, columns, fallback)
    assert blend.threshold is not None  # __post_init__ saw to it
    return Gate(names.index(blend.by), blend.threshold, weights, columns, fallback)


def check_blend(blend: Blend, names: Sequence[str], weights: Sequence[float]) -> None:
    """Check that members can be blended, before any graph is loaded.

    Raises:
        ConfigError: not one weight each, a weight below 0, or all of them 0; a gate without its gating member, or
            without other members; groups of ranks that are not of these members.
    """
    valid = len(names) == len(weights) and all(weight >= 0 for weight in weights)
    if not valid or not 0 < sum(weights) < float("inf"):
        raise ConfigError(
            "weights",
            f"are {list(weights)} for {len(names)} members",
            "one >= 0 for each is needed, with a sum above 0",
        )
    if blend.how == "rank":
        check_groups(blend.groups, names, weights)
    if blend.how != "gate":
        return
    if blend.by not in names:
        raise ConfigError("blend", f"the gate is by {blend.by!r}, which is no member", f"choose of {', '.join(names)}")
    if not sum(weight for name, weight in zip(names, weights, strict=True) if name != blend.by) > 0:
        raise ConfigError("blend", f"no member is behind the gate by {blend.by!r}", "give another member a weight")


Mean = Callable[[Sequence[Float32], Sequence[np.float32]], Float32]
"""(scores of each member [rows, species], shares that sum to 1) -> [rows, species]."""


def mean(member_scores: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """Weighted arithmetic mean."""
    total: Float32 = shares[0] * member_scores[0]
    for scores, share in zip(member_scores[1:], shares[1:], strict=True):
        total += share * scores
    return total


def geometric(member_scores: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """Weighted geometric mean of p + e, minus e: unlike that of clipped values it keeps 0 and makes no ties."""
    shifted = np.exp(mean([np.log(scores + EPSILON) for scores in member_scores], shares))
    blended: Float32 = np.maximum(shifted - EPSILON, np.float32(0))
    return blended


def rms(member_scores: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """Weighted root of the mean square."""
    root: Float32 = np.sqrt(mean([scores * scores for scores in member_scores], shares))
    return root


def minimum(member_scores: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """The lowest."""
    lowest: Float32 = reduce(np.minimum, member_scores)
    return lowest


def maximum(member_scores: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """The highest."""
    highest: Float32 = reduce(np.maximum, member_scores)
    return highest


def median(member_scores: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """The middle one, or the mean of the middle two."""
    ordered = np.sort(np.stack(member_scores), axis=0)
    middle: Float32 = (ordered[(len(member_scores) - 1) // 2] + ordered[len(member_scores) // 2]) * np.float32(0.5)
    return middle


_MEANS: dict[str, Mean] = {
    "mean": mean, "geometric": geometric, "rms": rms, "minimum": minimum, "maximum": maximum, "median": median,
}  # fmt: skip

_Selection = slice | Index


class _SpeciesGroup(NamedTuple):
    columns: _Selection
    """Of the bundle."""
    members: list[tuple[int, _Selection]]
    """A member, and its own columns of these species."""
    shares: list[np.float32]
    """Of the members; they sum to 1."""


class SpeciesBlend:
    """One kind of mean for all species, each over the members that know it."""

    def __init__(
        self, mean: Mean, weights: Sequence[float], columns: Sequence[Columns], fallback: Sequence[float]
    ) -> None:
        self._mean = mean
        self._fallback = np.asarray(fallback, np.float32)
        own = _own_columns(columns, len(fallback))
        own[np.asarray(weights) == 0] = -1
        self.is_known = (own >= 0).any(axis=0)
        self._groups = _species_groups(own, weights)

    def __call__(self, member_scores: Sequence[Float32]) -> Float32:
        """One [rows, labels it knows] per member -> [rows, species], within the members' range except for rounding."""
        blended = np.tile(self._fallback, (len(member_scores[0]), 1))
        for columns, members, shares in self._groups:
            scores = [member_scores[member][:, own] for member, own in members]
            # Shares of float32 may sum to a little more than 1.
            blended[:, columns] = np.minimum(self._mean(scores, shares), np.float32(1))
        return blended


class Gate:
    """One member scales the others' weighted mean; monotone in the scores of each of them."""

    def __init__(
        self, by: int, threshold: float, weights: Sequence[float], columns: Sequence[Columns], fallback: Sequence[float]
    ) -> None:
        """Arguments as of :func:`make_blend`; ``by`` is the gating member's index."""
        self._by, self._threshold = by, np.float32(threshold)
        behind = [0.0 if member == by else weight for member, weight in enumerate(weights)]
        self._others = SpeciesBlend(mean, behind, columns, fallback)
        own = _own_columns(columns, len(fallback))[by]
        gated, alone = (np.flatnonzero((own >= 0) & known) for known in (self._others.is_known, ~self._others.is_known))
        self._gated, self._gating_columns = gated, own[gated]
        self._alone, self._alone_columns = alone, own[alone]

    def __call__(self, member_scores: Sequence[Float32]) -> Float32:
        """Blend; as :meth:`SpeciesBlend.__call__`, but never above the others' mean."""
        blended = self._others(member_scores)
        gate = member_scores[self._by]
        if self._threshold > 0:
            blended[:, self._gated] *= np.minimum(gate[:, self._gating_columns], self._threshold) / self._threshold
        blended[:, self._alone] = gate[:, self._alone_columns]
        return blended


class GroupMeans:
    """The weighted mean of each group of members: [rows, groups * species]; NaN for a group without members."""

    def __init__(
        self,
        groups: Sequence[Sequence[str]],
        names: Sequence[str],
        weights: Sequence[float],
        columns: Sequence[Columns],
        fallback: Sequence[float],
    ) -> None:
        """Arguments as of :func:`make_blend`; ``groups`` hold names."""
        self._n_species = len(fallback)
        self._means: list[SpeciesBlend | None] = []
        for members in groups:
            own = [weight if name in members else 0.0 for name, weight in zip(names, weights, strict=True)]
            self._means.append(SpeciesBlend(mean, own, columns, fallback) if members else None)

    def __call__(self, member_scores: Sequence[Float32]) -> Float32:
        """Average; as :meth:`SpeciesBlend.__call__` for each group."""
        absent = np.full((len(member_scores[0]), self._n_species), np.nan, np.float32)
        return np.concatenate([absent if each is None else each(member_scores) for each in self._means], axis=1)


def _own_columns(columns: Sequence[Columns], n_species: int) -> Index:
    """[members, species]: the member's column of the species, -1 if it does not know the species."""
    own_columns = np.full((len(columns), n_species), -1, np.intp)
    for own, known in zip(own_columns, columns, strict=True):
        own[slice(None) if known is None else known] = np.arange(n_species if known is None else len(known))
    return own_columns


def _species_groups(own_columns: Index, weights: Sequence[float]) -> list[_SpeciesGroup]:
    """Group species that the same members know: nearly always all of them."""
    patterns, group_of = np.unique(own_columns >= 0, axis=1, return_inverse=True)
    n_species, groups = own_columns.shape[1], []
    for index, knows in enumerate(patterns.T):
        members = np.flatnonzero(knows).tolist()
        if members:
            columns = np.flatnonzero(group_of == index)
            total = sum(weights[member] for member in members)
            shares = [np.float32(weights[member] / total) for member in members]
            selections = [(member, _as_slice(own_columns[member, columns], n_species)) for member in members]
            groups.append(_SpeciesGroup(_as_slice(columns, n_species), selections, shares))
    return groups


def _as_slice(columns: Index, n_species: int) -> _Selection:
    """All columns in order as a slice, which copies nothing."""
    return slice(None) if np.array_equal(columns, np.arange(n_species)) else columns
