"""``birdinfer export``: a trained run -> a bundle that predicts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from birdinfer.export.options import ExportOptions

Name = TypeVar("Name", bound=str)
_INT8 = "What INT8 must keep to be taken"
_VARIANTS = "Variants"


def export(
    run: Annotated[Path | None, typer.Option(help="The trained run, runs/NAME; the latest one if left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder; exports/NAME if left out.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the training clips are now, if no longer where they were.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX graphs (the only form; may be left out).")] = True,
    quantize: Annotated[
        list[str] | None,
        typer.Option(
            help="INT8 as well: static (ranges from real windows), dynamic or nncf (for comparison). May be repeated: "
            "the first that passes the gate is kept.",
            rich_help_panel=_VARIANTS,
        ),
    ] = None,
    half: Annotated[
        list[str] | None,
        typer.Option(
            help="16 bits as well: fp16 (for a GPU), bf16 (for OpenVINO). May be repeated.", rich_help_panel=_VARIANTS
        ),
    ] = None,
    with_frontend: Annotated[
        bool,
        typer.Option(
            "--with-frontend",
            help="Graphs that take the waveform, too, for hosts without birdinfer.",
            rich_help_panel=_VARIANTS,
        ),
    ] = False,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="All folds in one file, if that is faster.", rich_help_panel=_VARIANTS)
    ] = False,
    soup: Annotated[
        bool,
        typer.Option("--soup", help="One member with the folds' mean weights instead.", rich_help_panel=_VARIANTS),
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="A table of all variants, measured.", rich_help_panel=_VARIANTS)
    ] = False,
    target: Annotated[
        str,
        typer.Option(
            help="Processors that INT8 is for: any-x86 (safe without VNNI), vnni, arm, or native (this one).",
            rich_help_panel=_VARIANTS,
        ),
    ] = "any-x86",
    calibration_windows: Annotated[
        int, typer.Option(min=8, max=4096, help="Real windows that ranges come from.", rich_help_panel=_VARIANTS)
    ] = 64,
    max_auc_fall: Annotated[
        float, typer.Option(help="The most that macro AUC may fall.", rich_help_panel=_INT8)
    ] = 0.002,
    max_auc_fall_upper: Annotated[
        float | None,
        typer.Option(help="The most that the fall's upper bound (95 %) may be.", rich_help_panel=_INT8),
    ] = None,
    min_spearman: Annotated[
        float, typer.Option(help="Rank correlation with fp32, of every species.", rich_help_panel=_INT8)
    ] = 0.98,
    min_speedup: Annotated[float, typer.Option(help="Times as fast as fp32.", rich_help_panel=_INT8)] = 1.1,
    judge_on: Annotated[
        Path | None,
        typer.Option(help="Labelled soundscapes to judge on, besides held-out clips.", rich_help_panel=_INT8),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Their labels: row_id and a column of 0 or 1 each.", rich_help_panel=_INT8)
    ] = None,
) -> None:
    """Export every trained fold of a run, compare each graph with its torch model on real windows, write the bundle."""
    from time import perf_counter

    from rich.markup import escape

    from birdinfer.cli.console import stderr, stdout
    from birdinfer.cli.export_progress import ExportProgress
    from birdinfer.cli.variants_table import variants_table
    from birdinfer.errors import MissingExtraError

    try:
        from birdinfer.export.bundler import export_run
        from birdinfer.export.int8.number_format import find_format
        from birdinfer.export.judging.gate import Limits
        from birdinfer.export.options import HALVES, QUANTIZERS, ExportOptions
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export") from error
    find_format(target)
    options = ExportOptions(
        quantize=_known("--quantize", quantize, QUANTIZERS),
        halves=_known("--half", half, HALVES),
        with_frontend=with_frontend,
        fuse=fuse,
        soup=soup,
        measure=report,
        limits=Limits(max_auc_fall, min_spearman, min_speedup, max_auc_fall_upper),
        target=target,
        n_calibration_windows=calibration_windows,
        soundscapes=judge_on,
        truth=truth,
    )
    console, began = stderr(), perf_counter()
    run = run or latest_run(Path("runs"))
    folder = out or Path("exports") / run.resolve().name
    with ExportProgress(console) as progress:
        bundle = export_run(run, folder, data, options=options, reporter=progress)
    if report:
        stdout().print(variants_table(bundle.manifest))
    size_mb = sum(path.stat().st_size for path in bundle.folder.iterdir()) / 1e6
    console.print(
        f"[bold]{escape(str(folder))}[/]: {_counted(len(bundle.manifest.members), 'member')}, "
        f"{len(bundle.labels)} labels, {size_mb:.1f} MB, {perf_counter() - began:.0f} s{_peak_memory()}\n"
        f"next: birdinfer predict SOUNDSCAPES --bundle {escape(str(folder))} -o submission.csv{_how(options)}"
    )


def _known(option: str, wanted: list[str] | None, known: tuple[Name, ...]) -> tuple[Name, ...]:
    """What was asked for, each once, in the order given.

    Raises:
        ConfigError: one of them is not known.
    """
    from birdinfer.errors import ConfigError

    for name in wanted or []:
        if name not in known:
            raise ConfigError(option, f"{name!r} is not known", f"choose one of {', '.join(known)}")
    return tuple(dict.fromkeys(one for name in wanted or [] for one in known if one == name))


def _how(options: "ExportOptions") -> str:
    """What else to write to predict with the variants."""
    return " --engine auto" if options.quantize or options.halves else ""


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _peak_memory() -> str:
    """The most memory that this process held, where Linux tells it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return ""
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    return f", at most {kilobytes / 1024:.0f} MB of memory" if kilobytes else ""


def latest_run(runs: Path) -> Path:
    """The run whose checkpoint is youngest.

    Raises:
        InputNotFoundError: nothing has been trained there.
    """
    from birdinfer.errors import InputNotFoundError

    checkpoints = sorted(runs.glob("*/fold*/best.safetensors"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise InputNotFoundError(runs, "holds no trained run", "birdinfer train --fold 0 makes one, or name one: --run")
    return checkpoints[-1].parents[1]
