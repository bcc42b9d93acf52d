"""The table under the result's name and the side table beside it: whose they are, how old, how long they take to write.

In: the rows of a run and what became of its files. Out: both tables on the disk, one after the other.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birdinfer.soundscapes import SoundscapeResult
    from birdinfer.spool import ScoreSpool
    from birdinfer.submission import SubmissionWriter, Written


class Tables:
    """What a prediction writes, now and then and at its end."""

    _RENEWAL_SECONDS = 30.0
    """Tables that grow are written anew this often at most"""
    _RENEWAL_TIMES = 50
    """and after so many times the time that it takes."""

    def __init__(self, output: Path, writer: "SubmissionWriter") -> None:
        """Find out before hours of work, not after, whether they can be written.

        Raises:
            OutputError: they cannot.
        """
        from birdinfer.cli.prediction_report import report_path
        from birdinfer.files import check_writable

        self.output, self.report = output, report_path(output)
        check_writable(self.output)
        check_writable(self.report)
        self._writer = writer
        self.is_own = False
        """Whether this run has written them."""
        self.write_seconds = 0.0
        """What that took the last time."""
        self._written = perf_counter()

    def tidy(self) -> None:
        """Remove what runs that were killed while they wrote have left; for who alone may write here."""
        from birdinfer.files import remove_leftovers

        for table in (self.output, self.report):
            remove_leftovers(table)

    def write(self, spool: "ScoreSpool", results: "Sequence[SoundscapeResult]") -> "Written":
        """Write both, each whole or not at all.

        Raises:
            OutputError: the disk does not take them.
        """
        from birdinfer.submission import write_file_report

        began = perf_counter()
        written = self._writer.write(self.output, spool, results)
        write_file_report(self.report, results)
        self._written = perf_counter()
        self.is_own, self.write_seconds = True, self._written - began
        return written

    def is_stale(self) -> bool:
        """Whether it is time to write them anew."""
        age = perf_counter() - self._written
        return age > max(self._RENEWAL_SECONDS, self._RENEWAL_TIMES * self.write_seconds)
