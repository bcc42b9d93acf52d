"""What a fold writes after each epoch, and in which order, so that a kill at any moment loses nothing.

Only the first of several processes writes.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from birdinfer.files import write_atomic
from birdinfer.tables.csv_files import csv_text
from birdinfer.training.checkpoint import (
    MODEL,
    Checkpoint,
    EpochRow,
    Header,
    Progress,
    load_checkpoint,
    save_checkpoint,
    versions,
)
from birdinfer.training.evaluate import Validation, oof_table
from birdinfer.training.fold_job import BEST, CLASSES, HISTORY, LAST, OUT_OF_FOLD, SOUP_DIR, TAXA, FoldJob
from birdinfer.training.processes import Processes
from birdinfer.training.score_tables import classes_table, taxa_table
from birdinfer.training.state import TrainingState


class FoldResults:
    """Checkpoints and tables of one fold."""

    def __init__(self, job: FoldJob, state: TrainingState, processes: Processes) -> None:
        """Nothing is written yet."""
        self._job, self._state, self._writes = job, state, processes.is_first
        self._header = Header(job.recipe, job.species, job.fold, Progress(), str(job.data_dir.resolve()), versions())

    def save_last(self, progress: Progress) -> None:
        """Everything that a resume needs."""
        if self._writes:
            progress.numbers = self._state.numbers()
            self._save(self._job.folder / LAST, progress, self._state.tensors())

    def save_epoch(self, progress: Progress, outcome: Validation, is_best: bool) -> None:
        """A validated epoch: history, what is best so far, what a soup will need, and last the state."""
        if not self._writes:
            return
        self._keep_for_soup(progress)
        if is_best:
            self.save_best(progress, self._state.validated, outcome)
        write_atomic(self._job.folder / HISTORY, history_table(progress.history))
        # Last: once it names the epoch as finished, everything of the epoch is on disk.
        self.save_last(progress)

    def save_best(self, progress: Progress, model: torch.nn.Module, outcome: Validation) -> None:
        """The weights that are worth most, and what they say of the validation clips."""
        self._save(self._job.folder / BEST, progress, _weights(model))
        if self._job.validation:
            write_atomic(self._job.folder / OUT_OF_FOLD, oof_table(outcome, self._job.labels))
            write_atomic(self._job.folder / CLASSES, classes_table(outcome, self._job.species))
            write_atomic(self._job.folder / TAXA, taxa_table(outcome, self._job.species))

    def soup(self, progress: Progress) -> list[Checkpoint]:
        """The checkpoints that a soup is made of, those of the best epochs."""
        return [load_checkpoint(self._soup_path(epoch)) for epoch in self._soup_epochs(progress)]

    def _keep_for_soup(self, progress: Progress) -> None:
        """Of ``optim.soup_epochs`` best epochs the weights are kept until the end; others go."""
        wanted = self._soup_epochs(progress)
        if progress.epoch in wanted:
            self._save(self._soup_path(progress.epoch), progress, _weights(self._state.validated))
        keep = {self._soup_path(epoch) for epoch in wanted}
        for path in (self._job.folder / SOUP_DIR).glob("*.safetensors"):
            if path not in keep:
                path.unlink()

    def _soup_epochs(self, progress: Progress) -> list[int]:
        recipe = self._job.recipe
        first = recipe.first_frozen_epoch if recipe.optim.frozen_norm_epochs else 1
        return best_epochs([row for row in progress.history if row.epoch >= first], recipe.optim.soup_epochs)

    def _soup_path(self, epoch: int) -> Path:
        return self._job.folder / SOUP_DIR / f"epoch{epoch:04}.safetensors"

    def _save(self, path: Path, progress: Progress, tensors: dict[str, torch.Tensor]) -> None:
        save_checkpoint(path, msgspec.structs.replace(self._header, progress=progress), tensors)


def is_better(score: float | None, progress: Progress) -> bool:
    """A score that cannot be computed is no reason to keep none: then the latest epoch is the best."""
    return score is None or progress.best_auc is None or score > progress.best_auc


def best_epochs(history: Sequence[EpochRow], n_epochs: int) -> list[int]:
    """The epochs with the highest macro AUC, in order of time; of equal ones the earlier; unscored ones never."""
    scored = [row for row in history if row.val_macro_auc is not None]
    ordered = sorted(scored, key=lambda row: (-(row.val_macro_auc or 0.0), row.epoch))
    return sorted(row.epoch for row in ordered[:n_epochs])


def epoch_row(
    progress: Progress, outcome: Validation, lr: float, seconds: float, peak_gpu_mb: float | None
) -> EpochRow:
    """The epoch that ``progress`` has come to the end of, as a row of its history."""
    return EpochRow(
        epoch=progress.epoch + 1,
        train_loss=progress.loss_sum / max(1, progress.step),
        val_loss=outcome.loss,
        val_macro_auc=outcome.macro_auc,
        val_padded_cmap=outcome.padded_cmap,
        val_top1=outcome.top1,
        lr=lr,
        seconds=round(seconds, 3),
        wait_share=round(progress.waited_seconds / max(1e-9, progress.seconds), 4),
        peak_gpu_mb=peak_gpu_mb,
    )


def history_table(history: Sequence[EpochRow]) -> str:
    """history.csv: one row per epoch; an empty cell is a value that could not be computed."""
    return csv_text(EpochRow.__struct_fields__, (msgspec.structs.astuple(row) for row in history))


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {MODEL + name: tensor for name, tensor in model.state_dict().items()}
