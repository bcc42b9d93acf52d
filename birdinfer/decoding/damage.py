"""What is found wrong with a file while it is read -> one status and one line.

In: findings, each with the status that it alone would give, and gaps in seconds. Out: the worst of the statuses, and
all findings in the order in which they were made, joined by "; ".
"""

from birdinfer.status import Status

_SEVERITY = {status: place for place, status in enumerate(Status)}


class Damage:
    """Findings on one file."""

    def __init__(self) -> None:
        self._findings: list[tuple[Status, str]] = []
        self._n_gaps = 0
        self._gap_seconds = self._first_gap_at = 0.0

    def note(self, status: Status, what: str) -> None:
        """Add a finding; one that was made before is not repeated."""
        if (status, what) not in self._findings:
            self._findings.append((status, what))

    def gap(self, at_seconds: float, seconds: float) -> None:
        """Add a stretch that is missing; however many there are, they become one finding."""
        if not self._n_gaps:
            self._first_gap_at = at_seconds
        self._n_gaps += 1
        self._gap_seconds += seconds

    @property
    def status(self) -> Status:
        """The worst."""
        found = [status for status, _ in self._all()]
        return max(found, key=_SEVERITY.__getitem__, default=Status.ok)

    @property
    def text(self) -> str:
        """All of it in one line, "" where nothing is wrong."""
        return "; ".join(what for _, what in self._all())

    def _all(self) -> list[tuple[Status, str]]:
        if not self._n_gaps:
            return self._findings
        where = f"at {self._first_gap_at:.1f} s"
        if self._n_gaps > 1:
            where = f"in {self._n_gaps} gaps, the first {where}"
        gaps = f"{seconds_apart(self._gap_seconds)} s missing {where}, taken as silence"
        return [(Status.damaged, gaps), *self._findings]


def seconds_apart(seconds: float, other: float = 0.0) -> str:
    """Seconds with as few decimals, one at least, as tell them from others: ``0.02`` from 0, ``1.98`` from 2."""
    return next(
        (text for text in (f"{seconds:.{places}f}" for places in range(1, 7)) if float(text) != _shown(other, text)),
        f"{seconds:.6f}",
    )


def truncated(heard_seconds: float, expected_seconds: float | None) -> str:
    """``truncated: 23.4 of 60.0 s``, or ``truncated after 23.4 s`` where nobody knows of how many."""
    if expected_seconds is None:
        return f"truncated after {heard_seconds:.1f} s"
    heard = seconds_apart(heard_seconds, expected_seconds)
    return f"truncated: {heard} of {_shown(expected_seconds, heard):.{_places(heard)}f} s"


def _shown(seconds: float, like: str) -> float:
    """Seconds rounded to the decimals of a text."""
    return round(seconds, _places(like))


def _places(text: str) -> int:
    return len(text.rpartition(".")[2])
