"""``birdinfer export``: a trained run -> a bundle that predicts."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path | None, typer.Option(help="The trained run, runs/NAME; the latest one if left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder; exports/NAME if left out.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the training clips are now, if no longer where they were.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX graphs (the only form; may be left out).")] = True,
) -> None:
    """Export every trained fold of a run, compare each graph with its torch model on real windows, write the bundle."""
    from rich.markup import escape

    from birdinfer.cli.console import stderr
    from birdinfer.errors import MissingExtraError

    try:
        from birdinfer.export.bundler import export_run
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export") from error
    console = stderr()
    run = run or latest_run(Path("runs"))
    target = out or Path("exports") / run.resolve().name
    with console.status(f"exporting {escape(str(run))}"):
        bundle = export_run(run, target, data, report=lambda line: console.print(escape(line)))
    size_mb = sum(path.stat().st_size for path in bundle.folder.iterdir()) / 1e6
    console.print(
        f"[bold]{escape(str(target))}[/]: {len(bundle.manifest.members)} members, {len(bundle.labels)} labels, "
        f"{size_mb:.1f} MB\nnext: birdinfer predict SOUNDSCAPES --bundle {escape(str(target))} -o submission.csv"
    )


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
