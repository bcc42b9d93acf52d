"""A submission's header -> which column is what, and what is wrong with them.

In: the header's cells, and the columns wanted. Out: where ``row_id`` and the values stand, so that rows can be judged
all the same; missing, extra and doubled columns, another order, labels that were read as numbers.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from birdinfer.submission_rules.findings import Findings, Kind
from birdinfer.tables.csv_files import number_of
from birdinfer.tables.score_table import ROW_ID

_INDEX = re.compile(r"(?:Unnamed: [0-9.]+|index|level_0)?")
"""What pandas calls the index of a table that it wrote without being told not to."""


class Columns(NamedTuple):
    """Where things stand in a row."""

    n_cells: int
    """Of the header."""
    row_id: int | None
    """Place of ``row_id``; None if there is none."""
    values: tuple[int, ...]
    """Places of the values to be judged."""
    names: tuple[str, ...]
    """Of the values."""


def check_columns(header: Sequence[str], wanted: Sequence[str] | None, findings: Findings) -> Columns:
    """Find the columns, and note what is wrong with them.

    Args:
        header: the first row's cells.
        wanted: the columns beside ``row_id``; None: any.
        findings: takes what is found.
    """
    given = [name for name in header if name != ROW_ID]
    if ROW_ID not in header:
        findings.note(Kind.no_row_id, "the first is " + (repr(header[0]) if header else "missing"))
    if wanted is None:
        wanted = tuple(dict.fromkeys(name for name in given if not _INDEX.fullmatch(name)))
    asked = {name: name for name in wanted}
    missing = [name for name in wanted if name not in set(given)]
    extra = [name for name in given if name not in asked]
    indices = [name for name in extra if _INDEX.fullmatch(name)]
    as_numbers = _labels_as_numbers(missing, extra)
    asked |= as_numbers
    findings.note_all(Kind.labels_as_numbers, [f"{name!r} for {label!r}" for name, label in as_numbers.items()])
    findings.note_all(Kind.index_column, [repr(name) for name in indices])
    findings.note_all(Kind.columns_missing, [name for name in missing if name not in as_numbers.values()])
    findings.note_all(Kind.columns_extra, [name for name in extra if name not in indices and name not in as_numbers])
    findings.note_all(Kind.columns_doubled, [name for name, times in Counter(header).items() if times > 1])
    place_of = {name: place for place, name in reversed(list(enumerate(header))) if name in asked}
    _check_order(header, [asked[name] for name in sorted(place_of, key=place_of.__getitem__)], wanted, findings)
    places = tuple(sorted(place_of.values()))
    row_id = header.index(ROW_ID) if ROW_ID in header else None
    return Columns(len(header), row_id, places, tuple(header[place] for place in places))


def _labels_as_numbers(missing: Sequence[str], extra: Sequence[str]) -> dict[str, str]:
    """Columns that are a missing label but for their spelling, ``12`` or ``12.0`` for ``0012``; name -> label."""
    by_number = {number_of(label): label for label in missing if label.isdecimal()}
    return {name: by_number[number_of(name)] for name in extra if number_of(name) in by_number}


def _check_order(header: Sequence[str], given: Sequence[str], wanted: Sequence[str], findings: Findings) -> None:
    """Whether ``row_id`` is in front of all but an index, and the others follow each other as they are wanted."""
    before = header[: header.index(ROW_ID)] if ROW_ID in header else []
    if not all(_INDEX.fullmatch(name) for name in before):
        findings.note(Kind.column_order, f"row_id is column {len(before) + 1}")
    there = set(given)
    for name, belongs in zip(given, (label for label in wanted if label in there), strict=False):
        if name != belongs:
            findings.note(Kind.column_order, f"{name} stands where {belongs} belongs")
