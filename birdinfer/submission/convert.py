"""Convert a submission to another year's format: probabilities, lists of detections (2021), or True and False (2022).

In: a table in any of the three, which is recognised by its columns. Out: the file that ``birdinfer predict --year``
would have written for the same scores, since both write cells with :mod:`birdinfer.submission.formats`. Converting back
restores only what a table still holds: detections become 1 and everything else 0, and lists of detections need a sample
that names the other species.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import ConfigError, MetadataError
from birdinfer.species import NO_CALL
from birdinfer.submission.formats import (
    TRUTHS,
    Sample,
    check_shape,
    check_year,
    detected,
    guess_year,
    is_detected,
    is_wide,
    list_cell,
    number_cells,
    read_sample,
    truth_cell,
    value_names,
)
from birdinfer.system.files import atomic_text
from birdinfer.system.outputs import SCORES, check_outputs
from birdinfer.tables.cells import near_miss
from birdinfer.tables.csv import CsvWriter, csv_rows
from birdinfer.tables.row_ids import RowId, make_row_id, parse_row_id, row_stem
from birdinfer.tables.scores import ROW_ID, check_probabilities, read_scores
from birdinfer.typing import Float64

_NAMED = 3
_TRUE_FROM = 0.5
"""For tables in which detections are 1 and everything else 0."""

Key = tuple[str, int]
"""A file id, and an end second."""


class Converted(NamedTuple):
    """The result of a conversion."""

    rows: int
    from_year: int
    to_year: int


@dataclass(frozen=True, slots=True)
class _Scores:
    path: Path
    keys: list[Key]
    labels: tuple[str, ...]
    values: Float64
    """[rows, labels], in [0, 1]."""
    threshold: float
    """Probability from which on a species counts as detected."""


def convert_submission(
    path: Path, output: Path, year: int, threshold: float = 0.5, sample: Path | None = None, force: bool = False
) -> Converted:
    """Write a submission in another year's format, atomically.

    ``output``: the file to write.
    ``threshold``: probability from which on a species counts as detected.
    ``sample``: a sample_submission.csv of that year, whose rows and columns are written in its order; all rows and
    labels of the submission if None.
    ``force``: replace an output that birdinfer has not written.

    Raises:
        InputNotFoundError: one of the files does not exist.
        ConfigError: no such year, the submission has that format already, or a sample is needed.
        MetadataError: a table is damaged, or the sample has rows or columns that the submission lacks.
        OutputError: it cannot be written.
    """
    check_year(year)
    check_outputs([(output, SCORES)], [path, *([sample] if sample else [])], force=force)
    expected = read_sample(sample) if sample else None
    if expected:
        check_shape(expected.columns, expected.row_ids, year, expected.path)
    given = read_sample(path)
    from_year = guess_year(given.columns, given.row_ids)
    if from_year == year or (is_wide(from_year) and is_wide(year)):
        raise ConfigError("--year", f"{path} has the format of {year} already", "choose a year with another format")
    # If one of the formats leaves out the date of a file's name, so must the other.
    spelling_year = 2021 if 2021 in (from_year, year) else year
    scores = _read(given, from_year, threshold, expected, year)
    row_of = _row_of(scores, spelling_year)
    rows = _sample_rows(expected, row_of, scores, year, spelling_year) if expected else _own_rows(row_of, scores, year)
    columns = expected.columns if expected and is_wide(year) else scores.labels
    return Converted(_write(output, scores, year, columns, rows), from_year, year)


def _read(given: Sample, from_year: int, threshold: float, expected: Sample | None, year: int) -> _Scores:
    if is_wide(from_year):
        return _read_probabilities(given.path, threshold)
    if from_year == 2022:
        return _read_truths(given.path)
    if expected is None:
        raise ConfigError("--sample", "is needed: lists name only the species detected", f"give the sample of {year}")
    return _read_lists(given.path, _labels_asked(expected, year))


def _read_probabilities(path: Path, threshold: float) -> _Scores:
    table = read_scores(path)
    check_probabilities(table, "probabilities are needed, not logits")
    keys = [(row.stem, row.end_seconds) for row in (parse_row_id(text, 2026, path) for text in table.row_ids)]
    return _Scores(path, keys, tuple(table.labels), table.values, threshold)


def _read_truths(path: Path) -> _Scores:
    """Read a table of 2022; every species has to be in every window, since the others would be unknown."""
    row_of: dict[Key, int] = {}
    column_of: dict[str, int] = {}
    found: dict[tuple[int, int], bool] = {}
    for text, cell in _cells(path):
        row = parse_row_id(text, 2022, path)
        if cell not in TRUTHS:
            raise MetadataError(path, f"row {text!r} holds {cell!r}", "True or False is needed")
        place = row_of.setdefault((row.stem, row.end_seconds), len(row_of))
        column = column_of.setdefault(row.label, len(column_of))
        if (place, column) in found:
            raise MetadataError(path, f"row {text!r} is about the window and species of another row")
        found[place, column] = cell == TRUTHS[True]
    n_missing = len(row_of) * len(column_of) - len(found)
    if n_missing:
        what = f"lacks {n_missing} rows: not every species is in every window"
        raise MetadataError(path, what, "convert a table with a row for each file, species and end")
    values = np.zeros((len(row_of), len(column_of)))
    for (place, column), is_there in found.items():
        values[place, column] = is_there
    return _Scores(path, list(row_of), tuple(column_of), values, _TRUE_FROM)


def _read_lists(path: Path, labels: Sequence[str]) -> _Scores:
    column_of = {label: column for column, label in enumerate(labels)}
    keys: list[Key] = []
    detected_columns: list[list[int]] = []
    for text, cell in _cells(path):
        row = parse_row_id(text, 2021, path)
        named = [name for name in cell.split() if name != NO_CALL]
        unknown = [name for name in named if name not in column_of]
        if unknown or not cell.split():
            near = near_miss(unknown[0], labels) if unknown else ""
            what = f"names {unknown[0]!r}, {near or 'which the sample does not'}" if unknown else "is empty"
            raise MetadataError(path, f"row {text!r} {what}", "codes of species, or nocall")
        keys.append((row.stem, row.end_seconds))
        detected_columns.append([column_of[name] for name in named])
    values = np.zeros((len(keys), len(labels)))
    for row_values, columns in zip(values, detected_columns, strict=True):
        row_values[columns] = 1
    return _Scores(path, keys, tuple(labels), values, _TRUE_FROM)


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    with csv_rows(path, needed=[ROW_ID]) as rows:
        next(rows)
        for row in rows:
            if row:
                yield row[0], row[1]


def _labels_asked(expected: Sample, year: int) -> tuple[str, ...]:
    if is_wide(year):
        return expected.columns
    return tuple(dict.fromkeys(parse_row_id(text, year, expected.path).label for text in expected.row_ids))


def _row_of(scores: _Scores, spelling_year: int) -> dict[Key, int]:
    """Index of the row of each file and second, in the year's spelling."""
    row_of: dict[Key, int] = {}
    for row, (stem, end) in enumerate(scores.keys):
        other = row_of.setdefault((row_stem(stem, spelling_year), end), row)
        if other != row:
            both = f"{scores.keys[other][0]!r} and {stem!r} at second {end}"
            raise MetadataError(scores.path, f"rows of {both} would have one row id", "convert them one by one")
    return row_of


def _own_rows(row_of: dict[Key, int], scores: _Scores, year: int) -> Iterator[tuple[RowId, int]]:
    for (stem, end), row in row_of.items():
        for label in scores.labels if year == 2022 else ("",):
            yield make_row_id(stem, end, label), row


def _sample_rows(
    expected: Sample, row_of: dict[Key, int], scores: _Scores, year: int, spelling_year: int
) -> Iterator[tuple[RowId, int]]:
    """The sample's rows, each with the index of its scores; refused if any is missing."""
    asked = [parse_row_id(text, year, expected.path) for text in expected.row_ids]
    places = [row_of.get((row_stem(row.stem, spelling_year), row.end_seconds)) for row in asked]
    _refuse_missing(
        scores, expected, "rows", [row.text for row, place in zip(asked, places, strict=True) if place is None]
    )
    labels = _labels_asked(expected, year) if year != 2021 else ()
    _refuse_missing(scores, expected, "labels", [label for label in labels if label not in set(scores.labels)])
    return ((row, place) for row, place in zip(asked, places, strict=True) if place is not None)


def _refuse_missing(scores: _Scores, expected: Sample, kind: str, missing: Sequence[str]) -> None:
    if missing:
        first = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise MetadataError(scores.path, f"lacks {len(missing)} {kind} that {expected.path} asks for: {first}")


def _write(output: Path, scores: _Scores, year: int, columns: Sequence[str], rows: Iterator[tuple[RowId, int]]) -> int:
    column_of = {label: column for column, label in enumerate(scores.labels)}
    picked = [column_of[label] for label in columns]
    n_rows = 0
    with atomic_text(output) as text:
        table = CsvWriter(text)
        table.row(ROW_ID, value_names(year, columns))
        for row_id, row in rows:
            values = scores.values[row]
            if is_wide(year):
                cells = number_cells(values[picked])
            elif year == 2021:
                cells = [list_cell(scores.labels, detected(values, scores.threshold).tolist())]
            else:
                cells = [truth_cell(is_detected(float(values[column_of[row_id.label]]), scores.threshold))]
            table.row(row_id.text, cells)
            n_rows += 1
    return n_rows
