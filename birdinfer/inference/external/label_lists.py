"""Read an external model's list of labels as it is published, in the order of the graph's columns.

Models come with their labels in a file: plain text with a label on each line, BirdNET's ``Scientific name_Common name``
in any language, a table with a header (Perch's two, BirdNET 3.0's with semicolons, HawkEars' ``classes.csv``), the
tables of a BirdNET-Analyzer classifier, or ``id2label`` in JSON. In: that file. Out: :class:`ListedLabel` in column
order. Everything is read as text: an iNaturalist number stays ``1161364``.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from birdinfer.errors import InputNotFoundError, LabelError, MetadataError
from birdinfer.tables.csv import csv_rows, text_lines

_LABEL_COLUMNS = (
    "primary_label", "label", "labels", "ebird_code", "ebird2021", "species_code", "code", "inat2024_fsd50k", "species",
    "name",
)  # fmt: skip
"""Columns that can name a label, the first that exists is used; ``inat2024_fsd50k`` heads the list of Perch v2."""
_SCIENTIFIC_COLUMNS = ("scientific_name", "sci_name", "scientific", "altname")
_COMMON_COLUMNS = ("common_name", "com_name", "primary_com_name", "common")
_CLASS_COLUMNS = ("class_name", "class")
_ORDER_COLUMNS = ("order", "order1")
_CODE_COLUMNS = ("inat_taxon_id", "inat_id", "inat", "altcode")
_INDEX_COLUMNS = ("idx", "index")
_CLASS_OF_ORDER = {
    "anura": "Amphibia", "caudata": "Amphibia", "orthoptera": "Insecta", "hemiptera": "Insecta", 
    "hymenoptera": "Insecta", "artiodactyla": "Mammalia", "carnivora": "Mammalia", "chiroptera": "Mammalia", 
    "primates": "Mammalia", "rodentia": "Mammalia", "crocodylia": "Reptilia", "squamata": "Reptilia",
}  # fmt: skip
"""Orders of animals that calls are recorded of; those of birds all end with ``formes``."""
NO_CODE = "no_ebird_code"
"""In Perch's table of eBird codes, stands for a class that has none: a column without a label."""


@dataclass(frozen=True, slots=True)
class ListedLabel:
    """One column of an external graph."""

    line: int
    """In its file, from 1."""
    label: str
    scientific_name: str = ""
    common_name: str = ""
    class_name: str = ""
    codes: tuple[str, ...] = ()
    """Other codes of the same label: eBird, iNaturalist."""
    index: str = field(default="", compare=False)
    """The row's own number, where a table has such a column."""


def read_label_list(path: Path) -> list[ListedLabel]:
    r"""Read a list of labels in the order of the graph's columns.

    Args:
        path: UTF-8 text, or JSON in a ``.json``. It is a table if its first line names known columns; ``.csv`` always
            has a header, except the two that BirdNET-Analyzer writes.

    Raises:
        InputNotFoundError: there is no such file.
        LabelError: it is not such a list, is empty, or a label is empty or a duplicate; with the line.

    >>> Path("labels.txt").write_text("Turdus merula_Eurasian Blackbird\nParus major_Great Tit\n")
    55
    >>> [each.scientific_name for each in read_label_list(Path("labels.txt"))]
    ['Turdus merula', 'Parus major']
    """
    listed = read_names(path, "it lists the graph's labels, one a line")
    while listed and not listed[-1].label:
        listed.pop()
    _check_labels(path, listed)
    return listed


def read_names(path: Path, hint: str) -> list[ListedLabel]:
    """Read a list of species of any order and choice: as :func:`read_label_list`, but labels may be empty or repeated.

    ``hint``: what the file is, where there is none.
    """
    if not path.is_file():
        raise InputNotFoundError(path, "no such file", hint)
    try:
        lines = _read_lines(path)
        if lines[0].lstrip()[0] in "{[" and path.suffix.lower() == ".json":
            return _read_plain(_json_labels(path, "\n".join(lines)))
        if path.suffix.lower() == ".csv" and (ids := _raven_labels(path)):
            return _read_plain(ids)
        header = _find_header(path, lines[0])
        return _read_plain(lines) if header is None else _read_table(path, header)
    except MetadataError as error:
        raise LabelError(path, error.what, error.hint) from error


def _read_lines(path: Path) -> list[str]:
    lines = list(text_lines(path))
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise LabelError(path, "there is no label")
    return lines


def _json_labels(path: Path, text: str) -> list[str]:
    """The labels of a JSON list, or of ``id2label`` (number of the column -> label), alone or in a ``config.json``."""
    form = 'needed is a list of labels, or {"0": label, "1": label, ...}'
    try:
        found = json.loads(text)
    except ValueError as error:
        raise LabelError(path, f"is no JSON ({error})", form) from error
    if isinstance(found, dict):
        found = found.get("id2label", found)
    if isinstance(found, dict):
        if set(found) != {str(number) for number in range(len(found))}:
            raise LabelError(path, "its numbers are not 0, 1, 2 ... to the end", form)
        found = [found[str(number)] for number in range(len(found))]
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise LabelError(path, "is no list of labels", form)
    return found


def _raven_labels(path: Path) -> list[str]:
    """The labels of ``label_names.csv`` or ``classes.csv`` of a BirdNET-Analyzer classifier, which have no header.

    Rows are ``Turd1,Turdus merula_Eurasian Blackbird``, and ``Turd1,0.25,0,15000,False``; [] for another table.
    """
    try:
        with csv_rows(path) as rows:
            cells = list(rows)
    except MetadataError:
        return []
    width = len(cells[0]) if cells else 0
    if width < 2 or not all(len(row) == width and row[0].endswith(str(number)) for number, row in enumerate(cells, 1)):
        return []
    if width == 2 and all(f"{name[:4].replace(' ', '')}{number}" == own for number, (own, name) in enumerate(cells, 1)):
        return [name for _, name in cells]
    return [row[0] for row in cells] if width == 5 and {row[4] for row in cells} <= {"True", "False"} else []


def _find_header(path: Path, first: str) -> list[str] | None:
    """The names of a table's columns; None for a plain list."""
    is_csv = path.suffix.lower() in (".csv", ".tsv")
    try:
        with csv_rows(path) as rows:
            header = ["_".join(name.split()).casefold() for name in next(rows, [])]
    except MetadataError:
        if is_csv:
            raise
        return None
    if len(header) > 1 and any(_is_known(name) for name in header):
        return header
    if is_csv and len(header) > 1:
        raise LabelError(
            path, f"has no column that names labels, its first line is {first!r}", "call that column label"
        )
    return header if len(header) == 1 and (is_csv or _is_known(header[0])) else None


def _is_known(column: str) -> bool:
    return column in (*_LABEL_COLUMNS, *_SCIENTIFIC_COLUMNS, *_COMMON_COLUMNS, *_CODE_COLUMNS)


def _read_plain(lines: Sequence[str]) -> list[ListedLabel]:
    """One label on each line; with scientific and common name if all lines have BirdNET's form."""
    labels = [line.strip() for line in lines]
    halves = [label.partition("_") for label in labels]
    binomials = sum(" " in scientific for scientific, _, _ in halves)
    # One line alone does not show it: Acoustic_guitar is a label of Perch, and no species.
    if all(scientific and common for scientific, _, common in halves) and 2 * binomials > len(halves):
        return [
            ListedLabel(line, label, scientific, common)
            for line, (label, (scientific, _, common)) in enumerate(zip(labels, halves, strict=True), 1)
        ]
    return [ListedLabel(line, label) for line, label in enumerate(labels, 1)]


def _read_table(path: Path, header: Sequence[str]) -> list[ListedLabel]:
    for name in header:
        if name and header.count(name) > 1:
            raise LabelError(path, f"column {name!r} stands twice")
    listed: list[ListedLabel] = []
    with csv_rows(path) as rows:
        next(rows)
        for row in rows:
            # A blank row has no label: skipping it would shift the labels below by a column.
            cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
            listed.append(_listed_label(rows.number, cells))
    return listed


def _listed_label(line: int, cells: dict[str, str]) -> ListedLabel:
    """One row; its label is in the first column that could name one."""
    label = _first(cells, (*_LABEL_COLUMNS, *_SCIENTIFIC_COLUMNS, *_COMMON_COLUMNS, *_CODE_COLUMNS, *cells))
    return ListedLabel(
        line,
        label,
        _first(cells, _SCIENTIFIC_COLUMNS),
        _first(cells, (*_COMMON_COLUMNS, *(("name",) if "altname" in cells else ()))),
        _first(cells, _CLASS_COLUMNS) or _class_of_order(_first(cells, _ORDER_COLUMNS).casefold()),
        tuple(
            cells[name] for name in (*_LABEL_COLUMNS, *_CODE_COLUMNS) if cells.get(name, "") not in ("", NO_CODE, label)
        ),
        _first(cells, _INDEX_COLUMNS),
    )


def _class_of_order(order: str) -> str:
    return "Aves" if order.endswith("formes") else _CLASS_OF_ORDER.get(order, "")


def _first(cells: dict[str, str], columns: Iterable[str]) -> str:
    """The cell of the first of these columns that the table has, else ""."""
    return next((cells[name] for name in columns if name in cells), "")


def _check_labels(path: Path, listed: Sequence[ListedLabel]) -> None:
    if not listed:
        raise LabelError(path, "there is no label below its header")
    lines: dict[str, int] = {}
    has_labels = any(each.label != NO_CODE for each in listed)
    for place, each in enumerate(listed):
        # Only the order of rows is used: a table that numbers them otherwise, from 0 or 1, was meant otherwise.
        if each.index not in ("", str(place), str(place + 1)):
            what = f"line {each.line} has index {each.index}, expected is {place}"
            raise LabelError(path, what, "put the rows in the order of the columns")
        if each.label == NO_CODE and has_labels:
            continue
        if each.label in ("", NO_CODE):
            raise LabelError(path, f"line {each.line} has no label", "each column of the graph needs one of its own")
        if each.label in lines:
            raise LabelError(
                path,
                f"label {each.label!r} stands twice, in lines {lines[each.label]} and {each.line}",
                "each column of the graph needs one of its own",
            )
        lines[each.label] = each.line
