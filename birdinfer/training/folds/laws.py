"""What folds must keep: what a fold's number means, which clips belong together, and what breaks the laws.

In: clips. Out: their components (sets of clips that no split may tear apart), or lines on what leaks in folds that were
given. A model must not be scored on an author's microphone, a recording or a place that it has trained on.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from birdinfer.training.clips.components import components
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.recipe.data import DataConfig

ALWAYS_TRAINING = -1
"""The clip is in the training of every fold."""
TEST = -2
"""The clip is in no fold: neither training nor validation."""

DuplicateSets = Sequence[Sequence[int]]
"""Indices of clips that sound alike, see ``duplicates``."""


def connected(clips: Sequence[Clip], group_by: Sequence[str], duplicate_sets: DuplicateSets = ()) -> list[int]:
    """Which clips hang together, directly or through others.

    Args:
        clips: with their ``author``, ``recording`` and ``site``; an empty one connects nothing.
        group_by: which of these connect.
        duplicate_sets: indices into ``clips`` that belong together as well.

    Returns:
        Component per clip, numbered from 0 in order of appearance.
    """
    first: dict[tuple[str, str], int] = {}
    links = _links(clips, group_by, duplicate_sets)
    return components(len(clips), ((first.setdefault((kind, name), index), index) for index, kind, name in links))


def leaks(
    clips: Sequence[Clip], folds: Sequence[int], config: DataConfig, duplicate_sets: DuplicateSets = ()
) -> list[str]:
    """What breaks the laws in folds that were laid or given.

    Args:
        clips: all of them.
        folds: one per clip.
        config: its ``group_by`` says what may not be on both sides, ``complete_fold0`` what fold 0 must validate.
        duplicate_sets: indices of clips that may not be on both sides either.

    Returns:
        One line per kind of breach, none if all is well.
    """
    notes = []
    at: dict[tuple[str, str], set[int]] = defaultdict(set)
    for index, kind, name in _links(clips, config.group_by, duplicate_sets):
        at[kind, name].add(folds[index])
    for kind in (*config.group_by, _DUPLICATES):
        split = sorted(name for (its_kind, name), where in at.items() if its_kind == kind and len(where) > 1)
        if split:
            notes.append(f"{len(split)} {kind}s are on both sides of a fold, first {split[0]!r}: scores flatter")
    notes += _untrained(clips, folds)
    if config.complete_fold0 and not config.all_data:
        notes += _not_in_fold0(clips, folds, connected(clips, config.group_by, duplicate_sets))
    return notes


_DUPLICATES = "duplicate"


def _links(
    clips: Sequence[Clip], group_by: Sequence[str], duplicate_sets: DuplicateSets
) -> Iterator[tuple[int, str, str]]:
    """(clip, kind, name): clips of one kind and name belong together."""
    for index, clip in enumerate(clips):
        for kind in group_by:
            name: str = getattr(clip, kind)
            if name:
                yield index, kind, name
    for members in duplicate_sets:
        for index in members:
            yield index, _DUPLICATES, clips[members[0]].filename


def _untrained(clips: Sequence[Clip], folds: Sequence[int]) -> list[str]:
    """Species that a fold's model is asked for and never taught."""
    where: dict[str, set[int]] = defaultdict(set)
    for clip, fold in zip(clips, folds, strict=True):
        where[clip.primary_label].add(fold)
    tested = sorted(label for label, at in where.items() if at == {TEST})
    lost = sorted(label for label, at in where.items() if len(at - {TEST}) == 1 and ALWAYS_TRAINING not in at)
    notes = [f"{len(lost)} species have no training clip in one fold, first {lost[0]!r}"] if lost else []
    return notes + ([f"{len(tested)} species are in the test alone, first {tested[0]!r}"] if tested else [])


def _not_in_fold0(clips: Sequence[Clip], folds: Sequence[int], components: Sequence[int]) -> list[str]:
    """Species that fold 0 does not validate although it should, and how many of them nothing can be done about."""
    of_label: dict[str, set[int]] = defaultdict(set)
    for clip, component in zip(clips, components, strict=True):
        of_label[clip.primary_label].add(component)
    validated = {clip.primary_label for clip, fold in zip(clips, folds, strict=True) if fold == 0}
    missing = sorted(set(of_label) - validated)
    alone = sum(len(of_label[label]) == 1 for label in missing)
    why = f"{alone} of them have no second independent recording"
    return [f"{len(missing)} species are not validated in fold 0, first {missing[0]!r}: {why}"] if missing else []
