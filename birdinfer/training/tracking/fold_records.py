"""The records that trackers keep of one fold: opened, told what they do not know yet, closed.

In: validated epochs and the fold's result. Out: calls of trackers, each behind ``guard``, and ``tracking.json``, which
says what each has been told: written after the tracker has it, so that a kill in between tells an epoch again, under
the same number, and never leaves one out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from birdinfer.training.checkpoint import EpochRow
from birdinfer.training.tracking.contents import epoch_metrics
from birdinfer.training.tracking.guard import told, within
from birdinfer.training.tracking.notes import Note, write_notes
from birdinfer.training.tracking.tracker import Ended, FoldRecord, Outcome, Tracker

_FAREWELL_SECONDS = 20.0
"""Four trackers that hang leave a job on a cluster time to be requeued, of the two minutes that it has."""


class FoldRecords:
    """One fold's records. A tracker that fails is told about once, and called no more."""

    def __init__(self, path: Path, notes: Mapping[str, Note], give_up: Callable[[str, str], None]) -> None:
        """Nothing is open yet.

        Args:
            path: of ``tracking.json``.
            notes: what it holds.
            give_up: is told a tracker's name and the line about its failure.
        """
        self._path, self._notes, self._give_up = path, dict(notes), give_up
        self._open: dict[str, tuple[Tracker, FoldRecord]] = {}

    @property
    def is_open(self) -> bool:
        """Whether any tracker listens."""
        return bool(self._open)

    def start(self, name: str, tracker: Tracker, record: FoldRecord, n_validated: int) -> None:
        """Open a tracker's record, the earlier one if there is one.

        Args:
            name: the tracker's.
            tracker: a fresh one.
            record: what it is to record.
            n_validated: epochs that the fold has behind it.
        """
        note = self._notes.get(name)
        # A fold that was begun anew is another one than the record's.
        known = note if note is not None and note.epochs_told <= n_validated else None
        run_id, n_told = (known.run_id, known.epochs_told) if known else ("", 0)

        def start() -> None:
            opened = tracker.start(record, run_id, n_told)
            self._note(name, known if known is not None and opened == run_id else Note(opened))

        self._open[name] = tracker, record
        self._guarded(name, start)

    def epochs(self, rows: Sequence[EpochRow]) -> None:
        """Tell what was validated, as far as a tracker has not been told."""
        for name in list(self._open):
            self._guarded(name, lambda name=name: self._tell(name, rows))  # type: ignore[misc]

    def finish(self, outcome: Outcome) -> None:
        """Tell what the fold came to, and close."""
        for name in list(self._open):
            self._guarded(name, lambda name=name: self._finish(name, outcome))  # type: ignore[misc]
        self.close("finished")

    def close(self, ended: Ended) -> None:
        """Close what is open; nobody who wants to leave waits for long."""
        longest = _FAREWELL_SECONDS if ended == "interrupted" else math.inf
        for name in list(self._open):
            self._guarded(name, lambda name=name: self._open[name][0].close(ended), longest)  # type: ignore[misc]
        self._open.clear()

    def _tell(self, name: str, rows: Sequence[EpochRow]) -> None:
        tracker, _ = self._open[name]
        for row in rows:
            if row.epoch > self._notes[name].epochs_told:
                tracker.epoch(row.epoch, epoch_metrics(row))
                self._note(name, msgspec.structs.replace(self._notes[name], epochs_told=row.epoch))

    def _finish(self, name: str, outcome: Outcome) -> None:
        self._open[name][0].finish(outcome)
        self._note(name, msgspec.structs.replace(self._notes[name], is_finished=True))

    def _note(self, name: str, note: Note) -> None:
        self._notes[name] = note
        write_notes(self._path, self._notes)

    def _guarded(self, name: str, call: Callable[[], None], longest: float = math.inf) -> None:
        _, record = self._open[name]
        try:
            within(min(record.wait_seconds, longest), call)
        except Exception as error:  # somebody else's client may raise anything
            del self._open[name]
            self._give_up(name, told(name, error))
