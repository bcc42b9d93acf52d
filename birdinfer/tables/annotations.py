r"""Read who is present when: a table of any program -> annotations, each a stretch of a recording and its species.

Four kinds of tables are read, recognised by their columns:

* ``filename,start,end,primary_label`` (BirdCLEF 2026): windows; several labels have ``;`` between them.
* ``row_id,site,audio_id,seconds,birds`` (BirdCLEF 2021): windows; labels have spaces between them.
* Calls with begin and end: selection tables of Raven, tables of BirdNET-Analyzer, Kaleidoscope, HawkEars, Perch's data
  sets. Their columns are found by the names that these programs give them.
* Label tracks of Audacity: begin, end and text with tabs between, without a header; lines of frequencies are skipped.

An empty label and ``nocall`` mean that no species is there. A table without a column of files is about the recording
whose name it has. Times are seconds or ``00:01:05``, with a decimal point or comma. A selection that Raven repeats for
each of its views is one annotation.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.species import NO_CALL
from birdinfer.tables.cells import is_blank, labels_of, number_of, seconds_of
from birdinfer.tables.csv import csv_rows, text_lines
from birdinfer.tables.row_ids import ROW_SECONDS, split_row_id

WINDOW_COLUMNS = ("filename", "start", "end", "primary_label")
_LIST_COLUMNS = ("row_id", "birds")
_FILE = (
    "begin path", "begin file", "filename", "file name", "filepath", "file", "in file", "recording", "audiofilename",
    "audio file", "fid",
)  # fmt: skip
_START = (
    "begin time (s)", "start (s)", "start time (s)", "start time s", "start seconds", "start time", "begin time",
    "start", "begin", "onset", "offset",
)  # fmt: skip
_END = (
    "end time (s)", "end (s)", "end time s", "end seconds", "stop seconds", "end time", "end", "stop",
)  # fmt: skip
_DURATION = ("duration", "duration (s)")
_FILE_OFFSET = ("file offset (s)", "file offset")
_LABEL = (
    "primary label", "species code", "species ebird code", "ebird code", "ebird codes", "ebird 2021", "species",
    "label:species", "scientific name", "common name", "manual id", "annotation", "label", "class", "top1match",
    "auto id", "name",
)  # fmt: skip
"""The first that is there names the species if none is known; else each of them may."""
_BINOMIAL = re.compile(r"([A-Z][a-z-]+ [^,_]+)(?:, |_)(.+)")
"""BirdNET's text: ``Turdus merula, Eurasian Blackbird`` or with ``_``."""
_IS_SCORE = re.compile(r"[01]?[.,][0-9]+")
_ENDINGS = (".txt", ".csv", ".tsv")
_NO_TABLE = re.compile(r".*([.]list[.]txt|_analysis_params[.]csv)", re.IGNORECASE)
"""What BirdNET-Analyzer writes beside its tables: a list of recordings for Raven, and the options of its run."""
_FREQUENCIES = "\\"
_SHOWN = 40
"""Characters of a wrong cell in a message."""
_MIN_SECONDS = 0.1
_MOST_SECONDS = 1e7  # months: no recording is so long, and its windows would fill the memory
"""Of a window."""


class Annotation(NamedTuple):
    """A stretch of a recording, and the species in it."""

    row: int
    """Of its table, from 1."""
    recording: str
    """As the table spells it; "" if the table is about one recording and does not name it."""
    start_seconds: float
    end_seconds: float
    species: tuple[tuple[str, ...], ...]
    """The names of each species: label, scientific or common name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """A table."""

    path: Path
    annotations: tuple[Annotation, ...]
    is_windows: bool
    """Whether its rows are windows of a competition with codes of species, not calls with any text."""


def read_annotations(path: Path, known: Collection[str] = ()) -> Annotations:
    """Read one table.

    Args:
        path: of one of the four kinds.
        known: labels and names of species, which may hold spaces or commas that otherwise stand between two labels.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it is none of these tables, has no rows, or holds what is no time; with the row.
    """
    if is_label_track(path):
        return Annotations(path=path, annotations=tuple(_track_annotations(path)), is_windows=False)
    with csv_rows(path) as rows:
        columns = _columns(path, [_folded(name) for name in next(rows, [])])
        rows.n_needed = columns.n_needed if rows.separator == "\t" and not columns.is_windows else 0
        read = _listed if columns.is_list else _timed
        found: dict[tuple[object, ...], tuple[str, Annotation]] = {}
        for row in filter(None, rows):
            annotation = read(path, columns, rows.number, row, known)
            number = rows.number if columns.selection is None else row[columns.selection].strip()
            above = "" if columns.input is None else row[columns.input].strip()
            found.setdefault((number, above, *annotation[1:]), (above, annotation))
    if not found and columns.is_windows:
        raise MetadataError(path, "has no rows")
    annotations = _of_several_inputs(list(found.values()))
    _check_offsets(path, columns, annotations)
    return Annotations(path=path, annotations=annotations, is_windows=columns.is_windows)


def _of_several_inputs(found: Sequence[tuple[str, Annotation]]) -> tuple[Annotation, ...]:
    """Put Kaleidoscope's INDIR before the recordings if there are several: a single one may have been moved since."""
    if len({above for above, _ in found}) < 2:
        return tuple(annotation for _, annotation in found)
    return tuple(each._replace(recording=f"{above}/{each.recording}") for above, each in found)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """Where the cells stand in a row; empty or None if there is no such column."""

    file: tuple[int, ...] = ()
    input: int | None = None
    """Kaleidoscope's ``INDIR``."""
    folder: int | None = None
    """Kaleidoscope's, within it."""
    start: int = 0
    end: int | None = None
    duration: int | None = None
    offset: int | None = None
    labels: tuple[int, ...] = ()
    manual: int | None = None
    """Where an annotator has corrected a program; if it is not empty, no other label counts."""
    selection: int | None = None
    """Raven's number, if it may be on several rows: one for each view."""
    is_windows: bool = False
    is_list: bool = False
    is_running: bool = False
    """Whether the time may run on over the files, as Raven's does."""

    @property
    def n_needed(self) -> int:
        """Cells that a row needs; Raven leaves out empty ones at its end."""
        needed = (self.start, self.end, self.duration, self.offset, self.labels[0], *self.file[:1])
        return max(place for place in needed if place is not None) + 1


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").strip("* ").split()).casefold()


def _columns(path: Path, header: Sequence[str]) -> _Columns:
    place = {name: index for index, name in reversed(list(enumerate(header)))}
    if {_folded(name) for name in _LIST_COLUMNS} <= place.keys():
        return _Columns(file=(place["row id"],), labels=(place["birds"],), is_list=True, is_windows=True)
    start, end, duration = (_first(place, names) for names in (_START, _END, _DURATION))
    if duration is not None and {"in file", "offset"} <= place.keys():  # Kaleidoscope's, whatever else has times
        start, end = place["offset"], None
    labels = tuple(place[name] for name in _LABEL if name in place)
    lacking = [
        *(["begins"] if start is None else []),
        *(["ends"] if end is None and duration is None else []),
        *(["species"] if not labels else []),
    ]
    if start is None or lacking:
        shown = ", ".join(header[:10]) + (", ..." if len(header) > 10 else "") if header else "none, it is empty"
        needed = f"needed are {','.join(WINDOW_COLUMNS)}, or row_id and labels, or Raven's and Species, or Audacity's"
        raise MetadataError(path, f"has no column of {', '.join(lacking)}; its columns are: {shown}", needed)
    return _Columns(
        file=tuple(place[name] for name in _FILE if name in place),
        input=place.get("indir"), folder=place.get("folder"),
        start=start, end=end, duration=duration, offset=_first(place, _FILE_OFFSET), labels=labels,
        manual=place.get("manual id"), selection=place.get("selection") if "view" in place else None,
        is_windows="primary label" in place, is_running="begin file" in place or "begin path" in place,
    )  # fmt: skip


def _first(place: Mapping[str, int], names: Sequence[str]) -> int | None:
    return next((place[name] for name in names if name in place), None)


def _listed(path: Path, columns: _Columns, number: int, row: Sequence[str], known: Collection[str]) -> Annotation:
    """A row of 2021."""
    recording, end = split_row_id(row[columns.file[0]].strip(), path)
    cell = row[columns.labels[0]]
    if is_blank(cell):
        raise MetadataError(path, f"row {number} has no birds", "codes of species, or nocall, are needed")
    start = float(max(0, end - ROW_SECONDS))
    return Annotation(number, recording, start, float(end), _codes(path, number, cell, known))


def _timed(path: Path, columns: _Columns, number: int, row: Sequence[str], known: Collection[str]) -> Annotation:
    start = _time(path, number, row[columns.start])
    if columns.end is not None:
        end = _time(path, number, row[columns.end])
    else:
        end = start + _time(path, number, row[columns.duration or 0])
    least = _MIN_SECONDS if columns.is_windows else 0.0
    if end - start < least:
        hint = f"{least:g} s are needed at least" if least else "the end stands before the begin"
        raise MetadataError(path, f"row {number} is from {start:g} to {end:g}", hint)
    if columns.offset is not None and row[columns.offset].strip():
        offset = _time(path, number, row[columns.offset])
        start, end = offset, offset + end - start
    recording = next((cell.strip() for cell in (row[place] for place in columns.file) if cell.strip()), "")
    if columns.file and not recording:
        raise MetadataError(path, f"row {number} names no file")
    if columns.folder is not None and row[columns.folder].strip():
        recording = f"{row[columns.folder].strip()}/{recording}"
    if columns.is_windows:
        species = _codes(path, number, row[columns.labels[0]], known)
    else:
        manual = "" if columns.manual is None else row[columns.manual]
        species = _called([row[place] for place in columns.labels] if is_blank(manual) else [manual])
    return Annotation(number, recording, start, end, species)


def _time(path: Path, number: int, cell: str) -> float:
    seconds = _seconds(cell)
    if seconds is None or seconds > _MOST_SECONDS:
        raise MetadataError(path, f"row {number} holds {cell[:_SHOWN]!r}", "a time is needed, as 65 or 00:01:05")
    return seconds


def _seconds(cell: str) -> float | None:
    """A time in any spelling, also as Python writes the noise of a sum: ``1.1e-16``."""
    exact = number_of(cell)
    return exact if 0 <= exact < math.inf else seconds_of(cell)


def _codes(path: Path, number: int, cell: str, known: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Labels of a window, in any spelling of a list."""
    try:
        return tuple((label,) for label in labels_of(cell, known) if label.casefold() != NO_CALL)
    except ValueError as error:
        raise MetadataError(path, f"row {number}: {error}", "write labels with ; between them") from error


def _called(cells: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Species of a call: one by several names, or several with ``;`` between them."""
    names = [name for name in (cell.strip() for cell in cells) if not is_blank(name)]
    if not names or names[0].casefold() == NO_CALL:
        return ()
    if len(names) == 1:
        return tuple(_both_names(part.strip()) for part in names[0].split(";") if not is_blank(part))
    return (tuple(names),)


def _both_names(text: str) -> tuple[str, ...]:
    halves = _BINOMIAL.fullmatch(text)
    return (text, *halves.groups()) if halves else (text,)


def is_annotated(path: Path) -> bool:
    """Whether a table is one of annotations, not of ``row_id`` and a column for each label."""
    if is_label_track(path):
        return True
    with csv_rows(path) as rows:
        header = next(rows, [])
    return _LIST_COLUMNS[0] not in header or set(_LIST_COLUMNS) <= set(header)


def annotation_files(path: Path) -> list[Path]:
    """List the tables of a folder, or a table itself; InputNotFoundError if the folder holds none."""
    if not path.is_dir():
        return [path]
    files = (each for each in path.rglob("*") if each.suffix.lower() in _ENDINGS and each.is_file())
    found = sorted(each for each in files if not _NO_TABLE.fullmatch(each.name))
    if not found:
        raise InputNotFoundError(path, "holds no table", f"looked for {', '.join(_ENDINGS)}")
    return found


def is_label_track(path: Path) -> bool:
    """Whether a file is a label track of Audacity, by its first line; errors as of :func:`read_annotations`."""
    first = next((line for line in text_lines(path) if line.strip()), "")
    times = [_seconds(cell) for cell in first.split("\t")[:2]]
    return len(times) > 1 and None not in times


def _track_annotations(path: Path) -> Iterator[Annotation]:
    for number, line in enumerate(text_lines(path), start=1):
        cells = line.split("\t")
        if not line.strip() or cells[0].strip() == _FREQUENCIES:
            continue
        if len(cells) < 2:
            raise MetadataError(path, f"row {number} has 1 cell", "begin, end and text with tabs between are needed")
        start, end = (_time(path, number, cell) for cell in cells[:2])
        if end < start:
            raise MetadataError(path, f"row {number} is from {start:g} to {end:g}", "the end stands before the begin")
        # HawkEars writes CODE;score, BirdNET the score as a fourth cell.
        text = ";".join(part for part in "".join(cells[2:3]).split(";") if not _IS_SCORE.fullmatch(part.strip()))
        yield Annotation(number, "", start, end, _called([text]))


def _check_offsets(path: Path, columns: _Columns, found: Sequence[Annotation]) -> None:
    """Refuse times that run on over several files, if nothing says where each file begins."""
    files = Counter(annotation.recording for annotation in found)
    if columns.is_running and columns.offset is None and len(files) > 1:
        what = f"is about {len(files)} files, whose times run on from one to the next"
        raise MetadataError(path, what, "add Raven's column File Offset (s), or save a table for each file")
