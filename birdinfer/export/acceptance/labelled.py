"""Labelled windows for the acceptance test: a run's held-out clips, or soundscapes with a table of truth.

They are held in memory, 80 KB each for 128 x 160 log-mel, so their number is limited; too many are thinned by
stratified sampling.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from birdinfer.audio.find import find_recordings
from birdinfer.audio.stream import probe
from birdinfer.audio.windows import read_window
from birdinfer.config import InputConfig
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, LabelError, MetadataError
from birdinfer.export.acceptance.held_out import (
    ClipWindows,
    Place,
    even_shares,
    evenly_spaced,
    measured_clips,
    model_input,
    validated_clips,
)
from birdinfer.species import Species
from birdinfer.tables.recordings import Recordings, match_recordings
from birdinfer.tables.row_ids import make_row_id, split_row_id
from birdinfer.tables.scores import ScoreTable
from birdinfer.tables.truth import MIN_TAIL_SECONDS, Row, Scored, Truth, read_truth
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.dataset import window_starts
from birdinfer.training.data.targets import truth as truth_of
from birdinfer.typing import Bool, Float32, Index

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledWindows:
    """Windows and their labels."""

    inputs: Float32  # what a network takes: log-mel [windows, channels, rows, columns] or waveforms [windows, samples]
    truth: Bool  # [windows, labels], whether the label is present
    known: Bool  # [windows, labels], False where it is not known whether the label is present: left out of scores
    recordings: Index  # [windows], number of the recording that each was cut from, from 0
    failed: tuple[str, ...] = ()  # what could not be decoded, a line each; those windows are not among these


def held_out_windows(
    folder: Path, checkpoint: Checkpoint, data_dir: Path | None, max_windows: int = 2000
) -> LabelledWindows:
    """Cut windows of the clips that a fold was validated on.

    Each clip gives evenly spaced windows, ``loop.val_windows`` of them as in validation, or more while the total stays
    within ``max_windows``; too many are thinned evenly over primary labels. A clip's primary label counts as present in
    each of its windows, as in validation; for a secondary one it is unknown in which.
    """
    if checkpoint.recipe.data.all_data:
        hint = "test it on soundscapes with a table of truth"
        raise ConfigError("data.all_data", "the run trained on all clips and held out none", hint)
    windows = ClipWindows(checkpoint.recipe)
    clips, failed = measured_clips(windows, validated_clips(folder, checkpoint, data_dir))
    per_clip = max(checkpoint.recipe.loop.val_windows, max_windows // max(1, len(clips)))
    all_places = [place for clip in clips for place in _places(windows, clip, per_clip)]
    places = thinned(all_places, lambda place: place.clip.primary_label, max_windows)
    inputs, kept, broken = decode_inputs(places, windows.network_input, lambda place: place.clip.filename)
    if not kept:
        what = f"none of the fold's {len(clips) + len(failed)} held-out clips can be decoded"
        raise AudioError(folder, what, "name the data folder: --data")
    return _labelled(inputs, kept, checkpoint, (*failed, *broken))


class _Row(NamedTuple):
    row: int  # of the table, from 0
    path: Path
    start_seconds: float


def soundscape_windows(
    soundscapes: Path, truth: Path, species: Sequence[Species], input_config: InputConfig, *, max_windows: int = 2000
) -> LabelledWindows:
    """Cut windows of soundscapes (a folder, or one file), one for each row of the truth.

    ``truth`` has ``row_id`` (``<recording>_<end second>``) and a column of 0 or 1 per label; labels without a column
    are not known, columns without a label are left out. Rows last as long as the window of ``input_config``. Or it is a
    table of annotations, or a folder of them: each window of a recording that they are about is a row.
    More than ``max_windows`` are thinned evenly over the rarest label of each row; rows without any label are a group
    of their own. Raises InputNotFoundError for a missing table, folder or file, MetadataError if the table is not as
    needed, LabelError if no label has a column, AudioError if no file can be decoded, or two have one name.
    """
    labels = [each.label for each in species]
    table, notes = read_soundscape_truth(truth, soundscapes, species, input_config)
    rows = thinned(_rows(table, soundscapes, input_config), _rarest_label(table), max_windows)
    inputs, kept, failed = decode_inputs(
        rows,
        lambda one: model_input(read_window(one.path, one.start_seconds, input_config), input_config),
        lambda one: one.path.name,
    )
    if not kept:
        raise AudioError(soundscapes, f"not one of the rows of {truth} can be decoded")
    present, known = _cells(table, [one.row for one in kept], labels)
    recordings = _numbered([str(one.path) for one in kept])
    return LabelledWindows(inputs=inputs, truth=present, known=known, recordings=recordings, failed=(*notes, *failed))


def join_sets(sets: Sequence[LabelledWindows]) -> LabelledWindows:
    """Join several sets into one; their recordings stay different ones."""
    recordings, n_before = [], 0
    for each in sets:
        recordings.append(each.recordings + n_before)
        n_before += int(each.recordings.max()) + 1
    return LabelledWindows(
        inputs=np.concatenate([each.inputs for each in sets]),
        truth=np.concatenate([each.truth for each in sets]),
        known=np.concatenate([each.known for each in sets]),
        recordings=np.concatenate(recordings),
        failed=tuple(failed for each in sets for failed in each.failed),
    )


def thinned(items: Sequence[T], group_of: Callable[[T], str], n_wanted: int) -> list[T]:
    """Take at most ``n_wanted`` items: equal shares of the groups, evenly spread within each; in the given order."""
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


def decode_inputs(
    items: Sequence[T], input_of: Callable[[T], Float32], name_of: Callable[[T], str]
) -> tuple[Float32, list[T], list[str]]:
    """Decode items into network inputs [kept, ...]; also return those items, and a line about each other file."""
    inputs = np.zeros((0, 0), np.float32)
    kept: list[T] = []
    failed: dict[str, str] = {}
    for item in items:
        try:
            window = input_of(item)
        except (AudioError, InputNotFoundError) as error:
            failed.setdefault(name_of(item), f"{name_of(item)} ({error.what})")
            continue
        if not kept:  # filled in place: joined at the end, all windows would be held twice
            inputs = np.empty((len(items), *window.shape[1:]), np.float32)
        inputs[len(kept)] = window[0]
        kept.append(item)
    return inputs[: len(kept)], kept, list(failed.values())


def _places(windows: ClipWindows, clip: Clip, most: int) -> list[Place]:
    starts = window_starts(windows.decoded_seconds(clip), windows.input_config.window.window_seconds, most)
    return [Place(clip, start) for start in starts]


def _labelled(
    inputs: Float32, places: Sequence[Place], checkpoint: Checkpoint, failed: tuple[str, ...]
) -> LabelledWindows:
    labels = [species.label for species in checkpoint.species]
    clips = [place.clip for place in places]
    primary = truth_of([clip._replace(secondary_labels=()) for clip in clips], labels).astype(np.bool_)
    present = truth_of(clips, labels).astype(np.bool_)
    return LabelledWindows(
        inputs=inputs,
        truth=present,
        known=primary | ~present,
        recordings=_numbered([clip.recording for clip in clips]),
        failed=failed,
    )


def _numbered(names: Sequence[str]) -> Index:
    """Equal names have equal numbers, from 0 in order of appearance."""
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], np.intp)


def read_soundscape_truth(
    path: Path, soundscapes: Path, species: Sequence[Species], input_config: InputConfig
) -> Truth:
    """Read a truth of soundscapes; raises as :func:`soundscape_windows` does, but for sound that cannot be decoded."""
    found = read_truth(path, lambda: Scored(_all_rows(soundscapes, input_config), species, str(soundscapes)))
    if not {each.label for each in species} & set(found.table.labels):
        raise LabelError(path, f"has a column for none of the {len(species)} labels, first {species[0].label!r}")
    return found


def _all_rows(soundscapes: Path, input_config: InputConfig) -> list[Row]:
    """Every window of the recordings; the last may be longer than what is left."""
    length = input_config.window.window_seconds
    rows = []
    for path, name in find_recordings([soundscapes]).names.items():
        with contextlib.suppress(AudioError):  # decoded later, where its rows are reported
            for index in range(max(0, math.ceil((probe(path).duration_seconds - MIN_TAIL_SECONDS) / length))):
                start, end = index * length, (index + 1) * length
                rows.append(Row(make_row_id(name, round(end)).text, name, start, end))
    return rows


def _rows(table: ScoreTable, soundscapes: Path, input_config: InputConfig) -> list[_Row]:
    window = input_config.window
    found = find_recordings([soundscapes])
    found.require()
    ends = [split_row_id(row_id, table.path) for row_id in table.row_ids]
    recordings, path_of = Recordings(found.names.values()), {name: path for path, name in found.names.items()}
    _refuse_other_rows(table.path, ends, window.window_seconds)
    missing = sorted(stem for stem in {stem for stem, _ in ends} if len(recordings.find(stem)) != 1)
    if missing:
        what = f"holds no sound file of {len(missing)} that {table.path} names, first {missing[0]}"
        nearest = recordings.nearest(missing[0])
        raise InputNotFoundError(soundscapes, what, f"the nearest there is {nearest!r}" if nearest else "")
    asked = ((number, stem) for number, (stem, _) in enumerate(ends, start=2))
    name_of = match_recordings(asked, recordings, table.path, str(soundscapes))
    # Row ids round the end of a row to whole seconds; the row's number within its file is exact.
    places = [round(end / window.window_seconds) - 1 for _, end in ends]
    return [
        _Row(index, path_of[name_of[stem]], place * window.window_seconds)
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
        what = f"has rows of {steps.min()} s, the model takes windows of {window_seconds:g} s"
        raise MetadataError(path, what, "test it on a table whose rows last as long as its windows")


def _rarest_label(table: ScoreTable) -> Callable[[_Row], str]:
    """Return a function: row -> its label that is present in the fewest rows; "" if it has none."""
    frequency = table.values.sum(axis=0)
    rarity = np.where(table.values > 0, frequency, np.inf)
    rarest = rarity.argmin(axis=1)
    return lambda one: table.labels[rarest[one.row]] if table.values[one.row].any() else ""


def _cells(table: ScoreTable, rows: Sequence[int], labels: Sequence[str]) -> tuple[Bool, Bool]:
    """Truth of the rows in the order of the labels, and which cells the table has; both [rows, labels]."""
    column_of = {label: column for column, label in enumerate(table.labels)}
    present, known = (np.zeros((len(rows), len(labels)), np.bool_) for _ in range(2))
    for index, label in enumerate(labels):
        if label in column_of:
            present[:, index] = table.values[rows, column_of[label]] > 0
            known[:, index] = True
    return present, known
