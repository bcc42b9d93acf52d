"""What can be wrong with a submission: every kind of problem as text, and the collection that a check fills.

In: a note for each problem, with its location. Out: one line for each kind, with the number, the first three, and what
Kaggle does with such a file, which itself only reports "Submission Scoring Error", whatever the reason.
"""

from enum import Enum, StrEnum
from typing import NamedTuple

from birdinfer.errors import printable

NAMED = 3
"""Number of each kind that are named; the others are counted."""
_MAX_NAME_CHARS = 80


class Outcome(Enum):
    """What Kaggle does with such a file."""

    refused = "Submission Scoring Error"
    misread = "may score it wrongly"
    scored = "scores it"


class Rule(NamedTuple):
    """A kind of problem as text."""

    text: str
    outcome: Outcome
    hint: str


class Kind(StrEnum):
    """What can be wrong, the worst first."""

    compressed = "compressed"
    not_text = "not_text"
    other_separator = "other_separator"
    no_rows = "no_rows"
    no_row_id = "no_row_id"
    labels_as_numbers = "labels_as_numbers"
    columns_missing = "columns_missing"
    columns_extra = "columns_extra"
    columns_doubled = "columns_doubled"
    index_column = "index_column"
    cells = "cells"
    prefix_twice = "prefix_twice"
    prefix_missing = "prefix_missing"
    file_ending = "file_ending"
    start = "start"
    between_rows = "between_rows"
    no_end = "no_end"
    grammar = "grammar"
    rows_missing = "rows_missing"
    rows_extra = "rows_extra"
    rows_doubled = "rows_doubled"
    empty = "empty"
    not_a_number = "not_a_number"
    infinite = "infinite"
    text = "text"
    not_a_truth = "not_a_truth"
    not_a_list = "not_a_list"
    outside = "outside"
    byte_order_mark = "byte_order_mark"
    column_order = "column_order"
    row_order = "row_order"
    all_equal = "all_equal"
    constant_columns = "constant_columns"
    rounded_logits = "rounded_logits"
    few_digits = "few_digits"


_REFUSED, _MISREAD, _SCORED = Outcome.refused, Outcome.misread, Outcome.scored
RULES = {
    Kind.compressed: Rule("compressed file", _REFUSED, "write plain text"),
    Kind.not_text: Rule("not a table of UTF-8 text", _REFUSED, "write UTF-8 text with commas"),
    Kind.other_separator: Rule("another separator than a comma", _REFUSED, "write commas"),
    Kind.byte_order_mark: Rule("byte order mark in front of the first column", _MISREAD, "write utf-8, not utf-8-sig"),
    Kind.no_rows: Rule("no rows", _REFUSED, "write every row of the sample"),
    Kind.no_row_id: Rule("no column row_id", _REFUSED, "name the first column row_id"),
    Kind.labels_as_numbers: Rule("labels read as numbers", _REFUSED, "read labels as text (dtype=str)"),
    Kind.columns_missing: Rule("columns missing", _REFUSED, "write every column of the sample"),
    Kind.columns_extra: Rule("columns that are not in the sample", _REFUSED, "leave them out"),
    Kind.columns_doubled: Rule("columns that stand more than once", _REFUSED, "write each once"),
    Kind.index_column: Rule("an index written as a column", _REFUSED, "write with index=False"),
    Kind.cells: Rule("rows with more or fewer cells than the header", _REFUSED, "write a cell for each column"),
    Kind.prefix_twice: Rule("soundscape_ put in front twice", _REFUSED, "take the file's name as it stands"),
    Kind.prefix_missing: Rule("soundscape_ left out", _REFUSED, "take the file's name as it stands"),
    Kind.file_ending: Rule("file endings in row ids", _REFUSED, "take the file's name without its ending"),
    Kind.start: Rule("row ids that end in second 0", _REFUSED, "count to the end of the window, not from its start"),
    Kind.between_rows: Rule("end seconds that are no multiple of 5", _REFUSED, "end rows at 5, 10, 15 ..."),
    Kind.no_end: Rule("row ids without an end second", _REFUSED, "end them in _<whole second>"),
    Kind.grammar: Rule("row ids in another form than the year's", _REFUSED, "write them as in the sample"),
    Kind.rows_missing: Rule("rows missing", _REFUSED, "write every row of the sample"),
    Kind.rows_extra: Rule("rows that are not in the sample", _REFUSED, "leave them out"),
    Kind.rows_doubled: Rule("rows that stand more than once", _REFUSED, "write each once"),
    Kind.empty: Rule("empty cells", _REFUSED, "fill them with a prior"),
    Kind.not_a_number: Rule("NaN", _REFUSED, "fill them with a prior"),
    Kind.infinite: Rule("infinite values", _REFUSED, "write probabilities"),
    Kind.text: Rule("text where a number is needed", _REFUSED, "write numbers with a decimal point"),
    Kind.outside: Rule("values outside 0 to 1", _MISREAD, "write probabilities, not logits"),
    Kind.not_a_truth: Rule("neither True nor False", _REFUSED, "write True or False"),
    Kind.not_a_list: Rule("not codes with spaces between, nor nocall alone", _REFUSED, "write codes, or nocall"),
    Kind.column_order: Rule("columns in another order", _MISREAD, "write them in the sample's order"),
    Kind.row_order: Rule("rows in another order", _MISREAD, "write them in the sample's order"),
    Kind.all_equal: Rule("all rows say the same", _SCORED, "is it the prior only, or no detection at all?"),
    Kind.constant_columns: Rule("columns that say the same in all rows", _SCORED, "each is worth 0.5 of ROC-AUC"),
    Kind.rounded_logits: Rule("values that are rounded logits", _SCORED, "keep seven digits: a rank metric sees ties"),
    Kind.few_digits: Rule("values of few digits", _SCORED, "keep seven digits: a rank metric sees ties"),
}


class Problem(NamedTuple):
    """One kind of error or warning of a submission."""

    kind: Kind
    n_times: int
    first: tuple[str, ...]
    """Location or content of the first three."""

    @property
    def is_error(self) -> bool:
        """Whether Kaggle would not score the file, or score it wrongly; else it is a warning."""
        return RULES[self.kind].outcome is not Outcome.scored

    def __str__(self) -> str:
        text, outcome, hint = RULES[self.kind]
        count = f"{self.n_times} x " if self.n_times > 1 else ""
        more = " ..." if self.n_times > len(self.first) else ""
        return f"{text}: {count}{'; '.join(self.first)}{more} - Kaggle: {outcome.value} - {hint}"


class Problems:
    """Collects problems; of each kind the number and the first three, so that it never grows."""

    def __init__(self) -> None:
        self._counts: dict[Kind, int] = {}
        self._first: dict[Kind, list[str]] = {}

    def note(self, kind: Kind, where: str, count: int = 1) -> None:
        """Add ``count`` problems of one kind; ``where`` is the location or content of the first of them, any text."""
        self._counts[kind] = self._counts.get(kind, 0) + count
        named = self._first.setdefault(kind, [])
        if len(named) < NAMED:
            named.append(_short(where))

    def note_all(self, kind: Kind, locations: list[str]) -> None:
        """Add a problem for each location."""
        for where in locations:
            self.note(kind, where)

    def __contains__(self, kind: Kind) -> bool:
        return kind in self._counts

    def worst_first(self) -> tuple[Problem, ...]:
        """Return each kind that was found once."""
        return tuple(Problem(kind, self._counts[kind], tuple(self._first[kind])) for kind in Kind if kind in self)


def _short(text: str) -> str:
    """Text that fits a line: a file's content may be endless or contain terminal commands."""
    plain = printable(text)
    return plain if len(plain) <= _MAX_NAME_CHARS else plain[: _MAX_NAME_CHARS - 3] + "..."
