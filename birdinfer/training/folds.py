"""Clips -> folds: which clips validate which model.

In: clips with label, group and author. Out: one fold per clip, 0 to n_folds - 1, or -1 for a clip that is always in
training. Three laws hold: recordings of one group or one author are never on both sides; each species is in the
training of every fold; the same clips and seed give the same folds.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.training.metadata import Clip

ALWAYS_TRAINING = -1


def assign_folds(clips: Sequence[Clip], n_folds: int, seed: int) -> list[int]:
    """Lay folds, stratified by primary label.

    Args:
        clips: at least one per fold that shares neither group nor author with the others.
        n_folds: how many, >= 2.
        seed: another seed, other folds.

    Returns:
        Fold per clip, 0 to n_folds - 1; -1 where a species would have lost all its training clips.

    Raises:
        ConfigError: there are too few independent recordings for so many folds.
    """
    components = connected(clips)
    n_components = len(set(components))
    if n_components < n_folds:
        raise ConfigError(
            "data.n_folds", f"is {n_folds}, only {n_components} sets of recordings share no group or author", "lower it"
        )
    folds = _stratified(clips, components, n_folds, seed)
    _keep_every_species_in_training(clips, components, folds)
    if set(folds) - {ALWAYS_TRAINING} != set(range(n_folds)):
        raise ConfigError("data.n_folds", f"is {n_folds}, a fold would have no clips to validate on", "lower it")
    return folds


def connected(clips: Sequence[Clip]) -> list[int]:
    """Which clips hang together, directly or through others, by group or by author (union-find).

    Returns:
        Component per clip, numbered from 0 in order of appearance. An empty group or author connects nothing.
    """
    parent = list(range(len(clips)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]  # halve the path, so that later walks are short
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, clip in enumerate(clips):
        for link in (("group", clip.group), ("author", clip.author)):
            if link[1]:
                parent[root(index)] = root(first.setdefault(link, index))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(clips))]


def given_folds(clips: Sequence[Clip], n_folds: int, column: str) -> list[int]:
    """Folds as a column of train.csv has them.

    Args:
        clips: their ``given_fold`` holds the column; empty and -1 mean always in training.
        n_folds: how many the recipe expects.
        column: the column's name, for messages.

    Returns:
        Fold per clip; the column's values sorted (as numbers, if they are) and counted from 0.

    Raises:
        ConfigError: the column holds another number of folds.
    """
    values = {clip.given_fold for clip in clips} - {"", str(ALWAYS_TRAINING)}
    ordered = sorted(values, key=int) if all(value.isdecimal() for value in values) else sorted(values)
    if len(ordered) != n_folds:
        raise ConfigError(
            "data.n_folds", f"is {n_folds}, column {column} holds {len(ordered)} folds", f"set it to {len(ordered)}"
        )
    number = {value: fold for fold, value in enumerate(ordered)}
    return [number.get(clip.given_fold, ALWAYS_TRAINING) for clip in clips]


def leaks(clips: Sequence[Clip], folds: Sequence[int]) -> list[str]:
    """What breaks the laws in folds that were given: one line per kind of breach, none if all is well."""
    notes = []
    for kind in ("group", "author"):
        at: dict[str, set[int]] = defaultdict(set)
        for clip, fold in zip(clips, folds, strict=True):
            at[getattr(clip, kind)].add(fold)
        split = sorted(name for name, where in at.items() if name and len(where) > 1)
        if split:
            notes.append(
                f"{len(split)} {kind}s are in training and validation of a fold, first {split[0]!r}: scores flatter"
            )
    lost = sorted(label for label, where in _folds_of_labels(clips, folds).items() if len(where) == 1 and where != {-1})
    if lost:
        notes.append(f"{len(lost)} species have no training clip in one fold, first {lost[0]!r}")
    return notes


def _stratified(clips: Sequence[Clip], components: Sequence[int], n_folds: int, seed: int) -> list[int]:
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([clip.primary_label for clip in clips])
    # scikit-learn refuses when every species has fewer clips than folds; then only sizes can be balanced.
    if max(Counter(labels.tolist()).values()) < n_folds:
        labels = np.zeros(len(clips), int)
    folds = [0] * len(clips)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # "The least populated class has only 1 member": the long tail is expected, and cared for below.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, held_out) in enumerate(splitter.split(labels, labels, components)):
            for index in held_out:
                folds[index] = fold
    return folds


def _keep_every_species_in_training(clips: Sequence[Clip], components: Sequence[int], folds: list[int]) -> None:
    """Where one fold holds all clips of a species, take one whole component of it out of validation, the smallest."""
    size = Counter(components)
    members, of_label = defaultdict(list), defaultdict(list)
    for index, (clip, component) in enumerate(zip(clips, components, strict=True)):
        members[component].append(index)
        of_label[clip.primary_label].append(index)
    for _, mine in sorted(of_label.items()):
        where = {folds[index] for index in mine}
        if len(where) == 1 and where != {ALWAYS_TRAINING}:
            smallest = min((components[index] for index in mine), key=lambda one: (size[one], one))
            for index in members[smallest]:
                folds[index] = ALWAYS_TRAINING


def _folds_of_labels(clips: Sequence[Clip], folds: Sequence[int]) -> dict[str, set[int]]:
    where: dict[str, set[int]] = defaultdict(set)
    for clip, fold in zip(clips, folds, strict=True):
        where[clip.primary_label].add(fold)
    return where
