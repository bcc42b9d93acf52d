"""A run's tables -> the clips that a fold was trained on and those that it held out, and windows of these clips.

``oof.csv`` of a fold has the clips that it was validated on, with probabilities; ``folds.csv`` names the fold of every
clip of the run. A run that trained on everything (``data.all_data``) held out none. A run may come from anyone, so its
tables are checked: clips lie in the data folder (``data_dir``; None: where they were in training), scores are
probabilities. Functions raise InputNotFoundError for a missing table, MetadataError for one that is no use.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.audio.stream import probe
from birdinfer.config import FrontEndConfig, InputConfig
from birdinfer.errors import AudioError, InputNotFoundError, MetadataError
from birdinfer.features import log_mel as mel
from birdinfer.runs.out_of_fold import OutOfFold, read_out_of_fold
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.clip_files import ClipFiles, audio_folder, stretch_of
from birdinfer.training.data.folds_file import FOLDS_FILE, LEFT_OUT, TEST, VALIDATION, folds_by_name
from birdinfer.training.data.metadata import listed_clips
from birdinfer.training.data.source_tables import is_of_source
from birdinfer.training.data.sources import DecodedSource
from birdinfer.training.data.train_table import find_table
from birdinfer.training.fold import OUT_OF_FOLD
from birdinfer.training.models.weights import summary
from birdinfer.training.recipe.schema import Recipe
from birdinfer.typing import Float32, Index

_NOT_TRAINED_ON = frozenset({TEST, LEFT_OUT, VALIDATION})
_RETRAIN = "train the fold to its end"


def clips_to_check(folder: Path, checkpoint: Checkpoint, data_dir: Path | None) -> list[Path]:
    """Find recordings for a fold's parity check: those it was validated on, or trained on where there are none."""
    names = _out_of_fold_names(folder, checkpoint)
    if not names:
        return [clip.path for clip in trained_clips(folder, checkpoint, data_dir)]
    return [clip.path for clip in _clips(folder / OUT_OF_FOLD, names, data_dir or Path(checkpoint.data_dir))]


def trained_clips(folder: Path, checkpoint: Checkpoint, data_dir: Path | None) -> list[Clip]:
    """Find the clips that a fold was trained on; only their file name and primary label are known."""
    left_out = _NOT_TRAINED_ON | (set() if checkpoint.recipe.data.all_data else {checkpoint.fold})
    names = [
        (name, label) for name, label, fold in _folds(folder.parent) if fold not in left_out and not is_of_source(name)
    ]
    return _clips(folder.parent / FOLDS_FILE, names, data_dir or Path(checkpoint.data_dir))


def validated_clips(folder: Path, checkpoint: Checkpoint, data_dir: Path | None) -> list[Clip]:
    """Find the clips that a fold was validated on, if any, with secondary labels as in validation."""
    names = _out_of_fold_names(folder, checkpoint)
    if not names:
        return []
    root = data_dir or Path(checkpoint.data_dir)
    clips = _clips(folder / OUT_OF_FOLD, names, root)
    labels = frozenset(species.label for species in checkpoint.species)
    listed = {
        (clip.filename, clip.primary_label): clip for clip in listed_clips(root, labels, checkpoint.recipe.labels)
    }
    missing = [name for name in names if name not in listed]
    if missing:
        what = f"has no row for {len(missing)} of {len(names)} held-out clips with their label, first {missing[0][0]}"
        raise MetadataError(find_table(root), what, "name the data that the run was trained on: --data")
    return [_labelled_as(clip, listed[name], labels) for clip, name in zip(clips, names, strict=True)]


def fallback_probabilities(folds: dict[Path, Checkpoint], labels: Sequence[str]) -> tuple[float, ...]:
    """Compute for each species the probability that stands in for a file that cannot be read.

    It is the mean probability over all held-out clips; without any, the label's share of the training clips.
    """
    tables = [_out_of_fold(folder, checkpoint, labels).probabilities for folder, checkpoint in folds.items()]
    rows: npt.NDArray[Any] = np.concatenate(tables)
    if not len(rows):
        run = next(iter(folds)).parent
        primary = np.array([label for _, label, fold in _folds(run) if fold not in _NOT_TRAINED_ON])
        rows = primary[:, None] == np.array(labels)
    return tuple(round(float(mean), 7) for mean in rows.mean(axis=0))


def _clips(table: Path, names: Iterable[tuple[str, str]], root: Path) -> list[Clip]:
    """(File name, primary label) -> clips of a data folder, or of its folder of clips alone; no name may leave it."""
    files = ClipFiles(audio_folder(root) or root)
    return [_clip(table, files, name, label) for name, label in names]


def _clip(table: Path, files: ClipFiles, name: str, label: str) -> Clip:
    for part in (name, label):
        inside = PureWindowsPath(part)  # knows both slashes, and drives
        if inside.anchor or ".." in inside.parts or "\0" in part:
            raise MetadataError(table, f"names {summary(repr(part))}, which is no place in the data folder", _RETRAIN)
    stretch = stretch_of(name)
    path = files.find(stretch.filename, label).path
    try:
        path.exists()  # fails for a name that is too long; a file that is gone is reported when it is decoded
    except OSError as error:
        what = f"names a clip that no file can be ({error.strerror}): {summary(repr(name))}"
        raise MetadataError(table, what, _RETRAIN) from error
    return Clip(name, path, label, begin_seconds=stretch.begin_seconds, end_seconds=stretch.end_seconds)


def _labelled_as(clip: Clip, listed: Clip, labels: frozenset[str]) -> Clip:
    secondary = tuple(label for label in listed.secondary_labels if label in labels)
    return clip._replace(secondary_labels=secondary, recording=listed.recording or clip.filename)


def _out_of_fold_names(folder: Path, checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Of the data folder's own clips; those of ``data.sources`` lie elsewhere."""
    table = _out_of_fold(folder, checkpoint, ())
    names = zip(table.filenames, table.primary_labels, strict=True)
    return [(name, label) for name, label in names if not is_of_source(name)]


def _out_of_fold(folder: Path, checkpoint: Checkpoint, labels: Sequence[str]) -> OutOfFold:
    """The fold's out-of-fold table; no rows if nothing was held out."""
    if checkpoint.recipe.data.all_data:
        return OutOfFold([], [], tuple(labels), np.zeros((0, len(labels))))
    return read_out_of_fold(folder / OUT_OF_FOLD, labels)


def _folds(run: Path) -> list[tuple[str, str, int]]:
    """(File name, primary label, fold) of every clip of a run."""
    path = run / FOLDS_FILE
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", "it names the clips that a run was trained on")
    return [(name, label, fold) for name, (label, fold) in folds_by_name(path).items()]


# ---- Windows of clips, decoded on demand


class Place(NamedTuple):
    """A window's place in a clip."""

    clip: Clip
    start_seconds: float


class ClipWindows:
    """Decodes windows of clips, of each no more than ``data.max_seconds``, as a recipe's model takes them.

    It keeps no sound in memory. Methods raise InputNotFoundError if a file is gone, AudioError if it cannot be decoded
    or holds no sound there.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.input_config: InputConfig = recipe.input_config
        self._source = DecodedSource(recipe.input_config, recipe.data.max_seconds)

    def measured(self, clip: Clip) -> Clip:
        """Return the clip with the duration that its header claims."""
        return clip._replace(duration_seconds=clip.seconds_of(probe(clip.path).duration_seconds))

    def decoded_seconds(self, clip: Clip) -> float:
        """How much of a measured clip is used."""
        return self._source.duration_seconds(clip)

    def spare_seconds(self, clip: Clip) -> float:
        """By how much a measured clip exceeds a window."""
        return max(0.0, self.decoded_seconds(clip) - self.input_config.window.window_seconds)

    def samples(self, place: Place) -> Float32:
        """Decode a window with its margins [samples]."""
        return self._source.window(place.clip, place.start_seconds)

    def network_input(self, place: Place) -> Float32:
        """Decode a window into what a network takes [1, ...]."""
        return model_input(self.samples(place), self.input_config)


def model_input(samples: Float32, input_config: InputConfig) -> Float32:
    """Turn a window with its margins [samples] into log-mel [1, 1, rows, columns], or the waveform [1, samples]."""
    if isinstance(input_config, FrontEndConfig):
        return mel.windows_to_input(samples, 1, input_config)
    return samples[np.newaxis]


def measured_clips(windows: ClipWindows, clips: Iterable[Clip]) -> tuple[list[Clip], list[str]]:
    """Return the clips whose header can be read, with their durations, and a line about each of the others."""
    there, failed = [], []
    for clip in clips:
        try:
            there.append(windows.measured(clip))
        except (AudioError, InputNotFoundError) as error:
            failed.append(f"{clip.filename} ({error.what})")
    return there, failed


# ---- Stratified sampling: how many items of each group, and which items of a list


def even_shares(available: Sequence[int], n_wanted: int) -> Index:
    """Choose how many of the ``available`` items to take of each group, as a round robin over the groups would.

    Computed in closed form: every group gives up to a level, and the rest comes one by one from groups spread over
    those that have more. The sum is min(n_wanted, sum(available)).

    >>> even_shares([1, 5, 5], 6).tolist()
    [1, 2, 3]
    """
    there = np.asarray(available, np.intp)
    levels = range(int(there.max(initial=0)) + 1)
    level = bisect_right(levels, n_wanted, key=lambda most: int(np.minimum(there, most).sum())) - 1
    shares = np.minimum(there, level)
    has_more = np.flatnonzero(there > level)
    shares[has_more[evenly_spaced(len(has_more), n_wanted - int(shares.sum()))]] += 1
    return shares


def evenly_spaced(n_there: int, n_wanted: int, start: float = 0.5) -> Index:
    """Choose ascending indices of a list: one in each of ``n_wanted`` equal stretches, ``start`` (0 to 1) within it.

    With a random start this is systematic sampling (Madow and Madow 1944, "On the theory of systematic sampling"): of
    a list sorted by a quantity, the sample has the distribution of that quantity.

    >>> evenly_spaced(10, 3).tolist()
    [1, 5, 8]
    """
    if n_wanted >= n_there:
        return np.arange(n_there)
    indices = ((np.arange(n_wanted) + start) * n_there / n_wanted).astype(np.intp)
    return np.minimum(indices, n_there - 1)  # a start that is almost 1 rounds to the next stretch
