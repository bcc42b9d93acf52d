"""A run: data folder and recipe -> ``runs/NAME/`` with folds.csv and a folder of results for each fold.

A fold's folder holds best.safetensors, last.safetensors, history.csv, oof.csv, metrics.json and recipe.toml.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from birdinfer.errors import BirdinferError, CheckpointError, ConfigError
from birdinfer.files import write_atomic
from birdinfer.training.checkpoint import Progress, load_checkpoint, versions
from birdinfer.training.folds import assign_folds, given_folds, leaks
from birdinfer.training.interrupt import StopRequest
from birdinfer.training.loop import LAST, FoldJob, check_same_recipe, train_fold
from birdinfer.training.metadata import Clip, Metadata, read_metadata
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe_file import write_recipe
from birdinfer.training.report import FoldResult, Reporter

DEBUG_CLIPS, DEBUG_EPOCHS = 1_000, 2


class _Laid(NamedTuple):
    """The clips of a run and their folds."""

    metadata: Metadata
    clips: tuple[Clip, ...]
    folds: tuple[int, ...]


def train(
    recipe: Recipe,
    data_dir: Path,
    run_dir: Path,
    folds: Sequence[int] | None,
    device: str,
    reporter: Reporter,
    *,
    resume: bool = False,
) -> list[FoldResult]:
    """Train one fold, several, or all.

    Args:
        recipe: all that decides the result.
        data_dir: in the layout of BirdCLEF, see ``metadata``.
        run_dir: where the run is written.
        folds: which, from 0; None for all.
        device: ``auto``, ``cpu`` or ``cuda``.
        reporter: is told how it goes.
        resume: go on with what is there, instead of refusing to touch it.

    Returns:
        A result per fold. With more than one fold, one that fails does not stop the others.

    Raises:
        BirdinferError: the data, the recipe or the run's folder cannot be used; or the only fold failed.
    """
    chosen = choose_device(device, reporter)
    wanted = tuple(range(recipe.data.n_folds)) if folds is None else tuple(folds)
    outside = [fold for fold in wanted if not 0 <= fold < recipe.data.n_folds]
    if outside:
        raise ConfigError("--fold", f"is {outside[0]}, the recipe has folds 0 to {recipe.data.n_folds - 1}")
    _check_untouched(run_dir, wanted, recipe, resume)
    laid = lay_folds(recipe, data_dir, reporter)
    _write_folds(run_dir / "folds.csv", laid)
    with StopRequest() as stop:
        results = [
            _train_or_fail(_job(recipe, laid, fold, data_dir, run_dir), chosen, reporter, stop, len(wanted))
            for fold in wanted
        ]
    if len(results) > 1:
        write_atomic(run_dir / "summary.json", _json(summarise(results)))
    return results


def debug(recipe: Recipe) -> Recipe:
    """The same recipe on 1,000 clips for 2 epochs: all code runs, nothing is learned."""
    return msgspec.structs.replace(
        recipe,
        name=f"{recipe.name}-debug",
        data=msgspec.structs.replace(recipe.data, max_clips=DEBUG_CLIPS),
        loop=msgspec.structs.replace(recipe.loop, epochs=DEBUG_EPOCHS),
    )


def choose_device(name: str, reporter: Reporter) -> torch.device:
    """``auto`` takes a GPU if there is one, and says which processor it became.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise ConfigError("--device", f"is {name!r}, allowed are auto, cpu, cuda")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError(
            "--device", f"is cuda, torch {torch.__version__} finds no GPU", "check nvidia-smi, or use cpu"
        )
    if name == "cpu" or not has_gpu:
        reporter.message(f"training on the CPU with {torch.get_num_threads()} threads")
        return torch.device("cpu")
    torch.backends.cudnn.benchmark = True  # all batches have one shape, so trying algorithms pays
    precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    reporter.message(
        f"training on {torch.cuda.get_device_name()}, mixed precision in {precision} if the recipe says so"
    )
    return torch.device("cuda")


def lay_folds(recipe: Recipe, data_dir: Path, reporter: Reporter) -> _Laid:
    """Read the data and lay its folds; what was left out or leaks is reported.

    Raises:
        BirdinferError: as ``read_metadata`` and ``assign_folds``.
    """
    column, n_folds = recipe.data.fold_column, recipe.data.n_folds
    metadata = read_metadata(data_dir, column)
    clips = metadata.clips
    folds = given_folds(clips, n_folds, column) if column else assign_folds(clips, n_folds, recipe.seed)
    for note in (*metadata.notes, *leaks(clips, folds)):
        reporter.message(note)
    most = recipe.data.max_clips
    if 0 < most < len(clips):
        chosen = np.sort(np.random.default_rng(recipe.seed).choice(len(clips), most, replace=False))
        clips, folds = tuple(clips[index] for index in chosen), [folds[index] for index in chosen]
    return _Laid(metadata, clips, tuple(folds))


def summarise(results: Sequence[FoldResult]) -> dict[str, object]:
    """All folds in a few numbers: mean and standard deviation (of a sample) over those that can be scored."""
    scores = [result.macro_auc for result in results if not math.isnan(result.macro_auc)]
    return {
        "mean_macro_auc": float(np.mean(scores)) if scores else None,
        "std_macro_auc": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "n_failed": sum(bool(result.problem) for result in results),
        "folds": [_plain(result) for result in results],
    }


def _check_untouched(run_dir: Path, wanted: Sequence[int], recipe: Recipe, resume: bool) -> None:
    """Before anything is trained: is there room for every fold, or something to go on with?"""
    for fold in wanted:
        path = _folder(run_dir, fold) / LAST
        if not path.exists():
            continue
        if not resume:
            raise CheckpointError(path, "is already there", "go on with --resume, or name another run with --run")
        check_same_recipe(load_checkpoint(path).recipe, recipe, path)


def _write_folds(path: Path, laid: _Laid) -> None:
    """folds.csv; the folds of a run never change under it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["filename", "primary_label", "group", "fold"])
    for clip, fold in zip(laid.clips, laid.folds, strict=True):
        writer.writerow([clip.filename, clip.primary_label, clip.group, fold])
    if not path.exists():
        write_atomic(path, buffer.getvalue())
    elif path.read_text(encoding="utf-8") != buffer.getvalue():
        raise CheckpointError(
            path, "holds other clips or folds: data, seed or folds have changed", "train into another run with --run"
        )


def _job(recipe: Recipe, laid: _Laid, fold: int, data_dir: Path, run_dir: Path) -> FoldJob:
    pairs = list(zip(laid.clips, laid.folds, strict=True))
    return FoldJob(
        recipe=recipe,
        species=laid.metadata.species,
        fold=fold,
        training=tuple(clip for clip, its_fold in pairs if its_fold != fold),
        validation=tuple(clip for clip, its_fold in pairs if its_fold == fold),
        data_dir=data_dir,
        folder=_folder(run_dir, fold),
    )


def _train_or_fail(
    job: FoldJob, device: torch.device, reporter: Reporter, stop: StopRequest, n_wanted: int
) -> FoldResult:
    """A fold's result; with several folds, a failure is a result, too."""
    try:
        result = _train_one(job, device, reporter, stop)
    except (BirdinferError, RuntimeError) as error:  # torch reports an exhausted GPU as RuntimeError
        if n_wanted == 1:
            raise
        result = FoldResult(job.fold, problem=" ".join(str(error).split()))
    reporter.finish(result)
    return result


def _train_one(job: FoldJob, device: torch.device, reporter: Reporter, stop: StopRequest) -> FoldResult:
    if not job.training or not job.validation:
        side = "train" if job.validation else "validate"
        raise ConfigError("--fold", f"{job.fold} has no clips to {side} with", "lower data.n_folds")
    path = job.folder / LAST
    if path.exists() and load_checkpoint(path).epoch >= job.recipe.loop.epochs:
        reporter.message(f"fold {job.fold} is finished already")
    else:
        write_atomic(job.folder / "recipe.toml", write_recipe(job.recipe))
        train_fold(job, device, reporter, stop)
    result = _result(job.fold, load_checkpoint(path).header.progress)
    metrics = _plain(result) | {
        "n_training_clips": len(job.training),
        "n_validation_clips": len(job.validation),
        "device": str(device),
        "versions": versions(),
    }
    write_atomic(job.folder / "metrics.json", _json(metrics))
    return result


def _result(fold: int, progress: Progress) -> FoldResult:
    best = progress.history[progress.best_epoch - 1]
    seconds = sum(row.seconds for row in progress.history)
    return FoldResult(fold, "", _or_nan(best.val_macro_auc), _or_nan(best.val_top1), best.epoch, round(seconds, 1))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(result: FoldResult) -> dict[str, object]:
    """For JSON, which has no nan."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in result._asdict().items()
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _folder(run_dir: Path, fold: int) -> Path:
    return run_dir / f"fold{fold}"
