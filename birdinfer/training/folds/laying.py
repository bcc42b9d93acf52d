"""Clips and the recipe's section ``data`` -> a fold per clip: which clips validate which model.

Out: 0 to n_folds - 1, ``ALWAYS_TRAINING`` or ``TEST``. Four laws hold for folds that are laid here: what belongs
together (see ``laws``) is never on both sides; each species that is not in the test alone is in the training of
every fold; the same clips and seed give the same folds, in whatever order the table lists them; and where every clip
stands for itself, folds differ by at most one clip, of each species and in all (see ``allocation``).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.folds.allocation import OUTSIDE, Content, allocate
from birdinfer.training.folds.file import LEFT_OUT, read_folds
from birdinfer.training.folds.laws import ALWAYS_TRAINING, TEST, DuplicateSets, connected, leaks
from birdinfer.training.recipe.data import DataConfig

__all__ = ["ALWAYS_TRAINING", "TEST", "given_folds", "lay_folds", "leaks", "validated_folds"]

_TEST_DRAW, _FOLD_DRAW = 201, 202
"""First element of a generator's seed: the test stays the same when the folds' number changes."""


def lay_folds(clips: Sequence[Clip], config: DataConfig, seed: int, duplicate_sets: DuplicateSets = ()) -> list[int]:
    """Say of each clip when it validates.

    Args:
        clips: of different file names.
        config: a column, a file, a share or a number of folds; what belongs together; what is tested.
        seed: another seed, other folds; plays no part in folds that a column or a file gives.
        duplicate_sets: indices of clips that sound alike and are kept on one side.

    Returns:
        Fold per clip: from 0; ``ALWAYS_TRAINING`` where a species would have lost all its training clips; ``TEST``;
        ``LEFT_OUT`` where the ``folds_file`` says so, and nowhere else.

    Raises:
        ConfigError: there are too few independent recordings for so many folds or so small a share.
        InputNotFoundError: there is no ``folds_file``.
        MetadataError: it cannot be used for these clips.
    """
    folds = _given(clips, config)
    pieces = _pieces(clips, connected(clips, config.group_by, duplicate_sets), folds)
    is_given = bool(config.fold_column or config.folds_file)
    if config.test_share and TEST not in folds:
        _draw_test(pieces, folds, config, seed)
    if config.all_data:
        return [fold if fold in {TEST, LEFT_OUT} else ALWAYS_TRAINING for fold in folds]
    if not is_given:
        _draw_folds(pieces, folds, config, seed)
    if config.complete_fold0:
        _complete_fold0(clips, pieces, folds)
    _check_filled(folds, config)
    return folds


def validated_folds(folds: Sequence[int]) -> tuple[int, ...]:
    """The folds that have clips to validate on, ascending: all of a run, only 0 of a split, none with ``all_data``."""
    return tuple(sorted({fold for fold in folds if fold >= 0}))


def given_folds(clips: Sequence[Clip], n_folds: int, column: str) -> list[int]:
    """Folds as a column of train.csv has them.

    Args:
        clips: their ``given_fold`` holds the column; empty and -1 mean always in training, -2 the test.
        n_folds: how many the recipe expects.
        column: the column's name, for messages.

    Returns:
        Fold per clip; the column's values sorted (as numbers, if they are) and counted from 0.

    Raises:
        ConfigError: the column holds another number of folds.
    """
    values = {clip.given_fold for clip in clips} - {"", str(ALWAYS_TRAINING), str(TEST)}
    ordered = sorted(values, key=int) if all(value.isdecimal() for value in values) else sorted(values)
    if len(ordered) != n_folds:
        raise ConfigError(
            "data.n_folds", f"is {n_folds}, column {column} holds {len(ordered)} folds", f"set it to {len(ordered)}"
        )
    number = {value: fold for fold, value in enumerate(ordered)} | {str(TEST): TEST}
    return [number.get(clip.given_fold, ALWAYS_TRAINING) for clip in clips]


class _Piece(NamedTuple):
    """Clips that no split tears apart."""

    members: list[int]
    content: Content


def _pieces(clips: Sequence[Clip], components: Sequence[int], folds: Sequence[int]) -> list[_Piece]:
    """In an order of their own (by file name), so that the table's order does not matter."""
    members: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(clips)), key=lambda index: clips[index].filename):
        if folds[index] != LEFT_OUT:
            members[components[index]].append(index)
    return [
        _Piece(mine, dict(sorted(Counter(clips[index].primary_label for index in mine).items())))
        for mine in members.values()
    ]


def _given(clips: Sequence[Clip], config: DataConfig) -> list[int]:
    """Folds of a column or a file; without either, all in training."""
    if config.fold_column:
        return given_folds(clips, config.n_folds, config.fold_column)
    if config.folds_file:
        return read_folds(Path(config.folds_file), clips)
    return [ALWAYS_TRAINING] * len(clips)


def _draw_test(pieces: Sequence[_Piece], folds: list[int], config: DataConfig, seed: int) -> None:
    rng = np.random.default_rng((_TEST_DRAW, seed))
    bins = allocate([piece.content for piece in pieces], [config.test_share], rng)
    for piece, where in zip(pieces, bins, strict=True):
        if where != OUTSIDE:
            _move(piece, folds, TEST)
    if TEST not in folds:
        raise ConfigError("data.test_share", f"is {config.test_share:g}, no clips can be spared for it", "raise it")


def _draw_folds(pieces: Sequence[_Piece], folds: list[int], config: DataConfig, seed: int) -> None:
    """Folds, or one split, of all that is not in the test."""
    shares = [1 / config.n_folds] * config.n_folds
    if config.val_share:
        shares = [config.val_share / (1 - config.test_share)]  # both are shares of all clips
    left = [piece for piece in pieces if folds[piece.members[0]] != TEST]
    if len(left) < len(shares):
        kinds = " or ".join(config.group_by) or "file"
        why = f"is {config.n_folds}, only {len(left)} sets of recordings share no {kinds}"
        raise ConfigError("data.n_folds", why, "lower it")
    rng = np.random.default_rng((_FOLD_DRAW, seed))
    bins = allocate([piece.content for piece in left], shares, rng)
    for piece, where in zip(left, bins, strict=True):
        _move(piece, folds, ALWAYS_TRAINING if where == OUTSIDE else where)


def _complete_fold0(clips: Sequence[Clip], pieces: Sequence[_Piece], folds: list[int]) -> None:
    """Move the smallest piece that can be spared into fold 0, for each species that it lacks, rare ones first."""
    pieces_of: dict[str, list[_Piece]] = defaultdict(list)
    for piece in pieces:
        for label in piece.content:
            pieces_of[label].append(piece)

    def folds_of(label: str, piece: _Piece) -> set[int]:
        return {folds[index] for index in piece.members if clips[index].primary_label == label}

    def can_be_spared(piece: _Piece) -> bool:
        return TEST not in {folds[index] for index in piece.members} and all(
            any(folds_of(label, other) - {0, TEST} for other in pieces_of[label] if other is not piece)
            for label in piece.content
        )

    for label in sorted(pieces_of, key=lambda label: (len(pieces_of[label]), label)):
        if any(0 in folds_of(label, piece) for piece in pieces_of[label]):
            continue
        spared = [piece for piece in pieces_of[label] if can_be_spared(piece)]
        if spared:
            _move(min(spared, key=lambda piece: len(piece.members)), folds, 0)


def _move(piece: _Piece, folds: list[int], fold: int) -> None:
    for index in piece.members:
        folds[index] = fold


def _check_filled(folds: Sequence[int], config: DataConfig) -> None:
    """Each fold needs clips to validate on; a file may hold one split, too."""
    filled = validated_folds(folds)
    if config.val_share and filled != (0,):
        raise ConfigError("data.val_share", f"is {config.val_share:g}, no clips can be spared for it", "raise it")
    is_split = filled == (0,) and (config.val_share or config.folds_file)
    if is_split or filled == tuple(range(config.n_folds)):
        return
    if config.folds_file:
        what = f"is {config.n_folds}, {config.folds_file} holds the folds {', '.join(map(str, filled)) or 'none'}"
        raise ConfigError("data.n_folds", what, "set it as the file's run had it")
    raise ConfigError("data.n_folds", f"is {config.n_folds}, a fold would have no clips to validate on", "lower it")
