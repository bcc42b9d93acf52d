"""The loaders of one fold: batches of training windows, and windows of whole clips to validate on."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from birdinfer.training.augment import WaveformAugment
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.dataset import (
    EpochBatches,
    TrainingWindows,
    ValidationWindows,
    training_loader,
    validation_loader,
)
from birdinfer.training.draw import Draw
from birdinfer.training.fold_job import FoldJob
from birdinfer.training.processes import Processes
from birdinfer.training.targets import TargetMaker


class FoldData:
    """What a fold's loop iterates over, this process's share of it."""

    def __init__(self, job: FoldJob, processes: Processes, pin: bool) -> None:
        """Build everything but the workers, which start with the first batch.

        Args:
            job: the fold.
            processes: who trains along.
            pin: whether to lay batches where a GPU fetches them fastest.
        """
        recipe = job.recipe
        augment = WaveformAugment(recipe.augment, recipe.hearing, job.background)
        targets = TargetMaker(job.labels, recipe.labels, job.training)
        windows = TrainingWindows(job.training, recipe, job.source, targets, augment)
        draw = Draw(windows.item_labels, recipe.data, recipe.seed)
        self.batches = EpochBatches(draw, recipe, processes.rank, processes.n)
        self.training: DataLoader[Any] = training_loader(windows, self.batches, recipe, pin)
        share = range(processes.rank, len(job.validation), processes.n)
        self.validation = clips_loader(job, job.validation, share)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self.batches)


def clips_loader(job: FoldJob, clips: Sequence[Clip], indices: Sequence[int]) -> DataLoader[Any]:
    """A loader of the windows of ``clips[index]`` for each of ``indices``."""
    return validation_loader(ValidationWindows(clips, job.recipe, job.source), indices, job.recipe)


def clips_per_label(job: FoldJob) -> list[int]:
    """How many training clips have each label as their primary one."""
    counts = Counter(clip.primary_label for clip in job.training)
    return [counts[label] for label in job.labels]
