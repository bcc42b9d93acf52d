"""One fold, trained from top to bottom: clips in, checkpoints, history and out-of-fold probabilities out.

A run that is killed at any moment goes on from its last checkpoint and, on a CPU, ends with the same bits as one that
was not: the batches follow from (seed, epoch), a window from (seed, epoch, clip), and dropout, mixup and masks from
(seed, step).
"""

import csv
import io
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.files import write_atomic
from birdinfer.labels import Species
from birdinfer.training.augment import WaveformAugment, find_background, mask, mix_up
from birdinfer.training.checkpoint import (
    MODEL,
    EpochRow,
    Header,
    Progress,
    load_checkpoint,
    save_checkpoint,
    versions,
)
from birdinfer.training.dataset import (
    EpochBatches,
    TrainingWindows,
    ValidationWindows,
    build_targets,
    training_loader,
    validation_loader,
)
from birdinfer.training.evaluate import Validation, evaluate, evaluating, oof_table
from birdinfer.training.frontend import LogMel
from birdinfer.training.interrupt import StopRequest
from birdinfer.training.loss import build_loss
from birdinfer.training.metadata import Clip
from birdinfer.training.models import build_model
from birdinfer.training.recipe import NOT_DECISIVE, Recipe, flatten
from birdinfer.training.report import FoldStart, Reporter
from birdinfer.training.state import TrainingState, learning_rate, new_progress, scaler_state

LAST, BEST = "last.safetensors", "best.safetensors"

_INIT, _STEP = 10, 11
"""First element of a generator's seed, see dataset."""
_REPORT_STEPS = 10
"""Reading a loss makes a GPU wait, so not every step is shown."""


class FoldJob(NamedTuple):
    """What to train."""

    recipe: Recipe
    species: tuple[Species, ...]
    fold: int
    training: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    data_dir: Path
    folder: Path
    """Where everything of the fold is written."""


def train_fold(job: FoldJob, device: torch.device, reporter: Reporter, stop: StopRequest) -> Progress:
    """Train a fold to its end; goes on where ``last.safetensors`` stands, if there is one.

    Raises:
        ConfigError: the recipe asks for what is not there, or the loss is no longer finite.
        CheckpointError: the checkpoint to go on from is damaged or of another recipe.
        KeyboardInterrupt, SystemExit: a stop was requested; the state is saved.
    """
    recipe, config, labels = job.recipe, job.recipe.loop, [species.label for species in job.species]
    state, progress = _begin(job, device, reporter)
    frontend = LogMel(recipe.frontend).to(device)
    loss_of = build_loss(recipe.loss, recipe.labels)
    autocast = _autocast(device, config.amp)
    header = Header(recipe, job.species, job.fold, progress, str(job.data_dir.resolve()), versions())

    augment = WaveformAugment(
        recipe.augment, recipe.frontend, find_background(recipe.augment.background_dir, job.data_dir)
    )
    targets = build_targets(job.training, labels, recipe.labels.secondary_target)
    batches = EpochBatches([clip.primary_label for clip in job.training], recipe)
    windows = TrainingWindows(job.training, targets, recipe, augment)
    training = training_loader(windows, batches, recipe, pin=device.type == "cuda")
    validation_windows = ValidationWindows(job.validation, recipe.frontend, config.val_windows)
    validation = validation_loader(validation_windows, len(job.validation), recipe)

    per_epoch = len(batches)
    n_steps, n_warmup = config.epochs * per_epoch, round(recipe.optim.warmup_epochs * per_epoch)
    failed: set[str] = set()

    def save(name: str, tensors: dict[str, torch.Tensor]) -> None:
        progress.scaler = scaler_state(state.scaler)
        save_checkpoint(job.folder / name, msgspec.structs.replace(header, progress=progress), tensors)

    def complain(lines: tuple[str, ...]) -> None:
        for line in lines:
            if line not in failed:
                failed.add(line)
                reporter.message(f"left out, cannot be decoded: {line}")

    first_step = progress.epoch * per_epoch + progress.step
    reporter.start(
        FoldStart(
            job.fold, len(job.training), len(job.validation), config.epochs, per_epoch, first_step, config.batch_size
        )
    )
    while progress.epoch < config.epochs:
        began = perf_counter() - progress.seconds
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=device)
        state.model.train()
        batches.begin(progress.epoch, progress.step)
        for batch in training if progress.step < per_epoch else ():
            step = progress.epoch * per_epoch + progress.step
            rng = np.random.default_rng((_STEP, recipe.seed, step))
            torch.manual_seed(int(rng.integers(2**62)))
            complain(batch.failed)

            waveforms, wanted = mix_up(
                batch.waveforms.to(device, non_blocking=True), batch.targets.to(device), recipe.augment, rng
            )
            with autocast():
                logits = state.model(mask(frontend(waveforms), recipe.augment, rng))
            loss = loss_of(logits, wanted, batch.weights.to(device))
            state.step(loss, learning_rate(step, n_steps, n_warmup, recipe.optim), step)

            loss_sum += loss.detach()
            progress.step += 1
            if progress.step % _REPORT_STEPS == 0 or progress.step == per_epoch:
                reporter.step(step + 1, loss_sum.item() / progress.step)
            due = config.checkpoint_every_steps and progress.step % config.checkpoint_every_steps == 0
            if due or stop.requested or progress.step == per_epoch:
                progress.loss_sum, progress.seconds = loss_sum.item(), perf_counter() - began
                _check_finite(progress)
                save(LAST, state.tensors())
            stop.check()

        with evaluating(state.validated) as model, autocast():
            outcome = evaluate(
                lambda waveforms: model(frontend(waveforms.to(device))), validation, job.validation, labels, stop.check
            )
        complain(outcome.failed)
        last_lr = learning_rate((progress.epoch + 1) * per_epoch - 1, n_steps, n_warmup, recipe.optim)
        row = _row(progress, outcome, last_lr, perf_counter() - began)
        progress = new_progress(progress)
        progress.history.append(row)
        # A score that cannot be computed is no reason to keep none: then the latest epoch is the best.
        is_best = row.val_macro_auc is None or progress.best_auc is None or row.val_macro_auc > progress.best_auc
        if is_best:
            progress.best_epoch, progress.best_auc = row.epoch, row.val_macro_auc
            save(BEST, {MODEL + name: tensor for name, tensor in state.validated.state_dict().items()})
            write_atomic(job.folder / "oof.csv", oof_table(outcome, labels))
        write_atomic(job.folder / "history.csv", _history_table(progress))
        # Last: once it names the epoch as finished, everything of the epoch is on disk.
        save(LAST, state.tensors())
        reporter.epoch(row, is_best)
        stop.check()
    return progress


def _begin(job: FoldJob, device: torch.device, reporter: Reporter) -> tuple[TrainingState, Progress]:
    """A fresh state, or the one that was saved."""
    recipe, path = job.recipe, job.folder / LAST
    saved = load_checkpoint(path) if path.exists() else None
    if saved is not None:
        check_same_recipe(saved.recipe, recipe, path)
        if saved.species != job.species:
            raise CheckpointError(path, "was trained for other species", "train into another run with --run")
    torch.manual_seed(int(np.random.default_rng((_INIT, recipe.seed, job.fold)).integers(2**62)))
    model = build_model(recipe.model, len(job.species), start=saved is None, note=reporter.message)
    # The memory layout that convolutions of both CPU and GPU like best.
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    half_range = recipe.loop.amp != "off" and device.type == "cuda" and not torch.cuda.is_bf16_supported()
    state = TrainingState(model, recipe.optim, torch.amp.GradScaler(device.type, enabled=half_range))
    if saved is None:
        return state, Progress()
    state.restore(saved)
    return state, saved.header.progress


def check_same_recipe(saved: Recipe, asked: Recipe, path: Path) -> None:
    """Refuse to go on with another recipe than the run began with.

    Raises:
        CheckpointError: a key that decides the result differs; it says which.
    """
    before, after = flatten(saved), flatten(asked)
    differing = sorted(key for key in before if key not in NOT_DECISIVE and before[key] != after[key])
    if differing:
        key = differing[0]
        more = f" and {len(differing) - 1} more keys differ" if len(differing) > 1 else ""
        raise CheckpointError(
            path,
            f"was trained with {key} = {before[key]!r}, asked is {after[key]!r}{more}",
            "resume with the same recipe, or train into another run with --run",
        )


def _autocast(device: torch.device, amp: str) -> Any:
    """A maker of contexts: mixed precision on a GPU, plain float32 on a CPU."""
    dtype = torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16
    return lambda: torch.autocast(device.type, dtype, enabled=amp != "off" and device.type == "cuda")


def _check_finite(progress: Progress) -> None:
    if not np.isfinite(progress.loss_sum):
        raise ConfigError(
            "optim.lr", f"the loss is no longer finite in epoch {progress.epoch + 1}, step {progress.step}", "lower it"
        )


def _row(progress: Progress, outcome: Validation, lr: float, seconds: float) -> EpochRow:
    return EpochRow(
        epoch=progress.epoch + 1,
        train_loss=progress.loss_sum / max(1, progress.step),
        val_loss=outcome.loss,
        val_macro_auc=outcome.macro_auc,
        val_top1=outcome.top1,
        lr=lr,
        seconds=round(seconds, 3),
    )


def _history_table(progress: Progress) -> str:
    """history.csv: one row per epoch; an empty cell is a score that could not be computed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(EpochRow.__struct_fields__)
    writer.writerows(msgspec.structs.astuple(row) for row in progress.history)
    return buffer.getvalue()
