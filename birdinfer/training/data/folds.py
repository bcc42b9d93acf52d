"""Clips and the recipe's section ``data`` -> a fold per clip: which clips validate which model.

Out: 0 to n_folds - 1, ``ALWAYS_TRAINING`` or ``TEST``. Folds that are assigned here keep four constraints: what belongs
together (:func:`connected`) is never on both sides; each species that is not in the test alone is in the training of
every fold; the same clips and seed give the same folds, in whatever order the table lists them; and where every clip
stands for itself, folds differ by at most one clip, of each species and in all (see ``allocation``).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from birdinfer.errors import ConfigError, InputNotFoundError, MetadataError
from birdinfer.system.files import atomic_text
from birdinfer.system.toml import toml_value
from birdinfer.tables.cells import whole_of
from birdinfer.tables.csv import CsvWriter, rows
from birdinfer.training.data.allocation import OUTSIDE, Content, allocate
from birdinfer.training.data.duplicates import components
from birdinfer.training.data.fold0 import complete
from birdinfer.training.data.metadata import Clip
from birdinfer.training.recipe.data_config import DataConfig

__all__ = [
    "ALWAYS_TRAINING",
    "FOLDS_FILE",
    "LEFT_OUT",
    "TEST",
    "VALIDATION",
    "DuplicateSets",
    "assign_folds",
    "connected",
    "coverage",
    "folds_by_name",
    "given_folds",
    "gone_clips",
    "leaks",
    "read_folds",
    "validated_folds",
    "write_folds",
]


# ---- folds.csv: a fold per clip, so that a later run validates on the same clips

FOLDS_FILE = "folds.csv"
"""In a run's folder."""

LEFT_OUT = -3
"""The clip is in the data and not in the run: it repeats another one, or only some were chosen."""

VALIDATION = -4
"""The clip is held out by every fold, and never trained on: of a source whose role is ``validate``."""

_COLUMNS = ("filename", "primary_label", "group", "fold")
_NEEDED = ("filename", "primary_label", "fold")
_MOST_FOLDS = 50
"""As ``data.n_folds`` allows."""


def write_folds(path: Path, clips: Sequence[Clip], folds: Sequence[int]) -> None:
    """Write folds.csv, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_text(path) as file:
        writer = CsvWriter(file)
        writer.row(_COLUMNS[0], _COLUMNS[1:])
        for clip, fold in zip(clips, folds, strict=True):
            writer.row(clip.filename, [clip.primary_label, clip.group, fold])


def read_folds(path: Path, clips: Sequence[Clip]) -> list[int]:
    """Find each clip's fold in folds.csv.

    Args:
        path: what :func:`write_folds` wrote, or a table like it; its column ``group`` is not read.
        clips: in any order, and perhaps fewer than the file names.

    Returns:
        Fold per clip, from -4.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: a column is missing, a fold is none, a clip stands twice, is not there or has another label.
    """
    found = folds_by_name(path)
    unnamed = [clip.filename for clip in clips if clip.filename not in found]
    if unnamed:
        what = f"names no fold for {len(unnamed)} of {len(clips)} clips, first {unnamed[0]}"
        raise MetadataError(path, what, "leave data.folds_file out, or add the rows (fold -1: training)")
    for clip in clips:
        label, _ = found[clip.filename]
        if label != clip.primary_label:
            what = f"labels {clip.filename} {label!r}, train.csv {clip.primary_label!r}"
            raise MetadataError(path, what, "it belongs to other data")
    return [found[clip.filename][1] for clip in clips]


def gone_clips(path: Path, clips: Sequence[Clip]) -> list[str]:
    """A line on rows of folds.csv whose clips the data does not have any more; none if there are none.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it cannot be read.
    """
    gone = sorted(folds_by_name(path).keys() - {clip.filename for clip in clips})
    return [f"{len(gone)} clips of {path} are not in the data any more, first {gone[0]}"] if gone else []


def folds_by_name(path: Path) -> dict[str, tuple[str, int]]:
    """Read folds.csv: primary label and fold by file name, in the file's order; raises as :func:`read_folds`."""
    if not path.is_file():
        raise InputNotFoundError(path, "no such file of folds", "data.folds_file names an earlier run's folds.csv")
    found: dict[str, tuple[str, int]] = {}
    for number, cells in rows(path, _NEEDED):
        filename = cells["filename"]
        if filename in found:
            raise MetadataError(path, f"row {number} names {filename} a second time", "keep one of them")
        found[filename] = cells["primary_label"], _fold(path, number, cells["fold"])
    return found


def _fold(path: Path, number: int, text: str) -> int:
    fold = whole_of(text)
    if fold is None or not VALIDATION <= fold < _MOST_FOLDS:
        what = f"row {number} has the fold {text!r}"
        raise MetadataError(path, what, f"allowed are 0 to {_MOST_FOLDS - 1}, -1, -2, -3 and -4")
    return fold


# ---- Constraints: what a fold's number means, which clips belong together, and where folds leak

ALWAYS_TRAINING = -1
"""The clip is in the training of every fold."""
TEST = -2
"""The clip is in no fold: neither training nor validation."""

_NO_FOLDS = frozenset({"", str(ALWAYS_TRAINING), str(TEST), str(LEFT_OUT)})
"""What a column of folds may hold besides."""
_NAMED = 5

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


def _n_species(labels: Sequence[str]) -> int:
    return len(set(labels) - {""})  # a window of a soundscape may have none


_ENOUGH = 0.8
"""Of ``data.val_share``."""
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
    missing = sorted(set(of_label) - validated)
    alone = sum(len(of_label[label]) == 1 for label in missing)
    why = f"{alone} of them have no second independent recording"
    return [f"{len(missing)} species are not validated in fold 0, first {missing[0]!r}: {why}"] if missing else []


_TEST_DRAW, _FOLD_DRAW = 201, 202
"""First element of a generator's seed: the test stays the same when the folds' number changes."""


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


def validated_folds(folds: Sequence[int]) -> tuple[int, ...]:
    """The folds that have clips to validate on, ascending: all of a run, only 0 of a split, none with ``all_data``."""
    return tuple(sorted({fold for fold in folds if fold >= 0}))


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
    counts = Counter((kind, name) for _, kind, name in _links(clips, config.group_by, ()))
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
