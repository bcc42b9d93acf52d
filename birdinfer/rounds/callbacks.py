"""What rounds report while they run, and what is stored of each; no torch."""

import msgspec

from birdinfer.callbacks import Callback
from birdinfer.export.callbacks import ExportCallback
from birdinfer.prediction.run import PredictionCallback
from birdinfer.training.callbacks import TrainingCallback

TABLE, PICTURE = "rounds.csv", "rounds.png"


class RoundRecord(msgspec.Struct, kw_only=True):
    """``round.json``: how far a round is, and what it came to."""

    number: int
    recipe: str
    done: list[str] = []
    pseudo_windows: int = 0
    seconds: float = 0.0
    macro_auc: float | None = None
    gain: tuple[float, float, float] | None = None
    """Over the best round before, and its 95 % interval."""
    is_sure: bool = False
    """Whether the interval excludes zero; of round 0 true."""


class RoundsCallback(Callback):
    """Receive what rounds report; each step reports to a callback of its own."""

    def training(self) -> TrainingCallback:
        """Choose what receives a training."""
        return TrainingCallback()

    def prediction(self) -> PredictionCallback:
        """Choose what receives predictions."""
        return PredictionCallback()

    def export(self) -> ExportCallback:
        """Choose what receives an export."""
        return ExportCallback()

    def on_round(self, record: RoundRecord) -> None:
        """Report a finished round."""
