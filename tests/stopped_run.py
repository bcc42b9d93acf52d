"""A whole run, stopped on its way."""

import os
import signal

import pytest

from birdinfer.training.run import Run, train_run
from birdinfer.training.state import TrainingState

STEPS_BEFORE = 6


def train_until_stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C after the sixth step: in the second of two epochs of four steps."""
    real, calls = TrainingState.step, []

    def stop_in_the_second_epoch(self, *arguments):
        real(self, *arguments)
        calls.append(1)
        if len(calls) == STEPS_BEFORE:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "step", stop_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train_run(run)
