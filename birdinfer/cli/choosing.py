"""Which engine, as one sees it: ``--engine auto`` shows its trials, the choice and its reason."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birdinfer.bundle import Bundle
    from birdinfer.choices import Choice, Trial
    from birdinfer.engines import EnginePlan


def usual_engine() -> str:
    """What runs when nobody says, in fp32: the GPU where there is one, else what is installed for the CPU."""
    from importlib.util import find_spec

    from birdinfer.cli.console import stderr
    from birdinfer.engines.cuda import find_gpu, has_cuda

    if not find_spec("onnxruntime") and find_spec("openvino"):
        return "openvino"
    if not has_cuda():
        return "onnxruntime"
    problem = find_gpu()
    if not problem:
        return "cuda"
    stderr().print(f"[yellow]no GPU is used:[/] {problem}; going on with the CPU")
    return "onnxruntime"


def choose_and_tell(
    bundle: "Bundle",
    paths: Sequence[Path],
    lanes: int | None,
    batch_size: int | None,
    *,
    quiet: bool,
    most_seconds: float = math.inf,
) -> "EnginePlan":
    """Choose how to run a bundle on this machine, and say what was measured.

    Where no file can be read there is nothing to measure with; the run goes on and names each of them. Where measuring
    takes longer than ``most_seconds``, the trial that is under way is the last, and the run goes on as it usually does.

    Raises:
        BirdinferError: as :func:`birdinfer.chooser.choose`.
    """
    from rich.markup import escape

    from birdinfer.chooser import choose
    from birdinfer.cli.console import stderr
    from birdinfer.errors import ConfigError
    from birdinfer.predictor import make_plan

    console = stderr()
    try:
        if quiet:
            return choose(bundle, paths, lanes, batch_size, _no_longer_than(most_seconds, lambda trial: None)).plan
        with console.status("measuring engines on this machine") as status:
            report = _no_longer_than(most_seconds, lambda trial: status.update(_said(trial)))
            choice = choose(bundle, paths, lanes, batch_size, report)
    except ConfigError as error:
        plan = make_plan(usual_engine(), lanes, batch_size)
        console.print(f"[yellow]{escape(str(error))}[/]; going on with {plan}")
        return plan
    _tell(choice)
    return choice.plan


def _no_longer_than(most_seconds: float, report: "Callable[[Trial], None]") -> "Callable[[Trial], None]":
    """Tells of trials until the time for them is gone."""
    from birdinfer.errors import ConfigError
    from birdinfer.pace.durations import in_words

    began = perf_counter()

    def tell(trial: "Trial") -> None:
        report(trial)
        if perf_counter() - began > most_seconds:
            raise ConfigError("--engine auto", f"measuring takes longer than {in_words(most_seconds)}")

    return tell


def _said(trial: "Trial") -> str:
    """What came of the latest candidate, in markup that fits a line of 80 columns."""
    from rich.markup import escape

    found = escape(trial.refused) if trial.refused else f"{trial.rows_per_second:.1f} rows/s"
    return f"measuring engines: {trial.plan}: {found}"


def _tell(choice: "Choice") -> None:
    from rich.markup import escape
    from rich.table import Table

    from birdinfer.choices import cache_path
    from birdinfer.cli.console import stderr

    console = stderr()
    table = Table(box=None, pad_edge=False)
    table.add_column("engine", no_wrap=True)
    table.add_column("rows/s", justify="right", no_wrap=True)
    table.add_column("largest |dp|", justify="right", no_wrap=True)
    table.add_column()
    for trial in sorted(choice.trials, key=lambda trial: -trial.rows_per_second):
        table.add_row(*_cells(trial, choice))
    if not choice.is_from_cache:
        console.print(table)
    where = f" (measured before, kept in {cache_path()}; remove it to measure again)" if choice.is_from_cache else ""
    console.print(f"[bold]{choice.plan}[/]: {escape(choice.reason + where)}", soft_wrap=True)


def _cells(trial: "Trial", choice: "Choice") -> tuple[str, str, str, str]:
    from rich.markup import escape

    if trial.refused:
        refused = f"[yellow]{escape(trial.refused)}[/]"
        return f"[dim]{trial.plan}[/]", "-", f"{trial.max_probability_difference:.1e}", refused
    mark = "[green]taken[/]" if trial.plan == choice.plan else ""
    return str(trial.plan), f"{trial.rows_per_second:.1f}", f"{trial.max_probability_difference:.1e}", mark
