"""What a run's folder tells beside its weights: which clips a fold was trained on and which were held out.

A fold has the clips that it was validated on, with probabilities, in ``oof.csv``; ``folds.csv`` names the fold of every
clip of the run. A run that trained on everything (``data.all_data``) held out none. Both tables are read here alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.clips.clip_files import audio_folder, clip_file
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.clips.metadata_table import Row, find_table, parse_secondary, read_rows
from birdinfer.training.fold_job import OUT_OF_FOLD
from birdinfer.training.folds.file import FOLDS_FILE, LEFT_OUT
from birdinfer.training.folds.laws import TEST

_NOT_TRAINED_ON = frozenset({str(TEST), str(LEFT_OUT)})


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
    return [clip.path for clip in _clips(names, _root(checkpoint, data_dir))]


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
    return _clips(names, _root(checkpoint, data_dir))


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
    return [_labelled_as(clip, rows[clip.filename], labels) for clip in _clips(names, root)]


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
    tables = [_out_of_fold(folder, checkpoint, labels) for folder, checkpoint in folds.items()]
    rows = np.concatenate([table[list(labels)].to_numpy(np.float64) for table in tables if len(table)] or [[]])
    if not len(rows):
        run = next(iter(folds)).parent
        primary = np.array([row["primary_label"] for row in _folds(run) if row["fold"] not in _NOT_TRAINED_ON])
        rows = primary[:, None] == np.array(labels)
    return tuple(round(float(mean), 7) for mean in rows.mean(axis=0))


def _root(checkpoint: Checkpoint, data_dir: Path | None) -> Path:
    return data_dir or Path(checkpoint.data_dir)


def _clips(names: Iterable[tuple[str, str]], root: Path) -> list[Clip]:
    """(file name, primary label) -> clips of a data folder, or of its folder of clips alone."""
    audio = audio_folder(root) or root
    return [Clip(name, clip_file(audio, name, label), label) for name, label in names]


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


def _out_of_fold(folder: Path, checkpoint: Checkpoint, labels: Sequence[str]) -> Any:
    """The fold's out-of-fold table: filename, primary_label, a column per label; no rows if nothing was held out."""
    import pandas as pd

    path = folder / OUT_OF_FOLD
    if checkpoint.recipe.data.all_data:
        return pd.DataFrame()
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", "train the fold to its end")
    try:
        table = pd.read_csv(path, dtype={"filename": str, "primary_label": str}, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise MetadataError(path, f"is not a table ({error})", "train the fold to its end") from error
    missing = [name for name in ("filename", "primary_label", *labels) if name not in table.columns]
    if missing:
        raise MetadataError(path, f"lacks the column {missing[0]}", "it belongs to another run")
    return table


def _folds(run: Path) -> list[Row]:
    """Every clip of the run: filename, primary_label, fold."""
    path = run / FOLDS_FILE
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", "it names the clips that a run learnt from")
    return read_rows(path, ["filename", "primary_label", "fold"])
