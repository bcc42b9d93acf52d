"""What a batch asks of the model, and what a clip does: labels -> targets, and how much each of them counts.

In: a clip and the recipe's section ``labels``. Out: a row [labels] at a time, made when it is needed (50,000 clips of
11,560 labels at once would take gigabytes); :class:`Targets` is a batch of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from birdinfer.errors import LabelError
from birdinfer.training.data.metadata import Clip
from birdinfer.training.recipe.schema import LabelConfig
from birdinfer.typing import Float32, Int8


class Targets(NamedTuple):
    """Wanted answers for a batch of windows; float32 on one device."""

    values: torch.Tensor
    """[windows, labels], 0 (absent) to 1 (present)."""
    cell_weights: torch.Tensor
    """[windows, labels], 0 to 1: what a cell counts in the loss; 0 is masked, as if the label did not exist there."""
    window_weights: torch.Tensor
    """[windows], >= 0: what a window counts in the loss; 0 for one whose clip could not be decoded."""
    teacher: torch.Tensor | None = None
    """[windows, numbers], a teacher's embeddings, or its scores; NaN where it has none. None without a teacher."""

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Targets":
        """All tensors, changed."""
        teacher = None if self.teacher is None else change(self.teacher)
        return Targets(change(self.values), change(self.cell_weights), change(self.window_weights), teacher)


class TargetMaker:
    """The recipe's section ``labels``, clip by clip; small, and ready to be sent to workers."""

    def __init__(self, labels: Sequence[str], config: LabelConfig, clips: Iterable[Clip]) -> None:
        """Learn the columns and the mean rating.

        Args:
            labels: the columns.
            config: what secondary labels, smoothing and ratings mean.
            clips: the training clips; the mean of their ratings is what an unrated clip counts as.

        Raises:
            LabelError: a clip has a label without a column.
        """
        self._column, self._config = _columns(labels), config
        ratings = []
        for clip in clips:
            _check_known(clip, self._column)
            ratings += [clip.rating] if clip.rating else []
        self._mean_rating = float(np.mean(ratings)) if ratings else 1.0

    def __call__(self, clip: Clip) -> tuple[Float32, Float32, float]:
        """What is asked of a window of the clip.

        Returns:
            Values [labels], 0 to 1; weights of these cells [labels], 0 to 1, where a masked label has the value
            of the primary one and weight 0; and the weight of the window, >= 0.
        """
        primary, others = self._column[clip.primary_label], self._others(clip)
        values, weights = np.zeros(len(self._column), np.float32), np.ones(len(self._column), np.float32)
        if self._config.secondary == "target":
            values[others] = self._config.secondary_target
        values[primary] = 1.0
        values = self._smoothed(values / values.sum() if self._config.kind == "soft" else values)
        if self._config.secondary == "masked":
            # As certain as a primary label: mixed with a window that has it for one, that window's target counts.
            values[others], weights[others] = values[primary], 0.0
        else:
            weights[others] = self._config.secondary_loss_weight
        return values, weights, self._window_weight(clip)

    def _others(self, clip: Clip) -> list[int]:
        return [self._column[label] for label in clip.secondary_labels if label != clip.primary_label]

    def _smoothed(self, values: Float32) -> Float32:
        smoothing = self._config.smoothing
        smoothed: Float32 = values * np.float32(1 - smoothing) + np.float32(smoothing / len(values))
        return smoothed

    def _window_weight(self, clip: Clip) -> float:
        relative = clip.rating / self._mean_rating if clip.rating else 1.0
        return 1 + self._config.rating_weight * (relative - 1)


def truth(clips: Sequence[Clip], labels: Sequence[str]) -> Int8:
    """What scores are held against: [clips, labels], 1 for the primary label and the secondary ones of a clip, else 0.

    Raises:
        LabelError: a clip has a label without a column.
    """
    column = _columns(labels)
    present = np.zeros((len(clips), len(labels)), np.int8)
    for row, clip in zip(present, clips, strict=True):
        _check_known(clip, column)
        row[[column[label] for label in (clip.primary_label, *clip.secondary_labels)]] = 1
    return present


def _columns(labels: Sequence[str]) -> dict[str, int]:
    return {label: index for index, label in enumerate(labels)}


def _check_known(clip: Clip, column: Mapping[str, int]) -> None:
    for label in (clip.primary_label, *clip.secondary_labels):
        if label not in column:
            raise LabelError(clip.filename, f"label {label!r} has no column among the {len(column)} of the scores")
