"""Species that help each other: one file's probabilities [rows, species] -> the same shape, groups of columns pooled.

A network that hears a thrush but not which one spreads its score over the genus, and a rare species gains from its
common relatives. BirdCLEF 2026's first place smoothed by genus and by class; how much is not told, so that the shares
here are starting points, to be judged with ``birdinfer score --ablate``. Sonotypes that annotators use for each other
mirror each other.

Each row is worked on by itself, and a species outside every group stays as it is.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError
from birdinfer.labels import Species
from birdinfer.postprocess.nudges import row_blocks, towards
from birdinfer.postprocess.step import Bound, Step

Float32 = npt.NDArray[np.float32]
Columns = tuple[int, ...]
"""The columns of one group, two at least."""
Pool = Literal["mean", "max"]


def pool_groups(probabilities: Float32, groups: Sequence[Columns], share: float, pool: Pool) -> Float32:
    """Each species moves towards its group: p' = p + share * (pool of p over the group - p).

    Args:
        probabilities: [rows, species], in [0, 1].
        groups: columns that belong together, no column in two groups.
        share: 0 leaves all as it is, at 1 a group's species are alike.
        pool: the group's ``mean``, each species counted, itself too; or its ``max``, which only ever raises.

    Returns:
        [rows, species], in [0, 1].
    """
    if not groups:
        return probabilities.copy()
    columns = np.concatenate([np.array(group, np.intp) for group in groups])
    sizes = np.array([len(group) for group in groups])
    pooled = probabilities.copy()
    for rows in row_blocks(len(probabilities)):
        own = probabilities[rows, columns]
        pooled[rows, columns] = towards(own, np.repeat(_pools(own, sizes, pool), sizes, axis=1), share)
    return pooled


def _pools(grouped: Float32, sizes: npt.NDArray[np.intp], pool: Pool) -> Float32:
    """[rows, species], the groups side by side -> [rows, groups].

    The mean is taken in double precision: that of equal probabilities is their value to the last bit.
    """
    starts = np.cumsum(sizes) - sizes
    if pool == "max":
        highest: Float32 = np.maximum.reduceat(grouped, starts, axis=1)
        return highest
    totals = np.add.reduceat(grouped.astype(np.float64), starts, axis=1)
    return (totals / sizes).astype(np.float32)


def genus_of(species: Species) -> str:
    """The first word of a scientific name of two words or more, in small letters; "" where there is none.

    A name of one word (Insecta) and one that begins with its class (Insecta sonotype 16) name no genus.
    """
    words = species.scientific_name.lower().split()
    return words[0] if len(words) > 1 and words[0] != species.class_name.lower() else ""


def groups_by(species: Sequence[Species], key: Callable[[Species], str]) -> list[Columns]:
    """Columns of two and more species that have one key; "" belongs to nobody."""
    found: dict[str, list[int]] = {}
    for column, one in enumerate(species):
        if key(one):
            found.setdefault(key(one), []).append(column)
    return [tuple(columns) for columns in found.values() if len(columns) > 1]


def _check_told(species: Sequence[Species], step: str, field: str) -> None:
    if not any(getattr(one, field) for one in species):
        raise ConfigError(step, f"no species has a {field}", "leave the step out, or give the species a taxonomy.csv")


class _Pooling(Step, frozen=True, forbid_unknown_fields=True):
    """What all three steps have in common."""

    share: float = 1.0
    """0 leaves all as it is, at 1 the members of a group are alike."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}, allowed are 0 to 1")

    @property
    def reach(self) -> int | None:
        return 0

    @property
    def is_neutral(self) -> bool:
        return self.share == 0


class GenusSmooth(_Pooling, frozen=True, forbid_unknown_fields=True, tag="genus_smooth"):
    """Each species moves towards its genus: p' = p + share * (pool over the genus - p)."""

    share: float = 0.1
    pool: Pool = "mean"
    """Of the genus' species: their mean or their maximum."""

    def bind(self, species: Sequence[Species]) -> Bound:
        """The function for these columns; species without a scientific name, or alone in their genus, stay as they are.

        Raises:
            ConfigError: no species has a scientific name.
        """
        _check_told(species, "genus_smooth", "scientific_name")
        groups = groups_by(species, genus_of)
        return lambda probabilities, stem: pool_groups(probabilities, groups, self.share, self.pool)


class ClassSmooth(_Pooling, frozen=True, forbid_unknown_fields=True, tag="class_smooth"):
    """Each species moves towards its class (Aves, Amphibia ...): p' = p + share * (pool over the class - p)."""

    share: float = 0.05
    pool: Pool = "mean"
    """Of the class' species: their mean or their maximum."""

    def bind(self, species: Sequence[Species]) -> Bound:
        """The function for these columns; species without a class, or alone in theirs, stay as they are.

        Raises:
            ConfigError: no species has a class.
        """
        _check_told(species, "class_smooth", "class_name")
        groups = groups_by(species, lambda one: one.class_name.lower())
        return lambda probabilities, stem: pool_groups(probabilities, groups, self.share, self.pool)


class MirrorGroups(_Pooling, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="mirror_groups"):
    """Labels that stand for one sound take their group's maximum: p' = p + share * (max over the group - p)."""

    groups: tuple[tuple[str, ...], ...]
    """Labels that annotators use for each other, two or more in a group, none in two groups."""

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
        """Whether no label is mirrored."""
        return self.share == 0 or not self.groups

    def bind(self, species: Sequence[Species]) -> Bound:
        """The function for these columns.

        Raises:
            ConfigError: a group holds a label that is not among the species.
        """
        column = {one.label: index for index, one in enumerate(species)}
        unknown = [label for group in self.groups for label in group if label not in column]
        if unknown:
            raise ConfigError(
                "mirror_groups", f"label {unknown[0]!r} is not among the species", "take it out of its group"
            )
        groups = [tuple(column[label] for label in group) for group in self.groups]
        return lambda probabilities, stem: pool_groups(probabilities, groups, self.share, "max")
