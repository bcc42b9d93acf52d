"""``birdinfer train``: recipes and clips -> fold checkpoints, out-of-fold probabilities and what they are worth."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.markup import escape
from rich.table import Table

from birdinfer.cli import options
from birdinfer.cli.console import stdout
from birdinfer.cli.options import DEFAULT_RECIPE, check_name, need_modules, parse_folds
from birdinfer.cli.progress import StatusBar
from birdinfer.cli.slurm import cluster_settings, show_jobs
from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.runs.layout import LAST, fold_dir
from birdinfer.training.callbacks import FoldResult, FoldStart, TrainingCallback
from birdinfer.training.launch.local import parse_devices
from birdinfer.training.run_log import epoch_line, result_line, score_text, start_line

if TYPE_CHECKING:
    from birdinfer.training.checkpoint import EpochRow

EXIT_WITH_FAILURES = 3


def train(
    fold: Annotated[str, typer.Option(help="Which fold to hold out: 0, 1, ...; several as 0,2; or all.")] = "0",
    recipe: Annotated[list[Path] | None, typer.Option(
        help="Name of a recipe (birdinfer recipes list) or a TOML file; repeat it to train several, one after another. "
        f"{DEFAULT_RECIPE} if left out.")] = None,
    finetune: Annotated[Path | None, typer.Option(
        "--finetune-for-int8",
        help="Instead of a recipe: a finished run, runs/NAME, whose folds are trained on into NAME-int8 for a network "
        "that is faster in INT8, ReLU for SiLU.")] = None,
    data: Annotated[Path | None, typer.Option(
        help="Folder with train.csv, taxonomy.csv and train_audio/, in BirdCLEF's layout; if left out data, or what "
        "Kaggle has mounted, and of a fine-tune, where its run had it.", show_default=False)] = None,
    # torchrun takes --run for a beginning of options of its own.
    run: Annotated[str | None, typer.Option(
        "--run", "--name", help="Name of the run; the recipe's if left out. (Under torchrun: --name.)")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    overrides: Annotated[list[str] | None, typer.Option(
        "--set", help="Change a key of the recipe, as optim.lr=3e-4; repeatable.")] = None,
    weights: Annotated[Path | None, typer.Option(
        help="Start from this .safetensors file instead of timm's hub.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(
        help="Where decoded clips are kept (data.cache); your cache folder if left out.")] = None,
    debug: Annotated[bool, typer.Option(
        "--debug", help="At most 1,000 clips, 2 epochs, fold 0: does all of it run?")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[str | None, typer.Option(
        help="Train folds side by side, one on each: 0,1 are GPUs, cpu,cpu two halves of the cores.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and the result.")] = False,
    cluster: options.ClusterName = None,
    partition: options.Partition = None,
    gres: options.Gres = None,
    time_limit: options.TimeLimit = None,
    memory: options.Memory = None,
    cpus: options.Cpus = None,
    sbatch: options.Further = None,
    setup: options.Setup = None,
    nodes: options.Nodes = None,
    processes: options.ProcessesPerNode = None,
    template: options.Template = None,
    print_only: options.PrintOnly = False,
) -> None:  # fmt: skip
    """Train a fold, or all of them, of one recipe or of several; or train a run on, for INT8.

    The run's folder gets folds.csv and, per fold, best.safetensors, oof.csv, history.csv, classes.csv and
    metrics.json. An interrupted run continues with --resume and ends as if it had not been. Several GPUs: --devices for
    folds side by side, torchrun for one fold (train/README.md). Exit code 3: something failed, the rest did not.
    """
    need_modules("train", "torch", "timm", "safetensors")
    from birdinfer.training.distributed import from_environment
    from birdinfer.training.run import TrainingSettings, train_folds

    recipes: list[Path | None] = [*recipe] if recipe else [DEFAULT_RECIPE if finetune is None else None]
    if run is not None and len(recipes) > 1:
        raise ConfigError("--run", f"is {run!r}, {len(recipes)} recipes need a name each", "leave it out")
    if devices is not None and device != "auto":
        raise ConfigError("--device", "was given with --devices", "leave it out")
    data = data if finetune else options.find_data(data)
    settings = [
        TrainingSettings(
            recipe=each, data=data, run_dir=None if run is None else runs_dir / check_name(run), runs_dir=runs_dir,
            folds=parse_folds("0" if debug else fold), devices=(device,) if devices is None else parse_devices(devices),
            resume=resume, overrides=tuple(overrides or ()), weights=weights, finetune=finetune, debug=debug,
            cache_dir=cache_dir,
        )
        for each in recipes
    ]  # fmt: skip
    jobs = cluster_settings(
        cluster, print_only, partition=partition, gres=gres, time_limit=time_limit, memory=memory, cpus=cpus,
        nodes=nodes, processes=processes, sbatch=tuple(sbatch or ()), setup=tuple(setup or ()), template=template,
    )  # fmt: skip
    with TrainingProgress(quiet) as progress:
        if jobs is not None:
            from birdinfer.training.launch.submit import folds_script, submit_folds

            if print_only:
                typer.echo(folds_script(settings, jobs), nl=False)
            else:
                show_jobs(submit_folds(settings, jobs, progress))
            return
        outcomes = train_folds(settings, progress)
    if from_environment().is_first:
        draw(list(outcomes))
        show_results(outcomes)
        if finetune is not None:
            compare(finetune, next(iter(outcomes.values())))
    if any(result.problem for results in outcomes.values() for result in results):
        raise typer.Exit(EXIT_WITH_FAILURES)


class TrainingProgress(TrainingCallback):
    """Shows a training on standard error. Use as a context manager."""

    def __init__(self, quiet: bool) -> None:
        self._status = StatusBar(quiet)
        self._prefix = self._auc = ""
        self._start: FoldStart | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def of_fold(self, name: str) -> "TrainingProgress":
        """Show one of several folds that are trained at the same time: lines with its name, and no bar."""
        fold = TrainingProgress(self._status.quiet)
        fold._prefix = f"{name}: "
        return fold

    def on_message(self, line: str) -> None:
        self._status.line(f"{self._prefix}{line}")

    def on_warning(self, line: str) -> None:
        self._status.warn(f"{self._prefix}{line}")

    def on_progress(self, task: str, done: float, total: float) -> None:
        if not self._prefix:
            self._status.show(task, f"{task} {done:.0f}/{total:.0f}", done, total)
            if done >= total:
                self._status.stop()

    def on_fold_start(self, start: FoldStart) -> None:
        self._start, self._began, self._auc = start, perf_counter(), ""
        self.on_message(start_line(start))

    def on_step(self, steps_done: int, loss: float) -> None:
        start = self._start
        if start is None or self._prefix:
            return
        per_second = (steps_done - start.first_step) * start.batch_size / max(1e-9, perf_counter() - self._began)
        state = f"fold {start.fold}, loss {loss:.4f}{self._auc}, {per_second:.0f} samples/s"
        self._status.show(f"fold {start.fold}", state, steps_done, start.epochs * start.steps_per_epoch)

    def on_epoch_end(self, row: "EpochRow", is_best: bool) -> None:
        self._auc = f", macro AUC {score_text(row.val_macro_auc)}"
        self.on_message(epoch_line(row, self._start.epochs if self._start else row.epoch, is_best))

    def on_fold_end(self, result: FoldResult, run: str = "") -> None:
        """Close the fold's bar; a failure is a line of its own, also if quiet."""
        self._status.stop()
        if result.problem:
            of_run = f"{run}, " if run else ""
            self._status.warn(f"{of_run}fold {result.fold} failed: {result.problem}", "red")


def draw(run_dirs: Sequence[Path]) -> None:
    """The pictures of each run, where matplotlib is there; a picture is never worth a failure."""
    with suppress(ModuleNotFoundError):
        from birdinfer.plots.training import draw_run

        for run_dir in run_dirs:
            with suppress(BirdinferError):
                draw_run(run_dir)


def show_results(outcomes: Mapping[Path, Sequence[FoldResult]]) -> None:
    """A line a fold, a line a run of several folds, a table of several runs, and what to do next."""
    from birdinfer.training.summary import summarise

    console = stdout()
    summaries = {run_dir: summarise(results, run_dir) for run_dir, results in outcomes.items()}
    for run_dir, results in outcomes.items():
        for result in results:
            if not result.problem:
                console.print(escape(f"{run_dir / f'fold{result.fold}'}: {result_line(result)}"))
        if len(results) > 1:
            console.print(escape(f"{run_dir}: {_together(summaries[run_dir])}"))
    if len(outcomes) > 1:
        console.print(_table(outcomes, summaries))
    for run_dir, results in outcomes.items():
        if not all(result.problem for result in results):
            console.print(f"next: birdinfer export --onnx --run {escape(str(run_dir))}")


def compare(run_dir: Path, results: Sequence[FoldResult]) -> None:
    """Print a table of each fold's macro AUC before a fine-tune and after it, on the same held-out clips."""
    from birdinfer.training.checkpoint import load_header
    from birdinfer.training.summary import fold_result

    table = Table("fold", f"macro AUC of {run_dir.name}", "after", "difference")
    for after in results:
        before = fold_result(after.fold, load_header(fold_dir(run_dir, after.fold) / LAST).progress).macro_auc
        gain = after.macro_auc - before
        table.add_row(
            str(after.fold),
            score_text(before),
            score_text(after.macro_auc),
            "-" if math.isnan(gain) else f"{gain:+.4f}",
        )
    stdout().print(table)


def _together(summary: Mapping[str, Any]) -> str:
    n_folds = len(summary["folds"]) - summary["n_failed"]
    return (
        f"macro AUC {_spread(summary, 'macro_auc')} over {n_folds} folds, {summary['n_failed']} failed; "
        f"all out-of-fold clips together {score_text(summary['out_of_fold_macro_auc'])}"
    )


def _table(outcomes: Mapping[Path, Sequence[FoldResult]], summaries: Mapping[Path, Mapping[str, Any]]) -> Any:
    table = Table("run", "folds", "failed", "macro AUC", "cmAP", "top-1", "out-of-fold macro AUC", "seconds")
    for run_dir, results in outcomes.items():
        summary = summaries[run_dir]
        table.add_row(
            run_dir.name,
            str(len(results)),
            str(summary["n_failed"]),
            *(_spread(summary, name) for name in ("macro_auc", "padded_cmap", "top1")),
            score_text(summary["out_of_fold_macro_auc"]),
            f"{sum(result.seconds for result in results):.0f}",
        )
    return table


def _spread(summary: Mapping[str, Any], name: str) -> str:
    mean, deviation = summary[f"mean_{name}"], summary[f"std_{name}"]
    return score_text(mean) + ("" if deviation is None else f" ± {deviation:.4f}")
