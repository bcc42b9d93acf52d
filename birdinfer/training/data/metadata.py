"""train.csv, taxonomy.csv and train_audio/ -> clips and species: what there is to train on.

In: a folder in the layout of BirdCLEF. Out: :class:`Metadata`. What can be worked around is noted and left out; what
would make the run mean something else is refused with its row. A table with the columns ``start`` and ``end``, as the
labelled soundscapes of 2026 have, gives parts of files: each is a clip, its first label the primary one.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from birdinfer.audio.find import find_recordings
from birdinfer.audio.stream import probe
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, LabelError, MetadataError
from birdinfer.species import Species, check_labels, label_problem
from birdinfer.tables.cells import is_blank, labels_of, near_miss, plain_label, seconds_of, whole_of
from birdinfer.tables.csv import rows as table_rows
from birdinfer.training.data.clip_files import AUDIO_FOLDERS, ClipFiles, Stretch, audio_folder, file_name, stretch_of

# ---- train.csv: rows and cells

Row = dict[str, str]
NumberedRow = tuple[int, Row]
"""A row's number in its table, where the header is row 1, and its cells by column."""

_TABLES = ("train.csv", "train_metadata.csv")
_BEST_RATING = 5.0
_LEFT_OUT = -3
"""The lowest fold, see ``folds.LEFT_OUT``."""
_FOLD_WORDS = {"train": "-1", "training": "-1", "test": "-2", "testing": "-2"}
NO_CALL = "nocall"


def find_table(data_dir: Path) -> Path:
    """The table of a data folder.

    Raises:
        InputNotFoundError: it holds none.
    """
    for name in _TABLES:
        if (data_dir / name).is_file():
            return data_dir / name
    raise InputNotFoundError(data_dir, f"holds neither {' nor '.join(_TABLES)}", "name the data's folder with --data")


def read_rows(path: Path, needed: Sequence[str]) -> list[NumberedRow]:
    """A table's rows, every cell as text.

    Raises:
        MetadataError: it is not a table, has no rows or lacks one of the ``needed`` columns.
    """
    found = list(table_rows(path, needed))
    if not found:
        raise MetadataError(path, "has no rows")
    return found


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
        _refuse_near_miss(path, number, label, labels)
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


_NEEDED = ("primary_label", "filename")
_ANONYMOUS = frozenset({"unknown", "anonymous"})
"""Names of unknown authors: recordings that share them have nothing in common."""
_LIST = re.compile(r"[;|]|^\s*[\[({]")
"""What shows that a cell holds several labels."""
_LISTED = 3


class Clip(NamedTuple):
    """One labelled recording."""

    filename: str
    """Its name in the run's tables: that of its file below the folder of clips, with ``#t=5,10`` for a part of it."""
    path: Path
    primary_label: str
    secondary_labels: tuple[str, ...] = ()
    author: str = ""
    group: str = ""
    """The table's column: rows of one group belong together."""
    duration_seconds: float = 0.0
    given_fold: str = ""
    """What ``data.fold_column`` says of it: a whole number, or a word; "" for nothing."""
    rating: float | None = None
    """0.5 to 5 stars; None for unrated."""
    url: str = ""
    collection: str = ""
    """Where it comes from, as the table calls it: XC, iNat, CSA."""
    site: str = ""
    """"latitude,longitude" in degrees, rounded to 0.01; "" where unknown."""
    recording: str = ""
    """What it was cut from: ``group``, else ``url``, else its file if parts of files are listed; "" if unknown."""
    begin_seconds: float = 0.0
    """Where it begins in its file."""
    end_seconds: float = math.inf
    """Where it ends in its file, at the latest."""
    source: int = 0
    """Which of ``data.sources`` it belongs to, from 1; 0 for the data folder."""
    row: int = -1
    """Its labels' row in the table of its source; -1 where the labels above are all."""

    @property
    def is_part(self) -> bool:
        """Whether it is a part of its file."""
        return self.begin_seconds > 0 or self.end_seconds < math.inf

    def seconds_of(self, file_seconds: float) -> float:
        """How long it is if its file is so long."""
        return max(0.0, min(self.end_seconds, file_seconds) - self.begin_seconds)


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
        MetadataError: a table is damaged, a column is missing, a cell is no use, or one filename has two labels.
        LabelError: a primary label is not in taxonomy.csv, or two differ only in their spelling.
    """
    if not data_dir.is_dir():
        raise InputNotFoundError(data_dir, "no such folder", "name the data's folder with --data")
    table = find_table(data_dir)
    rows = read_rows(table, (*_NEEDED, *([fold_column] if fold_column else [])))
    rows, silent = _without_silent(table, rows)
    taxonomy = _taxonomy(data_dir / "taxonomy.csv")
    rows = [_primary_first(table, row, taxonomy) for row in rows]
    species = tuple(taxonomy.values()) or _species_of(table, rows)
    labels = frozenset(one.label for one in species)
    _check_known(table, rows, labels)
    files = ClipFiles(_audio_folder(data_dir))
    listed, repeats = _without_repeats(table, rows, [_clip(table, row, files, labels, fold_column) for row in rows])
    clips, gone = _with_sound(data_dir, listed, files)
    clips, unknown = _known_secondary(clips, labels)
    notes = (*_unfinished(table), *silent, *repeats, *_respelled(rows, listed), *gone, *unknown, *_odd_ratings(rows))
    return Metadata(tuple(clips), species, notes)


def listed_clips(data_dir: Path, labels: Collection[str]) -> list[Clip]:
    """The clips of a folder's table whose primary label is one of ``labels``, whether they have sound or not.

    Raises:
        InputNotFoundError: there is no table.
        MetadataError, LabelError: it is damaged, or a cell is no use.
    """
    table = find_table(data_dir)
    rows, _ = _without_silent(table, read_rows(table, _NEEDED))
    rows = [row for row in (_primary_first(table, row, labels) for row in rows) if row[1]["primary_label"] in labels]
    files = ClipFiles(audio_folder(data_dir) or data_dir)
    return _without_repeats(table, rows, [_clip(table, row, files, labels, "") for row in rows])[0]


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
    return _clip(path, _primary_first(path, row, labels), files, labels, fold_column)


def clips_of_folder(folder: Path, table: Path | None, labels: Collection[str]) -> tuple[list[Clip], list[str]]:
    """Read the clips of any folder whose primary label is one of ``labels``, and what was left out, a line each.

    Args:
        folder: holds the sound files, or a folder train_audio with them.
        table: in the form of train.csv; None for the folder's own, or, without one, the name of each clip's folder.
        labels: the columns of the scores.

    Raises:
        InputNotFoundError: there is no such table, or no clip that can be read.
        MetadataError, LabelError: the table is damaged, or a cell is no use.
    """
    root = audio_folder(folder) or folder
    found = table or next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if found is None:
        found = root
        names = (path.relative_to(root) for path in find_recordings([root]).names)
        rows = [(0, {"primary_label": name.parts[0], "filename": name.as_posix()}) for name in names if name.parts[1:]]
    else:
        rows, _ = _without_silent(found, read_rows(found, _NEEDED))
    rows = [_primary_first(found, row, labels) for row in rows]
    outside = Counter(row["primary_label"] for _, row in rows if row["primary_label"] not in labels)
    rows = [row for row in rows if row[1]["primary_label"] in labels]
    common = ", ".join(f"{label} ({n})" for label, n in outside.most_common(_LISTED))
    more = ", ..." if len(outside) > _LISTED else ""
    line = f"{outside.total()} clips of {len(outside)} labels outside the taxonomy are left out: {common}{more}"
    if not rows:
        why = line if outside else f"holds neither {' nor '.join(_TABLES)}, nor clips in folders named as labels"
        raise InputNotFoundError(found, why, "labels are those of taxonomy.csv")
    files = ClipFiles(root)
    listed, repeats = _without_repeats(found, rows, [_clip(found, row, files, labels, "") for row in rows])
    clips, gone = _with_sound(folder, listed, files)
    clips, unknown = _known_secondary(clips, frozenset(labels))
    return clips, [*([line] if outside else []), *repeats, *gone, *unknown]


def without_rare(metadata: Metadata, min_clips: int) -> Metadata:
    """Leave out the clips of species with too few; every species keeps its column, as a competition asks for it.

    Args:
        metadata: what there is.
        min_clips: a species needs as many clips that carry it as primary label. 1 leaves out none.

    Raises:
        ConfigError: no species has so many.
    """
    counts = Counter(clip.primary_label for clip in metadata.clips)
    kept = tuple(clip for clip in metadata.clips if counts[clip.primary_label] >= min_clips)
    if not kept:
        most = max(counts.values())
        raise ConfigError(
            "data.min_clips_per_species", f"is {min_clips}, no species has more than {most}", f"lower it to {most}"
        )
    if len(kept) == len(metadata.clips):
        return metadata
    rare = [label for label in metadata.labels if 0 < counts[label] < min_clips]
    lost = f"{len(metadata.clips) - len(kept)} clips are left out"
    note = f"{lost}: of {len(rare)} species with fewer than {min_clips}, which keep their columns: {_some(rare)}"
    return metadata._replace(clips=kept, notes=(*metadata.notes, note))


def _audio_folder(data_dir: Path) -> Path:
    folder = audio_folder(data_dir)
    if folder is None:
        raise InputNotFoundError(data_dir, f"holds no folder {AUDIO_FOLDERS[0]}/", "the clips are expected there")
    return folder


def _without_silent(path: Path, rows: Sequence[NumberedRow]) -> tuple[list[NumberedRow], list[str]]:
    """Rows that are about a species; parts of files may be about none, whole clips may not."""
    kept = [row for row in rows if not _is_part(row) or row[1]["primary_label"].strip() not in {"", NO_CALL}]
    n_silent = len(rows) - len(kept)
    if not kept:
        raise MetadataError(path, "has no row with a species")
    return kept, [f"{n_silent} parts of files without a species are left out"] if n_silent else []


def _is_part(row: NumberedRow) -> bool:
    return any(not is_blank(row[1].get(name, "")) for name in ("start", "end"))


def _taxonomy(path: Path) -> dict[str, Species]:
    if not path.is_file():
        return {}
    names = ("scientific_name", "common_name", "class_name")
    rows = read_rows(path, ["primary_label"])
    for number, row in rows:
        _check_label(path, number, row["primary_label"])
    check_labels((row["primary_label"] for _, row in rows), str(path))
    species = (Species(row["primary_label"], *(row.get(name, "") for name in names)) for _, row in rows)
    return {one.label: one for one in species}


def _primary_first(path: Path, row: NumberedRow, labels: Collection[str]) -> NumberedRow:
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


def _species_of(path: Path, rows: Iterable[NumberedRow]) -> tuple[Species, ...]:
    """The primary labels of a table without a taxonomy.

    Raises:
        LabelError: two are spellings of one.
    """
    first: dict[str, NumberedRow] = {}
    for row in rows:
        label = row[1]["primary_label"]
        number, other = first.setdefault(plain_label(label), row)
        if label != other["primary_label"]:
            same = near_miss(label, [other["primary_label"]])
            what = f"row {row[0]} has the label {label!r}, which is row {number}'s {same}"
            raise LabelError(path, what, "write them alike, or list both in taxonomy.csv")
        _check_label(path, row[0], label)
    labels = check_labels(sorted(row["primary_label"] for _, row in first.values()), str(path))
    return tuple(Species(label) for label in labels)


def _check_known(path: Path, rows: Sequence[NumberedRow], labels: Collection[str]) -> None:
    unknown = {row["primary_label"]: number for number, row in reversed(rows) if row["primary_label"] not in labels}
    in_order = sorted((number, label) for label, number in unknown.items())
    for number, label in in_order:
        _refuse_near_miss(path, number, label, labels)
    for number, label in in_order[:1]:
        others = f", nor are {len(unknown) - 1} others" if len(unknown) > 1 else ""
        what = f"row {number} has the label {label!r}, which is not in taxonomy.csv{others}"
        raise LabelError(path, what, "add the species there, or take its rows out")


def _check_label(path: Path, number: int, label: str) -> None:
    problem = label_problem(label)
    if problem:
        raise LabelError(path, f"row {number}: label {label!r} {problem}", "rename it")


def _refuse_near_miss(path: Path, number: int, label: str, labels: Collection[str]) -> None:
    same = "" if label in labels else near_miss(label, labels)
    if same:
        raise LabelError(path, f"row {number} has the label {label!r}, which is {same}", "write it as in taxonomy.csv")


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
    if fold is not None and fold >= _LEFT_OUT:
        return str(fold)
    if fold is not None or cell.strip()[0] in "+-.0123456789":
        raise MetadataError(path, f"row {number} has the fold {cell!r}", "allowed are 0 and up, -1, -2, -3, or words")
    return _FOLD_WORDS.get(cell.strip().casefold(), cell.strip())


def _without_repeats(path: Path, rows: Sequence[NumberedRow], listed: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """A clip per name; rows about one part of a file each add their species to it, rows about one file agree.

    Raises:
        MetadataError: two rows of one file contradict one another.
    """
    first: dict[tuple[Path, float, float], tuple[int, Clip]] = {}
    for (number, _), clip in zip(rows, listed, strict=True):
        part = clip.path, clip.begin_seconds, clip.end_seconds
        before, kept = first.setdefault(part, (number, clip))
        if clip.is_part:
            labels = dict.fromkeys((*kept.secondary_labels, clip.primary_label, *clip.secondary_labels))
            others = tuple(label for label in labels if label != kept.primary_label)
            first[part] = before, kept._replace(secondary_labels=others)
        elif kept.primary_label != clip.primary_label:
            both = f"{kept.primary_label!r} and {clip.primary_label!r}"
            what = f"rows {before} and {number}: {clip.filename} is labelled {both}"
            raise MetadataError(path, what, "keep one of the rows")
    dropped = sum(not clip.is_part for clip in listed) - sum(not clip.is_part for _, clip in first.values())
    note = f"{dropped} rows of {path.name} repeat a filename and are left out"
    return [clip for _, clip in first.values()], [note] if dropped else []


def _unfinished(path: Path) -> list[str]:
    """A line if a table does not end with a line: it may have been cut off."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        end = file.read().rstrip(b"\0")
    return [] if end.endswith((b"\n", b"\r")) else [f"{path.name} has no line end behind its last row: is it whole?"]


def _respelled(rows: Sequence[NumberedRow], clips: Iterable[Clip]) -> list[str]:
    listed = {file_name(row["filename"]) for _, row in rows}
    found = [name for name in (stretch_of(clip.filename).filename for clip in clips) if name not in listed]
    line = f"{len(found)} sound files are spelled otherwise in the table, and found: {_some(found)}"
    return [line] if found else []


def _rating(row: Row) -> float | None:
    try:
        return parse_rating(row.get("rating", ""))
    except ValueError:
        return None


def _odd_ratings(rows: Iterable[NumberedRow]) -> list[str]:
    odd = []
    for _, row in rows:
        try:
            parse_rating(row.get("rating", ""))
        except ValueError:
            odd.append(f"{row['rating']} of {row['filename']}")
    return [f"{len(odd)} ratings are no number from 0 to 5 and count as unrated: {_some(odd)}"] if odd else []


def _with_sound(data_dir: Path, listed: Sequence[Clip], files: ClipFiles) -> tuple[list[Clip], list[str]]:
    with ThreadPoolExecutor() as pool:
        durations = list(pool.map(_duration_seconds, listed))
    clips = [
        clip._replace(duration_seconds=seconds)
        for clip, seconds in zip(listed, durations, strict=True)
        if isinstance(seconds, float)
    ]
    gone = [clip for clip, seconds in zip(listed, durations, strict=True) if seconds is None]
    missing = [clip.filename for clip in gone]
    for index, clip in enumerate(gone[:_LISTED]):
        hint = files.hint(stretch_of(clip.filename).filename, clip.primary_label)
        missing[index] += f" ({hint})" if hint else ""
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
        seconds = clip.seconds_of(float(probe(clip.path).duration_seconds))
    except InputNotFoundError:
        return None
    except AudioError as error:
        return f"{clip.filename} ({error.what})"
    return seconds if seconds > 0 else f"{clip.filename} (holds no sound)"


def _known_secondary(clips: Iterable[Clip], labels: frozenset[str]) -> tuple[list[Clip], list[str]]:
    """Secondary labels outside the taxonomy are common in the real tables and have no column: they are dropped."""
    unknown: set[str] = set()
    kept: list[Clip] = []
    for clip in clips:
        unknown.update(set(clip.secondary_labels) - labels)
        kept.append(clip._replace(secondary_labels=tuple(one for one in clip.secondary_labels if one in labels)))
    line = f"{len(unknown)} secondary labels are not in the taxonomy and are left out: {_some(sorted(unknown))}"
    return kept, [line] if unknown else []


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
