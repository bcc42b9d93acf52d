"""A submission and its sample -> all that is wrong with it, in one pass.

In: a file that may be anything; sample_submission.csv, a year, or neither. Out: a report. The file is read row by row:
what is kept are row ids, and a few hundred rows of cells at a time.
"""

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from birdinfer.submission import Sample, read_sample
from birdinfer.submission_rules.columns import Columns, check_columns
from birdinfer.submission_rules.findings import Finding, Findings, Kind
from birdinfer.submission_rules.plain_text import plain_rows
from birdinfer.submission_rules.rows import RowCheck
from birdinfer.submission_rules.values import ProbabilityCheck, TextCheck, ValueCheck, list_fault, truth_fault
from birdinfer.submission_shapes import check_shape, check_year, guess_year, is_wide, value_names
from birdinfer.tables.score_table import ROW_ID


class Report(NamedTuple):
    """What a check found."""

    path: Path
    year: int
    """Whose shape was looked for."""
    is_year_guessed: bool
    n_rows: int
    """Below the header."""
    n_columns: int
    """But ``row_id``."""
    findings: tuple[Finding, ...]
    """The worst first."""

    @property
    def is_good(self) -> bool:
        """Whether there is no fault; there may be warnings."""
        return not any(finding.is_fault for finding in self.findings)


def check_submission(path: Path, sample: Path | None = None, year: int | None = None) -> Report:
    """Find all that is wrong with a submission.

    Args:
        path: the submission, a file of any kind.
        sample: sample_submission.csv, whose rows and columns are wanted in its order; without it rows are only held
            against the year's grammar.
        year: 2021 to 2026; guessed from the sample's shape, or the submission's own, if None.

    Raises:
        InputNotFoundError: one of the files is not there.
        MetadataError: the sample is damaged, or of another year's shape.
        ConfigError: there is no such year.
    """
    if year is not None:
        check_year(year)
    wanted = read_sample(sample) if sample else None
    is_guessed, findings = year is None, Findings()
    with plain_rows(path, findings) as rows:
        header = next(rows, [])
        first, rows = _with_first(rows)
        year = year or _guess(wanted, header, first)
        if wanted:
            check_shape(wanted.columns, wanted.row_ids, year, wanted.path)
        n_rows = _Check(header, wanted, year, findings).run(rows) if header else 0
    if not n_rows and Kind.compressed not in findings and Kind.not_text not in findings:
        findings.note(Kind.no_rows, "the file is empty" if not header else "there is only a header")
    n_columns = len(header) - (ROW_ID in header)
    return Report(path, year, is_guessed, n_rows, n_columns, findings.worst_first())


class _Check:
    """One pass over the rows below a header."""

    def __init__(self, header: list[str], wanted: Sample | None, year: int, findings: Findings) -> None:
        names = wanted.columns if wanted else None if is_wide(year) else value_names(year, ())
        self._findings = findings
        self._columns = check_columns(header, names, findings)
        self._rows = RowCheck(wanted.row_ids if wanted else None, year, findings)
        self._values = _value_check(year, self._columns, findings)

    def run(self, rows: Iterator[list[str]]) -> int:
        """See all rows; how many there were."""
        n_rows = 0
        n_cells, place, names = self._columns.n_cells, self._columns.row_id, self._columns.names
        pick = itemgetter(*self._columns.values) if names else None
        for n_rows, row in enumerate(rows, start=1):
            row_id = row[place] if place is not None and place < len(row) else f"row {n_rows}"
            if place is not None:
                self._rows.see(row_id)
            if len(row) != n_cells:
                self._findings.note(Kind.cells, f"{row_id} has {len(row)}, not {n_cells}")
            elif pick is not None:
                self._values.see(row_id, pick(row) if len(names) > 1 else (pick(row),))
        if place is not None:
            self._rows.finish()
        self._values.finish()
        return n_rows


def _value_check(year: int, columns: Columns, findings: Findings) -> ValueCheck:
    if is_wide(year):
        return ProbabilityCheck(columns.names, findings)
    return TextCheck(list_fault if year == 2021 else truth_fault, findings)


def _with_first(rows: Iterator[list[str]]) -> tuple[str, Iterator[list[str]]]:
    """A cell of the first row that may be its id, and all rows."""
    row = next(rows, None)
    return ("", rows) if row is None else (row[0], chain([row], rows))


def _guess(wanted: Sample | None, header: list[str], first: str) -> int:
    if wanted:
        return guess_year(wanted.columns, wanted.row_ids)
    return guess_year([name for name in header if name != ROW_ID], [first])
