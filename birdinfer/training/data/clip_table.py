"""train.csv -> clips, row by row: what a cell means, and which rows are about one clip.

What would make the run mean something else is refused with its row. A table with the columns ``start`` and ``end``, as
the labelled soundscapes of 2026 have, gives parts of files: each is a clip, its first label the primary one.
"""

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from birdinfer.errors import MetadataError
from birdinfer.species import NO_CALL
from birdinfer.tables.cells import is_blank, labels_of, seconds_of, whole_of
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.clip_files import ClipFiles, Stretch
from birdinfer.training.data.folds_file import LEFT_OUT
from birdinfer.training.data.label_names import refuse_near_miss
from birdinfer.training.data.train_table import NumberedRow, Row

_BEST_RATING = 5.0
_FOLD_WORDS = {"train": "-1", "training": "-1", "test": "-2", "testing": "-2"}
_ANONYMOUS = frozenset({"unknown", "anonymous"})
"""Names of unknown authors: recordings that share them have nothing in common."""
_LIST = re.compile(r"[;|]|^\s*[\[({]")
"""What shows that a cell holds several labels."""


def silent_rows(rows: Sequence[NumberedRow]) -> list[NumberedRow]:
    """The rows, with the label ``nocall`` for parts of files without one."""
    named = []
    for number, cells in rows:
        label = cells["primary_label"].strip()
        is_silent = label.casefold() == NO_CALL or (not label and _is_part((number, cells)))
        named.append((number, cells | {"primary_label": NO_CALL} if is_silent else cells))
    return named


def without_silent(path: Path, rows: Sequence[NumberedRow]) -> tuple[list[NumberedRow], list[str]]:
    """Rows that are about a species; parts of files may be about none, whole clips may not."""
    kept = [row for row in rows if not _is_part(row) or row[1]["primary_label"].strip() not in {"", NO_CALL}]
    n_silent = len(rows) - len(kept)
    if not kept:
        raise MetadataError(path, "has no row with a species")
    return kept, [f"{n_silent} parts of files without a species are left out"] if n_silent else []


def _is_part(row: NumberedRow) -> bool:
    return any(not is_blank(row[1].get(name, "")) for name in ("start", "end"))


def primary_first(path: Path, row: NumberedRow, labels: Collection[str]) -> NumberedRow:
    """A row with one primary label; others that stand in its cell are secondary ones."""
    number, cells = row
    cell = cells["primary_label"]
    if is_blank(cell) and cell not in labels:
        what = f"row {number} has no primary_label" + (f", only {cell!r}" if cell.strip() else "")
        raise MetadataError(
            path, what, "fill it in, or take the row out; a species of that name belongs in taxonomy.csv"
        )
    if not cells["filename"].strip():
        raise MetadataError(path, f"row {number} has no filename", "fill it in, or take the row out")
    if cell in labels or not _LIST.search(cell):
        return row
    try:
        first, *others = labels_of(cell if cell.strip()[0] in "[({" else cell.replace("|", ";"), labels)
    except ValueError as error:
        raise MetadataError(path, f"row {number}: primary_label {error}", "mend the row") from error
    secondary = ";".join([*others, *labels_of(cells.get("secondary_labels", ""), labels)])
    return number, cells | {"primary_label": first, "secondary_labels": secondary}


def read_clip(path: Path, row: NumberedRow, files: ClipFiles, labels: Collection[str], fold_column: str = "") -> Clip:
    """Read one row as :func:`read_metadata` does, of a table that may have faults in other rows.

    Args:
        path: the table, for messages.
        row: its number and cells, with the columns ``primary_label``, ``filename`` and ``fold_column``.
        files: finds its file, which may be missing.
        labels: those of the taxonomy; the row's primary label may be another one.
        fold_column: a column to keep as ``given_fold``, "" for none.

    Raises:
        MetadataError, LabelError: a cell is no use.
    """
    return _clip(path, primary_first(path, row, labels), files, labels, fold_column)


def clips_of_rows(
    path: Path, rows: Sequence[NumberedRow], files: ClipFiles, labels: Collection[str], fold_column: str = ""
) -> list[Clip]:
    """As :func:`read_clip`, of rows that :func:`primary_first` gave; ``nocall``, unless it is a label, is none."""
    clips = (_clip(path, row, files, labels, fold_column) for row in rows)
    is_none = {NO_CALL} - set(labels)
    return [clip._replace(primary_label="") if clip.primary_label in is_none else clip for clip in clips]


def _clip(path: Path, row: NumberedRow, files: ClipFiles, labels: Collection[str], fold_column: str) -> Clip:
    number, cells = row
    label = cells["primary_label"]
    author, group, url, collection = (_text(cells, name) for name in ("author", "group", "url", "collection"))
    file = files.find(cells["filename"], label)
    part = Stretch(file.name, *_part(path, row))
    return Clip(
        filename=part.name,
        path=file.path,
        primary_label=label,
        secondary_labels=parse_secondary(path, row, labels),
        author="" if author.lower() in _ANONYMOUS else author,
        group=group,
        given_fold=_given_fold(path, number, cells[fold_column]) if fold_column else "",
        rating=_rating(cells),
        url=url,
        collection=collection,
        site=parse_site(cells.get("latitude", ""), cells.get("longitude", "")),
        recording=group or url or (file.name if {"start", "end"} <= cells.keys() else ""),
        begin_seconds=part.begin_seconds,
        end_seconds=part.end_seconds,
    )


def parse_secondary(path: Path, row: NumberedRow, labels: Collection[str]) -> tuple[str, ...]:
    """A row's secondary labels, without its primary one.

    Raises:
        MetadataError: the list is cut off, or a label is spelled otherwise than in taxonomy.csv.
    """
    number, cells = row
    try:
        found = labels_of(cells.get("secondary_labels", ""), labels)
    except ValueError as error:
        raise MetadataError(path, f"row {number}: secondary_labels {error}", "mend the row") from error
    for label in found:
        refuse_near_miss(path, number, label, labels)
    return tuple(label for label in found if label != cells["primary_label"])


def parse_rating(text: str) -> float | None:
    """``"4.5"`` -> 4.5 stars; None for unrated: Xeno-canto exports that as 0, as an empty cell or as nan.

    Raises:
        ValueError: it is neither a number from 0 to 5 nor nothing.
    """
    if is_blank(text):
        return None
    rating = float(text)
    if not 0 <= rating <= _BEST_RATING:
        raise ValueError(f"{text} is no rating from 0 to 5")
    return rating or None


def parse_site(latitude: str, longitude: str) -> str:
    """``("54.1199", "-0.5445")`` -> "54.12,-0.54": degrees to 0.01, about a kilometre.

    Returns:
        "" where either is missing, not a number ("Not specified" in 2021) or nowhere on earth.
    """
    try:
        north, east = float(latitude), float(longitude)
    except ValueError:
        return ""
    if not (math.isfinite(north) and math.isfinite(east) and abs(north) <= 90 and abs(east) <= 180):
        return ""
    # + 0.0 makes -0.0 and 0.0 one place.
    return f"{round(north, 2) + 0.0:.2f},{round(east, 2) + 0.0:.2f}"


def _text(cells: Row, name: str) -> str:
    """A cell, "" if it is blank or there is none: "nan" is not what a hundred recordings have in common."""
    cell = cells.get(name, "").strip()
    return "" if is_blank(cell) else cell


def _part(path: Path, row: NumberedRow) -> tuple[float, float]:
    """What of its file a row is about, in seconds."""
    number, cells = row
    seconds = []
    for name, blank in (("start", 0.0), ("end", math.inf)):
        cell = cells.get(name, "")
        value = blank if is_blank(cell) else seconds_of(cell)
        if value is None:
            raise MetadataError(path, f"row {number}: {name} is {cell!r}", "a time is needed, as 65 or 00:01:05")
        seconds.append(value)
    begin, end = seconds
    if end <= begin:
        raise MetadataError(path, f"row {number} is from {begin:g} s to {end:g} s", "the end comes after the start")
    return begin, end


def _given_fold(path: Path, number: int, cell: str) -> str:
    """``-2.0``, which pandas writes once a column has a blank, is -2."""
    if is_blank(cell):
        return ""
    fold = whole_of(cell)
    if fold is not None and fold >= LEFT_OUT:
        return str(fold)
    if fold is not None or cell.strip()[0] in "+-.0123456789":
        raise MetadataError(path, f"row {number} has the fold {cell!r}", "allowed are 0 and up, -1, -2, -3, or words")
    return _FOLD_WORDS.get(cell.strip().casefold(), cell.strip())


def _rating(row: Row) -> float | None:
    try:
        return parse_rating(row.get("rating", ""))
    except ValueError:
        return None


def without_repeats(path: Path, rows: Sequence[NumberedRow], listed: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """A clip per name; rows about one part of a file each add their species to it, rows about one file agree.

    Raises:
        MetadataError: two rows of one file contradict one another.
    """
    first: dict[tuple[Path, float, float], tuple[int, Clip]] = {}
    for (number, _), clip in zip(rows, listed, strict=True):
        part = clip.path, clip.begin_seconds, clip.end_seconds
        before, kept = first.setdefault(part, (number, clip))
        if clip.is_part:
            every = (kept.primary_label, *kept.secondary_labels, clip.primary_label, *clip.secondary_labels)
            labels = [label for label in dict.fromkeys(every) if label]
            first[part] = before, kept._replace(primary_label="".join(labels[:1]), secondary_labels=tuple(labels[1:]))
        elif kept.primary_label != clip.primary_label:
            both = f"{kept.primary_label!r} and {clip.primary_label!r}"
            what = f"rows {before} and {number}: {clip.filename} is labelled {both}"
            raise MetadataError(path, what, "keep one of the rows")
    dropped = sum(not clip.is_part for clip in listed) - sum(not clip.is_part for _, clip in first.values())
    note = f"{dropped} rows of {path.name} repeat a filename and are left out"
    return [clip for _, clip in first.values()], [note] if dropped else []
