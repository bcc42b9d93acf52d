"""What a run's folder tells beside its weights: recordings to check a graph on, and what to say where nothing is heard.

A fold has the clips that it was validated on, with probabilities, in ``oof.csv``; a run that trained on everything
(``data.all_data``) has none, and its ``folds.csv`` names the clips of its training instead.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from birdinfer.errors import InputNotFoundError
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.clips.clip_files import audio_folder, clip_file
from birdinfer.training.fold_job import OUT_OF_FOLD
from birdinfer.training.folds.file import FOLDS_FILE, LEFT_OUT
from birdinfer.training.folds.laws import TEST

_NOT_TRAINED_ON = (str(TEST), str(LEFT_OUT))


def clips_to_check(folder: Path, checkpoint: Checkpoint, data_dir: Path | None) -> list[Path]:
    """Recordings for a fold's parity check: those it was validated on, or trained on where there are none.

    Args:
        folder: the fold's, with the run's folder around it.
        checkpoint: of the fold.
        data_dir: where the clips are now; where they were in training if None.

    Raises:
        InputNotFoundError: the fold lacks its table.
    """
    table = _out_of_fold(folder, checkpoint)
    if not len(table):
        table = _trained_on(folder.parent)
    root = data_dir or Path(checkpoint.data_dir)
    audio = audio_folder(root) or root
    return [
        clip_file(audio, name, label) for name, label in zip(table["filename"], table["primary_label"], strict=True)
    ]


def fallback_probabilities(folds: dict[Path, Checkpoint], labels: Sequence[str]) -> tuple[float, ...]:
    """Per species what is most likely of a file that cannot be read.

    The mean probability over all clips that no member was trained on; without any such clip the share of the training
    clips whose primary label it is.

    Args:
        folds: each fold's folder and checkpoint.
        labels: of the bundle.

    Raises:
        InputNotFoundError: a fold lacks its table.
    """
    tables = [_out_of_fold(folder, checkpoint) for folder, checkpoint in folds.items()]
    rows = np.concatenate([table[list(labels)].to_numpy(np.float64) for table in tables if len(table)] or [[]])
    if not len(rows):
        primary = _trained_on(next(iter(folds)).parent)["primary_label"].to_numpy(str)
        rows = primary[:, None] == np.array(labels)
    return tuple(round(float(mean), 7) for mean in rows.mean(axis=0))


def _out_of_fold(folder: Path, checkpoint: Checkpoint) -> Any:
    """The fold's out-of-fold table: filename, primary_label, a column per label; no rows if nothing was held out."""
    import pandas as pd

    path = folder / OUT_OF_FOLD
    if checkpoint.recipe.data.all_data:
        return pd.DataFrame()
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", "train the fold to its end")
    return pd.read_csv(path, dtype={"filename": str, "primary_label": str}, keep_default_na=False)


def _trained_on(run: Path) -> Any:
    """The clips that a run without validation learnt from: filename, primary_label."""
    import pandas as pd

    path = run / FOLDS_FILE
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", "it names the clips of a run without validation")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table[~table["fold"].isin(_NOT_TRAINED_ON)]
