"""Clips and their folds -> which clips belong together, where folds leak, and what is validated."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from birdinfer.training.data.clip import Clip
from birdinfer.training.data.duplicates import components
from birdinfer.training.data.folds_file import ALWAYS_TRAINING, TEST, VALIDATION
from birdinfer.training.recipe.data_config import DataConfig

DuplicateSets = Sequence[Sequence[int]]
"""Indices of clips that sound alike, see ``duplicates``."""
_DUPLICATES = "duplicate"
_ENOUGH = 0.8
"""Of ``data.val_share``."""


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
    links = links_between(clips, group_by, duplicate_sets)
    return components(len(clips), ((first.setdefault((kind, name), index), index) for index, kind, name in links))


def leaks(
    clips: Sequence[Clip], folds: Sequence[int], config: DataConfig, duplicate_sets: DuplicateSets = ()
) -> list[str]:
    """Find where folds, assigned or given, break the constraints.

    Args:
        clips: all of them.
        folds: one per clip.
        config: its ``group_by`` says what may not be on both sides, ``complete_fold0`` what fold 0 must validate.
        duplicate_sets: indices of clips that may not be on both sides either.

    Returns:
        One line per kind of breach, none if there is none.
    """
    notes = []
    at: dict[tuple[str, str], set[int]] = defaultdict(set)
    for index, kind, name in links_between(clips, config.group_by, duplicate_sets):
        at[kind, name].add(folds[index])
    for kind in (*config.group_by, _DUPLICATES):
        split = sorted(name for (its_kind, name), where in at.items() if its_kind == kind and len(where) > 1)
        if split:
            notes.append(f"{len(split)} {kind}s are on both sides of a fold, first {split[0]!r}: scores flatter")
    notes += _untrained(clips, folds)
    if config.complete_fold0 and not config.all_data:
        notes += _not_in_fold0(clips, folds, connected(clips, config.group_by, duplicate_sets))
    return notes


def coverage(clips: Sequence[Clip], folds: Sequence[int], config: DataConfig) -> list[str]:
    """Say what is validated: clips and species of each fold, and of all folds together.

    Args:
        clips: of the run, none of them left out.
        folds: one per clip.
        config: its ``val_share`` is compared with what fold 0 got of it.

    Returns:
        A line or two; none where nothing is validated.
    """
    held_out: dict[int, list[str]] = defaultdict(list)
    for clip, fold in zip(clips, folds, strict=True):
        held_out[fold].append(clip.primary_label)
    validated = [label for fold in validated_folds(folds) for label in held_out[fold]]
    always = held_out[VALIDATION]
    every = f"{len(always)} clips of {_n_species(always)} species are validated by every fold"
    if not validated:
        return [every] if always else []
    n_clips, n_species = len(clips) - len(always), _n_species([clip.primary_label for clip in clips])
    per_fold = "; ".join(
        f"fold {fold}: {len(held_out[fold])} of {_n_species(held_out[fold])} species" for fold in validated_folds(folds)
    )
    rest = ", the others are trained on alone" if len(validated) < n_clips else ""
    lines = [
        f"{len(validated)} of {n_clips} clips and {_n_species(validated)} of {n_species} species are validated{rest} "
        f"({per_fold})",
        *([every] if always else []),
    ]
    share = len(held_out[0]) / len(clips)
    if config.val_share and share < _ENOUGH * config.val_share:
        why = "species need a second independent recording to spare one"
        lines.append(f"data.val_share is {config.val_share:g}, fold 0 has {share:.1%} of the clips: {why}")
    return lines


def validated_folds(folds: Sequence[int]) -> tuple[int, ...]:
    """The folds that have clips to validate on, ascending: all of a run, only 0 of a split, none with ``all_data``."""
    return tuple(sorted({fold for fold in folds if fold >= 0}))


def _n_species(labels: Sequence[str]) -> int:
    return len(set(labels) - {""})  # a window of a soundscape may have none


def links_between(
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
    where.pop("", None)  # no species
    tested = sorted(label for label, at in where.items() if at <= {TEST, VALIDATION})
    untrained = {TEST, VALIDATION}
    lost = sorted(label for label, at in where.items() if len(at - untrained) == 1 and ALWAYS_TRAINING not in at)
    notes = [f"{len(lost)} species have no training clip in one fold, first {lost[0]!r}"] if lost else []
    return notes + ([f"{len(tested)} species are in the test alone, first {tested[0]!r}"] if tested else [])


def _not_in_fold0(clips: Sequence[Clip], folds: Sequence[int], components: Sequence[int]) -> list[str]:
    """Species that fold 0 does not validate although it should, and how many of them nothing can be done about."""
    of_label: dict[str, set[int]] = defaultdict(set)
    for clip, component in zip(clips, components, strict=True):
        of_label[clip.primary_label].add(component)
    validated = {clip.primary_label for clip, fold in zip(clips, folds, strict=True) if fold == 0}
    missing = sorted(set(of_label) - validated - {""})
    alone = sum(len(of_label[label]) == 1 for label in missing)
    why = f"{alone} of them have no second independent recording"
    return [f"{len(missing)} species are not validated in fold 0, first {missing[0]!r}: {why}"] if missing else []
