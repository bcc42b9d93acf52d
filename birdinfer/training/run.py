"""A run: data folder and recipe -> ``runs/NAME/`` with folds.csv and a folder of results for each fold.

A fold's folder holds best.safetensors, last.safetensors, history.csv, oof.csv, classes.csv, taxa.csv, metrics.json
and recipe.toml.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.files import write_atomic
from birdinfer.interrupt import StopRequest
from birdinfer.training.checkpoint import Progress, load_header, versions
from birdinfer.training.clips.sources import ClipSource
from birdinfer.training.devices import choose_device, precision_for
from birdinfer.training.fold_job import LAST, FoldJob, fold_dir
from birdinfer.training.folds.laying import TEST
from birdinfer.training.loop import train_fold
from birdinfer.training.plan import RECIPE_FILE, Run, begin_run, check_recipe, wanted_folds
from birdinfer.training.preparation import Laid, open_source
from birdinfer.training.processes import Processes, ending_together, from_environment, joined
from birdinfer.training.recipe.file import write_recipe
from birdinfer.training.report import FoldResult, Reporter, Silent
from birdinfer.training.summary import METRICS, as_json, fold_result, plain, write_summary
from birdinfer.training.tracking.reporter import tracked
from birdinfer.training.turns import one_at_a_time

_PATIENCE_SECONDS = 30.0
"""For a process that still saves a fold which this one would go on with."""


def train(run: Run, reporter: Reporter) -> list[FoldResult]:
    """Train one fold, several, or all.

    Args:
        run: what and where.
        reporter: is told how it goes.

    Returns:
        A result per fold. With more than one fold, one that fails does not stop the others.

    Raises:
        BirdinferError: the data, the recipe or the run's folder cannot be used; or the only fold failed.
    """
    processes = from_environment()
    # What several processes have to say, one says.
    reporter = reporter if processes.is_first else Silent()
    wanted = wanted_folds(run)
    device = choose_device(run.device, reporter.message, processes.local_rank)
    background = check_recipe(run, wanted)
    precision_for(device, run.recipe.loop.amp)
    for line in background.failed:
        reporter.message(f"background left out, cannot be decoded: {line}")
    tracking = tracked(run.recipe, run.data_dir, run.run_dir, reporter) if processes.is_first else nullcontext(reporter)
    with (
        joined(processes, device, str(run.run_dir)),
        StopRequest() as stop,
        ending_together(processes, stop),
        tracking as reporter,
    ):
        laid = begin_run(run, wanted, reporter, stop, processes)
        source = open_source(run.recipe, laid.clips, run.cache_dir, reporter, stop.check)
        trainer = _Trainer(run, laid, source, background.files, device, reporter, stop, processes)
        results = [trainer.train_or_fail(fold, is_only=len(wanted) == 1) for fold in wanted]
    if processes.is_first:
        write_summary(run.run_dir, results)
    return results


class _Trainer:
    """Trains the folds of one run."""

    def __init__(
        self, run: Run, laid: Laid, source: ClipSource, background: tuple[Path, ...], device: torch.device,
        reporter: Reporter, stop: StopRequest, processes: Processes,
    ) -> None:  # fmt: skip
        self._run, self._laid, self._source, self._background = run, laid, source, background
        self._device, self._reporter, self._stop, self._processes = device, reporter, stop, processes

    def train_or_fail(self, fold: int, is_only: bool) -> FoldResult:
        """A fold's result; with several folds, a failure is a result, too."""
        try:
            result = self._train(fold)
        except (BirdinferError, RuntimeError) as error:
            # Other processes would wait for ever for one that goes on with another fold.
            if is_only or self._processes.n > 1:
                raise
            result = FoldResult(fold, problem=" ".join(str(error).split()))
        self._reporter.finish(result)
        return result

    def _train(self, fold: int) -> FoldResult:
        job = self._job(fold)
        if not job.training or not (job.validation or job.recipe.data.all_data):
            side = "train" if job.validation else "validate"
            raise ConfigError("--fold", f"{fold} has no clips to {side} with", "lower data.n_folds")
        with self._alone_in(job.folder):
            progress = self._finished(job.folder / LAST)
            if progress is None:
                if self._processes.is_first:
                    write_atomic(job.folder / RECIPE_FILE, write_recipe(job.recipe))
                progress = train_fold(job, self._device, self._reporter, self._stop, self._processes)
            result = fold_result(fold, progress)
            if self._processes.is_first:
                write_atomic(job.folder / METRICS, as_json(plain(result) | self._facts(job)))
        return result

    def _alone_in(self, folder: Path) -> AbstractContextManager[None]:
        """While entered, no other run trains this fold: two that write to one folder would lose both."""
        if not self._processes.is_first:
            return nullcontext()
        return one_at_a_time(folder, self._reporter.message, self._stop.check, _PATIENCE_SECONDS)

    def _finished(self, path: Path) -> Progress | None:
        progress = load_header(path).progress if path.exists() else None
        if progress is None or not progress.is_complete:
            return None
        self._reporter.message(f"{path.parent} is finished already")
        return progress

    def _facts(self, job: FoldJob) -> dict[str, object]:
        return {
            "n_training_clips": len(job.training),
            "n_validation_clips": len(job.validation),
            "n_test_clips": len(job.test),
            "device": torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu",
            "processes": self._processes.n,
            "versions": versions(),
        }

    def _job(self, fold: int) -> FoldJob:
        return FoldJob(
            recipe=self._run.recipe,
            species=self._laid.species,
            fold=fold,
            training=self._laid.training(fold),
            validation=self._laid.held_out(fold),
            test=self._laid.held_out(TEST),
            source=self._source,
            background=self._background,
            data_dir=self._run.data_dir,
            folder=fold_dir(self._run.run_dir, fold),
        )
