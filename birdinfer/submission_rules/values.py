"""The cells of a submission, as they come -> what no scorer can read, and what is odd about them.

A class for each of the three shapes; each sees row after row and keeps a few numbers a column, whatever the length.
"""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from birdinfer.submission_rules.findings import NAMED, Findings, Kind
from birdinfer.submission_rules.resolution import Resolution
from birdinfer.submission_shapes import NO_CALL, TRUTHS
from birdinfer.tables.csv_files import numbers_of

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_BLOCK_ROWS = 256
_FEWEST_ROWS = 2
"""One row alone is like itself."""
_NOT_A_NUMBER = frozenset({"nan", "na", "n/a", "<na>", "#n/a", "null", "none", "nat", "-nan"})
"""What pandas takes for NaN, lower case."""
_HOLLOW = (Kind.empty, Kind.not_a_number)
"""Where there is nothing to show of a cell."""
_CODE = re.compile(r"[A-Za-z0-9]+")


class ValueCheck(Protocol):
    """Sees the values of one row after the other."""

    def see(self, row_id: str, cells: Sequence[str]) -> None:
        """The next row's cells [values]."""

    def finish(self) -> None:
        """No more rows come."""


class ProbabilityCheck:
    """2023 to 2026: a probability per species."""

    def __init__(self, names: Sequence[str], findings: Findings) -> None:
        """Begin.

        Args:
            names: of the columns whose cells come.
            findings: takes what is found.
        """
        self._names = names
        self._findings = findings
        self._row_ids: list[str] = []
        self._cells: list[str] = []
        self._first: Float64 | None = None
        self._is_constant = np.ones(len(names), np.bool_)
        self._n_rows = 0
        self._resolution = Resolution()

    def see(self, row_id: str, cells: Sequence[str]) -> None:
        """The next row's cells, one for each name."""
        self._row_ids.append(row_id)
        self._cells += cells
        if len(self._row_ids) == _BLOCK_ROWS:
            self._judge_block()

    def finish(self) -> None:
        """Judge what is left, and all values together."""
        if self._row_ids:
            self._judge_block()
        if self._n_rows < _FEWEST_ROWS or not self._names:
            return
        if self._is_constant.all():
            self._findings.note(Kind.all_equal, f"{self._n_rows} rows")
            return
        constant = [name for name, is_constant in zip(self._names, self._is_constant, strict=True) if is_constant]
        self._findings.note_all(Kind.constant_columns, constant)
        self._resolution.finish(self._findings)

    def _judge_block(self) -> None:
        values = numbers_of(self._cells).reshape(len(self._row_ids), len(self._names))
        self._note_unreadable(np.flatnonzero(np.isnan(values)))
        self._note(Kind.infinite, np.flatnonzero(np.isinf(values)))
        self._note(Kind.outside, np.flatnonzero(np.isfinite(values) & ((values < 0) | (values > 1))))
        if self._first is None:
            self._first = values[0]
        self._is_constant &= (values == self._first).all(axis=0)
        self._resolution.see(values)
        self._n_rows += len(values)
        self._row_ids, self._cells = [], []

    def _note_unreadable(self, places: Indices) -> None:
        """Cells that are no numbers, each by its kind."""
        kinds = [_why_no_number(self._cells[place]) for place in places]
        for kind in dict.fromkeys(kinds):
            self._note(kind, places[[each is kind for each in kinds]])

    def _note(self, kind: Kind, places: Indices) -> None:
        """Cells of one kind; all but the first are only counted, for there may be millions."""
        for place in places[:NAMED]:
            row, column = divmod(int(place), len(self._names))
            what = "" if kind in _HOLLOW else f" holds {self._cells[place]}"
            self._findings.note(kind, f"{self._row_ids[row]}, {self._names[column]}{what}")
        if len(places) > NAMED:
            self._findings.note(kind, "", len(places) - NAMED)


class TextCheck:
    """2021 and 2022: one cell of text a row."""

    def __init__(self, fault_of: Callable[[str], Kind | None], findings: Findings) -> None:
        """Begin.

        Args:
            fault_of: says what is wrong with a cell, :func:`list_fault` or :func:`truth_fault`.
            findings: takes what is found.
        """
        self._fault_of = fault_of
        self._findings = findings
        self._n_rows = 0
        self._first: str | None = None
        self._is_constant = True

    def see(self, row_id: str, cells: Sequence[str]) -> None:
        """The next row's cell."""
        cell = cells[0]
        self._n_rows += 1
        if self._first is None:
            self._first = cell
        self._is_constant = self._is_constant and cell == self._first
        fault = self._fault_of(cell)
        if fault is not None:
            self._findings.note(fault, row_id if fault in _HOLLOW else f"{row_id} holds {cell}")

    def finish(self) -> None:
        """No more rows come."""
        if self._is_constant and self._n_rows >= _FEWEST_ROWS:
            self._findings.note(Kind.all_equal, f"{self._n_rows} rows of {self._first}")


def list_fault(cell: str) -> Kind | None:
    """What keeps a cell of 2021 from being species with spaces between them, each once, or ``nocall``."""
    why = _why_no_number(cell)
    if why in _HOLLOW:
        return why
    codes = cell.split()
    is_list = all(map(_CODE.fullmatch, codes)) and len(set(codes)) == len(codes)
    return None if is_list and (codes == [NO_CALL] or NO_CALL not in codes) else Kind.not_a_list


def truth_fault(cell: str) -> Kind | None:
    """What keeps a cell of 2022 from being True or False."""
    if cell in TRUTHS:
        return None
    why = _why_no_number(cell)
    return why if why in _HOLLOW else Kind.not_a_truth


def _why_no_number(cell: str) -> Kind:
    """Nothing, what stands for nothing, or text."""
    plain = cell.strip().lower()
    if not plain:
        return Kind.empty
    return Kind.not_a_number if plain in _NOT_A_NUMBER else Kind.text
