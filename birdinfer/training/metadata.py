"""train.csv, taxonomy.csv and train_audio/ -> clips and species: what there is to train on.

In: a folder in the layout of BirdCLEF (train_metadata.csv in its first years). Out: :class:`Metadata`. Every cell is
read as text: ``0012`` and ``1161364`` are labels, not numbers. What can be worked around is noted and left out;
what would make the run mean something else is refused.
"""

import ast
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from birdinfer.audio import probe
from birdinfer.errors import AudioError, InputNotFoundError, LabelError, MetadataError
from birdinfer.labels import Species, check_labels

_TABLES = ("train.csv", "train_metadata.csv")
_AUDIO_FOLDERS = ("train_audio", "train_short_audio")
_NEEDED = ("primary_label", "filename")
_NOBODY = frozenset({"", "unknown", "anonymous", "none", "nan"})
"""Author names that name nobody: recordings that share them have nothing in common."""
_LISTED = 3


class Clip(NamedTuple):
    """One labelled recording."""

    filename: str
    path: Path
    primary_label: str
    secondary_labels: tuple[str, ...] = ()
    author: str = ""
    group: str = ""
    """Recordings of one group belong together: they are never split between training and validation."""
    duration_seconds: float = 0.0
    given_fold: str = ""
    """What ``data.fold_column`` says of it."""


class Metadata(NamedTuple):
    """What there is to train on."""

    clips: tuple[Clip, ...]
    """Those that have sound, in the table's order."""
    species: tuple[Species, ...]
    """In the order of taxonomy.csv: the order of the scores' columns."""
    notes: tuple[str, ...]
    """What was left out, one line each."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the scores."""
        return tuple(species.label for species in self.species)


def read_metadata(data_dir: Path, fold_column: str = "") -> Metadata:
    """Read a folder in the layout of BirdCLEF.

    Args:
        data_dir: holds train.csv (or train_metadata.csv), train_audio/ and, if there is one, taxonomy.csv.
        fold_column: a column of train.csv to keep as ``given_fold``.

    Raises:
        InputNotFoundError: the folder, its table or every sound file is missing.
        MetadataError: a column is missing, or one filename has two labels.
        LabelError: a primary label is not in taxonomy.csv.
    """
    if not data_dir.is_dir():
        raise InputNotFoundError(data_dir, "no such folder", "name the data's folder with --data")
    table = _find_table(data_dir)
    rows = _read_rows(table, (*_NEEDED, *([fold_column] if fold_column else [])))
    rows, duplicates = _without_duplicates(table, rows)
    species = _read_species(data_dir / "taxonomy.csv", rows)
    labels = frozenset(one.label for one in species)
    _check_known(table, rows, labels)
    listed = [_clip(row, _audio_folder(data_dir), fold_column) for row in rows]
    clips, silent = _with_sound(data_dir, listed)
    clips, foreign = _known_secondary(clips, labels)
    return Metadata(tuple(clips), species, (*duplicates, *silent, *foreign))


def parse_secondary(text: str) -> tuple[str, ...]:
    """``"['a', 'b']"`` -> ("a", "b"): parsed as a literal, never evaluated; words between spaces also pass."""
    text = text.strip()
    try:
        values = ast.literal_eval(text) if text.startswith(("[", "(")) else text.split()
    except (ValueError, SyntaxError):
        values = text.strip("[]()").replace(",", " ").split()
    words = (str(value).strip().strip("'\"") for value in values)
    return tuple(dict.fromkeys(word for word in words if word))


def _find_table(data_dir: Path) -> Path:
    for name in _TABLES:
        if (data_dir / name).is_file():
            return data_dir / name
    raise InputNotFoundError(data_dir, f"holds neither {' nor '.join(_TABLES)}", "name the data's folder with --data")


def _audio_folder(data_dir: Path) -> Path:
    folders = [data_dir / name for name in _AUDIO_FOLDERS if (data_dir / name).is_dir()]
    if not folders:
        raise InputNotFoundError(data_dir, f"holds no folder {_AUDIO_FOLDERS[0]}/", "the clips are expected there")
    return folders[0]


def _read_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """A table's rows, every cell as text."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise MetadataError(path, f"is not a table ({error})") from error
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise MetadataError(path, f"lacks the column {', '.join(missing)}; found are {', '.join(frame.columns)}")
    if frame.empty:
        raise MetadataError(path, "has no rows")
    rows: list[Any] = frame.to_dict("records")
    return rows


def _without_duplicates(path: Path, rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    """One row per filename. Rows that repeat one another are dropped, rows that contradict one another refused."""
    first: dict[str, dict[str, str]] = {}
    for row in rows:
        kept = first.setdefault(row["filename"], row)
        if kept["primary_label"] != row["primary_label"]:
            both = f"{kept['primary_label']!r} and {row['primary_label']!r}"
            raise MetadataError(path, f"{row['filename']} is labelled {both}", "keep one of the rows")
    dropped = len(rows) - len(first)
    return list(first.values()), [
        f"{dropped} rows of {path.name} repeat a filename and are left out"
    ] if dropped else []


def _read_species(taxonomy: Path, rows: Iterable[dict[str, str]]) -> tuple[Species, ...]:
    """The species in column order; without a taxonomy, the labels sorted."""
    if not taxonomy.is_file():
        labels = check_labels(sorted({row["primary_label"] for row in rows}), "train.csv")
        return tuple(Species(label) for label in labels)
    table = _read_rows(taxonomy, ["primary_label"])
    check_labels((row["primary_label"] for row in table), str(taxonomy))
    names = ("scientific_name", "common_name", "class_name")
    return tuple(Species(row["primary_label"], *(row.get(name, "") for name in names)) for row in table)


def _check_known(path: Path, rows: Iterable[dict[str, str]], labels: frozenset[str]) -> None:
    unknown = sorted({row["primary_label"] for row in rows} - labels)
    if unknown:
        raise LabelError(path, f"primary_label {_some(unknown)} not in taxonomy.csv", "add the species there")


def _clip(row: dict[str, str], folder: Path, fold_column: str) -> Clip:
    label = row["primary_label"]
    path = folder / row["filename"]
    # The first years list the bare file name and keep it in a folder named like the label.
    if not path.exists() and (folder / label / row["filename"]).exists():
        path = folder / label / row["filename"]
    author = row.get("author", "").strip()
    secondary = tuple(other for other in parse_secondary(row.get("secondary_labels", "")) if other != label)
    return Clip(
        filename=row["filename"],
        path=path,
        primary_label=label,
        secondary_labels=secondary,
        author="" if author.lower() in _NOBODY else author,
        group=row.get("group", "").strip(),
        given_fold=row.get(fold_column, "").strip() if fold_column else "",
    )


def _with_sound(data_dir: Path, listed: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """The clips whose header can be read, with their duration, and a line on the others."""
    with ThreadPoolExecutor() as pool:
        durations = list(pool.map(_duration_seconds, listed))
    clips = [
        clip._replace(duration_seconds=seconds)
        for clip, seconds in zip(listed, durations, strict=True)
        if isinstance(seconds, float)
    ]
    missing = [clip.filename for clip, seconds in zip(listed, durations, strict=True) if seconds is None]
    broken = [seconds for seconds in durations if isinstance(seconds, str)]
    if not clips:
        why = f"none of {len(listed)} listed sound files can be read: {_some(missing + broken)}"
        raise InputNotFoundError(data_dir, why, "are the clips in train_audio/?")
    notes = [f"{len(missing)} sound files are missing and left out: {_some(missing)}"] if missing else []
    notes += [f"{len(broken)} clips cannot be decoded and are left out: {_some(broken)}"] if broken else []
    return clips, notes


def _duration_seconds(clip: Clip) -> float | str | None:
    """Seconds of sound; None if the file is missing, a word on what is wrong if it is broken."""
    try:
        seconds = float(probe(clip.path).duration_seconds)
    except InputNotFoundError:
        return None
    except AudioError as error:
        return f"{clip.filename} ({error.what})"
    return seconds if seconds > 0 else f"{clip.filename} (holds no sound)"


def _known_secondary(clips: Iterable[Clip], labels: frozenset[str]) -> tuple[list[Clip], list[str]]:
    """Secondary labels outside the taxonomy are common in the real tables and have no column: they are dropped."""
    foreign: set[str] = set()
    kept: list[Clip] = []
    for clip in clips:
        foreign.update(set(clip.secondary_labels) - labels)
        kept.append(clip._replace(secondary_labels=tuple(one for one in clip.secondary_labels if one in labels)))
    line = f"{len(foreign)} secondary labels are not in the taxonomy and left out: {_some(sorted(foreign))}"
    return kept, [line] if foreign else []


def _some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
