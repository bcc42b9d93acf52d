"""Detections of recordings in a folder: a run of :mod:`birdinfer.prediction.run` with other outputs.

``results/`` holds ``detections.json`` (what made it), the tables that were asked for, and ``files.csv``, the status of
every file. As in a prediction all of it is valid at every moment, and ``results.progress/`` beside it keeps what is
done until all is well. A score below its species' threshold is not kept: thousands of species cost nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from birdinfer.audio.channels import split_channel
from birdinfer.audio.find import Found as FoundRecordings
from birdinfer.audio.speech import rows_with_speech
from birdinfer.callbacks import Callback
from birdinfer.detections.clips import ClipSettings, check_clips, write_clips
from birdinfer.detections.events import Detection, find_events
from birdinfer.detections.formats import FORMATS, Found, TableSettings, check_tables, write_table
from birdinfer.detections.page import PageSettings, check_page, write_page
from birdinfer.detections.recordings import OriginSettings, Recording, describe_recording
from birdinfer.detections.species_filter import FilterSettings, SpeciesFilter
from birdinfer.detections.summary import Summary, SummarySettings, summarise
from birdinfer.detections.summary_tables import write_summary
from birdinfer.detections.thresholds import MIN_CONFIDENCE as MIN_CONFIDENCE
from birdinfer.detections.thresholds import make_thresholds, read_thresholds
from birdinfer.errors import ConfigError, OutputError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.calibration import thresholds_of
from birdinfer.inference.ensemble import check_live
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.run import (
    PredictionCallback,
    PredictionOutcome,
    RunSettings,
    Tables,
    files_of,
    find_inputs,
    run_prediction,
)
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import SubmissionWriter, Written
from birdinfer.system.files import remove_leftovers, write_atomic
from birdinfer.system.outputs import check_folder
from birdinfer.version import __version__

MARKER = "detections.json"
SIDE_TABLE, SCORES, SUMMARY, CLIPS = "files.csv", "scores.csv", "summary", "clips"


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionSettings(RunSettings):
    """What counts as a detection, and what is written of them."""

    output: Path = Path("results")
    """The folder; ``NAME.progress/`` lies beside it while files are not done, or not well."""
    formats: tuple[str, ...] = ("csv",)
    """Of :data:`birdinfer.detections.formats.FORMATS`."""
    min_confidence: float | None = None
    """Least probability of a species that is present, 0 to 1; None: the bundle's own, of its calibration, else
    :data:`MIN_CONFIDENCE`."""
    thresholds: Path | None = None  # table of label and threshold, in place of ``min_confidence``
    top_k: int | None = None  # most species in a window, those with the highest scores
    merge_gap: float = 0.0  # seconds between windows of one event, at most
    scores: bool = False  # also write the table of all scores, ``scores.csv``, in the format of 2026
    origin: OriginSettings = field(default_factory=OriginSettings)  # how site and time are found
    species: FilterSettings = field(default_factory=FilterSettings)  # which species may be detected
    summary: SummarySettings | None = None  # tables of species by site and day; None: none
    clips: ClipSettings | None = None  # which clips are cut; None: none
    page: PageSettings | None = None  # what is on the page; None: none is made


class DetectionCallback(PredictionCallback):
    """Receive what a run of detections reports."""

    def on_summary(self, folder: Path, summary: Summary) -> None:
        """Report the summary whose tables were written into a folder."""


class DetectionTables(Tables):
    """The folder of detections; each of its files is written whole or not at all."""

    def __init__(self, bundle: Bundle, settings: DetectionSettings, found: FoundRecordings) -> None:
        """Check before hours of work that the folder can be written, and what is asked for.

        Raises:
            OutputError: the folder holds an input, or is no folder of detections and ``force`` is not set.
            ConfigError, MetadataError: a setting is out of range, or the table of thresholds is not one.
            MissingExtraError: a format needs what is not installed.
        """
        manifest = bundle.manifest
        check_live(manifest.blend, "a confidence needs --blend mean; birdinfer predict writes a table of ranks")
        filters = settings.species
        lists = (settings.thresholds, filters.species_list, filters.location_model, filters.location_labels)
        used = [*files_of(found), *filter(None, lists), *bundle.files]
        check_folder(settings.output, used)
        check_own(settings)
        check_tables(settings.formats, settings.output, used, force=settings.force)
        if settings.clips is not None:
            check_clips(settings.output / CLIPS)
        if settings.page is not None:
            check_page(settings.output)
        _check_ranges(settings)
        own = read_thresholds(settings.thresholds, manifest.species) if settings.thresholds else {}
        self._thresholds = (
            thresholds_of(manifest, MIN_CONFIDENCE)
            if settings.min_confidence is None
            else make_thresholds(manifest.species, settings.min_confidence)
        )
        for label, threshold in own.items():
            self._thresholds[bundle.labels.index(label)] = threshold
        self.filter = SpeciesFilter(manifest.species, filters)
        self.bundle = bundle if settings.scores else bundle.with_species(self.filter.labels)
        """What predicts: of the species on a list alone, where that changes no score."""
        listed = frozenset(self.filter.labels)
        self._thresholds[[label not in listed for label in bundle.labels]] = np.inf
        self._is_scored = np.isin(bundle.labels, self.bundle.labels)
        self._thresholds = self._thresholds[self._is_scored]
        kept_from = None if settings.scores else self._thresholds
        super().__init__(settings.output, settings.output / SIDE_TABLE, kept_from)
        self._whole, self._settings, self._names = bundle, settings, found.names
        # Refuses windows that do not end at whole seconds, which only row ids count.
        self._writer = (
            SubmissionWriter(bundle.labels, manifest.fallback_probabilities, manifest.rows, names=found.names)
            if settings.scores
            else None
        )
        self._recordings: dict[Path, Recording] = {}

    def remove_leftovers(self) -> None:
        """Remove temporary files of runs that were killed while they wrote; only for the run that holds the lock."""
        folders = (SUMMARY, CLIPS, "page")
        for name in (MARKER, SIDE_TABLE, SCORES, "index.html", *folders, *(each.output for each in FORMATS.values())):
            remove_leftovers(self.output / name)

    def older_outputs(self) -> list[str]:
        """List what the folder holds of an earlier run that this one does not write."""
        settings = self._settings
        own = {
            SCORES: settings.scores, SUMMARY: settings.summary is not None, CLIPS: settings.clips is not None,
            "index.html": settings.page is not None,
            **{each.output: name in settings.formats for name, each in FORMATS.items()},
        }  # fmt: skip
        return [name for name, is_written in own.items() if not is_written and (self.output / name).exists()]

    def write_result(self, scores: ScoreStore, results: Sequence[SoundscapeResult]) -> Written:
        """Write all tables of detections."""
        self.output.mkdir(parents=True, exist_ok=True)
        write_atomic(self.output / MARKER, self._description())

        found = self._found(scores, results)
        settings = TableSettings(species=self.bundle.manifest.species, sample_rate=self._sample_rate())
        for name in self._settings.formats:
            write_table(name, self.output, found, settings)
        if self._writer is not None:
            self._writer.write(self.output / SCORES, scores, results)
        counts = Counter(each.species.label for _, detections in found() for each in detections)
        return Written(counts.total(), 0, 0, detections=counts)

    def finish(self, scores: ScoreStore, results: Sequence[SoundscapeResult], callback: Callback) -> None:
        """Cut clips, make the page, write the summary."""
        settings, found = self._settings, self._found(scores, results)
        if older := self.older_outputs():
            callback.on_warning(f"{self.output}: not renewed, of an earlier run: {', '.join(older)}")
        if problem := self.filter.place_problem():
            callback.on_warning(problem)
        spans = {self._names[result.path]: result.speech for result in results if result.speech}

        def speech(recording: Recording) -> Sequence[tuple[float, float]]:
            return spans.get(recording.name, ())

        dead = {self._names[result.path] for result in results if result.is_dead}
        row_seconds = self.bundle.manifest.rows.window_seconds

        def no_effort(recording: Recording) -> Sequence[tuple[float, float]]:
            if recording.name in dead:
                return [(0.0, recording.seconds)]
            rows = rows_with_speech(speech(recording), row_seconds) if settings.voice == "skip" else ()
            return [(row * row_seconds, (row + 1) * row_seconds) for row in rows]

        if settings.summary is not None:
            summary = summarise(found, settings.summary, no_effort)
            write_summary(self.output / SUMMARY, summary)
            if n_undated := summary.undated_recordings():
                what = f"recordings without a clock time, which count in no day and no hour: {n_undated}"
                callback.on_message(f"{self.output / SUMMARY}: {what} (--name-pattern reads it from names)")
            if isinstance(callback, DetectionCallback):
                callback.on_summary(self.output / SUMMARY, summary)
        if settings.clips is not None:
            n_clips = write_clips(found, self.output / CLIPS, settings.clips, speech=speech, callback=callback)
            callback.on_message(f"{self.output / CLIPS}: {n_clips} clips")
        if settings.page is not None:
            n_events = write_page(found, self.output, settings.page, speech=speech, callback=callback)
            callback.on_message(f"{self.output / 'index.html'}: {n_events} detections to listen to")

    def _found(self, scores: ScoreStore, results: Sequence[SoundscapeResult]) -> Found:
        """Return what yields every recording of which something was scored, and its detections, at each call."""

        def found() -> Iterator[tuple[Recording, list[Detection]]]:
            for result in results:
                if scores.n_rows(result.path):
                    recording = self._recording(result)
                    yield recording, self._events(recording, scores, result)

        return found

    def _events(self, recording: Recording, scores: ScoreStore, result: SoundscapeResult) -> list[Detection]:
        manifest, settings = self.bundle.manifest, self._settings
        return find_events(
            recording, scores.blocks(result.path), manifest.species,
            np.where(self.filter.allowed(recording)[self._is_scored], self._thresholds, np.float32(np.inf)),
            row_seconds=manifest.rows.window_seconds, merge_gap=settings.merge_gap, top_k=settings.top_k,
            left_out=(result.speech or ()) if settings.voice == "skip" else (),
        )  # fmt: skip

    def _sample_rate(self) -> int:
        """The highest of the members' inputs, Hz."""
        return max(member.input_config.audio.sample_rate for member in self.bundle.manifest.members)

    def _recording(self, result: SoundscapeResult) -> Recording:
        """Describe a recording, by its header read once."""
        known = self._recordings.get(result.path)
        if known is None:
            file, name = split_channel(result.path)[0], self._names[result.path]
            known = replace(describe_recording(file, _file_name(result.path, name), self._settings.origin), name=name)
            self._recordings[result.path] = known
        channel = int(result.channel) if result.channel.isdecimal() else None
        return replace(known, seconds=result.seconds, sample_rate=result.sample_rate, channel=channel)

    def _description(self) -> bytes:
        """What made the folder; without the time of day, so that equal runs write equal bytes."""
        settings, manifest = self._settings, self.bundle.manifest
        usual = MIN_CONFIDENCE if settings.min_confidence is None else settings.min_confidence
        content = {
            "birdinfer": __version__,
            "bundle": manifest.name,
            "bundle_sha256": self._whole.sha256(),
            "formats": settings.formats,
            "min_confidence": round(usual, 6),
            "merge_gap_seconds": settings.merge_gap,
            "top_k": settings.top_k,
            "voice": settings.voice,
            "species": {
                key: value.name if isinstance(value, Path) else value for key, value in asdict(settings.species).items()
            },
            "thresholds": {
                species.label: round(float(threshold), 6)
                for species, threshold in zip(manifest.species, self._thresholds, strict=True)
                if threshold != np.float32(usual)
            },
        }
        return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def detect_recordings(
    bundle: Bundle,
    inputs: Sequence[str | Path],
    settings: DetectionSettings | None = None,
    callback: PredictionCallback | None = None,
) -> PredictionOutcome:
    """Find which species is present when in recordings, or folders of them, and write a folder of results.

    Raises:
        BirdinferError: the run cannot be done as asked, and nothing was changed; or it had to end: no model works, the
            disk of the inputs is gone; the tables hold what is done, and ``resume`` continues.
        KeyboardInterrupt: stopped with Ctrl-C; finished files are kept for ``resume``.
        SystemExit: 143, stopped with SIGTERM; finished files are kept.
    """
    settings, callback = settings or DetectionSettings(), callback or PredictionCallback()
    found = find_inputs(inputs, callback, channel=settings.channel)
    settings.origin.check_names(_file_name(path, name) for path, name in found.names.items())
    tables = DetectionTables(bundle, settings, found)
    for line in tables.filter.notes:
        callback.on_warning(line)
    return run_prediction(tables.bundle, found, settings, callback, tables)


def _file_name(path: Path, name: str) -> str:
    """A recording's name as that of its file: without the mark of a channel that is a recording of its own."""
    _, number = split_channel(path)
    return name if number is None else re.sub(rf"_+ch{number}$", "", name)


def check_own(settings: DetectionSettings) -> None:
    """Refuse a folder that holds other things than detections: files of these names would be replaced."""
    folder = settings.output
    is_free = not folder.exists() or not any(folder.iterdir()) or (folder / MARKER).is_file()
    if not is_free and not settings.force:
        raise OutputError(folder, "is there and no folder of detections", "name another one, or give --force")


def _check_ranges(settings: DetectionSettings) -> None:
    if settings.min_confidence is not None and not 0 <= settings.min_confidence <= 1:
        raise ConfigError("--min-confidence", f"is {settings.min_confidence:g}, allowed are numbers from 0 to 1")
    if settings.top_k is not None and settings.top_k < 1:
        raise ConfigError("--top-k", f"is {settings.top_k}, needed is at least 1")
    if not 0 <= settings.merge_gap < math.inf:
        raise ConfigError("--merge-gap", f"is {settings.merge_gap:g}, needed are seconds from 0")
