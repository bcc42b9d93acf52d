"""Members -> one opinion: probabilities of several models, each [rows, labels it knows], become [rows, species].

What a bundle wants is data (:class:`Blend`); made for its members (:func:`make_blend`), it is a function of a run's
rows. Every cell is worked out from that cell of the members alone, so that neither other rows nor the size of a piece
change a bit of it. Each species is blended over the members that know it and have a weight above 0; one that nobody
knows gets the bundle's fallback. In and out are probabilities, float32 in [0, 1].

Cost of a minute (12 rows) of 206 species and 5 members on one core: 0.13 ms for the median, 0.03 ms or less for all
others; a member's graph takes some hundred milliseconds.
"""

from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError

Float32 = npt.NDArray[np.float32]
Columns = npt.NDArray[np.intp] | None
"""Columns of the whole that a member knows; None: all of them."""
Blender = Callable[[Sequence[Float32]], Float32]
"""One [rows, labels it knows] for each member -> [rows, species]; what is given is left as it is."""

How = Literal["mean", "geometric", "rms", "minimum", "maximum", "median", "gate"]

EPSILON = np.float32(2.0**-25)
"""Added under the logarithm of the geometric mean: half of the step in which float32 counts just below 1. A member that
says less, 0 at the least, pulls no harder than one that is as sure of silence as float32 lets another be of a call."""


class Blend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How members become one opinion."""

    how: How | Literal["rank"] = "mean"
    """Of each species' probabilities p and the members' weights w, by the field's names:

    * ``mean``: sum(w p) / sum(w);
    * ``geometric``: exp(sum(w log(p + e)) / sum(w)) - e with e = 2^-25 (fourth place of BirdCLEF 2024): near the least;
    * ``rms``: sqrt(sum(w p^2) / sum(w)) (first place of 2023): near the greatest;
    * ``minimum`` (first place of 2024), ``maximum``, ``median`` (of an even number, the mean of the middle two): of all
      members with a weight above 0, however large it is;
    * ``gate``: member ``by`` decides how much of the others' mean b passes: b where it says g >= threshold, else
      b g / threshold (continuity gate, second place of 2026).

    ``rank`` needs the rows of all files and so is refused here: it is a way of ``birdinfer blend``."""

    by: str = ""
    """Of a gate: the name of the member that decides; its weight is of no effect. Of a species that it does not know,
    all passes; of one that it alone knows, what it says itself is taken."""
    threshold: float | None = None
    """Of a gate: from what probability on all passes, 0 to 1. At 0 the gate stands open."""

    def __post_init__(self) -> None:
        if self.how == "rank":
            raise ValueError(
                "how is 'rank', which needs the rows of all files while a bundle sees them one by one: "
                "blend whole tables with birdinfer blend --how rank"
            )
        if self.how == "gate":
            if not self.by or self.threshold is None:
                raise ValueError("how is 'gate', which needs by (the member that decides) and threshold")
            if not 0 <= self.threshold <= 1:
                raise ValueError(f"threshold is {self.threshold}, allowed are 0 to 1")
        elif self.by or self.threshold is not None:
            raise ValueError(f"by and threshold are those of a gate, but how is {self.how!r}")

    def among(self, names: Collection[str]) -> "Blend":
        """The blend of a part of the members: where a gate loses its gatekeeper, or all others, a mean is left."""
        lost = self.how == "gate" and (self.by not in names or len(names) == 1)
        return Blend() if lost else self


def make_blend(
    blend: Blend, names: Sequence[str], weights: Sequence[float], columns: Sequence[Columns], fallback: Sequence[float]
) -> Blender:
    """The function that blends these members.

    Args:
        blend: how.
        names: of the members.
        weights: one >= 0 for each member, with a sum above 0.
        columns: what each member knows.
        fallback: per species, what is said of one that no member knows (or only members of weight 0).

    Raises:
        ConfigError: see :func:`check_blend`.
    """
    check_blend(blend, names, weights)
    if blend.how != "gate":
        return SpeciesBlend(_WAYS[blend.how], weights, columns, fallback)
    assert blend.threshold is not None  # __post_init__ saw to it
    return Gate(names.index(blend.by), blend.threshold, weights, columns, fallback)


def check_blend(blend: Blend, names: Sequence[str], weights: Sequence[float]) -> None:
    """Find out, before a graph is loaded, that members cannot be blended so.

    Raises:
        ConfigError: not one weight each, one below 0, all of them 0; or a gate by nobody, or by one with nobody to let
            pass.
    """
    valid = len(names) == len(weights) and all(weight >= 0 for weight in weights)
    if not valid or not 0 < sum(weights) < float("inf"):
        raise ConfigError(
            "weights",
            f"are {list(weights)} for {len(names)} members",
            "one >= 0 for each is needed, with a sum above 0",
        )
    if blend.how != "gate":
        return
    if blend.by not in names:
        raise ConfigError("blend", f"the gate is by {blend.by!r}, which is no member", f"choose of {', '.join(names)}")
    if not sum(weight for name, weight in zip(names, weights, strict=True) if name != blend.by) > 0:
        raise ConfigError("blend", f"there is nobody behind the gate by {blend.by!r}", "give another member a weight")


Way = Callable[[Sequence[Float32], Sequence[np.float32]], Float32]
"""(what each member says [rows, species], shares that sum to 1) -> [rows, species]."""


def mean(opinions: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """Weighted arithmetic mean."""
    total: Float32 = shares[0] * opinions[0]
    for opinion, share in zip(opinions[1:], shares[1:], strict=True):
        total += share * opinion
    return total


def geometric(opinions: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """Weighted geometric mean of p + e, less e: unlike one of clipped values it keeps 0 and makes no ties."""
    shifted = np.exp(mean([np.log(opinion + EPSILON) for opinion in opinions], shares))
    found: Float32 = np.maximum(shifted - EPSILON, np.float32(0))
    return found


def rms(opinions: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """Weighted root of the mean square."""
    root: Float32 = np.sqrt(mean([opinion * opinion for opinion in opinions], shares))
    return root


def minimum(opinions: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """The least."""
    least: Float32 = reduce(np.minimum, opinions)
    return least


def maximum(opinions: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """The greatest."""
    greatest: Float32 = reduce(np.maximum, opinions)
    return greatest


def median(opinions: Sequence[Float32], shares: Sequence[np.float32]) -> Float32:
    """The middle one, or the mean of the middle two."""
    ordered = np.sort(np.stack(opinions), axis=0)
    middle: Float32 = (ordered[(len(opinions) - 1) // 2] + ordered[len(opinions) // 2]) * np.float32(0.5)
    return middle


_WAYS: dict[str, Way] = {
    "mean": mean, "geometric": geometric, "rms": rms, "minimum": minimum, "maximum": maximum, "median": median,
}  # fmt: skip

_Place = slice | npt.NDArray[np.intp]


class _Group(NamedTuple):
    """Species that the same members speak of."""

    columns: _Place
    """Of the whole."""
    speakers: list[tuple[int, _Place]]
    """A member, and its own columns of these species."""
    shares: list[np.float32]
    """Of the speakers; they sum to 1."""


class SpeciesBlend:
    """One way for all species, each over the members that know it."""

    def __init__(
        self, way: Way, weights: Sequence[float], columns: Sequence[Columns], fallback: Sequence[float]
    ) -> None:
        """Work out who speaks of what; arguments as of :func:`make_blend`."""
        self._way = way
        self._fallback = np.asarray(fallback, np.float32)
        place = _places(columns, len(fallback))
        place[np.asarray(weights) == 0] = -1
        self.is_known = (place >= 0).any(axis=0)
        """Per species, whether anybody speaks of it."""
        self._groups = _groups(place, weights)

    def __call__(self, opinions: Sequence[Float32]) -> Float32:
        """Blend.

        Args:
            opinions: one [rows, labels it knows] for each member.

        Returns:
            [rows, species]; but for rounding between the members' least and greatest value in every cell.
        """
        blended = np.tile(self._fallback, (len(opinions[0]), 1))
        for columns, speakers, shares in self._groups:
            said = [opinions[member][:, own] for member, own in speakers]
            # Shares of float32 may sum to a little more than 1, and a logit of more than 1 would be none.
            blended[:, columns] = np.minimum(self._way(said, shares), np.float32(1))
        return blended


class Gate:
    """One member decides how much of the others' weighted mean passes; monotone in what each of them says."""

    def __init__(
        self,
        by: int,
        threshold: float,
        weights: Sequence[float],
        columns: Sequence[Columns],
        fallback: Sequence[float],
    ) -> None:
        """Arguments as of :func:`make_blend`; ``by`` is the deciding member's index."""
        self._by, self._threshold = by, np.float32(threshold)
        behind = [0.0 if member == by else weight for member, weight in enumerate(weights)]
        self._others = SpeciesBlend(mean, behind, columns, fallback)
        place = _places(columns, len(fallback))[by]
        gated, alone = (
            np.flatnonzero((place >= 0) & known) for known in (self._others.is_known, ~self._others.is_known)
        )
        self._gated, self._gates = gated, place[gated]
        self._alone, self._says = alone, place[alone]

    def __call__(self, opinions: Sequence[Float32]) -> Float32:
        """Blend; as :meth:`SpeciesBlend.__call__`, but never above the others' mean."""
        blended = self._others(opinions)
        gatekeeper = opinions[self._by]
        if self._threshold > 0:
            blended[:, self._gated] *= np.minimum(gatekeeper[:, self._gates], self._threshold) / self._threshold
        blended[:, self._alone] = gatekeeper[:, self._says]
        return blended


def _places(columns: Sequence[Columns], n_species: int) -> npt.NDArray[np.intp]:
    """[members, species]: the member's column of the species, -1 where it knows none."""
    place = np.full((len(columns), n_species), -1, np.intp)
    for own, known in zip(place, columns, strict=True):
        own[slice(None) if known is None else known] = np.arange(n_species if known is None else len(known))
    return place


def _groups(place: npt.NDArray[np.intp], weights: Sequence[float]) -> list[_Group]:
    """Species of equal speakers together: nearly always all of them."""
    patterns, group_of = np.unique(place >= 0, axis=1, return_inverse=True)
    groups = []
    for index, speaks in enumerate(patterns.T):
        members = np.flatnonzero(speaks).tolist()
        if members:
            columns = np.flatnonzero(group_of == index)
            total = sum(weights[member] for member in members)
            shares = [np.float32(weights[member] / total) for member in members]
            speakers = [(member, _as_slice(place[member, columns], place.shape[1])) for member in members]
            groups.append(_Group(_as_slice(columns, place.shape[1]), speakers, shares))
    return groups


def _as_slice(columns: npt.NDArray[np.intp], n_species: int) -> _Place:
    """All columns in order as a slice, which copies nothing."""
    return slice(None) if np.array_equal(columns, np.arange(n_species)) else columns
