"""The row ids of a submission, as they come -> missing, extra and doubled rows, another order, wrong spelling.

Memory: the sample's row ids and those that are not in it, nothing of the values.
"""

from collections.abc import Sequence

from birdinfer.row_ids import Misspelling, misspelling
from birdinfer.submission_rules.findings import Findings, Kind

_KINDS = {
    Misspelling.no_end: Kind.no_end,
    Misspelling.prefix_twice: Kind.prefix_twice,
    Misspelling.prefix_missing: Kind.prefix_missing,
    Misspelling.file_ending: Kind.file_ending,
    Misspelling.start: Kind.start,
    Misspelling.between_rows: Kind.between_rows,
    Misspelling.grammar: Kind.grammar,
}


class RowCheck:
    """Sees one row id after the other."""

    def __init__(self, wanted: Sequence[str] | None, year: int, findings: Findings) -> None:
        """Begin.

        Args:
            wanted: the row ids of the sample, in its order; None: any that are spelt as the year's.
            year: whose grammar; a row of the sample is right as it stands.
            findings: takes what is found.
        """
        self._wanted = wanted
        self._place_of = {row_id: place for place, row_id in enumerate(wanted or ())}
        self._is_there = bytearray(len(self._place_of))
        self._others: set[str] = set()
        self._last = -1
        self._year = year
        self._findings = findings

    def see(self, row_id: str) -> None:
        """The next row's id."""
        place = self._place_of.get(row_id)
        if place is None:
            self._see_other(row_id)
        elif self._is_there[place]:
            self._findings.note(Kind.rows_doubled, row_id)
        else:
            self._is_there[place] = True
            if place < self._last:
                self._findings.note(Kind.row_order, row_id)
            self._last = max(self._last, place)

    def finish(self) -> None:
        """No more rows come: those that did not come are missing."""
        if self._wanted is None:
            return
        missing = [row_id for row_id, is_there in zip(self._wanted, self._is_there, strict=True) if not is_there]
        self._findings.note_all(Kind.rows_missing, missing)

    def _see_other(self, row_id: str) -> None:
        """A row that the sample does not have."""
        if row_id in self._others:
            self._findings.note(Kind.rows_doubled, row_id)
            return
        self._others.add(row_id)
        if self._wanted is not None:
            self._findings.note(Kind.rows_extra, row_id)
        wrong = misspelling(row_id, self._year)
        if wrong is not None:
            self._findings.note(_KINDS[wrong], row_id)
