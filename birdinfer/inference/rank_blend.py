"""Blend groups of members by rank: settings as data, and [groups, rows, species] -> [rows, species].

Members of different families differ in the scale of their scores, so that a mean follows the one with the largest. In
each group the members' probabilities are averaged; then each group's scores of a species are replaced by their ranks
over all rows, and the ranks are averaged with the groups' weights. Only the order of a group's scores counts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError
from birdinfer.species import Species
from birdinfer.typing import Bool, Float64

_NO_NAME = re.compile("[^A-Za-z0-9_+-]+")


class RankGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lets a group's ranks count only where another group ranks high."""

    by: str
    """Name of the deciding group."""
    share: float
    """Rank from which on the gate is open, 0 to below 1: 0.9 is the highest tenth of all rows."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share is {self.share}, allowed are 0 to below 1")


class RankGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Members whose probabilities are averaged before they are ranked, and what the group weighs."""

    members: tuple[str, ...] = ()
    """Their names. None: in a run short of time all of them were given up."""
    weight: float = 1.0
    """Of the group's ranks in the mean, unless one of the following is given for a species."""
    taxon_weights: dict[str, float] = {}
    """By class_name, as Aves or Amphibia."""
    species_weights: dict[str, float] = {}
    """By label; they take precedence over those of a class."""
    species: tuple[str, ...] = ()
    """Labels of a specialist: the group weighs nothing for others. None: all."""
    gate: RankGate | None = None
    """Where it is closed, the group's rank counts as the lowest, 0."""

    def __post_init__(self) -> None:
        for weight in (self.weight, *self.taxon_weights.values(), *self.species_weights.values()):
            if not 0 <= weight < float("inf"):
                raise ValueError(f"a group has weight {weight}, needed is a number >= 0")

    def weight_of(self, species: Species) -> float:
        """Return what the group weighs for a species."""
        if self.species and species.label not in self.species:
            return 0.0
        of_class = self.taxon_weights.get(species.class_name, self.weight)
        return self.species_weights.get(species.label, of_class)

    @property
    def has_weight(self) -> bool:
        """Whether it weighs anything for a species."""
        return max([self.weight, *self.taxon_weights.values(), *self.species_weights.values()]) > 0

    def text(self) -> str:
        """Describe the group in a line."""
        parts = [", ".join(self.members) or "no member", f"weight {self.weight:g}"]
        parts += [f"{name} {weight:g}" for name, weight in self.taxon_weights.items()]
        parts += [f"{len(self.species_weights)} species with weights of their own"] if self.species_weights else []
        parts += [f"for {len(self.species)} species alone"] if self.species else []
        parts += [f"where {self.gate.by} ranks from {self.gate.share:g} on"] if self.gate else []
        return "; ".join(parts)


Groups = Mapping[str, RankGroup]


def group_name(text: str) -> str:
    """Spell a group's name: a key on the command line, and the name of a table.

    >>> group_name("tf_efficientnetv2_s.in21k")
    'tf_efficientnetv2_s_in21k'
    """
    return _NO_NAME.sub("_", text).strip("_")[:100] or "group"


def fill_groups(given: Groups, families: Mapping[str, tuple[str, ...]]) -> dict[str, RankGroup]:
    """Complete groups by the families of members, by name: what is in no group forms one with its family.

    A group without members that has the name of a family is that family. ConfigError for another one.
    """
    taken = {member for group in given.values() for member in group.members}
    left = {name: tuple(each for each in members if each not in taken) for name, members in families.items()}
    filled = {}
    for name, group in given.items():
        if not group.members and not left.get(name):
            free = [family for family, members in left.items() if members]
            raise ConfigError("--blend", f"group {name!r} has no members", _meant(name, free, "families"))
        filled[name] = group if group.members else msgspec.structs.replace(group, members=left.pop(name))
    for name, members in left.items():
        if members:
            filled[_free_name(name, filled)] = RankGroup(members)
    return filled


def _free_name(name: str, taken: Groups) -> str:
    return next(each for each in (name, *(f"{name}-{number}" for number in range(2, 1000))) if each not in taken)


def check_groups(groups: Groups, names: Sequence[str], weights: Sequence[float]) -> None:
    """Check that groups fit the members; they may lack some. ConfigError."""
    weight_of = dict(zip(names, weights, strict=True))
    grouped: set[str] = set()
    for name, group in groups.items():
        if name != group_name(name):
            raise ConfigError(
                "blend", f"{name!r} is no name of a group", f"as {group_name(name)}: letters, digits, _ + -"
            )
        for member in group.members:
            if member not in weight_of:
                what = f"group {name!r} holds {member!r}, which is no member"
                raise ConfigError("blend", what, _meant(member, names, "members"))
            if member in grouped:
                raise ConfigError("blend", f"member {member!r} stands in groups twice", "leave it out of one")
            grouped.add(member)
        if group.members and not sum(weight_of[member] for member in group.members) > 0:
            raise ConfigError("blend", f"no member of group {name!r} weighs anything", "give one a weight above 0")
        if group.gate and (group.gate.by not in groups or group.gate.by == name):
            others = [other for other in groups if other != name]
            what = f"the gate of {name!r} is by {group.gate.by!r}, which is no other group"
            raise ConfigError("blend", what, _meant(group.gate.by, others, "groups"))
    if not any(group.members and group.has_weight for group in groups.values()):
        raise ConfigError("blend", "no group weighs anything", "give one a weight above 0")


def check_species(groups: Groups, species: Sequence[Species]) -> None:
    """Check that classes and labels of the groups are those of the species; ConfigError."""
    labels, classes = [each.label for each in species], sorted({each.class_name for each in species} - {""})
    for name, group in groups.items():
        for kind, given, known in (
            ("species", (*group.species, *group.species_weights), labels), ("class", group.taxon_weights, classes),
        ):  # fmt: skip
            there = frozenset(known)
            for each in given:
                if each not in there:
                    where = "the bundle's species have no class_name: give species_weights" if not known else ""
                    what = f"group {name!r} names the {kind} {each!r}, which is none of the bundle"
                    raise ConfigError("blend", what, where or _meant(each, known, kind))


def _meant(name: str, known: Sequence[str], kind: str) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"{kind}: {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"


def rank_per_class(values: npt.NDArray[np.floating[Any]]) -> Float64:
    """Replace each class's scores [rows, classes] by their ranks over all rows: (average rank - 1) / rows.

    This makes models with incomparable scores comparable. The lowest is 0, equal scores share their mean rank, and the
    highest is below 1, so that the rows of ones added by padded cmAP (BirdCLEF 2023) still rank above it. Neither a
    monotone function of a class's scores nor the order of rows changes the result. NaN, a row without a score, stays
    NaN and does not count.

    >>> rank_per_class(np.array([[0.9], [0.1], [0.1], [0.5]])).ravel().tolist()
    [0.75, 0.125, 0.125, 0.5]
    """
    ranks = np.full(values.shape, np.nan)
    for column in range(values.shape[1]):
        is_scored = ~np.isnan(values[:, column])
        _, level, in_level = np.unique(values[is_scored, column], return_inverse=True, return_counts=True)
        below = np.cumsum(in_level) - in_level
        ranks[is_scored, column] = (below + (in_level - 1) / 2)[level] / max(1, len(level))
    return ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class RankBlender:
    """Blends the scores of groups by rank; only their order counts.

    >>> blender = RankBlender(weights=np.array([[3.0], [1.0]]))
    >>> blender(np.array([[[0.1], [0.2]], [[0.09], [0.01]]])).ravel().tolist()  # two groups, two rows
    [0.125, 0.375]
    """

    weights: Float64
    """[groups, species]."""
    gates: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    """Group -> the deciding group, and the rank from which on it is open."""

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.weights)

    @property
    def n_species(self) -> int:
        """Number of species."""
        return int(self.weights.shape[1])

    def __call__(self, scores: Float64, columns: slice = slice(None)) -> Float64:
        """Blend [groups, rows, species] of all rows to [rows, species], in [0, 1).

        ``columns``: which of the species these are. A group that has no score for a row, NaN, does not count there; one
        that scores all rows alike says nothing about a species, and does not count for it. Where no group counts, a row
        is in the middle of all.
        """
        ranks = [rank_per_class(each) for each in scores]
        weights = [self._weights(group, each, columns) for group, each in enumerate(scores)]
        total_weight = np.sum(weights, axis=0)
        total = np.zeros(scores.shape[1:])
        counted = np.where(total_weight > 0, total_weight, 1)
        for group, weight in enumerate(weights):
            rank = np.where(self._is_open(group, ranks, scores), ranks[group], 0)
            total += weight / counted * np.where(weight > 0, rank, 0)
        n_rows = scores.shape[1]
        return np.where(total_weight > 0, total, (n_rows - 1) / 2 / max(1, n_rows))

    def _weights(self, group: int, scores: Float64, columns: slice) -> Float64:
        """What a group weighs in each cell [rows, species]."""
        is_scored = ~np.isnan(scores)
        counts = is_scored & _differs(scores)
        return np.where(counts, self.weights[group, columns], 0.0)

    def _is_open(self, group: int, ranks: Sequence[Float64], scores: Float64) -> Bool | bool:
        """Where a group's rank counts; a gate passes what its group has no score for, or scores alike."""
        if group not in self.gates:
            return True
        by, share = self.gates[group]
        is_open: Bool = (ranks[by] >= share) | np.isnan(ranks[by]) | ~_differs(scores[by])
        return is_open


def _differs(scores: Float64) -> Bool:
    """Whether a group's scores [rows, species] of a species are not all the same: [species]."""
    lowest = np.where(np.isnan(scores), np.inf, scores).min(axis=0, initial=np.inf)
    highest = np.where(np.isnan(scores), -np.inf, scores).max(axis=0, initial=-np.inf)
    differs: Bool = lowest < highest
    return differs


def make_rank_blender(groups: Groups, species: Sequence[Species], known: Mapping[str, frozenset[str]]) -> RankBlender:
    """Make the function that blends groups; ``known``: the labels that each one knows, for the others it has no say."""
    weights = [
        [group.weight_of(each) * (each.label in known[name]) for each in species] for name, group in groups.items()
    ]
    place = {name: index for index, name in enumerate(groups)}
    gates = {place[name]: (place[each.gate.by], each.gate.share) for name, each in groups.items() if each.gate}
    return RankBlender(weights=np.array(weights, np.float64), gates=gates)
