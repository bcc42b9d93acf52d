"""The training loop of one fold: clips in, checkpoints, history and out-of-fold probabilities out.

A run that is killed at any moment resumes from its last checkpoint and, on a CPU, ends with the same bits as one that
was not: the batches follow from (seed, epoch), a window from (seed, epoch, clip), and dropout, mixup and masks from
(seed, step). Several processes (torchrun) run this loop together; the first one writes.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

import numpy as np
import torch

from birdinfer.errors import ConfigError
from birdinfer.runs.layout import BEST, SOUP_DIR
from birdinfer.system.files import write_atomic
from birdinfer.system.timing import Waiting
from birdinfer.training.callbacks import FoldStart, TrainingCallback
from birdinfer.training.checkpoint import EpochRow, Progress, average_weights, load_checkpoint
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.dataset import ClipWindows
from birdinfer.training.devices import memory_advice, peak_gpu_mb, rss_mb
from birdinfer.training.distillation import build_teacher
from birdinfer.training.distributed import Distributed
from birdinfer.training.evaluate import ClipScores, Validation, evaluating, oof_table, predict_clips, score
from birdinfer.training.fold import (
    TEST_SCORES,
    Fold,
    FoldData,
    FoldFiles,
    Session,
    clips_loader,
    init_state,
)
from birdinfer.training.forward import Augmented, Forward, split_batch
from birdinfer.training.learner import Learner
from birdinfer.training.models.batch_norm import freeze_norms
from birdinfer.training.monitor import is_better, is_kept, monitor_of
from birdinfer.training.optim import learning_rate, stale_epochs

_STEP = 11
"""First element of a step's seed: streams for different purposes never meet (see dataset)."""
_REPORT_STEPS = 10
"""Reading a loss makes a GPU wait, so not every step is reported."""


def train_fold(fold: Fold, session: Session) -> Progress:
    """Train a fold to its end, from ``last.safetensors`` on if there is one.

    Raises:
        ConfigError: the recipe asks for what is not there, memory is not enough, or the loss is no longer finite.
        CheckpointError: the checkpoint to resume is damaged or of another recipe.
        KeyboardInterrupt, SystemExit: a stop was requested; the state is saved.
    """
    with memory_advice(fold.recipe.loop, session.processes.n):
        return FoldTrainer(fold, session).train()


class FoldTrainer:
    """Trains one fold."""

    def __init__(self, fold: Fold, session: Session) -> None:
        recipe, device = fold.recipe, session.device
        teacher = build_teacher(recipe, fold.number, device)
        self._fold, self._session = fold, session
        self._forward = Forward(recipe, fold.clips_per_output(), device, teacher)
        self._data = FoldData(fold, session.processes, pin=device.type == "cuda")
        self._state, self._progress = init_state(fold, self._forward.precision, session)
        self._files = FoldFiles(fold, self._state, session.processes)
        self._warn_once = FailedClips(session.callback)
        self._monitor = monitor_of(recipe.loop)
        self._n_parameters = sum(each.numel() for each in self._state.model.parameters() if each.requires_grad)

    def train(self) -> Progress:
        """Train all epochs that are left, then average weights and score the test clips."""
        config, session = self._fold.recipe.loop, self._session
        self._report_start()
        while self._progress.epoch < config.epochs and not self._progress.is_finished:
            started = perf_counter() - self._progress.seconds  # of a resumed epoch, as if it had not been interrupted
            self._train_epoch(started)
            validation = self._validate()
            self._end_epoch(validation, started)
            session.processes.exit_together(session.stop)
        if session.processes.is_first:
            self._finish()
        session.processes.wait()
        return self._progress

    def _train_epoch(self, started: float) -> None:
        """Train the steps that are left of the epoch."""
        recipe, config, progress = self._fold.recipe, self._fold.recipe.loop, self._progress
        state, session, processes = self._state, self._session, self._session.processes
        waiting, per_epoch = Waiting(progress.waited_seconds), len(self._data)
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=session.device)
        state.model.train()
        self._forward.begin(progress.epoch)
        if isinstance(state.own_learner, Learner):
            state.own_learner.is_detached = self._forward.phase.is_detached
        if progress.epoch + 1 >= recipe.first_frozen_epoch:
            freeze_norms(state.model)
        self._data.batches.begin(progress.epoch, progress.step)
        for batch in waiting.through(self._data.training) if progress.step < per_epoch else ():
            # All chance within a step follows from its number: a resumed run repeats it.
            step = progress.epoch * per_epoch + progress.step
            rng = np.random.default_rng((_STEP, recipe.seed, step, processes.rank))
            torch.manual_seed(int(rng.integers(2**62)))
            self._warn_once(batch.failed)

            # A batch is computed in parts, whose losses add up to the batch's.
            parts = [self._forward.augment(part, rng) for part in split_batch(batch, config.accumulate)]
            for index, (part, share) in enumerate(zip(parts, _shares(parts, self._forward, processes), strict=True)):
                with state.part(is_last=index == config.accumulate - 1):
                    loss = self._forward.loss(state.learner, part, share)
                    state.backward(loss)
                loss_sum += loss.detach()
            state.step(self._learning_rate(step), step, progress.epoch < recipe.optim.frozen_backbone_epochs)

            progress.step += 1
            if progress.step % _REPORT_STEPS == 0 or progress.step == per_epoch:
                session.callback.on_step(step + 1, loss_sum.item() / progress.step)
            is_due = config.checkpoint_every_steps and progress.step % config.checkpoint_every_steps == 0
            stop_signal = processes.stop_signal(session.stop)
            if is_due or stop_signal or progress.step == per_epoch:
                progress.loss_sum = processes.mean(loss_sum).item()
                progress.seconds, progress.waited_seconds = perf_counter() - started, waiting.seconds
                _check_finite(progress)
                self._files.save_last(progress)
            if stop_signal:
                session.stop.leave(stop_signal)

    def _validate(self) -> Validation:
        """Predict this process's share of the validation clips, and score everyone's shares together."""
        processes, stop, model = self._session.processes, self._session.stop, self._state.validated
        config = self._fold.recipe.loop
        processes.share_buffers(model)
        # One of several processes may not exit by itself: the others would wait for its scores.
        between = stop.check if processes.n == 1 else lambda: None
        scores = ClipScores.together(processes.all_gather(self._predict(model, self._data.validation, between)))
        self._warn_once(scores.failed)
        self._warn_once([line for lines in processes.all_gather(self._warn_once.lines) for line in lines])
        return score(self._fold.validation, scores, self._fold.species, config.f1_threshold)

    def _end_epoch(self, validation: Validation, started: float) -> None:
        """Add the epoch to the history, decide whether its weights are the best, and save."""
        recipe, config, session, progress = self._fold.recipe, self._fold.recipe.loop, self._session, self._progress
        row = EpochRow(
            epoch=progress.epoch + 1,
            train_loss=progress.loss_sum / max(1, progress.step),
            val_loss=validation.loss,
            val_macro_auc=validation.macro_auc,
            val_padded_cmap=validation.padded_cmap,
            val_top1=validation.top1,
            lr=self._learning_rate((progress.epoch + 1) * len(self._data) - 1),
            seconds=round(perf_counter() - started, 3),
            wait_share=round(progress.waited_seconds / max(1e-9, progress.seconds), 4),
            peak_gpu_mb=peak_gpu_mb(session.device),
            val_f1=validation.f1,
            rss_mb=rss_mb(),
            n_parameters=self._n_parameters,
        )
        self._progress = progress = progress.next_epoch()
        progress.history.append(row)
        is_best = is_kept(row, progress.best_score, recipe)
        if is_best:
            progress.best_epoch, progress.best_auc = row.epoch, row.val_macro_auc
            progress.best_score, progress.soup = self._monitor.score(row), []
        scores = self._monitor.scores(progress.history[progress.extended_after :])
        is_stale = bool(config.patience) and stale_epochs(scores) >= config.patience
        progress.is_finished = is_stale or progress.epoch == config.epochs
        self._files.save_epoch(progress, validation, is_best)
        session.callback.on_epoch_end(row, is_best)

    # ---- After the last epoch; done by one process, and again if it was killed meanwhile

    def _finish(self) -> None:
        if self._progress.is_complete:
            return
        if self._fold.recipe.optim.soup_epochs > 1:
            self._average_best_epochs()
        if self._fold.test:
            self._score_test_clips()
        self._progress.is_complete = True
        self._files.save_last(self._progress)
        shutil.rmtree(self._fold.folder / SOUP_DIR, ignore_errors=True)

    def _average_best_epochs(self) -> None:
        """Keep the averaged weights of the best epochs if they validate better than the best epoch."""
        progress, checkpoints = self._progress, self._files.best_epochs(self._progress)
        if len(checkpoints) < 2:
            return
        model = checkpoints[-1].build_model()
        model.load_state_dict(average_weights(checkpoints))
        model = model.to(self._session.device)
        validation = self._score(model, self._fold.validation)
        epochs = [checkpoint.epoch for checkpoint in checkpoints]
        score, monitor = self._monitor.score_of(validation), self._monitor
        average, best_value = (monitor.value(each or 0.0) for each in (score, progress.best_score))
        text = f"average of epochs {', '.join(map(str, epochs))}: {monitor.title} {average:.4f}"
        best = f"the best of them, {progress.best_epoch}: {best_value:.4f}"
        if is_better(score, progress.best_score):
            progress.soup, progress.best_auc, progress.best_score = epochs, validation.macro_auc, score
            self._files.save_best(progress, model, validation)
            self._session.callback.on_message(f"{text}, kept instead of {best}")
        else:
            self._session.callback.on_message(f"{text}, not kept; {best}")

    def _score_test_clips(self) -> None:
        """Score the weights that were kept on clips that decided nothing."""
        model = load_checkpoint(self._fold.folder / BEST).build_model().to(self._session.device)
        test = self._score(model, self._fold.test)
        FailedClips(self._session.callback)(test.failed)
        self._progress.test_macro_auc, self._progress.test_padded_cmap = test.macro_auc, test.padded_cmap
        write_atomic(self._fold.folder / TEST_SCORES, oof_table(test, self._fold.labels))

    def _score(self, model: torch.nn.Module, clips: Sequence[Clip]) -> Validation:
        loader = clips_loader(self._fold, clips, range(len(clips)))
        scores = self._predict(model, loader, self._session.stop.check)
        return score(clips, scores, self._fold.species, self._fold.recipe.loop.f1_threshold)

    # ---- Shared by the above

    def _predict(
        self, model: torch.nn.Module, loader: Iterable[Sequence[ClipWindows]], between: Callable[[], None]
    ) -> ClipScores:
        with evaluating(model):
            return predict_clips(
                lambda waveforms: self._forward.logits(model, waveforms),
                loader,
                self._fold.recipe.loss.activation,
                between,
            )

    def _learning_rate(self, step: int) -> float:
        n_steps = self._fold.recipe.loop.epochs * len(self._data)
        scores = self._monitor.scores(self._progress.history)
        return learning_rate(step, n_steps, len(self._data), self._fold.recipe.optim, scores)

    def _report_start(self) -> None:
        fold, progress = self._fold, self._progress
        self._session.callback.on_fold_start(
            FoldStart(
                fold=fold.number,
                n_training=len(fold.training),
                n_validation=len(fold.validation),
                epochs=fold.recipe.loop.epochs,
                steps_per_epoch=len(self._data),
                first_step=progress.epoch * len(self._data) + progress.step,
                batch_size=fold.recipe.loop.batch_size,
                precision=self._forward.precision,
                n_parameters=self._n_parameters,
            )
        )


class FailedClips:
    """Reports each clip that cannot be decoded once."""

    def __init__(self, callback: TrainingCallback) -> None:
        self._callback = callback
        self.lines: list[str] = []

    def __call__(self, lines: Iterable[str]) -> None:
        """Report the lines that have not been reported yet."""
        for line in lines:
            if line not in self.lines:
                self.lines.append(line)
                self._callback.on_message(f"left out, cannot be decoded: {line}")


def _shares(parts: Sequence[Augmented], forward: Forward, processes: Distributed) -> torch.Tensor:
    """What each part counts in the batch's mean, float32 [parts, 2], however the batch is cut and distributed.

    Processes average their gradients, so a share is of their mean: of two equal parts of two processes, 1 each.
    """
    weights = torch.stack([forward.weights(part) for part in parts])
    whole = processes.mean(weights.sum(dim=0))
    return weights / torch.where(whole > 0, whole, 1.0)


def _check_finite(progress: Progress) -> None:
    if not np.isfinite(progress.loss_sum):
        raise ConfigError(
            "optim.lr", f"the loss is no longer finite in epoch {progress.epoch + 1}, step {progress.step}", "lower it"
        )
