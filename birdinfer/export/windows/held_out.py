"""What a run's folder tells beside its weights: which clips a fold was trained on and which were held out.

A fold has the clips that it was validated on, with probabilities, in ``oof.csv``; ``folds.csv`` names the fold of every
clip of the run. A run that trained on everything (``data.all_data``) held out none. Both tables are read here alone,
and a run may come from anyone: what a table names lies in the data folder, what it scores are probabilities.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.clips.clip_files import audio_folder, clip_file
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.clips.metadata_table import Row, find_table, parse_secondary, read_rows
from birdinfer.training.fold_job import OUT_OF_FOLD
from birdinfer.training.folds.file import FOLDS_FILE, LEFT_OUT
from birdinfer.training.folds.laws import TEST
from birdinfer.training.untrusted import in_short

_NOT_TRAINED_ON = frozenset({str(TEST), str(LEFT_OUT)})
_RETRAIN = "train the fold to its end"


def clips_to_check(folder: Path, checkpoint: Checkpoint, data_dir: Path | None) -> list[Path]:
    """Recordings for a fold's parity check: those it was validated on, or trained on where there are none.

    Args:
        folder: the fold's, with the run's folder around it.
        checkpoint: of the fold.
        data_dir: where the clips are now; where they were in training if None.

    Raises:
        InputNotFoundError: the fold lacks its table.
        MetadataError: the table cannot be read.
    """
    names = _out_of_fold_names(folder, checkpoint)
    if not names:
        return [clip.path for clip in trained_clips(folder, checkpoint, data_dir)]
    return [clip.path for clip in _clips(folder / OUT_OF_FOLD, names, _root(checkpoint, data_dir))]


def trained_clips(folder: Path, checkpoint: Checkpoint, data_dir: Path | None) -> list[Clip]:
    """The clips that a fold learnt from, by file name and primary label; nothing else of them is known.

    Args:
        folder: the fold's, with the run's folder around it.
        checkpoint: of the fold.
        data_dir: where the clips are now; where they were in training if None.

    Raises:
        InputNotFoundError: the run lacks its ``folds.csv``.
        MetadataError: it cannot be read.
    """
    own = set() if checkpoint.recipe.data.all_data else {str(checkpoint.fold)}
    names = [
        (row["filename"], row["primary_label"])
        for row in _folds(folder.parent)
        if row["fold"] not in _NOT_TRAINED_ON | own
    ]
    return _clips(folder.parent / FOLDS_FILE, names, _root(checkpoint, data_dir))


def validated_clips(folder: Path, checkpoint: Checkpoint, data_dir: Path | None) -> list[Clip]:
    """The clips that a fold was validated on, with their secondary labels as validation has them, and their recording.

    Args:
        folder: the fold's.
        checkpoint: of the fold.
        data_dir: where the clips and their train.csv are now; where they were in training if None.

    Returns:
        None at all where the run held out nothing.

    Raises:
        InputNotFoundError: the fold's table or train.csv is missing.
        MetadataError: a table cannot be read, or train.csv is of other data.
    """
    names = _out_of_fold_names(folder, checkpoint)
    if not names:
        return []
    root = _root(checkpoint, data_dir)
    rows = _rows_of(find_table(root), names)
    labels = frozenset(species.label for species in checkpoint.species)
    clips = _clips(folder / OUT_OF_FOLD, names, root)
    return [_labelled_as(clip, rows[clip.filename], labels) for clip in clips]


def fallback_probabilities(folds: dict[Path, Checkpoint], labels: Sequence[str]) -> tuple[float, ...]:
    """Per species what is most likely of a file that cannot be read.

    The mean probability over all clips that no member was trained on; without any such clip the share of the training
    clips whose primary label it is.

    Args:
        folds: each fold's folder and checkpoint.
        labels: of the bundle.

    Raises:
        InputNotFoundError: a fold lacks its table.
        MetadataError: a table cannot be read.
    """
    tables = [_probabilities(folder, checkpoint, labels) for folder, checkpoint in folds.items()]
    rows: npt.NDArray[Any] = np.concatenate(tables)
    if not len(rows):
        run = next(iter(folds)).parent
        primary = np.array([row["primary_label"] for row in _folds(run) if row["fold"] not in _NOT_TRAINED_ON])
        rows = primary[:, None] == np.array(labels)
    return tuple(round(float(mean), 7) for mean in rows.mean(axis=0))


def _root(checkpoint: Checkpoint, data_dir: Path | None) -> Path:
    return data_dir or Path(checkpoint.data_dir)


def _clips(table: Path, names: Iterable[tuple[str, str]], root: Path) -> list[Clip]:
    """(file name, primary label), as a table has them -> clips of a data folder, or of its folder of clips alone.

    Raises:
        MetadataError: a name leaves that folder, or no file can have it.
    """
    audio = audio_folder(root) or root
    return [Clip(name, _path(table, audio, name, label), label) for name, label in names]


def _path(table: Path, audio: Path, name: str, label: str) -> Path:
    for part in (name, label):
        place = PureWindowsPath(part)  # knows both slashes, and drives
        if place.anchor or ".." in place.parts or "\0" in part:
            raise MetadataError(table, f"names {in_short(repr(part))}, which is no place in the data folder", _RETRAIN)
    try:
        path = clip_file(audio, name, label)
        path.exists()  # fails for a name that is too long, and is False for a file that is gone, which others tell
        return path
    except OSError as error:
        what = f"names a clip that no file can be ({error.strerror}): {in_short(repr(name))}"
        raise MetadataError(table, what, _RETRAIN) from error


def _rows_of(path: Path, names: Sequence[tuple[str, str]]) -> Mapping[str, Row]:
    """File name -> the clip's row in train.csv, which labels it as it did when the fold was validated."""
    # Of several rows of one file the first counts, as in training.
    rows = {row["filename"]: row for row in reversed(read_rows(path, ["filename", "primary_label"]))}
    foreign = [name for name, label in names if name not in rows or rows[name]["primary_label"] != label]
    if foreign:
        what = f"has no row for {len(foreign)} of {len(names)} held-out clips with their label, first {foreign[0]}"
        raise MetadataError(path, what, "name the data that the run was trained on: --data")
    return rows


def _labelled_as(clip: Clip, row: Row, labels: frozenset[str]) -> Clip:
    """The clip with its secondary labels, those that have a column, and with the recording that it was cut from."""
    others = dict.fromkeys(parse_secondary(row.get("secondary_labels", "")))
    secondary = tuple(label for label in others if label in labels and label != clip.primary_label)
    recording = row.get("group", "").strip() or row.get("url", "").strip() or clip.filename
    return clip._replace(secondary_labels=secondary, recording=recording)


def _out_of_fold_names(folder: Path, checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """(file name, primary label) of the clips that the fold was validated on; none if nothing was held out."""
    table = _out_of_fold(folder, checkpoint, ())
    return list(zip(table["filename"], table["primary_label"], strict=True)) if len(table) else []


def _probabilities(folder: Path, checkpoint: Checkpoint, labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """The fold's out-of-fold probabilities [clips, labels]; no row if nothing was held out.

    Raises:
        MetadataError: a cell is none.
    """
    table = _out_of_fold(folder, checkpoint, labels)
    if not len(table):
        return np.zeros((0, len(labels)))
    try:
        found: npt.NDArray[np.float64] = table[list(labels)].to_numpy(np.float64)
    except ValueError as error:
        raise MetadataError(folder / OUT_OF_FOLD, f"holds what is no number ({in_short(error)})", _RETRAIN) from error
    wrong = ~((found >= 0) & (found <= 1))  # also true for NaN
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        what = f"has {found[row, column]:g} for {labels[column]} in row {row + 1}, which is no probability"
        raise MetadataError(folder / OUT_OF_FOLD, what, _RETRAIN)
    return found


def _out_of_fold(folder: Path, checkpoint: Checkpoint, labels: Sequence[str]) -> Any:
    """The fold's out-of-fold table: filename, primary_label, a column per label; no rows if nothing was held out."""
    import pandas as pd

    path = folder / OUT_OF_FOLD
    if checkpoint.recipe.data.all_data:
        return pd.DataFrame()
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", _RETRAIN)
    try:
        table = pd.read_csv(path, dtype={"filename": str, "primary_label": str}, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise MetadataError(path, f"is not a table ({in_short(error)})", _RETRAIN) from error
    missing = [name for name in ("filename", "primary_label", *labels) if name not in table.columns]
    if missing:
        raise MetadataError(path, f"lacks the column {missing[0]}", "it belongs to another run")
    if not isinstance(table.index, pd.RangeIndex):
        # pandas takes what is too much for names of rows, and every column for the one beside it.
        raise MetadataError(path, "has more cells in a row than columns", _RETRAIN)
    return table


def _folds(run: Path) -> list[Row]:
    """Every clip of the run: filename, primary_label, fold."""
    path = run / FOLDS_FILE
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", "it names the clips that a run learnt from")
    return read_rows(path, ["filename", "primary_label", "fold"])
