"""``birdinfer export``: a trained run -> a bundle that predicts."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from birdinfer.cli.console import make_table, needing, stderr, stdout, widen
from birdinfer.cli.progress import StatusBar
from birdinfer.export.callbacks import ExportCallback

if TYPE_CHECKING:
    from birdinfer.export.run import ExportOutcome
    from birdinfer.inference.manifest import Figures, Manifest

_int8_option = partial(typer.Option, rich_help_panel="What INT8 must keep to be taken")
_variant_option = partial(typer.Option, rich_help_panel="Variants")


class ExportProgress(ExportCallback):
    """Show an export: a line for each outcome, a bar of the running task, or a line per task without a terminal."""

    def __init__(self, status: StatusBar) -> None:
        self._status, self._task = status, ""

    def on_message(self, line: str) -> None:
        self._status.line(line)

    def on_warning(self, line: str) -> None:
        self._status.warn(line)

    def on_progress(self, task: str, done: float, total: float) -> None:
        if task != self._task and not self._status.console.is_terminal:
            self._status.line(f"{task} ...")
        self._task = task
        self._status.show(task, task, done, total)


def export(
    run: Annotated[Path | None, typer.Option(help="The trained run, runs/NAME; the latest one if left out.")] = None,
    epoch: Annotated[int | None, typer.Option(
        min=1, help="The weights of this epoch instead of the best ones; of a run with loop.keep_epochs.",
        show_default=False)] = None,
    overrides: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE",
        help="Another labels.nocall_power or labels.taxon_share than the recipe's. May be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder; exports/NAME if left out.")] = None,
    data: Annotated[Path | None, typer.Option(
        help="Where the training clips are now, if no longer where they were.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX graphs (the only form; may be left out).")] = True,
    quantize: Annotated[list[str] | None, _variant_option(
        help="INT8 as well: static (ranges from real windows), dynamic or nncf (for comparison). May be repeated: the "
        "first that is accepted is kept.")] = None,
    half: Annotated[list[str] | None, _variant_option(
        help="16 bits as well: fp16 (for a GPU), bf16 (for OpenVINO). May be repeated.")] = None,
    with_frontend: Annotated[bool, _variant_option(
        "--with-frontend", help="Graphs that take the waveform, too, for hosts without birdinfer.")] = False,
    fuse: Annotated[bool, _variant_option("--fuse", help="All folds in one file, if that is faster.")] = False,
    soup: Annotated[bool, _variant_option("--soup", help="One member with the folds' mean weights instead.")] = False,
    report: Annotated[bool, _variant_option("--report", help="A table of all variants, measured.")] = False,
    target: Annotated[str, _variant_option(
        help="Processors that INT8 is for: any-x86 (safe without VNNI), vnni, arm, or native (this one).")] = "any-x86",
    calibration_windows: Annotated[int, _variant_option(
        min=8, max=4096, help="Real windows that ranges come from.")] = 64,
    max_auc_fall: Annotated[float, _int8_option(help="The most that macro AUC may fall.")] = 0.002,
    max_auc_fall_upper: Annotated[float | None, _int8_option(
        help="The most that the fall's upper bound (95 %) may be.")] = None,
    min_spearman: Annotated[float, _int8_option(help="Rank correlation with fp32, of every species.")] = 0.98,
    min_speedup: Annotated[float, _int8_option(help="How many times as fast as fp32 it must be.")] = 1.1,
    judge_on: Annotated[Path | None, _int8_option(
        help="Labelled soundscapes for the acceptance test, besides held-out clips.")] = None,
    truth: Annotated[Path | None, _int8_option(
        help="Labels of these soundscapes: row_id and columns of 0 or 1, or any truth that score takes.")] = None,
) -> None:  # fmt: skip
    """Export every trained fold of a run, compare each graph with its torch model on real windows, write the bundle."""
    with needing("export", "torch"):
        from birdinfer.export.acceptance.decision import Limits
        from birdinfer.export.run import export_run
        from birdinfer.export.settings import ExportSettings
    settings = ExportSettings(
        run=run, epoch=epoch, overrides=tuple(overrides or ()), out=out, data_dir=data,
        quantize=tuple(dict.fromkeys(quantize or ())),  # type: ignore[arg-type]  # the settings check the names
        halves=tuple(dict.fromkeys(half or ())),  # type: ignore[arg-type]
        with_frontend=with_frontend, fuse=fuse, soup=soup, measure=report,
        limits=Limits(
            max_auc_drop=max_auc_fall, max_auc_drop_upper=max_auc_fall_upper,
            min_spearman=min_spearman, min_times_fp32=min_speedup,
        ),
        target=target, n_calibration_windows=calibration_windows, soundscapes=judge_on, truth=truth,
    )  # fmt: skip
    with StatusBar() as status:
        outcome = export_run(settings, ExportProgress(status))
    if report:
        stdout().print(variants_table(outcome.bundle.manifest))
    _print_outcome(outcome, " --engine auto" if settings.quantize or settings.halves else "")


def _print_outcome(outcome: "ExportOutcome", engine: str) -> None:
    folder, n_members = escape(str(outcome.bundle.folder)), len(outcome.bundle.manifest.members)
    memory = "" if outcome.peak_memory_mb is None else f", at most {outcome.peak_memory_mb:.0f} MB of memory"
    stderr().print(
        f"[bold]{folder}[/]: {n_members} member{'s' * (n_members != 1)}, {len(outcome.bundle.labels)} labels, "
        f"{outcome.size_mb:.1f} MB, {outcome.seconds:.0f} s{memory}\n"
        f"next: birdinfer predict SOUNDSCAPES --bundle {folder} -o submission.csv{engine}"
    )


_NUMBERS = ("MB", "windows/s", "x fp32", "macro AUC", "fall (95 %)", "least Spearman", "largest |dp|")


def variants_table(manifest: "Manifest") -> Table:
    """Show what was tried for each member when it was exported, a line per variant in the manifest's order.

    Members without variants (external ones) have no line. MB are 10^6 bytes, x fp32 is speed relative to fp32, fall is
    the macro AUC of fp32 minus the variant's (with its 95 % interval), dp a difference of probability from fp32. As
    wide as its content: cut to the 80 characters of a pipe, figures would be lost.
    """
    table = make_table(("member", "variant", *_NUMBERS, "made by", "decision"), _NUMBERS)
    for member in manifest.members:
        for variant in member.variants:
            names = escape(member.name), escape(variant.name)
            decision = f"[yellow]{escape(variant.refused)}[/]" if variant.refused else "[green]taken[/]"
            table.add_row(*names, *_cells(variant.figures), escape(variant.made_by) or "-", decision)
    return widen(table)


def _cells(figures: "Figures") -> tuple[str, ...]:
    return (
        f"{figures.size_mb:.1f}",
        f"{figures.windows_per_second:.1f}",
        f"{figures.times_fp32:.2f}",
        _rounded(figures.macro_auc, ".4f"),
        _drop(figures),
        _rounded(figures.least_spearman, ".4f"),
        f"{figures.max_probability_difference:.1e}",
    )


def _drop(figures: "Figures") -> str:
    """``+0.0004 (-0.0003 .. +0.0011)``; without bounds if there is a single recording."""
    if figures.auc_fall is None or figures.auc_fall_interval is None:
        return _rounded(figures.auc_fall, "+.4f")
    low, high = figures.auc_fall_interval
    return f"{figures.auc_fall:+.4f} ({low:+.4f} .. {high:+.4f})"


def _rounded(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)
