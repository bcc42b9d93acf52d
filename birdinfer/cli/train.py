"""``birdinfer train``: a recipe and clips -> fold checkpoints and out-of-fold probabilities."""

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from birdinfer.training.checkpoint import EpochRow
    from birdinfer.training.report import FoldResult, FoldStart

EXIT_WITH_FAILURES = 3
DEFAULT_RECIPE = Path("train/efficientnet_b0.toml")
_PLAIN_LINE_SECONDS = 10.0


def train(
    fold: Annotated[str, typer.Option(help="Which fold to hold out: 0, 1, ... or all.")] = "0",
    recipe: Annotated[
        Path | None, typer.Option(help=f"A recipe; {DEFAULT_RECIPE} if it is there, else built-in defaults.")
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Folder with train.csv, taxonomy.csv and train_audio/, as BirdCLEF lays it out.")
    ] = Path("data"),
    run: Annotated[str | None, typer.Option(help="Name of the run; the recipe's if left out.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the recipe, as optim.lr=3e-4; repeatable.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="1,000 clips, 2 epochs, fold 0: does all of it run?")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only complaints and the result.")] = False,
) -> None:
    """Train a fold, or all of them.

    The run's folder gets folds.csv and, per fold, best.safetensors, oof.csv, history.csv and metrics.json. An
    interrupted run goes on with --resume and ends as if it had not been. Exit code 3: a fold failed, others did not.
    """
    _need_the_extra()
    from birdinfer.training import run as training
    from birdinfer.training.recipe_file import load_recipe

    chosen = load_recipe(recipe or (DEFAULT_RECIPE if DEFAULT_RECIPE.is_file() else None), overrides or [])
    chosen = training.debug(chosen) if debug else chosen
    folds = parse_folds("0" if debug else fold)
    run_dir = runs_dir / check_name(run or chosen.name)
    with TrainingProgress(quiet) as progress:
        results = training.train(chosen, data, run_dir, folds, device, progress, resume=resume)
    _draw_histories(results, run_dir)
    _say_result(results, run_dir)
    if any(result.problem for result in results):
        raise typer.Exit(EXIT_WITH_FAILURES)


def check_name(run: str) -> str:
    """A run's name, which becomes a folder in the runs' folder and nowhere else.

    Raises:
        ConfigError: it cannot be one.
    """
    from birdinfer.errors import ConfigError

    if run in {"", ".", ".."} or Path(run).name != run:
        raise ConfigError("--run", f"{run!r} is no name for a folder", "choose its parent with --runs-dir")
    return run


def parse_folds(text: str) -> list[int] | None:
    """``"2"`` -> [2]; ``"all"`` -> None.

    Raises:
        ConfigError: it is neither.
    """
    from birdinfer.errors import ConfigError

    if text == "all":
        return None
    if not text.isdecimal():
        raise ConfigError("--fold", f"is {text!r}, allowed are 0, 1, ... and all")
    return [int(text)]


class TrainingProgress:
    """Shows a run on standard error: a bar in a terminal, plain lines elsewhere. Use as a context manager."""

    def __init__(self, quiet: bool) -> None:
        """Prepare; nothing but warnings is shown if ``quiet``."""
        from birdinfer.cli.console import stderr

        self._console = stderr()
        self._quiet = quiet
        self._bar: Any = None
        self._auc = ""
        self._last_line = 0.0

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    def start(self, start: "FoldStart") -> None:
        """Open a bar for a fold."""
        self._start, self._began, self._auc = start, perf_counter(), ""
        resumed = f", resumed at step {start.first_step}" if start.first_step else ""
        self.message(
            f"fold {start.fold}: {start.n_training} clips to train, {start.n_validation} to validate, "
            f"{start.epochs} epochs of {start.steps_per_epoch} steps{resumed}"
        )
        if self._console.is_terminal and not self._quiet:
            from birdinfer.cli.console import bar

            self._bar = bar(self._console)
            self._task = self._bar.add_task(
                "", total=start.epochs * start.steps_per_epoch, completed=start.first_step, state=f"fold {start.fold}"
            )
            self._bar.start()

    def step(self, steps_done: int, loss: float) -> None:
        """Move the bar; without a terminal, a line now and then."""
        now = perf_counter()
        done, left = steps_done - self._start.first_step, self._start.epochs * self._start.steps_per_epoch - steps_done
        seconds = max(1e-9, now - self._began)
        samples_per_second = done * self._start.batch_size / seconds
        state = f"fold {self._start.fold}, loss {loss:.4f}{self._auc}, {samples_per_second:.0f} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=steps_done, state=state)
        elif not self._quiet and now - self._last_line > _PLAIN_LINE_SECONDS:
            self._last_line = now
            self._console.print(f"{state}, {left * seconds / max(1, done):.0f} s left")

    def epoch(self, row: "EpochRow", is_best: bool) -> None:
        """A line per epoch."""
        self._auc = f", macro AUC {_score(row.val_macro_auc)}"
        best = " *" if is_best else ""
        if not self._quiet:
            self._console.print(
                f"epoch {row.epoch:>3}/{self._start.epochs}: loss {row.train_loss:.4f}, validation "
                f"{_score(row.val_loss)}, macro AUC {_score(row.val_macro_auc)}, top-1 {_score(row.val_top1)}, "
                f"{row.seconds:.1f} s{best}"
            )

    def message(self, line: str) -> None:
        """A line."""
        from rich.markup import escape

        if not self._quiet:
            self._console.print(escape(line))

    def finish(self, result: "FoldResult") -> None:
        """Close the fold's bar; a failure is a line of its own."""
        from rich.markup import escape

        self._stop_bar()
        if result.problem:
            self._console.print(f"[red]fold {result.fold} failed:[/] {escape(result.problem)}")

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _need_the_extra() -> None:
    from importlib.util import find_spec

    from birdinfer.errors import MissingExtraError

    for module in ("torch", "timm", "safetensors", "sklearn"):
        if find_spec(module) is None:
            raise MissingExtraError(module, "train")


def _draw_histories(results: "list[FoldResult]", run_dir: Path) -> None:
    """history.png beside each fold's history.csv, where matplotlib is there; a picture is never worth a failure."""
    import csv
    from contextlib import suppress

    with suppress(ModuleNotFoundError):
        from birdinfer.report.plots import draw_history

        for folder in [run_dir / f"fold{result.fold}" for result in results if not result.problem]:
            with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            columns = {name: [float(row[name]) if row[name] else None for row in rows] for name in rows[0]}
            losses = {"training loss": columns["train_loss"], "validation loss": columns["val_loss"]}
            epochs = [int(row["epoch"]) for row in rows]
            draw_history(
                folder / "history.png", f"{run_dir.name}, {folder.name}", epochs, losses, columns["val_macro_auc"]
            )


def _say_result(results: "list[FoldResult]", run_dir: Path) -> None:
    """The last lines: what each fold is worth, and all together."""
    from rich.markup import escape

    from birdinfer.cli.console import stdout
    from birdinfer.training.run import summarise

    console = stdout()
    for result in results:
        if not result.problem:
            console.print(
                f"{escape(str(run_dir / f'fold{result.fold}'))}: macro AUC {_score(result.macro_auc)}, top-1 "
                f"{_score(result.top1)}, best epoch {result.best_epoch}, {result.seconds:.0f} s"
            )
    if len(results) > 1:
        summary: dict[str, Any] = summarise(results)
        console.print(
            f"{escape(str(run_dir))}: macro AUC {_score(summary['mean_macro_auc'])} "
            f"± {_score(summary['std_macro_auc'])} over {len(results) - summary['n_failed']} folds, "
            f"{summary['n_failed']} failed"
        )
    if not all(result.problem for result in results):
        console.print(f"next: birdinfer export --onnx --run {escape(str(run_dir))}")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
