"""What a search reports while it runs; the search itself never prints."""

from collections.abc import Sequence

from birdinfer.callbacks import Callback
from birdinfer.runs.study import TrialRecord


class TuningCallback(Callback):
    """Receive what a search reports; each method must return quickly.

    With several workers each event comes from one of them, so that events of different trials alternate.

    >>> class Scores(TuningCallback):
    ...     def on_trial_end(self, record, records):
    ...         print(record.number, record.state, record.score)
    """

    def on_trial_start(self, record: TrialRecord) -> None:
        """Report that a trial starts, or is resumed."""

    def on_trial_step(self, number: int, step: int, n_steps: int, score: float | None) -> None:
        """Report that a trial has finished an epoch; ``score`` as far as it is known."""

    def on_trial_end(self, record: TrialRecord, records: Sequence[TrialRecord]) -> None:
        """Report that a trial is over; ``records`` are all trials of the study as they stand."""
