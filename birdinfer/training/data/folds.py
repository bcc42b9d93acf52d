"""Clips and the recipe's section ``data`` -> a fold per clip: which clips validate which model.

Out: 0 to n_folds - 1, ``ALWAYS_TRAINING`` or ``TEST``. Folds that are assigned here keep four constraints: what belongs
together (:func:`~birdinfer.training.data.fold_constraints.connected`) is never on both sides; each species that is not
in the test alone is in the training of every fold; the same clips and seed give the same folds, in whatever order the
table lists them; and where every clip stands for itself, folds differ by at most one clip, of each species and in all
(see ``allocation``).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.system.toml import toml_value
from birdinfer.training.data.allocation import OUTSIDE, Content, allocate
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.fold0 import complete
from birdinfer.training.data.fold_constraints import DuplicateSets, connected, links_between, validated_folds
from birdinfer.training.data.folds_file import ALWAYS_TRAINING, LEFT_OUT, TEST, read_folds
from birdinfer.training.recipe.data_config import DataConfig

_TEST_DRAW, _FOLD_DRAW = 201, 202
"""First element of a generator's seed: the test stays the same when the folds' number changes."""
_NO_FOLDS = frozenset({"", str(ALWAYS_TRAINING), str(TEST), str(LEFT_OUT)})
"""What a column of folds may hold besides."""
_NAMED = 5


def assign_folds(clips: Sequence[Clip], config: DataConfig, seed: int, duplicate_sets: DuplicateSets = ()) -> list[int]:
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
    try:
        return _assigned(clips, config, seed, duplicate_sets)
    except ConfigError as error:
        found = " or ".join(_settings_that_work(clips, config, seed, duplicate_sets))
        raise ConfigError(error.where, error.what, f"set {found}" if found else error.hint) from error


def _assigned(clips: Sequence[Clip], config: DataConfig, seed: int, duplicate_sets: DuplicateSets) -> list[int]:
    folds = _given(clips, config)
    pieces = _pieces(clips, connected(clips, config.group_by, duplicate_sets), folds)
    is_given = bool(config.fold_column or config.folds_file)
    if config.test_share and TEST not in folds:
        _draw_test(pieces, folds, config, seed)
    if config.all_data:
        return [fold if fold in {TEST, LEFT_OUT} else ALWAYS_TRAINING for fold in folds]
    if not is_given:
        _draw_folds(clips, pieces, folds, config, seed)
    if config.complete_fold0:
        _complete_fold0(clips, pieces, folds)
    _check_filled(folds, config)
    return folds


def _settings_that_work(
    clips: Sequence[Clip], config: DataConfig, seed: int, duplicate_sets: DuplicateSets
) -> list[str]:
    """Settings with which folds can be assigned to these clips; each has been tried."""
    found = []
    for kind in _tries(config, len({clip.given_fold for clip in clips} - _NO_FOLDS)):
        for keys in kind:
            try:
                changed = msgspec.structs.replace(config, **keys)
                _assigned(clips, changed, seed, duplicate_sets)
            except ValueError:  # a ConfigError is one
                continue
            found.append(" with ".join(f"data.{key}={toml_value(value)}" for key, value in keys.items()))
            break
    return found


def _tries(config: DataConfig, n_given: int) -> Iterator[list[dict[str, Any]]]:
    """Settings that may help, a list for each kind; of a kind the first one that helps is enough."""
    yield [{"n_folds": n} for n in sorted({n_given, 2, 3, 4, 5, 10}, reverse=True) if 2 <= n != config.n_folds]
    for kind in config.group_by:
        yield [{"group_by": tuple(other for other in config.group_by if other != kind)}]
    for key in ("val_share", "test_share"):
        if getattr(config, key) or (key == "val_share" and not config.fold_column and not config.folds_file):
            yield [{key: share} for share in (0.2, 0.3, 0.5, 0.1, 0.0) if share != getattr(config, key)]
    if config.fold_column:
        yield [{"fold_column": ""}, {"fold_column": "", "val_share": 0.2}]
    everything: dict[str, Any] = {"all_data": True} | ({"fold_column": ""} if config.fold_column else {})
    yield [{"all_data": True}, everything, everything | {"test_share": 0.0}]


def given_folds(clips: Sequence[Clip], n_folds: int, column: str) -> list[int]:
    """Folds as a column of train.csv has them.

    Args:
        clips: their ``given_fold`` holds the column; empty and -1 mean always in training, -2 the test, -3 left out.
        n_folds: how many the recipe expects.
        column: the column's name, for messages.

    Returns:
        Fold per clip; the column's values sorted (as numbers, if they are) and counted from 0.

    Raises:
        ConfigError: the column holds another number of folds.
    """
    values = {clip.given_fold for clip in clips} - _NO_FOLDS
    words = [value for value in values if not value.isdecimal()]
    if words and len(words) < len(values):
        raise ConfigError(
            "data.fold_column", f"column {column} mixes words and numbers: {', '.join(sorted(values)[:_NAMED])}"
        )
    ordered = sorted(values) if words else sorted(values, key=int)
    if len(ordered) != n_folds:
        named = f": {', '.join(ordered[:_NAMED])}" if ordered else ""
        raise ConfigError("data.n_folds", f"is {n_folds}, column {column} holds {len(ordered)} folds{named}")
    number = {value: fold for fold, value in enumerate(ordered)} | {str(fold): fold for fold in (TEST, LEFT_OUT)}
    return [number.get(clip.given_fold, ALWAYS_TRAINING) for clip in clips]


class _Piece(NamedTuple):
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
        raise ConfigError("data.test_share", f"is {config.test_share:g}, no clips can be spared for it")


def _draw_folds(
    clips: Sequence[Clip], pieces: Sequence[_Piece], folds: list[int], config: DataConfig, seed: int
) -> None:
    shares = [1 / config.n_folds] * config.n_folds
    if config.val_share:
        shares = [config.val_share / (1 - config.test_share)]  # both are shares of all clips
    left = [piece for piece in pieces if folds[piece.members[0]] != TEST]
    if len(left) < len(shares):
        kinds = " or ".join(config.group_by) or "file"
        why = f"is {config.n_folds}, only {len(left)} sets of recordings share no {kinds}{_most_shared(clips, config)}"
        raise ConfigError("data.n_folds", why)
    rng = np.random.default_rng((_FOLD_DRAW, seed))
    bins = allocate([piece.content for piece in left], shares, rng)
    for piece, where in zip(left, bins, strict=True):
        _move(piece, folds, ALWAYS_TRAINING if where == OUTSIDE else where)


def _most_shared(clips: Sequence[Clip], config: DataConfig) -> str:
    """What most clips have in common, of what keeps them together."""
    counts = Counter((kind, name) for _, kind, name in links_between(clips, config.group_by, ()))
    for (kind, name), n in counts.most_common(1):
        if n > 1:
            return f"; {n} of {len(clips)} clips share the {kind} {name!r}"
    return ""


def _complete_fold0(clips: Sequence[Clip], pieces: Sequence[_Piece], folds: list[int]) -> None:
    """Move pieces into fold 0, and others out of it, until it validates every species that it can and trains on it."""
    free = [piece for piece in pieces if TEST not in {folds[index] for index in piece.members}]
    inside = [0 in {folds[index] for index in piece.members} for piece in free]
    n_pieces = Counter(label for piece in free for label in piece.content)
    # A species' only piece stays in training; a piece that a column has divided stays divided.
    fixed = [
        len({folds[index] for index in piece.members}) > 1 or any(n_pieces[label] == 1 for label in piece.content)
        for piece in free
    ]
    sides = complete([piece.content for piece in free], inside, fixed)
    others = [fold for fold in validated_folds(folds) if fold]
    for piece, before, now in zip(free, inside, sides, strict=True):
        if now and not before:
            _move(piece, folds, 0)
    for piece, before, now in zip(free, inside, sides, strict=True):
        if before and not now:
            _move(piece, folds, _emptiest(clips, piece, folds, others))


def _emptiest(clips: Sequence[Clip], piece: _Piece, folds: Sequence[int], others: Sequence[int]) -> int:
    """The fold with the fewest clips that a piece can validate, because its species are elsewhere, too."""
    elsewhere: dict[str, set[int]] = defaultdict(set)
    for index, clip in enumerate(clips):
        if index not in piece.members and clip.primary_label in piece.content:
            elsewhere[clip.primary_label].add(folds[index])
    fitting = [fold for fold in others if all(elsewhere[label] - {fold, TEST, LEFT_OUT} for label in piece.content)]
    return min(fitting, key=folds.count, default=ALWAYS_TRAINING)


def _move(piece: _Piece, folds: list[int], fold: int) -> None:
    for index in piece.members:
        folds[index] = fold


def _check_filled(folds: Sequence[int], config: DataConfig) -> None:
    filled = validated_folds(folds)
    if config.val_share and filled != (0,):
        raise ConfigError("data.val_share", f"is {config.val_share:g}, no clips can be spared for it")
    is_split = filled == (0,) and (config.val_share or config.folds_file)
    if is_split or filled == tuple(range(config.n_folds)):
        return
    if config.folds_file:
        what = f"is {config.n_folds}, {config.folds_file} holds the folds {', '.join(map(str, filled)) or 'none'}"
        raise ConfigError("data.n_folds", what, "number them from 0 without a gap, at least two")
    raise ConfigError("data.n_folds", f"is {config.n_folds}, a fold would have no clips to validate on")
