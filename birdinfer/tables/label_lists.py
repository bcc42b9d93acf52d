"""A foreign model's list of labels -> its columns by name, and which label of a bundle each of them means.

Foreign models travel with their labels in a file: plain text of a label a line, BirdNET's
``Scientific name_Common name``, or a table with a header (Perch's ``labels.csv``, BirdNET's table between semicolons).
In: that file, and a bundle's species. Out: :class:`ListedLabel` in column order, and :class:`Match` by the bundle's
label. All is read as text: an iNaturalist number stays ``1161364``.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from birdinfer.errors import InputNotFoundError, LabelError
from birdinfer.labels import Species

Rule = Literal["label", "scientific name", "common name"]
Item = TypeVar("Item")

_LABEL_COLUMNS = (
    "primary_label", "label", "labels", "ebird_code", "ebird2021", "species_code", "code", "inat2024_fsd50k", "species",
    "name",
)  # fmt: skip
"""Columns that name a label, the first that is there counts; ``inat2024_fsd50k`` heads the list of Perch v2."""
_SCIENTIFIC_COLUMNS = ("scientific_name", "sci_name", "scientific")
_COMMON_COLUMNS = ("common_name", "com_name", "common")
_CLASS_COLUMNS = ("class_name", "class")
_CODE_COLUMNS = ("inat_taxon_id", "inat_id", "inat")
_INDEX_COLUMNS = ("idx", "index")
_NO_CODE = "no_ebird_code"
"""What Perch's table of eBird codes says of a class that has none."""
_DELIMITERS = (";", "\t", ",")
_EXAMPLES = 3


class ListedLabel(NamedTuple):
    """One column of a foreign graph."""

    line: int
    """Where it stands in its file, from 1."""
    label: str
    scientific_name: str = ""
    common_name: str = ""
    class_name: str = ""
    codes: tuple[str, ...] = ()
    """Other codes of the same label: eBird, iNaturalist."""


class Match(NamedTuple):
    """A label of the bundle that a graph knows."""

    column: int
    """Of the graph."""
    listed: str
    """What the graph calls it."""
    rule: Rule
    """What is the same in both."""


def read_label_list(path: Path) -> list[ListedLabel]:
    """Read a list of labels.

    Args:
        path: UTF-8 text. A first line that names known columns makes it a table; ``.csv`` always has a header.

    Returns:
        The labels in the file's order, which is that of the graph's columns.

    Raises:
        InputNotFoundError: there is no such file.
        LabelError: it is not such a list, is empty, or a label is empty or stands twice; says in which line.
    """
    lines = _read_lines(path)
    header, delimiter = _find_header(path, lines[0])
    listed = _read_plain(path, lines) if header is None else _read_table(path, lines, header, delimiter)
    _check_labels(path, listed)
    return listed


def species_of(listed: Sequence[ListedLabel]) -> tuple[Species, ...]:
    """The labels as species of a bundle of their own."""
    return tuple(Species(each.label, each.scientific_name, each.common_name, each.class_name) for each in listed)


def match_labels(species: Sequence[Species], listed: Sequence[ListedLabel], where: Path) -> dict[str, Match]:
    """Which column of a graph means which label of a bundle.

    By equal label or code, else scientific name, else common name; names are compared without regard to case and
    spaces. A list without names is compared by its labels, so is a bundle without names.

    Args:
        species: those of the bundle.
        listed: those of the graph, in column order.
        where: the list's file, for complaints.

    Returns:
        By label of the bundle, in its order; each column for one label at most.

    Raises:
        LabelError: a name is ambiguous, or nothing matches.
    """
    found: dict[str, Match] = {}
    for rule, own_name, listed_names in _RULES:
        taken = {match.column for match in found.values()}
        columns = _group(
            (name, column) for column, each in enumerate(listed) if column not in taken for name in listed_names(each)
        )
        labels = _group((own_name(each), each.label) for each in species if each.label not in found)
        for name in [name for name in labels if name in columns]:
            _check_is_clear(where, rule, name, labels[name], [listed[column] for column in columns[name]])
            column = columns[name][0]
            found[labels[name][0]] = Match(column, listed[column].label, rule)
        _check_one_each(where, found, listed)
    if not found:
        raise LabelError(where, f"none of {_examples(listed)} is a label of the bundle, which are {_examples(species)}")
    return {each.label: found[each.label] for each in species if each.label in found}


def _fold(name: str) -> str:
    return " ".join(name.split()).casefold()


_RULES: tuple[tuple[Rule, Callable[[Species], str], Callable[[ListedLabel], tuple[str, ...]]], ...] = (
    ("label", lambda own: own.label, lambda each: (each.label, *each.codes)),
    (
        "scientific name",
        lambda own: _fold(own.scientific_name or own.label),
        lambda each: (_fold(each.scientific_name or each.label),),
    ),
    (
        "common name",
        lambda own: _fold(own.common_name or own.label),
        lambda each: (_fold(each.common_name or each.label),),
    ),
)


def _read_lines(path: Path) -> list[str]:
    """The file's lines, without blank ones at its end."""
    if not path.is_file():
        raise InputNotFoundError(path, "no such file", "it lists the graph's labels, one a line")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(path, f"is not UTF-8 text ({error})", "save it as UTF-8") from error
    # Not str.splitlines, which also breaks a line at characters that may stand in a name.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise LabelError(path, "there is no label")
    return lines


def _find_header(path: Path, first: str) -> tuple[list[str] | None, str]:
    """The names of a table's columns and what stands between them; None for a plain list."""
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader([first], delimiter=delimiter))
        except csv.Error as error:
            raise LabelError(path, f"its first line is not one of a table ({error})") from error
        header = [_fold(name).replace(" ", "_") for name in names]
        if len(header) > 1 and any(_is_known(name) for name in header):
            return header, delimiter
    name = _fold(first.strip('"')).replace(" ", "_")
    is_csv = path.suffix.lower() in (".csv", ".tsv")
    if is_csv and any(delimiter in first for delimiter in _DELIMITERS):
        raise LabelError(
            path, f"has no column that names labels, its first line is {first!r}", "call that column label"
        )
    return ([name], ",") if is_csv or _is_known(name) else (None, "")


def _is_known(column: str) -> bool:
    return column in (*_LABEL_COLUMNS, *_SCIENTIFIC_COLUMNS, *_COMMON_COLUMNS, *_CODE_COLUMNS)


def _read_plain(path: Path, lines: Sequence[str]) -> list[ListedLabel]:
    """A label a line; with scientific and common name where all lines are as BirdNET writes them."""
    labels = [line.strip() for line in lines]
    halves = [label.partition("_") for label in labels]
    binomials = sum(" " in scientific for scientific, _, _ in halves)
    # Of one line alone nobody could say: Acoustic_guitar is a label of Perch, and no species.
    if all(scientific and common for scientific, _, common in halves) and 2 * binomials > len(halves):
        return [
            ListedLabel(line, label, scientific, common)
            for line, (label, (scientific, _, common)) in enumerate(zip(labels, halves, strict=True), 1)
        ]
    return [ListedLabel(line, label) for line, label in enumerate(labels, 1)]


def _read_table(path: Path, lines: Sequence[str], header: list[str], delimiter: str) -> list[ListedLabel]:
    for name in header:
        if name and header.count(name) > 1:
            raise LabelError(path, f"column {name!r} stands twice")
    rows = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    listed: list[ListedLabel] = []
    try:
        next(rows)
        for row in rows:
            # A blank line is a row of one empty cell here: it must not shift what follows by a column.
            values = [cell.strip() for cell in row] or [""]
            if len(values) != len(header):
                raise LabelError(path, f"line {rows.line_num} has {len(values)} cells, the header has {len(header)}")
            cells = dict(zip(header, values, strict=True))
            _check_index(path, rows.line_num, _first(cells, _INDEX_COLUMNS), listed)
            listed.append(_listed(rows.line_num, cells))
    except csv.Error as error:
        raise LabelError(path, f"line {rows.line_num} is not a row of a table ({error})") from error
    return listed


def _listed(line: int, cells: dict[str, str]) -> ListedLabel:
    """One row; its label is the first of the columns that could name one."""
    label = _first(cells, (*_LABEL_COLUMNS, *_SCIENTIFIC_COLUMNS, *_COMMON_COLUMNS, *_CODE_COLUMNS, *cells))
    return ListedLabel(
        line,
        label,
        _first(cells, _SCIENTIFIC_COLUMNS),
        _first(cells, _COMMON_COLUMNS),
        _first(cells, _CLASS_COLUMNS),
        tuple(
            cells[name]
            for name in (*_LABEL_COLUMNS, *_CODE_COLUMNS)
            if cells.get(name, "") not in ("", _NO_CODE, label)
        ),
    )


def _first(cells: dict[str, str], columns: Iterable[str]) -> str:
    """The cell of the first of these columns that the table has, "" if it has none of them."""
    return next((cells[name] for name in columns if name in cells), "")


def _check_index(path: Path, line: int, index: str, before: Sequence[ListedLabel]) -> None:
    """Where a table counts its rows, from 0 or 1, it must count them in order: their order is all that is used."""
    expected = len(before)
    if index and index not in (str(expected), str(expected + 1)):
        raise LabelError(
            path, f"line {line} has index {index}, expected is {expected}", "put the rows in the order of the columns"
        )


def _check_labels(path: Path, listed: Sequence[ListedLabel]) -> None:
    if not listed:
        raise LabelError(path, "there is no label below its header")
    lines: dict[str, int] = {}
    for each in listed:
        if each.label in ("", _NO_CODE):
            raise LabelError(path, f"line {each.line} has no label", "each column of the graph needs one of its own")
        if each.label in lines:
            raise LabelError(
                path,
                f"label {each.label!r} stands twice, in lines {lines[each.label]} and {each.line}",
                "each column of the graph needs one of its own",
            )
        lines[each.label] = each.line


def _group(pairs: Iterable[tuple[str, Item]]) -> dict[str, list[Item]]:
    """What shares a name, each once, in order."""
    grouped: dict[str, dict[Item, None]] = defaultdict(dict)
    for name, item in pairs:
        grouped[name][item] = None
    return {name: list(items) for name, items in grouped.items()}


def _check_is_clear(where: Path, rule: Rule, name: str, labels: Sequence[str], columns: Sequence[ListedLabel]) -> None:
    """Refuse a name that several labels of the bundle, or several columns of the graph, share."""
    remedy = "tell them apart in that file, in a column label or primary_label"
    if len(columns) > 1:
        one, other = columns[0], columns[1]
        what = f"lines {one.line} and {other.line} ({one.label!r}, {other.label!r}) both mean label {labels[0]!r}"
        raise LabelError(where, f"{what} of the bundle by their {rule} {name!r}", remedy)
    if len(labels) > 1:
        what = f"line {columns[0].line} ({columns[0].label!r}) means both {labels[0]!r} and {labels[1]!r}"
        raise LabelError(where, f"{what} of the bundle by its {rule} {name!r}", remedy)


def _check_one_each(where: Path, found: dict[str, Match], listed: Sequence[ListedLabel]) -> None:
    """Refuse a column whose several codes are labels of the bundle."""
    owners: dict[int, str] = {}
    for label, match in found.items():
        owner = owners.setdefault(match.column, label)
        if owner != label:
            line = listed[match.column].line
            raise LabelError(
                where,
                f"line {line} ({match.listed!r}) means both {owner!r} and {label!r} of the bundle",
                "keep one code",
            )


def _examples(labels: Sequence[Species] | Sequence[ListedLabel]) -> str:
    shown = ", ".join(repr(each.label) for each in labels[:_EXAMPLES])
    return shown + (" ..." if len(labels) > _EXAMPLES else "")
