"""``birdinfer detect``: recordings -> a folder of detections that people and their programs open."""

from collections import Counter
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from birdinfer.audio.channels import MEAN
from birdinfer.callbacks import Callback
from birdinfer.cli import STARTED
from birdinfer.cli.options import (
    BatchSize,
    BlendMembers,
    BundleFolder,
    Channel,
    EmbeddingsFolder,
    Engine,
    MergeOverlapping,
    Overlap,
    Post,
    Quiet,
    Recordings,
    Resume,
    Smooth,
    StartAgain,
    VoiceOption,
    Workers,
    bundle_folder,
    with_scoring,
)
from birdinfer.cli.predict import EXIT_OVER_BUDGET, EXIT_WITH_FAILURES, PredictionProgress
from birdinfer.detections.clips import ClipSettings
from birdinfer.detections.formats import FORMATS
from birdinfer.detections.page import PageSettings
from birdinfer.detections.recordings import OriginSettings
from birdinfer.detections.species_filter import FilterSettings
from birdinfer.detections.summary import Summary, SummarySettings
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.detect import MIN_CONFIDENCE, DetectionCallback, DetectionSettings, detect_recordings
from birdinfer.prediction.run import PredictionOutcome
from birdinfer.system.timing import parse_duration

_NAMED_SPECIES = 5
which = partial(typer.Option, rich_help_panel="Which species")
listen = partial(typer.Option, rich_help_panel="To listen to")
where = partial(typer.Option, rich_help_panel="Where and when")


class SiteFrom(StrEnum):
    """Where a recording's site is taken from."""

    name = "name"
    folder = "folder"


class ClipChoice(StrEnum):
    """Which detections are cut out."""

    highest = "highest"
    random = "random"
    stratified = "stratified"


class ClipFormat(StrEnum):
    """Of clips."""

    flac = "flac"
    wav = "wav"


def detect(
    recordings: Recordings,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("results"),
    bundle: BundleFolder = None,
    formats: Annotated[str, typer.Option(
        "--format", help=f"Tables to write, several with commas between: {', '.join(FORMATS)}.")] = "csv",
    min_confidence: Annotated[float | None, typer.Option(
        min=0, max=1, help="A species is present in a window from this probability on; left out: the thresholds that "
        f"birdinfer calibrate has stored in the bundle, else {MIN_CONFIDENCE:g}.")] = None,
    thresholds: Annotated[Path | None, typer.Option(
        help="Table of label and threshold, for species with one of their own.")] = None,
    top_k: Annotated[int | None, typer.Option(
        min=1, help="Most species in a window: those with the highest probabilities.")] = None,
    merge_gap: Annotated[float, typer.Option(
        min=0, help="Windows with a species that are at most so many seconds apart are one detection.")] = 0.0,
    scores: Annotated[bool, typer.Option(
        "--scores", help="Write all scores, too: scores.csv, a row for each window.")] = False,
    species: Annotated[Path | None, which(
        help="List of the species that may be detected, one a line: labels, scientific or common names.")] = None,
    location_model: Annotated[Path | None, which(
        help="ONNX graph (latitude, longitude, week) -> species, as BirdNET's: species that do not occur where and "
        "when a recording was made are left out.")] = None,
    location_labels: Annotated[Path | None, which(
        help="The species of its outputs; left out: the list beside it.")] = None,
    latitude: Annotated[float | None, which("--lat", help="Degrees north; left out: each recording's own.")] = None,
    longitude: Annotated[float | None, which("--lon", help="Degrees east; left out: each recording's own.")] = None,
    week: Annotated[int | None, which(
        min=1, max=48, help="Week of the year, 1 to 48 (four a month); each recording's own if left out.")] = None,
    min_occurrence: Annotated[float, which(
        min=0, max=1, help="Least probability with which a species occurs.")] = FilterSettings().min_occurrence,
    timezone: Annotated[str, where(
        help="Zone in which clock times are read and shown, as Europe/Berlin or +02:00; left out: as recorded.")] = "",
    name_pattern: Annotated[str, where(
        help="How file names hold site and time where they are of no known kind, as {site}_%Y%m%d_%H%M%S.")] = "",
    site_from: Annotated[SiteFrom, where(help="Where the site is taken from.")] = SiteFrom.name,
    clips: Annotated[int, listen(min=0, help="Clips to cut for each species.")] = 0,
    clip_choice: Annotated[ClipChoice, listen(
        help="Those with the highest confidence, any, or as many from each band of confidence.")] = ClipChoice.highest,
    clip_format: Annotated[ClipFormat, listen(help="Format of the clips.")] = ClipFormat.flac,
    clip_padding: Annotated[float, listen(min=0, help="Seconds before and after a detection.")] = 1.0,
    page: Annotated[bool, listen(help="Make index.html, on which detections are listened to and reviewed.")] = True,
    page_events: Annotated[int, listen(
        min=1, help="Most detections on the page, of all species alike.")] = PageSettings().most_events,
    seed: Annotated[int, listen(help="Seed for clips and page events that are drawn at random.")] = 0,
    day_begins: Annotated[int, where(
        min=0, max=23, help="Hour at which a day of the summary begins; 12: a night is one day.")] = 0,
    summary: Annotated[bool, typer.Option(
        help="Write tables of species by site, day and hour, with their effort.")] = True,
    smooth: Smooth = None,
    engine: Engine = None,
    workers: Workers = None,
    batch_size: BatchSize = None,
    overlap: Overlap = None,
    merge: MergeOverlapping = None,
    post: Post = None,
    blend: BlendMembers = None,
    channel: Channel = MEAN,
    voice: VoiceOption = None,
    time_budget: Annotated[str | None, typer.Option(
        help="Finish the tables in this time, as 85m or 1h25m, counted from the start of this command; files for which "
        "there is no time are left out and named.")] = None,
    embeddings: EmbeddingsFolder = None,
    resume: Resume = False,
    force: StartAgain = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Find which species is present when, and write a folder of results.

    The same run as predict, with other outputs: events with start, end, species, confidence, clock time and site.
    Beside them stands files.csv: every file, how much of it was processed, and what is wrong with it. Exit codes are
    those of predict.
    """
    seconds = None if time_budget is None else parse_duration(time_budget)
    loaded = Bundle.load(bundle_folder(bundle, quiet)).with_overlap(overlap, merge.value if merge else None)
    loaded = with_scoring(loaded, smooth, post, blend)
    settings = DetectionSettings(
        output=output, formats=tuple(part.strip() for part in formats.split(",")), min_confidence=min_confidence,
        thresholds=thresholds, top_k=top_k, merge_gap=merge_gap, scores=scores, resume=resume, force=force,
        budget_seconds=seconds, started=STARTED, engine=engine, workers=workers, batch_size=batch_size,
        channel=channel, embeddings=embeddings,
        origin=OriginSettings(timezone=timezone, name_pattern=name_pattern, site_from=site_from.value),
        voice=None if voice is None else voice.value,
        species=FilterSettings(
            species_list=species, location_model=location_model, location_labels=location_labels, latitude=latitude,
            longitude=longitude, week=week, min_occurrence=min_occurrence,
        ),
        clips=ClipSettings(
            per_species=clips, choice=clip_choice.value, seed=seed, padding_seconds=clip_padding,
            format=clip_format.value,
        ) if clips else None,
        page=PageSettings(
            bundle=loaded.manifest.name, most_events=page_events, seed=seed
        ) if page else None,
        summary=SummarySettings(day_begins=day_begins) if summary else None,
    )  # fmt: skip
    with DetectionProgress(loaded, quiet) as progress:
        outcome = detect_recordings(loaded, recordings, settings, progress)
    if outcome.n_left_out or outcome.n_damaged:
        raise typer.Exit(EXIT_OVER_BUDGET if outcome.n_left_out else EXIT_WITH_FAILURES)


class DetectionProgress(PredictionProgress, DetectionCallback):
    """Show a run of detections: as a prediction, and at its end the species that were found most often."""

    def __init__(self, bundle: Bundle, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._bundle = bundle

    def on_summary(self, folder: Path, summary: Summary) -> None:
        draw(self, folder, summary)

    def on_progress(self, task: str, done: float, total: float) -> None:
        self._status.show(task, f"{task}: {done:.0f} of {total:.0f}", done, total)
        if done >= total:
            self._status.stop()

    def describe(self, outcome: PredictionOutcome) -> str:
        manifest, counts = self._bundle.manifest, Counter(outcome.written.detections)
        names = {species.label: species.common_name or species.scientific_name for species in manifest.species}
        most = [f"{names[label] or label} ({count})" for label, count in counts.most_common(_NAMED_SPECIES)]
        of = f"{counts.total()} detections of {len(counts)} of {len(names)} species in {manifest.name}"
        return f"{of}: {', '.join(most)}{', ...' if len(counts) > len(most) else ''}" if most else of


def draw(callback: Callback, folder: Path, summary: Summary) -> None:
    """Draw a summary into its folder, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        callback.on_message(f"{folder}: tables; pip install 'birdinfer[report]' draws them, too")
        return
    from birdinfer.plots.detections import draw_summary

    draw_summary(folder, summary)
