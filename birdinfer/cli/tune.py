"""``birdinfer tune``: a recipe, a space and clips -> trials, what they are worth, and the best recipe."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.markup import escape
from rich.table import Table

from birdinfer.cli import options
from birdinfer.cli.console import stdout
from birdinfer.cli.options import DEFAULT_DATA, DEFAULT_RECIPE, check_name, find_data, need_modules, parse_folds
from birdinfer.cli.progress import StatusBar
from birdinfer.cli.slurm import cluster_settings, show_jobs
from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.runs.layout import BEST_FILE, IMPORTANCE_FILE, trial_dir
from birdinfer.runs.study import TrialRecord, best_of, cell, default_of
from birdinfer.tables.csv import rows
from birdinfer.training.launch.local import parse_devices
from birdinfer.training.recipe.shipped import SPACE
from birdinfer.tuning.callbacks import TuningCallback

if TYPE_CHECKING:
    from birdinfer.tuning.search import Search
    from birdinfer.tuning.worker import TuningResult

EXIT_UNFINISHED = 3
DEFAULT_SPACE = Path(SPACE)
"""As recipes, found by its name."""


def tune(
    recipe: Annotated[Path | None, typer.Option(
        help=f"Name or TOML file of the recipe to begin with, which is the first trial; "
        f"{DEFAULT_RECIPE} if left out.", show_default=False)] = None,
    space: Annotated[Path, typer.Option(help="TOML: what each searched key may be.")] = DEFAULT_SPACE,
    trials: Annotated[int, typer.Option(help="Finished trials of the whole study, all workers together.")] = 50,
    fold: Annotated[str, typer.Option(help="Which folds a score is the mean of: 0, 0,1 or all.")] = "0",
    repeats: Annotated[int, typer.Option(
        help="Train each trial so often, each time with the next seed; its score is the mean.")] = 1,
    data: Annotated[Path | None, typer.Option(
        help="Folder with train.csv, taxonomy.csv and train_audio/, in BirdCLEF's layout; if left out data, or what "
        "Kaggle has mounted.")] = None,
    study: Annotated[str | None, typer.Option(
        help="Name of the study's folder; the recipe's with -tune if left out.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs and studies are kept.")] = Path("runs"),
    overrides: Annotated[list[str] | None, typer.Option(
        "--set", help="Change a key of the recipe, as loop.epochs=10; repeatable.")] = None,
    sampler: Annotated[str, typer.Option(help="tpe learns from the trials so far, random does not.")] = "tpe",
    pruner: Annotated[str, typer.Option(
        help="Who gives up trials that lag behind: halving, hyperband, median or none.")] = "halving",
    seed: Annotated[int, typer.Option(
        min=0, max=2**31 - 1, help="Seed of the values that are drawn, not of the training.")] = 0,
    workers: Annotated[int | None, typer.Option(
        help="Processes that share the study: here, or jobs of a cluster.")] = None,
    devices: Annotated[str | None, typer.Option(
        help="A worker on each: 0,1 are GPUs, cpu,cpu two halves of the cores.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cache_dir: Annotated[Path | None, typer.Option(
        help="Where decoded clips are kept (data.cache); your cache folder if left out.")] = None,
    storage: Annotated[str | None, typer.Option(
        help="journal (safe on network disks) or sqlite; as the study is, else journal.")] = None,
    debug: Annotated[bool, typer.Option(
        "--debug", help="3 trials of at most 1,000 clips and 2 epochs: does all of it run?")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    cluster: options.ClusterName = None,
    partition: options.Partition = None,
    gres: options.Gres = None,
    time_limit: options.TimeLimit = None,
    memory: options.Memory = None,
    cpus: options.Cpus = None,
    sbatch: options.Further = None,
    setup: options.Setup = None,
    template: options.Template = None,
    print_only: options.PrintOnly = False,
    then_train: Annotated[str | None, typer.Option(
        help="Then train these folds of the best recipe: all, 0, ...", rich_help_panel="Cluster")] = None,
) -> None:  # fmt: skip
    """Search for a recipe's best values, trial by trial, each a run of train.

    The study's folder, runs/STUDY, gets trials.csv, curves.csv, importance.csv, best.toml, pictures and each trial's
    run; weights of the best trial only. The same command once more, here or on another machine, is one more worker of
    the study, or continues it. Exit code 3: the study is not finished.
    """
    need_modules("tune", "optuna", "torch", "timm", "safetensors")
    from birdinfer.tuning import run, submit
    from birdinfer.tuning.search import DEBUG_TRIALS

    recipe = recipe or DEFAULT_RECIPE
    places: tuple[str, ...] = (device,)
    if devices is not None or (workers is not None and cluster is None):
        places = run.worker_devices(workers, None if devices is None else parse_devices(devices), device)
    settings = run.TuningSettings(
        recipe=recipe, overrides=tuple(overrides or ()), space=space, data=find_data(data) or DEFAULT_DATA,
        runs_dir=runs_dir,
        study=None if study is None else check_name(study, "--study"), folds=parse_folds(fold), trials=trials,
        repeats=repeats, sampler=sampler, pruner=pruner, seed=seed, devices=places, cache_dir=cache_dir,
        storage=storage, debug=debug,
    )  # fmt: skip
    jobs = cluster_settings(
        cluster, print_only, partition=partition, gres=gres, time_limit=time_limit, memory=memory, cpus=cpus,
        sbatch=tuple(sbatch or ()), setup=tuple(setup or ()), template=template,
    )  # fmt: skip
    if jobs is None and then_train is not None:
        then = f"birdinfer train --recipe STUDY/{BEST_FILE} --fold {then_train}"
        raise ConfigError("--then-train", "is of jobs of a cluster (--cluster slurm)", f"afterwards run {then}")
    with TuningProgress(DEBUG_TRIALS if debug else trials, quiet, len(places)) as progress:
        if jobs is not None:
            folds = () if then_train is None else parse_folds(then_train) or submit.all_folds(settings)
            n_workers = 1 if workers is None else workers
            if print_only:
                typer.echo(submit.search_script(settings, jobs, n_workers, folds), nl=False)
            else:
                show_jobs(submit.submit_search(settings, jobs, n_workers, folds, progress))
            return
        outcome = run.tune(settings, progress)
    draw(outcome.search.study_dir)
    show_outcome(outcome)
    if not outcome.is_done:
        raise typer.Exit(EXIT_UNFINISHED)


class TuningProgress(TuningCallback):
    """Shows a search on standard error. Use as a context manager."""

    def __init__(self, n_trials: int, quiet: bool, n_workers: int = 1) -> None:
        self._status, self._n_trials, self._n_workers = StatusBar(quiet), n_trials, n_workers
        self._printed: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def on_message(self, line: str) -> None:
        """Print a line, once: each trial says the same of its clips."""
        if line not in self._printed:
            self._printed.add(line)
            self._status.line(line)

    def on_warning(self, line: str) -> None:
        self._status.warn(line)

    def on_progress(self, task: str, done: float, total: float) -> None:
        self._status.show(task, f"{task} {done:.0f}/{total:.0f}", done, total)
        if done >= total:
            self._status.stop()

    def on_trial_start(self, record: TrialRecord) -> None:
        resumed = f" (resumed at epoch {max(record.curve)})" if record.curve else ""
        default = " (the recipe itself)" if record.is_default else ""
        self._status.line(f"trial {record.number}{default}{resumed}: {values_text(record.values)}")

    def on_trial_step(self, number: int, step: int, n_steps: int, score: float | None) -> None:
        if self._n_workers == 1:
            known = "" if score is None else f", score so far {score:.4f}"
            self._status.show(f"trial {number}", f"trial {number}, epoch {step} of {n_steps}{known}", step, n_steps)

    def on_trial_end(self, record: TrialRecord, records: Sequence[TrialRecord]) -> None:
        self._status.line(ended_line(record, records, self._n_trials))
        if self._n_workers == 1:
            self._status.stop()
        else:
            n_finished = sum(each.is_finished for each in records)
            self._status.show("trials", f"{n_finished} of {self._n_trials} trials", n_finished, self._n_trials)


def ended_line(record: TrialRecord, records: Sequence[TrialRecord], n_trials: int) -> str:
    """What became of a trial, and how far the study is then."""
    best, n_finished = best_of(records), sum(each.is_finished for each in records)
    seconds = "" if record.seconds is None else f", {record.seconds:.0f} s"
    if record.state == "failed":
        return f"trial {record.number}: failed, {record.problem}"
    if record.score is None:
        step, score = list(record.curve.items())[-1] if record.curve else (0, float("nan"))
        how = f"given up at epoch {step} with {score:.4f}"
    else:
        how = f"score {record.score:.4f}"
    crown = "" if best is None else ", the best so far" if best.number == record.number else (
        f", best so far {best.score:.4f} of trial {best.number}"
    )  # fmt: skip
    return f"trial {record.number}: {how}{crown}{seconds}; {n_finished} of {n_trials}"


def values_text(values: Mapping[str, Any]) -> str:
    """``optim.lr=0.00213 loop.batch_size=16``."""
    return " ".join(f"{key}={value_text(value)}" for key, value in values.items())


def value_text(value: object) -> str:
    """A value for the screen: four digits of a number, all else as a table has it."""
    return f"{value:.4g}" if isinstance(value, float) else cell(value)


def draw(study_dir: Path) -> list[Path]:
    """The pictures of a study, where matplotlib is there; a picture is never worth a failure."""
    with suppress(ModuleNotFoundError, BirdinferError):
        from birdinfer.plots.search import draw_search

        return draw_search(study_dir)
    return []


def show_outcome(outcome: "TuningResult") -> None:
    """What the study has come to, on standard output."""
    console, search = stdout(), outcome.search
    best, default = best_of(outcome.records), default_of(outcome.records)
    console.print(escape(f"{search.study_dir}: {counts_text(outcome.records, search.trials)}"))
    if best is None:
        console.print("no trial has a score yet")
        return
    console.print(escape(_comparison(best, default)))
    _table(search, best, default, _importance(search.study_dir))
    kept = trial_dir(search.study_dir, best.number)
    console.print(escape(f"weights are kept of the best trial alone, {kept}; histories and tables of all"))
    data = "" if search.data == Path("data") else f" --data {search.data}"
    recipe = search.study_dir / BEST_FILE
    console.print(escape(f"next: birdinfer train --recipe {recipe}{data} --fold all"))


def counts_text(records: Sequence[TrialRecord], n_trials: int) -> str:
    """How many trials came to which end."""
    n_of: Counter[str] = Counter(record.state for record in records)
    named = {"complete": "complete", "pruned": "given up early", "failed": "failed", "interrupted": "interrupted"}
    ends = ", ".join(f"{n_of[state]} {name}" for state, name in named.items() if n_of[state])
    finished = sum(record.is_finished for record in records)
    return f"{finished} of {n_trials} trials finished" + (f" ({ends})" if ends else "")


def _comparison(best: TrialRecord, default: TrialRecord | None) -> str:
    found = f"best score {best.score:.4f}, trial {best.number}"
    if default is None or best.score is None or default.score is None:
        return f"{found}; the recipe itself was not among the trials that came to their end"
    if best.number == default.number:
        return f"{found}: nothing was better than the recipe itself"
    return f"{found}; the recipe itself {default.score:.4f}, {best.score - default.score:+.4f}"


def _table(search: "Search", best: TrialRecord, default: TrialRecord | None, importance: dict[str, str]) -> None:
    """Each searched key, those first that mattered most."""
    from birdinfer.tuning.space import values_of

    base = values_of(search.recipe, search.space)
    table = Table("key", f"best, trial {best.number}", "the recipe", *(["importance"] if importance else []))
    for key in sorted(search.space, key=lambda key: -float(importance.get(key, 0))):
        shares = [f"{float(importance.get(key, 0)):.0%}"] if importance else []
        table.add_row(key, escape(value_text(best.values[key])), escape(value_text(base[key])), *shares)
    stdout().print(table)


def _importance(study_dir: Path) -> dict[str, str]:
    path = study_dir / IMPORTANCE_FILE
    if not path.is_file():
        return {}
    return {row["key"]: row["importance"] for _, row in rows(path, ("key", "importance"))}
