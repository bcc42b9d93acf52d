"""Check a submission: find everything that is wrong with it in one pass.

In: a file of any kind; sample_submission.csv, a year, or neither. Out: a :class:`Report`. The file is read row by row;
only row ids and a few hundred rows of cells are kept. :func:`plain_rows` reads the rows, :func:`check_columns` the
header, :class:`RowCheck` the row ids, and :mod:`birdinfer.submission.values` the cells.
"""

import codecs
import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path

from birdinfer.errors import MetadataError
from birdinfer.submission.formats import Sample, check_shape, check_year, guess_year, is_wide, read_sample, value_names
from birdinfer.submission.problems import Kind, Problem, Problems
from birdinfer.submission.values import ProbabilityCheck, TextCheck, ValueCheck, list_problem, truth_problem
from birdinfer.system.text import encoding_of
from birdinfer.tables.cells import number_of
from birdinfer.tables.csv import packed_as, raw_rows, read_head
from birdinfer.tables.row_ids import Misspelling, misspelling
from birdinfer.tables.scores import ROW_ID

_INDEX = re.compile(r"(?:Unnamed: [0-9.]+|index|level_0)?")
"""Names that pandas gives to a table's index if it writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The columns of a row."""

    n_cells: int
    row_id: int | None
    """Index of ``row_id``; None if there is none."""
    values: tuple[int, ...]
    names: tuple[str, ...]


def check_columns(header: Sequence[str], expected: Sequence[str] | None, problems: Problems) -> Columns:
    """Find the columns and add their problems; ``expected`` are those beside ``row_id``, None: any."""
    given = [name for name in header if name != ROW_ID]
    if ROW_ID not in header:
        problems.note(Kind.no_row_id, "the first is " + (repr(header[0]) if header else "missing"))
    if expected is None:
        expected = tuple(dict.fromkeys(name for name in given if not _INDEX.fullmatch(name)))
    asked = {name: name for name in expected}
    missing = [name for name in expected if name not in set(given)]
    extra = [name for name in given if name not in asked]
    indices = [name for name in extra if _INDEX.fullmatch(name)]
    as_numbers = _labels_as_numbers(missing, extra)
    asked |= as_numbers
    problems.note_all(Kind.labels_as_numbers, [f"{name!r} for {label!r}" for name, label in as_numbers.items()])
    problems.note_all(Kind.index_column, [repr(name) for name in indices])
    problems.note_all(Kind.columns_missing, [name for name in missing if name not in as_numbers.values()])
    problems.note_all(Kind.columns_extra, [name for name in extra if name not in indices and name not in as_numbers])
    problems.note_all(Kind.columns_doubled, [name for name, times in Counter(header).items() if times > 1])
    index_of = {name: index for index, name in reversed(list(enumerate(header))) if name in asked}
    _check_order(header, [asked[name] for name in sorted(index_of, key=index_of.__getitem__)], expected, problems)
    values = tuple(sorted(index_of.values()))
    row_id = header.index(ROW_ID) if ROW_ID in header else None
    return Columns(n_cells=len(header), row_id=row_id, values=values, names=tuple(header[index] for index in values))


def _labels_as_numbers(missing: Sequence[str], extra: Sequence[str]) -> dict[str, str]:
    """Columns that are a missing label in another spelling, ``12`` or ``12.0`` for ``0012``; name -> label."""
    by_number = {number_of(label): label for label in missing if label.isdecimal()}
    return {name: by_number[number_of(name)] for name in extra if number_of(name) in by_number}


def _check_order(header: Sequence[str], given: Sequence[str], expected: Sequence[str], problems: Problems) -> None:
    """Check that ``row_id`` is first, except for an index, and the others have the expected order."""
    before = header[: header.index(ROW_ID)] if ROW_ID in header else []
    if not all(_INDEX.fullmatch(name) for name in before):
        problems.note(Kind.column_order, f"row_id is column {len(before) + 1}")
    there = set(given)
    for name, belongs in zip(given, (label for label in expected if label in there), strict=False):
        if name != belongs:
            problems.note(Kind.column_order, f"{name} stands where {belongs} belongs")


_SEPARATOR_LINES = (b"sep=", b'"sep=')


@contextlib.contextmanager
def plain_rows(path: Path, problems: Problems) -> Iterator[Iterator[list[str]]]:
    """Open a submission to be read row by row, the header first; blank lines are left out.

    Rows end where the file cannot be read further, which is added to the problems.
    """
    head = read_head(path)
    encoding, packed = encoding_of(head), packed_as(head)
    if packed:
        problems.note(Kind.compressed, packed)
    elif not encoding.startswith("utf-8"):
        problems.note(Kind.not_text, encoding.upper())
    if packed or not encoding.startswith("utf-8"):
        yield iter(())
        return
    if head.startswith(codecs.BOM_UTF8):
        problems.note(Kind.byte_order_mark, "EF BB BF")
    if head.removeprefix(codecs.BOM_UTF8).lower().startswith(_SEPARATOR_LINES):
        problems.note(Kind.other_separator, "the first line names one")
    yield _rows(path, problems)


def _rows(path: Path, problems: Problems) -> Iterator[list[str]]:
    try:
        with raw_rows(path) as rows:
            if rows.separator != ",":
                problems.note(Kind.other_separator, repr(rows.separator))
            yield from rows
    except MetadataError as error:
        problems.note(Kind.not_text, error.what)


class RowCheck:
    """Checks row ids one after the other: missing, extra and doubled rows, another order, wrong spelling."""

    def __init__(self, expected: Sequence[str] | None, year: int, problems: Problems) -> None:
        """Start a check; ``expected`` are the sample's row ids in its order, None: any in the year's grammar."""
        self._expected = expected
        self._index_of = {row_id: index for index, row_id in enumerate(expected or ())}
        self._is_there = bytearray(len(self._index_of))
        self._others: set[str] = set()
        self._last = -1
        self._with_ending: dict[str, dict[str, str]] = {}  # a name without ending -> each ending -> the first row id
        self._year = year
        self._problems = problems

    def add(self, row_id: str) -> None:
        """Check the next row's id."""
        index = self._index_of.get(row_id)
        if index is None:
            self._add_other(row_id)
        elif self._is_there[index]:
            self._problems.note(Kind.rows_doubled, row_id)
        else:
            self._is_there[index] = True
            if index < self._last:
                self._problems.note(Kind.row_order, row_id)
            self._last = max(self._last, index)

    def finish(self) -> None:
        """End the rows: those that did not come are missing; endings that keep two recordings apart belong there."""
        for rows in self._with_ending.values():
            if len(rows) == 1 or self._expected is not None:
                self._problems.note_all(Kind.file_ending, list(rows.values()))
        if self._expected is None:
            return
        missing = [row_id for row_id, is_there in zip(self._expected, self._is_there, strict=True) if not is_there]
        self._problems.note_all(Kind.rows_missing, missing)

    def _add_other(self, row_id: str) -> None:
        if row_id in self._others:
            self._problems.note(Kind.rows_doubled, row_id)
            return
        self._others.add(row_id)
        if self._expected is not None:
            self._problems.note(Kind.rows_extra, row_id)
        wrong = misspelling(row_id, self._year)
        if wrong is Misspelling.file_ending:
            name, _, ending = row_id.rpartition("_")[0].rpartition(".")
            self._with_ending.setdefault(name, {}).setdefault(ending, row_id)
        elif wrong is not None:
            self._problems.note(Kind[wrong.name], row_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of a check."""

    path: Path
    year: int
    """Of the format that was checked for."""
    is_year_guessed: bool
    n_rows: int
    """Without the header."""
    n_columns: int
    """Without ``row_id``."""
    problems: tuple[Problem, ...]
    """The worst first."""

    @property
    def is_ok(self) -> bool:
        """Whether there is no error; there may be warnings."""
        return not any(problem.is_error for problem in self.problems)


def check_submission(path: Path, sample: Path | None = None, year: int | None = None) -> Report:
    r"""Find everything that is wrong with a submission.

    ``sample``: sample_submission.csv, whose rows and columns are expected in its order; without it row ids are only
    compared with the year's grammar.
    ``year``: 2021 to 2026; guessed from the sample's columns, or the submission's own, if None.

    Raises:
        InputNotFoundError: one of the files does not exist.
        MetadataError: the sample is damaged, or in another year's format.
        ConfigError: there is no such year.

    >>> submission = Path("submission.csv")
    >>> _ = submission.write_text("row_id,0012\nsoundscape_7_5,0.5\nsoundscape_7_10,NaN\n")
    >>> for problem in check_submission(submission, year=2025).problems:
    ...     print(problem)
    NaN: soundscape_7_10, 0012 - Kaggle: Submission Scoring Error - fill them with a prior
    """
    if year is not None:
        check_year(year)
    expected = read_sample(sample) if sample else None
    is_guessed, problems = year is None, Problems()
    with plain_rows(path, problems) as rows:
        header = next(rows, [])
        first, rows = _with_first(rows)
        year = year or _guess(expected, header, first)
        if expected:
            check_shape(expected.columns, expected.row_ids, year, expected.path)
        n_rows = _Check(header, expected, year, problems).run(rows) if header else 0
    if not n_rows and Kind.compressed not in problems and Kind.not_text not in problems:
        problems.note(Kind.no_rows, "the file is empty" if not header else "there is only a header")
    n_columns = len(header) - (ROW_ID in header)
    return Report(
        path=path,
        year=year,
        is_year_guessed=is_guessed,
        n_rows=n_rows,
        n_columns=n_columns,
        problems=problems.worst_first(),
    )


class _Check:
    def __init__(self, header: list[str], expected: Sample | None, year: int, problems: Problems) -> None:
        names = expected.columns if expected else None if is_wide(year) else value_names(year, ())
        self._problems = problems
        self._columns = check_columns(header, names, problems)
        self._rows = RowCheck(expected.row_ids if expected else None, year, problems)
        self._values = _value_check(year, self._columns, problems)

    def run(self, rows: Iterator[list[str]]) -> int:
        n_rows = 0
        n_cells, id_index, names = self._columns.n_cells, self._columns.row_id, self._columns.names
        pick = itemgetter(*self._columns.values) if names else None
        for n_rows, row in enumerate(rows, start=1):
            row_id = row[id_index] if id_index is not None and id_index < len(row) else f"row {n_rows}"
            if id_index is not None:
                self._rows.add(row_id)
            if len(row) != n_cells:
                self._problems.note(Kind.cells, f"{row_id} has {len(row)}, not {n_cells}")
            elif pick is not None:
                self._values.add(row_id, pick(row) if len(names) > 1 else (pick(row),))
        if id_index is not None:
            self._rows.finish()
        self._values.finish()
        return n_rows


def _value_check(year: int, columns: Columns, problems: Problems) -> ValueCheck:
    if is_wide(year):
        return ProbabilityCheck(columns.names, problems)
    return TextCheck(list_problem if year == 2021 else truth_problem, problems)


def _with_first(rows: Iterator[list[str]]) -> tuple[str, Iterator[list[str]]]:
    """The first cell of the first row, perhaps its id, and all rows."""
    row = next(rows, None)
    return ("", rows) if row is None else (row[0], chain([row], rows))


def _guess(expected: Sample | None, header: list[str], first: str) -> int:
    if expected:
        return guess_year(expected.columns, expected.row_ids)
    return guess_year([name for name in header if name != ROW_ID], [first])
