"""A small space, and a callback that remembers how a search went."""

from birdinfer.tuning.callbacks import TuningCallback
from birdinfer.tuning.space import Choices, Range, Space

SPACE: Space = {"optim.lr": Range(1e-4, 1e-2, log=True), "model.drop_rate": Choices((0.0, 0.1, 0.3))}


class Watching(TuningCallback):
    """Remembers what was reported."""

    def __init__(self):
        self.messages, self.started, self.steps, self.ended = [], [], [], []

    def on_message(self, line):
        self.messages.append(line)

    def on_trial_start(self, record):
        self.started.append(record)

    def on_trial_step(self, number, step, n_steps, score):
        self.steps.append((number, step, n_steps, score))

    def on_trial_end(self, record, records):
        self.ended.append(record)
