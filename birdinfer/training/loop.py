"""One fold, trained from top to bottom: clips in, checkpoints, history and out-of-fold probabilities out.

A run that is killed at any moment goes on from its last checkpoint and, on a CPU, ends with the same bits as one that
was not: the batches follow from (seed, epoch), a window from (seed, epoch, clip), and dropout, mixup and masks from
(seed, step). Several processes (torchrun) go through this loop together; the first one writes.
"""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch

from birdinfer.errors import ConfigError
from birdinfer.interrupt import StopRequest
from birdinfer.training.checkpoint import Progress
from birdinfer.training.devices import memory_advice, peak_gpu_mb
from birdinfer.training.evaluate import Heard, evaluating, predict_clips, score
from birdinfer.training.finish import Finish
from birdinfer.training.fold_data import FoldData, clips_per_label
from birdinfer.training.fold_job import FoldJob
from birdinfer.training.fold_results import FoldResults, epoch_row, is_better
from birdinfer.training.forward import Augmented, Forward, parts
from birdinfer.training.models.norms import freeze_norms
from birdinfer.training.processes import Processes
from birdinfer.training.report import Complaints, FoldStart, Reporter
from birdinfer.training.resume import begin
from birdinfer.training.schedule import learning_rate, stale_epochs
from birdinfer.training.teacher import teacher_of
from birdinfer.training.waiting import Waiting

_STEP = 11
"""First element of a step's seed: streams for different purposes never meet (see dataset)."""
_REPORT_STEPS = 10
"""Reading a loss makes a GPU wait, so not every step is shown."""


def train_fold(
    job: FoldJob, device: torch.device, reporter: Reporter, stop: StopRequest, processes: Processes
) -> Progress:
    """Train a fold to its end; goes on where ``last.safetensors`` stands, if there is one.

    Raises:
        ConfigError: the recipe asks for what is not there, memory is not enough, or the loss is no longer finite.
        CheckpointError: the checkpoint to go on from is damaged or of another recipe.
        KeyboardInterrupt, SystemExit: a stop was requested; the state is saved.
    """
    with memory_advice(job.recipe.loop, processes.n):
        return _train(job, device, reporter, stop, processes)


def _train(job: FoldJob, device: torch.device, reporter: Reporter, stop: StopRequest, processes: Processes) -> Progress:
    recipe, config = job.recipe, job.recipe.loop
    forward = Forward(recipe, clips_per_label(job), device, teacher_of(recipe, job.fold, device))
    data = FoldData(job, processes, pin=device.type == "cuda")
    state, progress = begin(job, device, forward.precision, processes, reporter)
    files, complain = FoldResults(job, state, processes), Complaints(reporter)
    per_epoch, n_steps = len(data), config.epochs * len(data)
    first_step = progress.epoch * per_epoch + progress.step
    sizes = len(job.training), len(job.validation), config.epochs, per_epoch
    reporter.start(FoldStart(job.fold, *sizes, first_step, config.batch_size, forward.precision))

    while progress.epoch < config.epochs and not progress.is_finished:
        began, waiting = perf_counter() - progress.seconds, Waiting(progress.waited_seconds)
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=device)
        state.model.train()
        if progress.epoch + 1 >= recipe.first_frozen_epoch:
            freeze_norms(state.model)
        data.batches.begin(progress.epoch, progress.step)
        for batch in waiting.through(data.training) if progress.step < per_epoch else ():
            step = progress.epoch * per_epoch + progress.step
            rng = np.random.default_rng((_STEP, recipe.seed, step, processes.rank))
            torch.manual_seed(int(rng.integers(2**62)))
            complain(batch.failed)

            own = [forward.augment(part, rng) for part in parts(batch, config.accumulate)]
            for index, (part, share) in enumerate(zip(own, _shares(own, forward, processes), strict=True)):
                with state.part(is_last=index == config.accumulate - 1):
                    loss = forward.loss(state.learner, part, share)
                    state.backward(loss)
                loss_sum += loss.detach()
            state.step(learning_rate(step, n_steps, per_epoch, recipe.optim, progress.scores), step)

            progress.step += 1
            if progress.step % _REPORT_STEPS == 0 or progress.step == per_epoch:
                reporter.step(step + 1, loss_sum.item() / progress.step)
            due = config.checkpoint_every_steps and progress.step % config.checkpoint_every_steps == 0
            stopped_by = processes.stopped_by(stop)
            if due or stopped_by or progress.step == per_epoch:
                progress.loss_sum = processes.mean(loss_sum).item()
                progress.seconds, progress.waited_seconds = perf_counter() - began, waiting.seconds
                _check_finite(progress)
                files.save_last(progress)
            if stopped_by:
                stop.leave(stopped_by)

        processes.share_buffers(state.validated)
        # One of several may not leave by itself: the others would wait for what it has heard.
        between = stop.check if processes.n == 1 else lambda: None
        with evaluating(state.validated) as model:
            heard = predict_clips(
                lambda waveforms, model=model: forward.logits(model, waveforms),  # type: ignore[misc]
                data.validation, recipe.loss.activation, between,
            )  # fmt: skip
        everyones = Heard.together(processes.everyones(heard))
        complain(everyones.failed)
        complain([line for lines in processes.everyones(complain.told) for line in lines])
        outcome = score(job.validation, everyones, job.species)

        lr = learning_rate((progress.epoch + 1) * per_epoch - 1, n_steps, per_epoch, recipe.optim, progress.scores)
        row = epoch_row(progress, outcome, lr, perf_counter() - began, peak_gpu_mb(device))
        progress = progress.next_epoch()
        progress.history.append(row)
        # What was trained before norms held still is another network: its score is no measure for those to come.
        best = is_better(row.val_macro_auc, progress) or row.epoch == recipe.first_frozen_epoch
        if best:
            progress.best_epoch, progress.best_auc = row.epoch, row.val_macro_auc
        is_stale = bool(config.patience) and stale_epochs(progress.scores) >= config.patience
        progress.is_finished = is_stale or progress.epoch == config.epochs
        files.save_epoch(progress, outcome, best)
        reporter.epoch(row, best)
        processes.leave_together(stop)
    if processes.is_first:
        progress = Finish(job, forward, files, device, reporter, stop)(progress)
    processes.wait()
    return progress


def _shares(own: Sequence[Augmented], forward: Forward, processes: Processes) -> torch.Tensor:
    """What each part adds to the batch's mean, float32 [parts, 2]; it matters neither how many there are nor whose.

    Processes average their gradients, so a share is of their mean: of two equal parts of two processes, 1 each.
    """
    weights = torch.stack([forward.weights(part) for part in own])
    whole = processes.mean(weights.sum(dim=0))
    return weights / torch.where(whole > 0, whole, 1.0)


def _check_finite(progress: Progress) -> None:
    if not np.isfinite(progress.loss_sum):
        raise ConfigError(
            "optim.lr", f"the loss is no longer finite in epoch {progress.epoch + 1}, step {progress.step}", "lower it"
        )
