"""What a batch asks of the model, and what a clip does: labels -> targets, and how much each of them counts.

In: a clip and the recipe's section ``labels``. Out: a row [labels] at a time, made when it is needed (50,000 clips of
11,560 labels at once would take gigabytes); :class:`Targets` is a batch of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from birdinfer.errors import LabelError
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.source_tables import TrainingSource
from birdinfer.training.outputs import Outputs, TaxonTargets
from birdinfer.training.recipe.data_config import LabelConfig
from birdinfer.typing import Float32, Int8

_HALF = 0.5


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

    def __init__(
        self,
        outputs: Outputs,
        config: LabelConfig,
        clips: Iterable[Clip],
        sources: Sequence[TrainingSource] = (),
    ) -> None:
        """Learn the columns and the mean rating.

        Args:
            outputs: the columns; that of no call is not made here, but of what is mixed (:func:`with_nocall`).
            config: what secondary labels, smoothing and ratings mean.
            clips: the training clips; the mean of their ratings is what an unrated clip counts as.
            sources: the recipe's, whose clips may have labels of their own kind.

        Raises:
            LabelError: a clip has a label without a column.
        """
        self._column, self._config, self._sources = _columns(outputs.species), config, tuple(sources)
        self._taxa = TaxonTargets(outputs) if outputs.taxa else None
        general = frozenset() if self._taxa is None else frozenset(self._taxa.labels)
        ratings = []
        for clip in clips:
            if clip.primary_label not in general:
                _check_known(clip, self._column)
            ratings += [clip.rating] if clip.rating else []
        self._mean_rating = float(np.mean(ratings)) if ratings else 1.0

    def __call__(self, clip: Clip, mixed_in: Clip | None = None) -> tuple[Float32, Float32, float]:
        """What is asked of a window of the clip, with a window of another one mixed in or without.

        Returns:
            Values [labels], 0 to 1; weights of these cells [labels], 0 to 1, where a masked label has the value
            of the primary one and weight 0; and the weight of the window, >= 0. Labels are those of species, then taxa.
        """
        values, weights = self._of_species(clip, mixed_in)
        if self._taxa is not None:
            named = [clip.primary_label, *([mixed_in.primary_label] if mixed_in is not None else [])]
            certain = float(self._smoothed(np.ones_like(values))[0])
            values, weights = self._taxa(values, weights, named, certain)
        return values, weights, self._window_weight(clip)

    def _of_species(self, clip: Clip, mixed_in: Clip | None) -> tuple[Float32, Float32]:
        values, weights, others = self._cells(clip)
        if mixed_in is not None:
            values = np.maximum(values, self._mixed_in(mixed_in))
        if self._config.kind == "soft" and (total := values.sum()):
            values = values / total
        values = self._smoothed(values)
        if not others:
            return values, weights
        if self._config.secondary == "masked":
            # As certain as a primary label: mixed with a window that has it for one, that window's target counts.
            primary = self._column.get(clip.primary_label)
            values[others], weights[others] = 1.0 if primary is None else values[primary], 0.0
        else:
            weights[others] = self._config.secondary_loss_weight
        return values, weights

    def _cells(self, clip: Clip) -> tuple[Float32, Float32, list[int]]:
        """Values before they are normalised, weights, and the columns of secondary labels."""
        weights = np.ones(len(self._column), np.float32)
        rows = self._sources[clip.source - 1].rows if clip.source else None
        if rows is not None:
            return rows(clip.row), weights if rows.known is None else rows.known.astype(np.float32), []
        values, others = np.zeros(len(self._column), np.float32), self._others(clip)
        if self._config.secondary == "target":
            values[others] = self._config.secondary_target
        if clip.primary_label in self._column:  # else it names a taxon, or there is none
            values[self._column[clip.primary_label]] = 1.0
        return values, weights, others

    def _mixed_in(self, clip: Clip) -> Float32:
        """The labels of a clip that is mixed in, scaled down to the sum that its source allows."""
        values, most = self._cells(clip)[0], self._sources[clip.source - 1].config.mix_label_sum
        total = float(values.sum())
        return values * np.float32(most / total) if 0 < most < total else values

    def _others(self, clip: Clip) -> list[int]:
        return [self._column[label] for label in clip.secondary_labels if label != clip.primary_label]

    def _smoothed(self, values: Float32) -> Float32:
        smoothing = self._config.smoothing
        smoothed: Float32 = values * np.float32(1 - smoothing) + np.float32(smoothing / len(values))
        return smoothed

    def _window_weight(self, clip: Clip) -> float:
        relative = clip.rating / self._mean_rating if clip.rating else 1.0
        weight = 1 + self._config.rating_weight * (relative - 1)
        if not clip.source:
            return weight
        source = self._sources[clip.source - 1]
        return weight * source.config.weight * (1.0 if source.rows is None else float(source.rows.weights[clip.row]))


def with_nocall(targets: Targets) -> Targets:
    """Targets with one more column: whether no species is there, 1 minus the greatest value.

    It is made after all mixing, so that birds over silence are a call. Where labels are masked and none of the others
    is there by half or more, it is masked, too.
    """
    known = targets.cell_weights > 0
    present = torch.where(known, targets.values, 0.0).amax(dim=1, keepdim=True)
    counts = known.all(dim=1, keepdim=True) | (present >= _HALF)
    values = torch.cat([targets.values, 1 - present], dim=1)
    return targets._replace(
        values=values, cell_weights=torch.cat([targets.cell_weights, counts.to(targets.cell_weights)], dim=1)
    )


def truth(clips: Sequence[Clip], labels: Sequence[str]) -> Int8:
    """What scores are held against: [clips, labels], 1 for the primary label and the secondary ones of a clip, else 0.

    Raises:
        LabelError: a clip has a label without a column.
    """
    column = _columns(labels)
    present = np.zeros((len(clips), len(labels)), np.int8)
    for row, clip in zip(present, clips, strict=True):
        _check_known(clip, column)
        row[[column[label] for label in _labels(clip)]] = 1
    return present


def _columns(labels: Sequence[str]) -> dict[str, int]:
    return {label: index for index, label in enumerate(labels)}


def _check_known(clip: Clip, column: Mapping[str, int]) -> None:
    for label in _labels(clip):
        if label not in column:
            raise LabelError(clip.filename, f"label {label!r} has no column among the {len(column)} of the scores")


def _labels(clip: Clip) -> tuple[str, ...]:
    """A window of a soundscape may have none."""
    return tuple(label for label in (clip.primary_label, *clip.secondary_labels) if label)
