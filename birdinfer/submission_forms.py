"""A submission of one shape -> another: probabilities, lists of what was heard (2021), or a truth a row (2022).

In: a table of any of the three, which tells its shape by its columns. Out: the file that ``birdinfer predict --year``
would have written of the same scores, for the cells are written by the same rules (:mod:`birdinfer.submission_shapes`).
Back goes only what a table still holds: what was heard becomes 1 and the rest 0, and who names only what was heard
needs a sample to know what else there was to hear.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError, MetadataError
from birdinfer.files import atomic_text, check_writable
from birdinfer.row_ids import RowId, make_row_id, parse_row_id, row_stem
from birdinfer.submission import Sample, read_sample
from birdinfer.submission_shapes import (
    NO_CALL,
    TRUTHS,
    check_shape,
    check_year,
    guess_year,
    heard,
    is_heard,
    is_wide,
    list_cell,
    number_cells,
    truth_cell,
    value_names,
)
from birdinfer.tables.csv_files import CsvWriter, csv_rows
from birdinfer.tables.score_table import ROW_ID, check_probabilities, read_scores

_NAMED = 3
_TRUE_FROM = 0.5
"""What was heard is 1 here, what was not is 0."""

Key = tuple[str, int]
"""A sound file's stem, and an end second."""


class Converted(NamedTuple):
    """What was made of what."""

    rows: int
    """That were written."""
    from_year: int
    """Whose shape the table had."""
    to_year: int


class _Scores(NamedTuple):
    """What a table of any shape says."""

    path: Path
    keys: list[Key]
    """Of the rows."""
    labels: tuple[str, ...]
    values: npt.NDArray[np.float64]
    """[rows, labels], in [0, 1]."""
    threshold: float
    """From where on a species is heard."""


def convert_submission(
    path: Path, output: Path, year: int, threshold: float = 0.5, sample: Path | None = None
) -> Converted:
    """Write a submission in another year's shape, atomically.

    Args:
        path: the submission.
        output: where to; may be ``path``.
        year: whose shape, 2021 to 2026.
        threshold: from what probability on a species counts as heard.
        sample: a sample_submission.csv of that year, whose rows and columns are written in its order; all rows and
            labels of the submission if None.

    Raises:
        InputNotFoundError: one of the files is not there.
        ConfigError: no such year, it has that shape already, or a sample is needed.
        MetadataError: a table is not as needed, or the sample asks for what the submission does not say.
        OutputError: it cannot be written.
    """
    check_year(year)
    wanted = read_sample(sample) if sample else None
    if wanted:
        check_shape(wanted.columns, wanted.row_ids, year, wanted.path)
    given = read_sample(path)
    from_year = guess_year(given.columns, given.row_ids)
    if from_year == year or (is_wide(from_year) and is_wide(year)):
        raise ConfigError("--year", f"{path} has the shape of {year} already", "choose a year of another shape")
    check_writable(output)
    # Where one side leaves out the date of a file's name, both have to.
    spelling_year = 2021 if 2021 in (from_year, year) else year
    scores = _read(given, from_year, threshold, wanted, year)
    row_of = _row_of(scores, spelling_year)
    rows = _sample_rows(wanted, row_of, scores, year, spelling_year) if wanted else _own_rows(row_of, scores, year)
    columns = wanted.columns if wanted and is_wide(year) else scores.labels
    return Converted(_write(output, scores, year, columns, rows), from_year, year)


def _read(given: Sample, from_year: int, threshold: float, wanted: Sample | None, year: int) -> _Scores:
    if is_wide(from_year):
        return _read_probabilities(given.path, threshold)
    if from_year == 2022:
        return _read_truths(given.path)
    if wanted is None:
        raise ConfigError("--sample", "is needed: lists name only what was heard", f"give the sample of {year}")
    return _read_lists(given.path, _labels_asked(wanted, year))


def _read_probabilities(path: Path, threshold: float) -> _Scores:
    table = read_scores(path)
    check_probabilities(table, "probabilities are needed, not logits")
    keys = [(row.stem, row.end_seconds) for row in (parse_row_id(text, 2026, path) for text in table.row_ids)]
    return _Scores(path, keys, tuple(table.labels), table.values, threshold)


def _read_truths(path: Path) -> _Scores:
    """Every row and species has to be there: what was not asked is not known."""
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
            raise MetadataError(path, f"row {text!r} is of a window and species that another row told of")
        found[place, column] = cell == TRUTHS[True]
    n_missing = len(row_of) * len(column_of) - len(found)
    if n_missing:
        what = f"lacks {n_missing} rows: not every species is told of in every window"
        raise MetadataError(path, what, "convert a table with a row for each file, species and end")
    values = np.zeros((len(row_of), len(column_of)))
    for (place, column), is_there in found.items():
        values[place, column] = is_there
    return _Scores(path, list(row_of), tuple(column_of), values, _TRUE_FROM)


def _read_lists(path: Path, labels: Sequence[str]) -> _Scores:
    column_of = {label: column for column, label in enumerate(labels)}
    keys: list[Key] = []
    heard_rows: list[list[int]] = []
    for text, cell in _cells(path):
        row = parse_row_id(text, 2021, path)
        named = [name for name in cell.split() if name != NO_CALL]
        unknown = [name for name in named if name not in column_of]
        if unknown or not cell.split():
            what = f"names {unknown[0]!r}, which the sample does not" if unknown else "is empty"
            raise MetadataError(path, f"row {text!r} {what}", "codes of species, or nocall")
        keys.append((row.stem, row.end_seconds))
        heard_rows.append([column_of[name] for name in named])
    values = np.zeros((len(keys), len(labels)))
    for row_values, columns in zip(values, heard_rows, strict=True):
        row_values[columns] = 1
    return _Scores(path, keys, tuple(labels), values, _TRUE_FROM)


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    """Row ids, and the one cell beside each."""
    with csv_rows(path) as rows:
        next(rows)
        for row in rows:
            if row and len(row) != 2:
                raise MetadataError(path, f"row {row[0]!r} has {len(row)} cells, the header 2")
            if row:
                yield row[0], row[1]


def _labels_asked(wanted: Sample, year: int) -> tuple[str, ...]:
    """The species that a sample speaks of."""
    if is_wide(year):
        return wanted.columns
    return tuple(dict.fromkeys(parse_row_id(text, year, wanted.path).label for text in wanted.row_ids))


def _row_of(scores: _Scores, spelling_year: int) -> dict[Key, int]:
    """Where the row of a file and second stands, as the year spells them."""
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
    wanted: Sample, row_of: dict[Key, int], scores: _Scores, year: int, spelling_year: int
) -> Iterator[tuple[RowId, int]]:
    """The sample's rows, each with where its scores stand; all are there, or nothing is written."""
    asked = [parse_row_id(text, year, wanted.path) for text in wanted.row_ids]
    places = [row_of.get((row_stem(row.stem, spelling_year), row.end_seconds)) for row in asked]
    _refuse_missing(
        scores, wanted, "rows", [row.text for row, place in zip(asked, places, strict=True) if place is None]
    )
    labels = _labels_asked(wanted, year) if year != 2021 else ()
    _refuse_missing(scores, wanted, "labels", [label for label in labels if label not in set(scores.labels)])
    return ((row, place) for row, place in zip(asked, places, strict=True) if place is not None)


def _refuse_missing(scores: _Scores, wanted: Sample, kind: str, missing: Sequence[str]) -> None:
    if missing:
        first = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise MetadataError(scores.path, f"lacks {len(missing)} {kind} that {wanted.path} asks for: {first}")


def _write(output: Path, scores: _Scores, year: int, columns: Sequence[str], rows: Iterator[tuple[RowId, int]]) -> int:
    """Write the table; how many rows it has."""
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
                cells = [list_cell(scores.labels, heard(values, scores.threshold).tolist())]
            else:
                cells = [truth_cell(is_heard(float(values[column_of[row_id.label]]), scores.threshold))]
            table.row(row_id.text, cells)
            n_rows += 1
    return n_rows
