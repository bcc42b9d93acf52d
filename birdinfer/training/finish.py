"""The end of a fold: a soup of its best epochs if the recipe asks for one, and the test clips, scored once."""

import shutil
from collections.abc import Sequence

import torch

from birdinfer.files import write_atomic
from birdinfer.interrupt import StopRequest
from birdinfer.training.checkpoint import Progress, load_checkpoint
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.evaluate import Validation, evaluating, oof_table, predict_clips, score
from birdinfer.training.fold_data import clips_loader
from birdinfer.training.fold_job import BEST, SOUP_DIR, TEST_SCORES, FoldJob
from birdinfer.training.fold_results import FoldResults, is_better
from birdinfer.training.forward import Forward
from birdinfer.training.report import Reporter
from birdinfer.training.soup import average_weights


class Finish:
    """What is left to do when the last epoch has been validated; done by one process, and again if it was killed."""

    def __init__(
        self, job: FoldJob, forward: Forward, files: FoldResults, device: torch.device, reporter: Reporter,
        stop: StopRequest,
    ) -> None:  # fmt: skip
        """Nothing is done yet."""
        self._job, self._forward, self._files = job, forward, files
        self._device, self._reporter, self._stop = device, reporter, stop

    def __call__(self, progress: Progress) -> Progress:
        """The progress with everything done."""
        if progress.is_complete:
            return progress
        if self._job.recipe.optim.soup_epochs > 1:
            self._cook(progress)
        if self._job.test:
            self._test(progress)
        progress.is_complete = True
        self._files.save_last(progress)
        shutil.rmtree(self._job.folder / SOUP_DIR, ignore_errors=True)
        return progress

    def _cook(self, progress: Progress) -> None:
        """Keep the soup if it validates better than the best epoch."""
        checkpoints = self._files.soup(progress)
        if len(checkpoints) < 2:
            return
        model = checkpoints[-1].build_model()
        model.load_state_dict(average_weights(checkpoints))
        model = model.to(self._device)
        outcome = self._score(model, self._job.validation)
        epochs = [checkpoint.epoch for checkpoint in checkpoints]
        told = f"a soup of epochs {', '.join(map(str, epochs))}: macro AUC {outcome.macro_auc or 0:.4f}"
        best = f"the best of them, {progress.best_epoch}: {progress.best_auc or 0:.4f}"
        if is_better(outcome.macro_auc, progress):
            progress.soup, progress.best_auc = epochs, outcome.macro_auc
            self._files.save_best(progress, model, outcome)
            self._reporter.message(f"{told}, kept instead of {best}")
        else:
            self._reporter.message(f"{told}, not kept; {best}")

    def _test(self, progress: Progress) -> None:
        """Score the kept weights on the clips that decided nothing."""
        model = load_checkpoint(self._job.folder / BEST).build_model().to(self._device)
        outcome = self._score(model, self._job.test)
        for line in outcome.failed:
            self._reporter.message(f"left out, cannot be decoded: {line}")
        progress.test_macro_auc, progress.test_padded_cmap = outcome.macro_auc, outcome.padded_cmap
        write_atomic(self._job.folder / TEST_SCORES, oof_table(outcome, self._job.labels))

    def _score(self, model: torch.nn.Module, clips: Sequence[Clip]) -> Validation:
        loader = clips_loader(self._job, clips, range(len(clips)))
        with evaluating(model):
            heard = predict_clips(
                lambda waveforms: self._forward.logits(model, waveforms),
                loader,
                self._job.recipe.loss.activation,
                self._stop.check,
            )
        return score(clips, heard, self._job.species)
