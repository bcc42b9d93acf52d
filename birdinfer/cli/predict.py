"""``birdinfer predict``: soundscapes -> submission.csv."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from birdinfer.predictor import Predictor
    from birdinfer.soundscapes import SoundscapeResult
    from birdinfer.spool import ScoreSpool
    from birdinfer.submission import Written

EXIT_WITH_FAILURES = 3


class Merge(StrEnum):
    """How the scores of overlapping windows meet."""

    mean = "mean"
    max = "max"


_LISTED_PROBLEMS = 20
_PLOTTED_SECONDS = 600.0
"""What a picture shows at most: more could not be told apart on it, and a day of sound would fill the memory."""
_PROCESS_STATUS = Path("/proc/self/status")


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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only complaints.")] = False,
) -> None:
    """Predict soundscapes of any number and length and write submission.csv.

    Beside the table stands NAME.files.csv: every file, what was heard of it, and what is wrong with it.

    Exit code 0: all files are good. 3: the table is written, some files failed or are damaged.
    """
    from birdinfer.bundle import Bundle, demo_bundle_path
    from birdinfer.cli.choosing import choose_and_tell, usual_engine
    from birdinfer.config import PostConfig
    from birdinfer.predictor import Predictor, make_plan
    from birdinfer.soundscapes import find_soundscapes

    paths = find_soundscapes(inputs)
    kernel = parse_kernel(smooth)
    loaded = Bundle.load(bundle or demo_bundle_path()).with_overlap(overlap, merge.value if merge else None)
    if engine == "auto":
        plan = choose_and_tell(loaded, paths, workers, batch_size, quiet=quiet)
    else:
        plan = make_plan(engine or usual_engine(), workers, batch_size)
    own = loaded.manifest.post
    predictor = Predictor(loaded, plan, own if kernel is None else PostConfig(kernel, own.steps))
    results = predict_to_submission(predictor, paths, output, sample_submission, year, threshold, plots, quiet=quiet)
    if any(result.status != "ok" for result in results):
        raise typer.Exit(EXIT_WITH_FAILURES)


def predict_to_submission(
    predictor: "Predictor",
    paths: "Sequence[Path]",
    output: Path,
    sample_submission: Path | None = None,
    year: int = 2026,
    threshold: float = 0.5,
    plots: Path | None = None,
    *,
    quiet: bool = False,
) -> "list[SoundscapeResult]":
    """Predict files, show how far it is, write the table and its report.

    Returns:
        What became of each file, in the order of ``paths``.
    """
    from time import perf_counter

    from birdinfer.files import check_writable
    from birdinfer.spool import ScoreSpool
    from birdinfer.submission import SubmissionWriter, read_sample, write_file_report

    began = perf_counter()
    manifest = predictor.bundle.manifest
    sample = read_sample(sample_submission) if sample_submission else None
    writer = SubmissionWriter(predictor.labels, manifest.fallback_probabilities, manifest.rows, year, sample, threshold)
    check_writable(output)
    draw = _artist(predictor, plots) if plots else None
    with ScoreSpool(output.parent, len(predictor.labels)) as spool:
        results = _predict_into(spool, predictor, paths, quiet)
        written = writer.write(output, spool, results)
        n_windows = sum(spool.n_windows(result.path.stem) or 0 for result in results)
        report = output.with_suffix(".files.csv")
        write_file_report(report, results)
        _list_problems(results, report)
        if not quiet:
            _say_what_was_done(results, n_windows, perf_counter() - began, _engine(predictor), output, written)
        if draw:  # last: the tables are safe, whatever becomes of a picture
            for result in results:
                draw(result, spool)
    return results


def parse_kernel(text: str | None) -> tuple[float, ...] | None:
    """``"0.2,0.6,0.2"`` -> (0.2, 0.6, 0.2); ``"none"`` -> (1.0,); None stays None.

    Raises:
        ConfigError: it is not a kernel.
    """
    from birdinfer.config import PostConfig
    from birdinfer.errors import ConfigError

    if text is None:
        return None
    if text == "none":
        return (1.0,)
    try:
        return PostConfig(tuple(float(weight) for weight in text.split(","))).smoothing_kernel
    except ValueError as error:
        raise ConfigError("--smooth", f"{text!r}: {error}", "write it as 0.2,0.6,0.2 or none") from error


def _predict_into(
    spool: "ScoreSpool", predictor: "Predictor", paths: "Sequence[Path]", quiet: bool
) -> "list[SoundscapeResult]":
    """Predict; scores go to the spool, the results without them come back in the order of ``paths``."""
    from birdinfer.cli.progress import Progress
    from birdinfer.soundscapes import predict_soundscapes

    results = {}
    with Progress(len(paths), quiet) as progress:
        for result in predict_soundscapes(
            predictor, paths, progress.advance, lambda path, rows: spool.add(path.stem, rows)
        ):
            results[result.path] = result
            progress.file_done(failed=result.status == "failed")
    return [results[path] for path in paths]


def _artist(predictor: "Predictor", folder: Path) -> "Callable[[SoundscapeResult, ScoreSpool], None]":
    """What draws one soundscape, its first ten minutes, into a folder; found missing before hours of work, not after.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from birdinfer.audio import AudioStream
    from birdinfer.config import TimelineConfig
    from birdinfer.errors import MissingExtraError
    from birdinfer.windows import cut_runs, place

    try:
        from birdinfer.report.plots import draw_soundscape
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "matplotlib", "report") from error

    row_seconds = predictor.rows.window_seconds
    frontend = predictor.picture_frontend()

    def draw(result: "SoundscapeResult", spool: "ScoreSpool") -> None:
        scores = spool.scores(result.path.stem)
        if scores is None:
            return
        shown = scores[: max(1, int(_PLOTTED_SECONDS / row_seconds))]
        with AudioStream(result.path, frontend.audio.sample_rate) as stream:
            run = next(cut_runs(stream.blocks(), len(shown), place(frontend, TimelineConfig(), predictor.rows)))
        samples = run.samples[frontend.margin_samples : -frontend.margin_samples]
        title = result.path.name + (f" (first {_PLOTTED_SECONDS / 60:g} min)" if len(shown) < len(scores) else "")
        picture = folder / f"{result.path.stem}.png"
        draw_soundscape(picture, title, samples, shown, predictor.labels, frontend)

    return draw


def _list_problems(results: "Sequence[SoundscapeResult]", report: Path) -> None:
    """Name the files that are not well, the first of them at least; the report names all."""
    from rich.markup import escape

    from birdinfer.cli.console import stderr

    console = stderr()
    troubled = [result for result in results if result.status != "ok"]
    for result in troubled[:_LISTED_PROBLEMS]:
        colour = "red" if result.status == "failed" else "yellow"
        console.print(f"[{colour}]{result.status:>7}[/]  {escape(str(result.path))}: {escape(result.problem)}")
    if len(troubled) > _LISTED_PROBLEMS:
        console.print(f"         and {len(troubled) - _LISTED_PROBLEMS} more, all listed in {escape(str(report))}")


def _engine(predictor: "Predictor") -> str:
    """``onnxruntime:int8, 2 lanes, batch 3; 4 of 5 members in int8, the others in fp32``."""
    from birdinfer.predictor import share_in

    share = share_in(predictor.bundle, predictor.plan.spec.precision)
    return f"{predictor.plan}; {share}" if share else str(predictor.plan)


def _say_what_was_done(
    results: "Sequence[SoundscapeResult]",
    n_windows: int,
    seconds: float,
    engine: str,
    output: Path,
    written: "Written",
) -> None:
    from rich.markup import escape

    from birdinfer.cli.console import stderr

    heard_seconds = sum(result.seconds for result in results)
    failed = sum(result.status == "failed" for result in results)
    damaged = sum(result.status == "damaged" for result in results)
    peak_mb = peak_memory_mb()
    memory = f"peak memory {peak_mb:.0f} MB, " if peak_mb is not None else ""
    console = stderr()
    notes = [f"{written.rows} rows"]
    if written.fallback_rows:
        notes.append(f"{written.fallback_rows} of them filled with the fallback")
    if written.unused_labels:
        notes.append(f"{written.unused_labels} of the bundle's labels were not asked for")
    console.print(f"[bold]{escape(str(output))}[/]: {', '.join(notes)}")
    console.print(
        f"{len(results)} files, {n_windows} windows, {seconds:.1f} s, {heard_seconds / seconds:.0f} x real time "
        f"({engine}), {memory}{failed} failed, {damaged} damaged"
    )


def peak_memory_mb() -> float | None:
    """The most memory this process has held, in MB (10^6 bytes); None where the system does not say (Windows)."""
    import sys

    try:
        # Not getrusage on Linux: its maximum is inherited from the process that started this one.
        line = next(line for line in _PROCESS_STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
