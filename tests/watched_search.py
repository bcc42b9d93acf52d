"""A small space, and someone who remembers how a search went."""

from birdinfer.training.tuning.space import Choices, Range, Space

SPACE: Space = {"optim.lr": Range(1e-4, 1e-2, log=True), "model.drop_rate": Choices((0.0, 0.1, 0.3))}


class Watching:
    """Remembers what it was told."""

    def __init__(self):
        self.messages, self.begun, self.steps, self.over = [], [], [], []

    def preparing(self, what, done, total): ...

    def message(self, line):
        self.messages.append(line)

    def began(self, record):
        self.begun.append(record)

    def moved(self, number, step, n_steps, score):
        self.steps.append((number, step, n_steps, score))

    def ended(self, record, records):
        self.over.append(record)
