"""Check the cells of a submission row by row: what no scorer can read, and what looks wrong.

:class:`ProbabilityCheck` for the years with probabilities, :class:`TextCheck` for those with text. Each keeps a few
numbers for each column, whatever the number of rows. :class:`Resolution` finds scores that were rounded.
"""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from birdinfer.species import NO_CALL
from birdinfer.submission.formats import TRUTHS
from birdinfer.submission.problems import NAMED, Kind, Problems
from birdinfer.tables.cells import numbers_of
from birdinfer.typing import Float64, Index

_DIGITS = (0, 1, 2, 3)
_LOGIT_STEPS = (1.0, 0.5, 0.1, 0.05, 0.01)
_MIN_VALUES = 100
"""Number that has to agree: so many never lie on the finest grid by chance."""
_LOGIT_RANGE = 6.0
"""Beyond, seven digits of a probability do not determine its logit."""
_TOLERANCE = 0.05
"""Largest distance from the grid, in steps of it: the seventh digit moves a logit by less."""


class Resolution:
    """Finds whether all probabilities, or their logits, lie on a grid, since they were rounded."""

    def __init__(self) -> None:
        self._digits = list(_DIGITS)
        self._steps = list(_LOGIT_STEPS)
        self._n_values = 0
        self._n_logits = 0

    def add(self, values: Float64) -> None:
        """Check the next rows [rows, labels]; what is no probability is skipped."""
        if not self._digits and not self._steps:
            return
        flat = values[(values >= 0) & (values <= 1)]
        self._n_values += flat.size
        self._digits = [digits for digits in self._digits if _on_grid(flat, 10.0**-digits, 1e-6)]
        inner = flat[(flat > 0) & (flat < 1)]
        logits = np.log(inner) - np.log1p(-inner)
        logits = logits[np.abs(logits) < _LOGIT_RANGE]
        self._n_logits += logits.size
        self._steps = [step for step in self._steps if _on_grid(logits, step, _TOLERANCE)]

    def finish(self, problems: Problems) -> None:
        """Add the coarsest grid that holds all values."""
        if self._digits and self._n_values >= _MIN_VALUES:
            problems.note(Kind.few_digits, f"{self._digits[0]} behind the point")
        elif self._steps and self._n_logits >= _MIN_VALUES:
            problems.note(Kind.rounded_logits, f"steps of {self._steps[0]:g}")


def _on_grid(values: Float64, step: float, tolerance: float) -> bool:
    steps = values / step
    return bool((np.abs(steps - np.round(steps)) <= tolerance).all())


_BLOCK_ROWS = 256
_MIN_ROWS = 2
"""A single row is always constant."""
_NOT_A_NUMBER = frozenset({"nan", "na", "n/a", "<na>", "#n/a", "null", "none", "nat", "-nan"})
"""What pandas reads as NaN, in lower case."""
_NO_CONTENT = (Kind.empty, Kind.not_a_number)
"""Kinds for which the cell's content is not shown."""
_CODE = re.compile(r"[A-Za-z0-9]+")


class ValueCheck(Protocol):
    """Checks the values of one row after the other."""

    def add(self, row_id: str, cells: Sequence[str]) -> None:
        """Check the next row's cells [values]."""

    def finish(self) -> None:
        """End the rows."""


class ProbabilityCheck:
    """2023 to 2026: a probability for each species."""

    def __init__(self, names: Sequence[str], problems: Problems) -> None:
        self._names = names
        self._problems = problems
        self._row_ids: list[str] = []
        self._cells: list[str] = []
        self._first: Float64 | None = None
        self._is_constant = np.ones(len(names), np.bool_)
        self._n_rows = 0
        self._resolution = Resolution()

    def add(self, row_id: str, cells: Sequence[str]) -> None:
        """Check the next row's cells, one for each name."""
        self._row_ids.append(row_id)
        self._cells += cells
        if len(self._row_ids) == _BLOCK_ROWS:
            self._check_block()

    def finish(self) -> None:
        """Check the last rows, and all values together."""
        if self._row_ids:
            self._check_block()
        if self._n_rows < _MIN_ROWS or not self._names:
            return
        if self._is_constant.all():
            self._problems.note(Kind.all_equal, f"{self._n_rows} rows")
            return
        constant = [name for name, is_constant in zip(self._names, self._is_constant, strict=True) if is_constant]
        self._problems.note_all(Kind.constant_columns, constant)
        self._resolution.finish(self._problems)

    def _check_block(self) -> None:
        values = numbers_of(self._cells).reshape(len(self._row_ids), len(self._names))
        self._note_unreadable(np.flatnonzero(np.isnan(values)))
        self._note(Kind.infinite, np.flatnonzero(np.isinf(values)))
        self._note(Kind.outside, np.flatnonzero(np.isfinite(values) & ((values < 0) | (values > 1))))
        if self._first is None:
            self._first = values[0]
        self._is_constant &= (values == self._first).all(axis=0)
        self._resolution.add(values)
        self._n_rows += len(values)
        self._row_ids, self._cells = [], []

    def _note_unreadable(self, cells: Index) -> None:
        kinds = [_kind_of_no_number(self._cells[cell]) for cell in cells]
        for kind in dict.fromkeys(kinds):
            self._note(kind, cells[[each is kind for each in kinds]])

    def _note(self, kind: Kind, cells: Index) -> None:
        """Add cells of one kind; after the first ones they are only counted, since there may be millions."""
        for cell in cells[:NAMED]:
            row, column = divmod(int(cell), len(self._names))
            content = "" if kind in _NO_CONTENT else f" holds {self._cells[cell]}"
            self._problems.note(kind, f"{self._row_ids[row]}, {self._names[column]}{content}")
        if len(cells) > NAMED:
            self._problems.note(kind, "", len(cells) - NAMED)


class TextCheck:
    """2021 and 2022: one cell of text in each row."""

    def __init__(self, problem_of: Callable[[str], Kind | None], problems: Problems) -> None:
        """Start a check with :func:`list_problem` or :func:`truth_problem` for each cell."""
        self._problem_of = problem_of
        self._problems = problems
        self._n_rows = 0
        self._first: str | None = None
        self._is_constant = True

    def add(self, row_id: str, cells: Sequence[str]) -> None:
        """Check the next row's cell."""
        cell = cells[0]
        self._n_rows += 1
        if self._first is None:
            self._first = cell
        self._is_constant = self._is_constant and cell == self._first
        problem = self._problem_of(cell)
        if problem is not None:
            self._problems.note(problem, row_id if problem in _NO_CONTENT else f"{row_id} holds {cell}")

    def finish(self) -> None:
        """Check all cells together."""
        if self._is_constant and self._n_rows >= _MIN_ROWS:
            self._problems.note(Kind.all_equal, f"{self._n_rows} rows of {self._first}")


def list_problem(cell: str) -> Kind | None:
    """Find what is wrong with a cell of 2021: species with spaces between them, each once, or ``nocall``."""
    kind = _kind_of_no_number(cell)
    if kind in _NO_CONTENT:
        return kind
    codes = cell.split()
    is_list = all(map(_CODE.fullmatch, codes)) and len(set(codes)) == len(codes)
    return None if is_list and (codes == [NO_CALL] or NO_CALL not in codes) else Kind.not_a_list


def truth_problem(cell: str) -> Kind | None:
    """Find what is wrong with a cell of 2022: True or False."""
    if cell in TRUTHS:
        return None
    kind = _kind_of_no_number(cell)
    return kind if kind in _NO_CONTENT else Kind.not_a_truth


def _kind_of_no_number(cell: str) -> Kind:
    plain = cell.strip().lower()
    if not plain:
        return Kind.empty
    return Kind.not_a_number if plain in _NOT_A_NUMBER else Kind.text
