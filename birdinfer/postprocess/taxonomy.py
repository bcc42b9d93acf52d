"""Pool related species: one file's probabilities [rows, species] -> the same shape, groups of columns pooled.

A network that recognises a thrush but not which one spreads its score over the genus, and a rare species gains from its
common relatives. BirdCLEF 2026's first place smoothed by genus and by class without publishing how much: the shares
here are starting points, to be tested with ``birdinfer score --ablate``. Labels that annotators use interchangeably for
one sonotype share their maximum.

Each row is processed by itself, and a species outside every group is not changed.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.postprocess.base import BoundStep, Step
from birdinfer.postprocess.numeric import lerp, row_blocks
from birdinfer.species import Species
from birdinfer.typing import Float32, Index

Columns = tuple[int, ...]
"""The columns of one group, two at least."""
Pool = Literal["mean", "max"]


def pool_groups(probabilities: Float32, groups: Sequence[Columns], share: float, pool: Pool) -> Float32:
    """Move each species towards its group: p' = p + share * (pool of p over the group - p).

    ``groups``: columns that belong together, no column in two groups.
    ``pool``: the group's ``mean`` over all its species, itself included; or its ``max``, which only raises scores.

    >>> pool_groups(np.array([[0.0, 1.0, 0.5]], np.float32), [(0, 1)], share=0.5, pool="mean").tolist()
    [[0.25, 0.75, 0.5]]
    """
    if not groups:
        return probabilities.copy()
    columns = np.concatenate([np.array(group, np.intp) for group in groups])
    sizes = np.array([len(group) for group in groups])
    pooled = probabilities.copy()
    for rows in row_blocks(len(probabilities)):
        own = probabilities[rows, columns]
        pooled[rows, columns] = lerp(own, np.repeat(_pools(own, sizes, pool), sizes, axis=1), share)
    return pooled


def _pools(grouped: Float32, sizes: Index, pool: Pool) -> Float32:
    """[rows, species], the groups side by side -> [rows, groups].

    The mean is computed in double precision: that of equal probabilities has the same bits.
    """
    starts = np.cumsum(sizes) - sizes
    if pool == "max":
        highest: Float32 = np.maximum.reduceat(grouped, starts, axis=1)
        return highest
    totals = np.add.reduceat(grouped.astype(np.float64), starts, axis=1)
    return (totals / sizes).astype(np.float32)


def genus_of(species: Species) -> str:
    """Return the first word of a scientific name of two words or more, in lower case; "" if it names no genus.

    A name of one word (Insecta) and one that begins with its class (Insecta sonotype 16) name no genus.

    >>> genus_of(Species("eurbla", "Turdus merula"))
    'turdus'
    """
    words = species.scientific_name.lower().split()
    return words[0] if len(words) > 1 and words[0] != species.class_name.lower() else ""


def groups_by(species: Sequence[Species], key: Callable[[Species], str]) -> list[Columns]:
    """Group the columns of two and more species with the same key; "" makes no group."""
    found: dict[str, list[int]] = {}
    for column, one in enumerate(species):
        if key(one):
            found.setdefault(key(one), []).append(column)
    return [tuple(columns) for columns in found.values() if len(columns) > 1]


def _check_any_has(species: Sequence[Species], step: str, field: str) -> None:
    if not any(getattr(one, field) for one in species):
        raise ConfigError(step, f"no species has a {field}", "leave the step out, or give the species a taxonomy.csv")


class _Pooling(Step, frozen=True, forbid_unknown_fields=True):
    share: float = 1.0
    """0 changes nothing, at 1 the members of a group are equal."""

    context_rows = 0
    ranges: ClassVar = {"share": (0, 1)}
    neutral: ClassVar = {"share": 0}


class GenusSmooth(_Pooling, frozen=True, forbid_unknown_fields=True, tag="genus_smooth"):
    """Each species moves towards its genus: p' = p + share * (pool over the genus - p)."""

    share: float = 0.1
    pool: Pool = "mean"
    """The mean or the maximum of the genus."""

    def bind(self, species: Sequence[Species]) -> BoundStep:
        """Species without a scientific name or alone in a genus are not changed; ConfigError if none has a name."""
        _check_any_has(species, "genus_smooth", "scientific_name")
        groups = groups_by(species, genus_of)
        return lambda probabilities, file_id: pool_groups(probabilities, groups, self.share, self.pool)


class ClassSmooth(_Pooling, frozen=True, forbid_unknown_fields=True, tag="class_smooth"):
    """Each species moves towards its class (Aves, Amphibia ...): p' = p + share * (pool over the class - p)."""

    share: float = 0.05
    pool: Pool = "mean"
    """The mean or the maximum of the class."""

    def bind(self, species: Sequence[Species]) -> BoundStep:
        """Species without a class or alone in theirs are not changed; ConfigError if none has a class."""
        _check_any_has(species, "class_smooth", "class_name")
        groups = groups_by(species, lambda one: one.class_name.lower())
        return lambda probabilities, file_id: pool_groups(probabilities, groups, self.share, self.pool)


class MirrorGroups(_Pooling, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="mirror_groups"):
    """Labels that stand for one sound take their group's maximum: p' = p + share * (max over the group - p)."""

    groups: tuple[tuple[str, ...], ...]
    """Labels that annotators use interchangeably, two or more in a group, none in two groups."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(len(group) < 2 for group in self.groups):
            raise ValueError("groups has a group of fewer than two labels, which mirrors nothing")
        labels = [label for group in self.groups for label in group]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"groups has the label {twice[0]!r} twice, a label belongs to one group")

    @property
    def is_neutral(self) -> bool:
        return self.share == 0 or not self.groups

    def bind(self, species: Sequence[Species]) -> BoundStep:
        column = {one.label: index for index, one in enumerate(species)}
        unknown = [label for group in self.groups for label in group if label not in column]
        if unknown:
            raise ConfigError(
                "mirror_groups", f"label {unknown[0]!r} is not among the species", "take it out of its group"
            )
        groups = [tuple(column[label] for label in group) for group in self.groups]
        return lambda probabilities, file_id: pool_groups(probabilities, groups, self.share, "max")
