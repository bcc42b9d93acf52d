"""Windows of which it is known what is heard in them: what an exported graph is judged on.

In: a trained run's held-out clips, or soundscapes with a table of truth. Out: :class:`LabelledWindows`. They are held
in memory, 80 KB each for 128 x 160 log-mel, so both ways of getting them have a bound on their number.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from birdinfer.config import Hearing
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, LabelError, MetadataError
from birdinfer.export.windows.clip_windows import ClipWindows, Place, measured_clips, model_input
from birdinfer.export.windows.even_draw import even_shares, evenly_spaced
from birdinfer.export.windows.held_out import validated_clips
from birdinfer.row_ids import split_row_id
from birdinfer.soundscapes import find_soundscapes
from birdinfer.tables.score_table import ScoreTable, read_scores
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.dataset import window_starts
from birdinfer.training.targets import truth
from birdinfer.windows import read_window

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
T = TypeVar("T")


class LabelledWindows(NamedTuple):
    """Windows, and what is known of them."""

    heard: Float32
    """[windows, ...], what a model takes: log-mel [windows, 1, rows, columns] or waveforms [windows, samples]."""
    truth: Bool
    """[windows, labels], whether the label is there."""
    known: Bool
    """[windows, labels], False where it may be there or not: such a cell is left out of a score."""
    recordings: npt.NDArray[np.intp]
    """[windows], which recording each was cut from, numbered from 0."""
    failed: tuple[str, ...] = ()
    """What could not be decoded, a line each; those windows are not among these."""


def held_out_windows(
    folder: Path, checkpoint: Checkpoint, data_dir: Path | None, max_windows: int = 2000
) -> LabelledWindows:
    """Windows of the clips that a fold was validated on.

    Each clip is heard at evenly spaced places, ``loop.val_windows`` of them as in validation, or more where there is
    room for more; too many are thinned out evenly over primary labels. A clip's primary label counts as heard in each
    of its windows, as validation has it; of a secondary one nobody knows in which.

    Args:
        folder: the fold's.
        checkpoint: of the fold.
        data_dir: where the clips and their train.csv are now; where they were in training if None.
        max_windows: the most windows, >= 1.

    Raises:
        ConfigError: the run held out nothing (``data.all_data``): only another labelled set can judge its graphs.
        InputNotFoundError: a table of the fold or of the data is missing.
        MetadataError: a table cannot be read, or train.csv is of other data.
        AudioError: not one of the clips can be decoded.
    """
    if checkpoint.recipe.data.all_data:
        remedy = "judge it on soundscapes with a table of truth"
        raise ConfigError("data.all_data", "the run trained on all clips and held out none", remedy)
    windows = ClipWindows(checkpoint.recipe)
    clips, failed = measured_clips(windows, validated_clips(folder, checkpoint, data_dir))
    per_clip = max(checkpoint.recipe.loop.val_windows, max_windows // max(1, len(clips)))
    places = thinned(
        [place for clip in clips for place in _places(windows, clip, per_clip)],
        lambda place: place.clip.primary_label,
        max_windows,
    )
    heard, kept, broken = hear(places, windows.heard, lambda place: place.clip.filename)
    if not kept:
        what = f"none of the fold's {len(clips) + len(failed)} held-out clips can be decoded"
        raise AudioError(folder, what, "name the data folder: --data")
    return _labelled(heard, kept, checkpoint, (*failed, *broken))


class _Row(NamedTuple):
    """A row of a table of truth."""

    row: int
    """Of the table, from 0."""
    path: Path
    start_seconds: float


def soundscape_windows(
    soundscapes: Path, truth_csv: Path, labels: Sequence[str], hearing: Hearing, max_windows: int = 2000
) -> LabelledWindows:
    """Windows of soundscapes, a row of the table of truth each.

    Too many are thinned out evenly over the label of each row that is rarest in the table; rows of which nothing is
    heard are a group of their own.

    Args:
        soundscapes: a folder of sound files, or one of them.
        truth_csv: ``row_id`` (``<file's stem>_<end second>``) and a column of 0 or 1 per label; labels without a column
            are not known, columns without a label are left out.
        labels: of the graph, in the order of its columns.
        hearing: what it takes. A row must last as long as its window.
        max_windows: the most windows, >= 1.

    Raises:
        InputNotFoundError: a table, a folder or a file that a row names is missing.
        MetadataError: the table is not as needed, or its rows last longer or shorter than a window.
        LabelError: none of the labels has a column.
        AudioError: none of the files can be decoded, or two have one name.
    """
    table = _read_truth(truth_csv, labels)
    rows = thinned(_rows(table, soundscapes, hearing), _rarest_label(table), max_windows)
    heard, kept, failed = hear(
        rows,
        lambda one: model_input(read_window(one.path, one.start_seconds, hearing), hearing),
        lambda one: one.path.name,
    )
    if not kept:
        raise AudioError(soundscapes, f"not one of the rows of {truth_csv} can be decoded")
    present, known = _cells(table, [one.row for one in kept], labels)
    return LabelledWindows(heard, present, known, _numbered([str(one.path) for one in kept]), tuple(failed))


def thinned(items: Sequence[T], group_of: Callable[[T], str], n_wanted: int) -> list[T]:
    """At most so many of the items, as many of each group as there are, those of a group evenly spread; in order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[group_of(item)].append(index)
    in_order = [groups[name] for name in sorted(groups)]
    shares = even_shares([len(group) for group in in_order], n_wanted)
    kept = [
        group[which]
        for group, share in zip(in_order, shares, strict=True)
        for which in evenly_spaced(len(group), int(share))
    ]
    return [items[index] for index in sorted(kept)]


def hear(
    items: Sequence[T], heard_of: Callable[[T], Float32], name_of: Callable[[T], str]
) -> tuple[Float32, list[T], list[str]]:
    """What a model takes of each item [kept, ...], the items that could be decoded, and a line on each other file."""
    heard = np.zeros((0, 0), np.float32)
    kept: list[T] = []
    failed: dict[str, str] = {}
    for item in items:
        try:
            window = heard_of(item)
        except (AudioError, InputNotFoundError) as error:
            failed.setdefault(name_of(item), f"{name_of(item)} ({error.what})")
            continue
        if not kept:  # filled in place: joined at the end, all windows would be held twice
            heard = np.empty((len(items), *window.shape[1:]), np.float32)
        heard[len(kept)] = window[0]
        kept.append(item)
    return heard[: len(kept)], kept, list(failed.values())


def _places(windows: ClipWindows, clip: Clip, most: int) -> list[Place]:
    """Where validation would hear a clip, if it heard as many windows."""
    starts = window_starts(windows.heard_seconds(clip), windows.hearing.window.window_seconds, most)
    return [Place(clip, start) for start in starts]


def _labelled(
    heard: Float32, places: Sequence[Place], checkpoint: Checkpoint, failed: tuple[str, ...]
) -> LabelledWindows:
    labels = [species.label for species in checkpoint.species]
    clips = [place.clip for place in places]
    primary = truth([clip._replace(secondary_labels=()) for clip in clips], labels).astype(np.bool_)
    present = truth(clips, labels).astype(np.bool_)
    return LabelledWindows(heard, present, primary | ~present, _numbered([clip.recording for clip in clips]), failed)


def _numbered(names: Sequence[str]) -> npt.NDArray[np.intp]:
    """Equal names have equal numbers, from 0 in order of appearance."""
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], np.intp)


def _read_truth(path: Path, labels: Sequence[str]) -> ScoreTable:
    table = read_scores(path)
    wrong = np.argwhere((table.values != 0) & (table.values != 1))
    if len(wrong):
        row, column = wrong[0]
        where = f"row {table.row_ids[row]!r}, column {table.labels[column]!r}"
        raise MetadataError(path, f"{where} holds {table.values[row, column]:g}", "truth is 0 or 1")
    if not set(labels) & set(table.labels):
        raise LabelError(path, f"has a column for none of the {len(labels)} labels, first {labels[0]!r}")
    return table


def _rows(table: ScoreTable, soundscapes: Path, hearing: Hearing) -> list[_Row]:
    """Where each row is heard, from its id."""
    window = hearing.window
    file_of = {path.stem: path for path in find_soundscapes([soundscapes])}
    ends = [split_row_id(row_id, table.path) for row_id in table.row_ids]
    _refuse_other_rows(table.path, ends, window.window_seconds)
    missing = sorted({stem for stem, _ in ends} - file_of.keys())
    if missing:
        what = f"holds no sound file of {len(missing)} that {table.path} names, first {missing[0]}"
        raise InputNotFoundError(soundscapes, what)
    # Row ids round the end of a row to whole seconds: which row of its file it is tells exactly.
    places = [round(end / window.window_seconds) - 1 for _, end in ends]
    return [
        _Row(index, file_of[stem], place * window.window_seconds)
        for index, ((stem, _), place) in enumerate(zip(ends, places, strict=True))
    ]


def _refuse_other_rows(path: Path, ends: Sequence[tuple[str, int]], window_seconds: float) -> None:
    """Rows last from one end to the next, or from the beginning to the first."""
    by_file: dict[str, list[int]] = defaultdict(list)
    for stem, end in ends:
        by_file[stem].append(end)
    steps = np.concatenate([np.diff([0, *sorted(seconds)]) for seconds in by_file.values()])
    # Whole seconds are up to half a second off on either side.
    if abs(float(steps.min()) - window_seconds) >= 1.0:
        what = f"has rows of {steps.min()} s, the model hears windows of {window_seconds:g} s"
        raise MetadataError(path, what, "judge it on a table whose rows last as long as its windows")


def _rarest_label(table: ScoreTable) -> Callable[[_Row], str]:
    """Of a row the label that is heard in it and in the fewest others; "" where none is."""
    frequency = table.values.sum(axis=0)
    rarity = np.where(table.values > 0, frequency, np.inf)
    rarest = rarity.argmin(axis=1)
    return lambda one: table.labels[rarest[one.row]] if table.values[one.row].any() else ""


def _cells(table: ScoreTable, rows: Sequence[int], labels: Sequence[str]) -> tuple[Bool, Bool]:
    """Truth of the rows in the order of the labels, and which of them the table tells; both [rows, labels]."""
    column_of = {label: column for column, label in enumerate(table.labels)}
    present, known = (np.zeros((len(rows), len(labels)), np.bool_) for _ in range(2))
    for index, label in enumerate(labels):
        if label in column_of:
            present[:, index] = table.values[rows, column_of[label]] > 0
            known[:, index] = True
    return present, known
