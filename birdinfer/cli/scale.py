"""``birdinfer scale``: an archive that has outgrown one machine, planned, run anywhere, gathered."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Annotated, Self

import msgspec
import typer

from birdinfer.audio.channels import MEAN
from birdinfer.cli.app import make_group
from birdinfer.cli.console import make_table, shown, stdout
from birdinfer.cli.detect import SiteFrom, draw
from birdinfer.cli.options import (
    BatchSize,
    BlendMembers,
    BundleFolder,
    Channel,
    Engine,
    MergeOverlapping,
    Overlap,
    Post,
    Quiet,
    Smooth,
    VoiceOption,
    bundle_folder,
    with_scoring,
)
from birdinfer.cli.progress import StatusBar
from birdinfer.detections.formats import FORMATS
from birdinfer.detections.page import PageSettings
from birdinfer.detections.recordings import OriginSettings
from birdinfer.detections.species_filter import FilterSettings
from birdinfer.detections.summary import Summary, SummarySettings
from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.detect import DetectionCallback, DetectionSettings, check_own
from birdinfer.scale.gather import TableSettings, gather_detections, gather_table
from birdinfer.scale.launchers import Launcher, LauncherSettings, LocalLauncher, Report, report_of
from birdinfer.scale.plan import OpenPlan, PlanSettings, make_plan_at, open_plan
from birdinfer.scale.ray import RayLauncher
from birdinfer.scale.run import ScaleCallback, run_plan, status_of
from birdinfer.scale.slurm import SlurmLauncher
from birdinfer.scale.unit import Worker, WorkSettings
from birdinfer.system.outputs import SCORES, check_folder, check_outputs
from birdinfer.system.signals import leaving_at_sigterm

EXIT_WITH_FAILURES = 3
_LISTED = 10

LAUNCHERS: dict[str, Callable[[LauncherSettings], Launcher]] = {
    "local": LocalLauncher, "ray": RayLauncher, "slurm": SlurmLauncher,
}  # fmt: skip
"""What ``--on`` may name."""

scale = make_group("scale")
PlanAddress = Annotated[str, typer.Argument(metavar="PLAN", help="The plan: a folder, or s3://, gs://, az://.")]
Scratch = Annotated[
    Path | None,
    typer.Option(help="Folder for sound that is fetched ahead; BIRDINFER_SCRATCH or the system's if left out."),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of a process.")]
StageGb = Annotated[float, typer.Option(min=0.01, help="Most sound, in GB, that is fetched ahead on this machine.")]
Price = Annotated[float | None, typer.Option(min=0, help="Price of a core for an hour: the cost is shown, too.")]


@scale.command()
def plan(
    archive: Annotated[list[str], typer.Argument(
        metavar="ARCHIVE", help="Sound files and folders, or one address: s3://bucket/folder, gs://, az://, https://.")],
    plan: Annotated[str, typer.Option("--plan", "-p", help="Where the plan and all results go: a folder or address.")],
    bundle: BundleFolder = None,
    keep_from: Annotated[float, typer.Option(
        min=0, max=1, help="Least score that is kept; thresholds of gather are at least this.")] = 0.1,
    keep_top: Annotated[int, typer.Option(
        min=0, help="Species of each window that are kept whatever their scores.")] = 1,
    scores: Annotated[str, typer.Option(
        metavar="none|float16|float32", help="Keep all scores, too: float32 gives the bytes of predict.")] = "none",
    price: Price = None,
    unit_seconds: Annotated[float, typer.Option(help="Core time of a unit of work, about.")] = 90.0,
    smooth: Smooth = None,
    engine: Engine = None,
    batch_size: BatchSize = None,
    overlap: Overlap = None,
    merge: MergeOverlapping = None,
    post: Post = None,
    blend: BlendMembers = None,
    channel: Channel = MEAN,
    voice: VoiceOption = None,
    scratch: Scratch = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older plan at this place.")] = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """List an archive, measure two minutes of it, divide it into units of work, and say what all of it will take.

    The listing is frozen: files that come later need another plan. Nothing is predicted yet.
    """
    if scores not in ("none", "float16", "float32"):
        raise ConfigError("--scores", f"is {scores!r}, allowed are none, float16 and float32")
    _check_scratch(scratch)
    loaded = Bundle.load(bundle_folder(bundle, quiet)).with_overlap(overlap, merge.value if merge else None)
    loaded = with_scoring(loaded, smooth, post, blend)
    settings = PlanSettings(
        engine=engine, batch_size=batch_size, channel=channel, voice=None if voice is None else voice.value,
        keep_from=keep_from, keep_top=keep_top, scores=scores,  # type: ignore[arg-type]
        unit_seconds=unit_seconds, force=force, scratch=scratch,
    )  # fmt: skip
    with _Progress(quiet) as progress:
        opened = make_plan_at(plan, archive, loaded, settings, progress)
    _show_plan(opened, price)


@scale.command()
def run(
    plan: PlanAddress,
    on: Annotated[str, typer.Option(
        metavar="|".join(LAUNCHERS), help="What runs the units: this machine, tasks of Ray, jobs of SLURM.")] = "local",
    workers: Annotated[int | None, typer.Option(
        "--workers", "-j", min=1, help="Processes, with SLURM of each job; one for each core there is if left out, of "
        "SLURM one.")] = None,
    address: Annotated[str | None, typer.Option(
        help="Address of a Ray cluster; RAY_ADDRESS if left out, or Ray on this machine for this run.")] = None,
    option: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", help="What a process of Ray needs (gpus=0.5, memory_gb=4), or how SLURM runs the jobs: "
        "tasks=40, setup=..., and options of sbatch.")] = None,
    share: Annotated[int, typer.Option(min=0, help="Only units of this share: what a job of a cluster runs.")] = 0,
    shares: Annotated[int, typer.Option(min=1, help="Number of shares.")] = 1,
    threads: Threads = 1,
    stage_gb: StageGb = 4.0,
    scratch: Scratch = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Predict what is not done yet; typed again after whatever happened, it continues.

    Several may run at a time, on any machines: no file is counted twice.

    Exit code 0: all units are done. 3: some files failed or are damaged, or units could not be done, each with its
    reason. 2: all of it had to end, as without valid credentials or with a full disk.
    """
    if share >= shares:
        raise ConfigError("--share", f"is {share}, the last of {shares} is {shares - 1}")
    if address and on != "ray":
        raise ConfigError("--address", "is of a Ray cluster", "add --on ray, or leave it out")
    if option and on == "local":
        raise ConfigError("--option", f"is {option[0]}, which this machine does not need", "add --on ray or --on slurm")
    work = _work_settings(threads, scratch, stage_gb)
    launcher = _launcher(on, LauncherSettings(workers=workers, work=work, address=address, options=tuple(option or ())))
    with _Progress(quiet) as progress:
        outcome = run_plan(open_plan(plan), launcher, progress, (share, shares))
    for failed in outcome.failed[:_LISTED]:
        progress.on_warning(f"unit {failed.unit} is not done: {failed.error}")
    if not quiet and (outcome.n_done or outcome.failed):
        hours, core = outcome.sound_seconds / 3600, outcome.core_seconds
        rate = f", {outcome.sound_seconds / core:,.0f} hours of audio per core-hour" if core else ""
        problems = f"; something is wrong with {outcome.n_problems:,} files" if outcome.n_problems else ""
        units = "1 unit" if outcome.n_done == 1 else f"{outcome.n_done:,} units"
        stdout().print(f"{units}: {hours:,.1f} hours of audio{rate}{problems}")
    if outcome.failed or outcome.n_problems:
        raise typer.Exit(EXIT_WITH_FAILURES)


@scale.command()
def work(
    plan: PlanAddress,
    unit: Annotated[list[int] | None, typer.Option(
        "--unit", help="Number of a unit; several may be given. Left out: numbers from standard input.")] = None,
    threads: Threads = 1,
    stage_gb: StageGb = 4.0,
    scratch: Scratch = None,
) -> None:  # fmt: skip
    """Predict units of a plan in this process: what jobs of a cluster run. A line of JSON is printed for each.

    Exit code 0: all of them are done. 3: some are not, and the lines say why.
    """

    def say(report: Report) -> None:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        sys.stdout.flush()

    settings = _work_settings(threads, scratch, stage_gb)
    try:
        worker = Worker(plan, settings)
    except BirdinferError as error:
        say(Report(error=str(error)))
        raise
    say(Report())
    n_failed = 0
    # A run that is stopped says so itself, and ends those that take numbers from it.
    with suppress(*([] if unit else [SystemExit])), leaving_at_sigterm(), worker:
        for number, outcome in worker.run(unit if unit else _numbers()):
            report = report_of(number, outcome)
            n_failed += bool(report.error)
            say(report)
    if n_failed:
        raise typer.Exit(EXIT_WITH_FAILURES)


@scale.command()
def status(plan: PlanAddress, price: Price = None) -> None:
    """Read the markers of a plan, and say how far it is, what it took, and what is wrong with which files."""
    opened = open_plan(plan)
    found = status_of(opened)
    table = make_table(("what", "done", "left"), ("done", "left"))
    left_core = opened.plan.calibration.core_seconds_of(found.left_seconds)
    if found.core_seconds and found.sound_seconds:  # measured beats expected
        left_core = found.left_seconds * found.core_seconds / found.sound_seconds
    for row in (
        ("units", f"{found.n_done:,}", f"{found.n_units - found.n_done:,}"),
        ("files", f"{found.n_files:,}", f"{opened.plan.n_files - found.n_files:,}"),
        ("hours of audio", f"{found.sound_seconds / 3600:,.1f}", f"{found.left_seconds / 3600:,.1f}"),
        ("core-hours", f"{found.core_seconds / 3600:,.2f}", f"{left_core / 3600:,.2f}"),
        *([("cost", f"{found.core_seconds / 3600 * price:,.2f}", f"{left_core / 3600 * price:,.2f}")] if price else []),
    ):
        table.add_row(*row)
    stdout().print(table)
    if found.n_begun:
        stdout().print(f"{found.n_begun} units are begun: being predicted, or lost (run continues them)")
    for kind, count in sorted(found.statuses.items()):
        stdout().print(f"{kind}: {count:,} files")
    for name, problem in found.problems:
        stdout().print(shown(f"{name}: {problem}"))


def _check_scratch(scratch: Path | None) -> None:
    if scratch is not None:
        check_folder(scratch)


def _work_settings(threads: int, scratch: Path | None, stage_gb: float) -> WorkSettings:
    _check_scratch(scratch)
    return WorkSettings(threads=threads, scratch=scratch, most_bytes=round(stage_gb * (1 << 30)))


def _launcher(name: str, settings: LauncherSettings) -> Launcher:
    if name not in LAUNCHERS:
        raise ConfigError("--on", f"is {name!r}, there are {', '.join(LAUNCHERS)}")
    return LAUNCHERS[name](settings)


@scale.command()
def gather(
    plan: PlanAddress,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="The folder of detections; results if --submission is left out, too.")] = None,
    formats: Annotated[str, typer.Option(
        "--format", help=f"Tables to write, several with commas between: {', '.join(FORMATS)}.")] = "csv",
    min_confidence: Annotated[float | None, typer.Option(
        min=0, max=1, help="As of detect; at least what the plan keeps.")] = None,
    thresholds: Annotated[Path | None, typer.Option(help="Table of label and threshold, as of detect.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Most species in a window.")] = None,
    merge_gap: Annotated[float, typer.Option(
        min=0, help="Windows with a species that are at most so many seconds apart are one detection.")] = 0.0,
    species: Annotated[Path | None, typer.Option(help="List of species that may be detected, as of detect.")] = None,
    timezone: Annotated[str, typer.Option(help="Zone in which clock times are read and shown.")] = "",
    name_pattern: Annotated[str, typer.Option(help="How file names hold site and time, as of detect.")] = "",
    site_from: Annotated[SiteFrom, typer.Option(help="Where the site is taken from.")] = SiteFrom.name,
    day_begins: Annotated[int, typer.Option(min=0, max=23, help="Hour at which a day of the summary begins.")] = 0,
    summary: Annotated[bool, typer.Option(
        help="Write tables of species by site, day and hour, with their effort.")] = True,
    page: Annotated[bool | None, typer.Option(
        help="Make index.html; left out: where the recordings are local, since it plays them.")] = None,
    page_events: Annotated[int, typer.Option(min=1, help="Most detections on the page.")] = PageSettings().most_events,
    submission: Annotated[Path | None, typer.Option(
        help="Write the table of all scores of predict; the plan needs --scores.")] = None,
    sample_submission: Annotated[Path | None, typer.Option(
        help="Write exactly the rows and columns of this file, in its order.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take what is done, though units are left.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what birdinfer has not written.")] = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write what detect or predict would write for the whole archive, from the parts of a plan.

    As often as wanted, with other thresholds and formats: nothing is predicted again.

    Exit code 0: whole. 3: something is wrong with some files, or with --partial units are left.
    """
    if output is None and submission is None:
        output = Path("results")
    if submission is not None:
        check_outputs([(submission, SCORES)], [sample_submission] if sample_submission else [], force=force)
    if output is not None:
        check_folder(output)
        check_own(DetectionSettings(output=output, force=force))
    opened, n_bad = open_plan(plan), 0
    with _Progress(quiet) as progress:
        if submission is not None:
            table = TableSettings(output=submission, sample_submission=sample_submission, force=force)
            found = gather_table(opened, table, progress, partial=partial)
            n_bad += found.n_left
            progress.line(f"{found.output}: {found.written.rows:,} rows of {found.n_files:,} files")
        if output is not None:
            settings = DetectionSettings(
                output=output, formats=tuple(part.strip() for part in formats.split(",")),
                min_confidence=min_confidence, thresholds=thresholds, top_k=top_k, merge_gap=merge_gap, force=force,
                origin=OriginSettings(timezone=timezone, name_pattern=name_pattern, site_from=site_from.value),
                species=FilterSettings(species_list=species),
                summary=SummarySettings(day_begins=day_begins) if summary else None,
                page=PageSettings(bundle=opened.plan.bundle, most_events=page_events)
                if (opened.plan.is_local if page is None else page) else None,
            )  # fmt: skip
            found = gather_detections(opened, settings, progress, partial=partial)
            n_bad += found.n_left
            counts = found.written.detections
            of = f"{found.written.rows:,} detections of {len(counts):,} species in {found.n_files:,} files"
            progress.line(f"{found.output}: {of}")
        if found.n_problems:
            progress.on_warning(f"something is wrong with {found.n_problems:,} files")
    if n_bad or found.n_problems:
        raise typer.Exit(EXIT_WITH_FAILURES)


def _numbers() -> Iterator[int]:
    """Numbers of units from standard input, as they come."""
    for line in sys.stdin:
        if not line.strip().isdecimal():
            raise ConfigError("standard input", f"{line.strip()!r} is no number of a unit")
        yield int(line)


def _show_plan(opened: OpenPlan, price: float | None) -> None:
    plan = opened.plan
    core_hours, speed = plan.core_seconds / 3600, plan.sound_seconds / max(1e-9, plan.core_seconds)
    table = make_table(("what", "expected"), ("expected",))
    rows = [
        ("files", f"{plan.n_files:,}"), ("size", f"{plan.n_bytes / 1e9:,.2f} GB"),
        ("hours of audio", f"{plan.sound_seconds / 3600:,.1f}"), ("units of work", f"{plan.n_units:,}"),
        ("core-hours", f"{core_hours:,.2f}"), ("hours of audio per core-hour", f"{speed:,.0f}"),
    ]  # fmt: skip
    if price:
        rows += [("cost", f"{core_hours * price:,.2f}"), ("hours of audio for 1", f"{speed / price:,.0f}")]
    for row in rows:
        table.add_row(*row)
    stdout().print(table)
    about = f"by {plan.calibration.sound_seconds:.0f} s of it on {plan.calibration.processor}, {plan.engine}"
    stdout().print(shown(about))
    stdout().print(shown(f"birdinfer scale run {opened.place.uri}"))


class _Progress(ScaleCallback, DetectionCallback):
    """Shows how far a run is, by sound."""

    def __init__(self, quiet: bool = False) -> None:
        self._status = StatusBar(quiet)
        self._n_left = self._n_ended = 0
        self._total = self._done = 0.0
        self._began = perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def on_message(self, line: str) -> None:
        self._status.line(line, "dim")

    def line(self, text: str) -> None:
        """Print what was done."""
        self._status.line(text)

    def on_warning(self, line: str) -> None:
        self._status.warn(line, "yellow")

    def on_summary(self, folder: Path, summary: Summary) -> None:
        draw(self, folder, summary)

    def on_progress(self, task: str, done: float, total: float) -> None:
        self._status.show(task, f"{task}: {done:.0f} of {total:.0f}", done, total)
        if done >= total:
            self._status.stop()

    def on_units(self, n_left: int, n_units: int, sound_seconds: float) -> None:
        self._n_left, self._total, self._began = n_left, sound_seconds, perf_counter()
        if n_left < n_units:
            self.on_message(f"{n_units - n_left:,} of {n_units:,} units are done already")

    def on_unit(self, report: Report, sound_seconds: float) -> None:
        self._n_ended, self._done = self._n_ended + 1, self._done + sound_seconds
        speed = self._done / max(1e-9, perf_counter() - self._began)
        state = f"{self._n_ended:,} of {self._n_left:,} units, {speed:,.0f} s of audio a second"
        self._status.show("units", state, self._done, self._total)
