"""``birdinfer predict``: soundscapes -> submission.csv."""

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdinfer.cli import STARTED

if TYPE_CHECKING:
    from birdinfer.engines import EnginePlan, EngineSpec


_MEASURED_SHARE = 0.05
"""Of a time budget: what finding the fastest engine may cost."""


class Merge(StrEnum):
    """How the scores of overlapping windows meet."""

    mean = "mean"
    max = "max"


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Sound files and folders of them (searched to the bottom).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write.")] = Path("submission.csv"),
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder; the demo bundle if left out.")] = None,
    sample_submission: Annotated[
        Path | None, typer.Option(help="Write exactly the rows and columns of this file, in its order.")
    ] = None,
    year: Annotated[int, typer.Option(help="Shape of the BirdCLEF year, 2021 to 2026.")] = 2026,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="2021 and 2022 only: a species is heard from this probability on.")
    ] = 0.5,
    smooth: Annotated[
        str | None,
        typer.Option(help="Kernel over neighbouring windows, as 0.2,0.6,0.2, or none; the bundle's if left out."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="auto measures on this machine which is fastest within the bundle's tolerance; onnxruntime, openvino "
            "or cuda, with a precision if need be (openvino:bf16, onnxruntime:int8). Left out: ONNX Runtime in fp32, "
            "on the GPU where onnxruntime-gpu finds one."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "--jobs", "-j", min=1, help="Lanes; one per core if left out.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            "-b",
            min=1,
            help="Windows in one call of a graph. OpenVINO fills up a file's last call: take 1 for files of a window.",
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds that neighbouring windows share (2.5: half of 5); the bundle's if left out."),
    ] = None,
    merge: Annotated[
        Merge | None, typer.Option(help="How scores of overlapping windows meet; the bundle's if left out.")
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            help="Draw each soundscape (at most 10 min of it) and its scores into this folder (extra report)."
        ),
    ] = None,
    post: Annotated[
        list[str] | None,
        typer.Option(
            help="A step of post-processing, as file_max:power=0.5, or a .toml or .json file of steps; several follow "
            "each other, after the smoothing. none: no step. The bundle's if left out."
        ),
    ] = None,
    blend: Annotated[
        str | None,
        typer.Option(
            help="How members become one opinion: mean, geometric, rms, minimum ...; the bundle's if left out."
        ),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            help="Be done by then, as 85m or 1h25m, counted from the start of this command: forecasts the time, hears "
            "with less (overlap, then shifts, then members) where it would not do, fills with the prior what is left."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed or stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Begin anew, whatever a stopped run has done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only complaints.")] = False,
) -> None:
    """Predict soundscapes of any number and length and write submission.csv.

    Beside the table stands NAME.files.csv: every file, what was heard of it, and what is wrong with it. While the run
    goes on, NAME.csv.progress/ keeps what is done: killed, --resume repeats only the files that were being heard.

    Exit code 0: all files were heard. 3: the table is written, some files failed or are damaged. 4: the table is
    written, the time budget left some files out. 130 and 143: stopped; --resume goes on.
    """
    from birdinfer.bundle import Bundle, demo_bundle_path
    from birdinfer.cli.prediction import Wanted, predict_to_submission
    from birdinfer.cli.scoring_options import with_scoring
    from birdinfer.errors import ConfigError
    from birdinfer.pace.durations import parse_duration
    from birdinfer.soundscapes import find_soundscapes

    if resume and force:
        raise ConfigError("--force", "begins anew, and --resume goes on", "give one of them")
    seconds = None if time_budget is None else parse_duration(time_budget)
    paths = find_soundscapes(inputs)
    loaded = Bundle.load(bundle or demo_bundle_path()).with_overlap(overlap, merge.value if merge else None)
    loaded = with_scoring(loaded, smooth, post, blend)
    wanted = Wanted(output, sample_submission, year, threshold, plots, resume, force, seconds, STARTED, quiet)

    def choose(before: "EngineSpec | None") -> "EnginePlan":
        from birdinfer.cli.choosing import choose_and_tell, usual_engine
        from birdinfer.predictor import make_plan

        if engine == "auto" and before is None:
            most_seconds = math.inf if seconds is None else _MEASURED_SHARE * seconds
            return choose_and_tell(loaded, paths, workers, batch_size, quiet=quiet, most_seconds=most_seconds)
        return make_plan(
            before if before and engine in ("auto", None) else engine or usual_engine(), workers, batch_size
        )

    outcome = predict_to_submission(loaded, paths, wanted, choose)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)
