"""The plan of a run over an archive: what predicts, the frozen listing, its units, what they will take.

A plan is a folder at any address. ``plan.json`` holds the settings, ``bundle/`` a copy of the bundle, ``files.parquet``
the listing and ``units.parquet`` the units: bins of whole files that take a core about a minute and a half each.
``run=IDENTITY/`` fills with a part and a marker for each unit (:mod:`birdinfer.scale.unit`). Nothing in the plan
changes after it was made, so any number of machines may work on it, at any time.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from birdinfer.audio.channels import EACH, MEAN, check_channel
from birdinfer.audio.kinds import ending_of
from birdinfer.callbacks import Callback
from birdinfer.detections.formats.parquet import load_pyarrow
from birdinfer.detections.thresholds import MIN_CONFIDENCE
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, OutputError
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, save_manifest, stored_post
from birdinfer.inference.calibration import thresholds_of
from birdinfer.inference.engines import parse_spec
from birdinfer.inference.ensemble import check_live
from birdinfer.inference.predictor import Predictor, make_plan
from birdinfer.inference.soundscapes import header_seconds
from birdinfer.inference.voice import VoiceMode, detector_version, speech_finders
from birdinfer.prediction.identity import RunIdentity
from birdinfer.prediction.run import default_engine
from birdinfer.scale.listing import ArchiveFile, Listing, ListingWriter, absolute, list_archive
from birdinfer.scale.places import Place, StoreError
from birdinfer.system.cpu import processor_name
from birdinfer.typing import Float32

PLAN, FILES, UNITS, BUNDLE = "plan.json", "files.parquet", "units.parquet", "bundle"
MARKERS, TRIES = "_markers", "_tries"
"""Folders that readers of a folder of Parquet files pass over, by their first character."""
UNIT_SECONDS = 90.0
"""Core time of a unit: long against what a unit costs by itself, short against what a lost machine costs."""
CALIBRATION_SECONDS, _CALIBRATION_FILES = 120.0, 8
_FORMAT = 1
Scores = Literal["none", "float16", "float32"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSettings:
    """What is predicted, how, and what is kept of it."""

    engine: str | None = None  # as of ``predict``, but not ``auto``: all machines need the same
    batch_size: int | None = None
    channel: str = MEAN
    voice: VoiceMode | None = None
    keep_from: float = 0.1
    """Least score that is kept; less where the bundle's own threshold of a species is less."""
    keep_top: int = 1
    """Species of each window that are kept whatever their scores."""
    scores: Scores = "none"
    """All scores of all windows, too: ``float32`` for the tables of ``predict``, ``float16`` at half the size."""
    unit_seconds: float = UNIT_SECONDS
    force: bool = False
    """Replace an older plan and all that was done for it."""
    scratch: Path | None = None
    started: float = field(default_factory=time.perf_counter)


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What predicting a little of the archive took on this machine."""

    sound_seconds: float
    core_seconds: float
    bytes_per_second: dict[str, float]
    """Of sound, by ending; ``""``: of all kinds."""
    processor: str = ""

    def core_seconds_of(self, seconds: float) -> float:
        """Core time of this much sound."""
        return seconds * self.core_seconds / self.sound_seconds

    def seconds_of(self, size: int, ending: str) -> float:
        """Expected seconds of sound in a file."""
        return size / self.bytes_per_second.get(ending, self.bytes_per_second[""])


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``plan.json``."""

    format: int = _FORMAT
    archive: tuple[str, ...]
    base: str
    """The folder from which relative local paths count."""
    bundle: str
    engine: str
    batch_size: int | None
    channel: str
    voice: VoiceMode | None
    keep_from: float
    keep_top: int
    scores: Scores
    identity: RunIdentity
    n_files: int
    n_units: int
    n_bytes: int
    sound_seconds: float
    """Expected."""
    calibration: Calibration
    unopened: tuple[tuple[str, str], ...]

    @property
    def run(self) -> str:
        """The folder of parts and markers."""
        content = msgspec.json.encode((self.identity, self.keep_from, self.keep_top, self.scores))
        return f"run={hashlib.sha256(content).hexdigest()[:16]}"

    @property
    def core_seconds(self) -> float:
        """Expected core time."""
        return self.calibration.core_seconds_of(self.sound_seconds)

    @property
    def is_local(self) -> bool:
        """Whether the archive's files are local."""
        return not any("://" in each for each in self.archive)


class Unit(msgspec.Struct, frozen=True):
    """A bin of whole files."""

    digest: str
    """Of names, sizes and marks of its files: with the run's identity it decides the bytes of its part."""
    n_files: int
    n_bytes: int
    sound_seconds: float
    """Expected."""


class OpenPlan:
    """A plan at its place."""

    def __init__(self, place: Place, plan: Plan) -> None:
        """Use :func:`open_plan`."""
        self.place, self.plan = place, plan
        self._listing: Listing | None = None
        self._units: list[Unit] | None = None

    @property
    def units(self) -> list[Unit]:
        """All units by number."""
        if self._units is None:
            _, parquet = load_pyarrow()
            with self.place.open(UNITS) as file:
                columns = parquet.read_table(file).to_pydict()
            rows = zip(*(columns[name] for name in Unit.__struct_fields__), strict=True)
            self._units = [Unit(*row) for row in rows]
        return self._units

    @property
    def listing(self) -> Listing:
        """The files of all units."""
        if self._listing is None:
            self._listing = Listing(self.place.open(FILES))
        return self._listing

    def marker_name(self, unit: int) -> str:
        """Name the marker of a unit."""
        return f"{self.plan.run}/{MARKERS}/part-{self.units[unit].digest}.json"

    def part_name(self, unit: int, kind: str = "part") -> str:
        """Name the part of a unit; ``scores``: the table of all its scores."""
        folder = self.plan.run if kind == "part" else f"{self.plan.run}/_{kind}"
        return f"{folder}/{kind}-{self.units[unit].digest}.parquet"

    def done(self) -> list[int]:
        """List the units that have a marker, by one listing."""
        there = set(self.place.names(f"{self.plan.run}/{MARKERS}"))
        return [number for number, unit in enumerate(self.units) if f"part-{unit.digest}.json" in there]

    def missing(self) -> list[int]:
        """List the units without a marker."""
        return sorted(set(range(len(self.units))) - set(self.done()))

    def fetch_bundle(self, folder: Path) -> Bundle:
        """Load the bundle, from a copy in ``folder`` where the plan is remote."""
        if self.place.is_local:
            return Bundle.load(Path(self.place.uri) / BUNDLE)
        if not (folder / MANIFEST_NAME).is_file():
            names = [each.name for files in self.place.walk(BUNDLE) for each in files]
            # The manifest comes last: it makes the folder a bundle.
            for name in sorted(names, key=lambda name: name.endswith(MANIFEST_NAME)):
                self.place.fetch(name, folder / name.removeprefix(f"{BUNDLE}/"))
        return Bundle.load(folder)


def open_plan(uri: str | Path) -> OpenPlan:
    """Open a plan; InputNotFoundError if there is none, BundleError or ConfigError if it cannot be read."""
    place = Place(uri)
    try:
        content = place.read(PLAN)
    except StoreError as error:
        if error.kind == "gone":
            raise InputNotFoundError(str(uri), "holds no plan", "birdinfer scale plan makes one") from error
        raise
    try:
        return OpenPlan(place, msgspec.json.decode(content, type=Plan))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{uri}/{PLAN}", f"is damaged, or of another birdinfer ({error})", "plan it again") from error


def make_plan_at(
    uri: str, inputs: Sequence[str], bundle: Bundle, settings: PlanSettings, callback: Callback
) -> OpenPlan:
    """List an archive, measure a little of it, divide it into units and write the plan.

    Raises:
        OutputError: there is a plan already, or other things.
        BirdinferError: the archive cannot be listed, the bundle cannot predict, or an option cannot be used.
    """
    _check(bundle, settings)
    place = Place(uri)
    older = place.names("")
    if older and not (settings.force and PLAN in older):
        what = "holds a plan" if PLAN in older else "holds other things than a plan"
        raise OutputError(uri, what, "birdinfer scale run continues it; name another --plan, or give --force")
    spec = parse_spec(settings.engine or default_engine(callback))
    kept = kept_from(bundle, settings.keep_from)
    if settings.scratch is not None:
        settings.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="birdinfer-plan-", dir=settings.scratch) as name:
        scratch = Path(name)
        bundle = _copy_bundle(bundle, scratch / BUNDLE)
        archive = list_archive(inputs, callback)
        sample = _write_listing(archive.files, scratch / "listed.parquet", callback)
        calibration = calibrate(bundle, sample, settings, scratch, str(spec))
        units = list(_write_units(scratch, calibration, settings.unit_seconds))
        voice = f"{settings.voice} by silero-vad {detector_version()}" if settings.voice else ""
        plan = Plan(
            archive=tuple(inputs), base=str(Path.cwd()), bundle=bundle.manifest.name, engine=str(spec),
            batch_size=settings.batch_size, channel=settings.channel, voice=settings.voice,
            keep_from=settings.keep_from, keep_top=settings.keep_top, scores=settings.scores,
            identity=RunIdentity.of(bundle, spec, kept, channel=settings.channel, voice=voice),
            n_files=sum(unit.n_files for unit in units), n_units=len(units),
            n_bytes=sum(unit.n_bytes for unit in units), sound_seconds=sum(unit.sound_seconds for unit in units),
            calibration=calibration, unopened=archive.unopened,
        )  # fmt: skip
        if PLAN in older:
            place.remove(PLAN)
        copied = (file for file in sorted((scratch / BUNDLE).rglob("*")) if file.is_file())
        for file in (*copied, scratch / FILES, scratch / UNITS):
            place.upload(file, file.relative_to(scratch).as_posix())
        place.write(PLAN, msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")  # last: it makes the plan
    return OpenPlan(place, plan)


def kept_from(bundle: Bundle, least: float) -> Float32:
    """Return the score from which on each species' scores are kept, float32 [species]."""
    return np.minimum(thresholds_of(bundle.manifest, MIN_CONFIDENCE), np.float32(least)).astype(np.float32)


def calibrate(
    bundle: Bundle, sample: Sequence[ArchiveFile], settings: PlanSettings, scratch: Path, engine: str
) -> Calibration:
    """Predict two minutes of some files on one thread; AudioError if none of them can be read."""
    speech = speech_finders(settings.voice) if settings.voice else None
    threads = make_plan(engine, 1, settings.batch_size)
    predictor = Predictor(bundle, threads, channel=settings.channel, speech=speech)
    most = CALIBRATION_SECONDS / max(1, len(sample))
    sound = core = 0.0
    sizes: dict[str, list[float]] = {}
    is_warm = False
    for index, each in enumerate(sample):
        path = absolute(each.path, str(Path.cwd()))
        if "://" in each.path:
            folder, _, file_name = each.path.rpartition("/")
            path = scratch / str(index) / file_name
            Place(folder).fetch(file_name, path)
        seconds = header_seconds(path)
        if seconds is None:
            continue
        for key in (ending_of(path.name), ""):
            total = sizes.setdefault(key, [0.0, 0.0])
            total[0], total[1] = total[0] + each.size, total[1] + seconds
        done = 0.0
        try:
            with predictor.open(path) as reader:
                began = time.process_time()
                for batch in reader.batches():
                    if not is_warm:  # the first call of a graph takes longer than any other
                        predictor.score_batch(batch)
                        is_warm, began = True, time.process_time()
                    predictor.score_batch(batch)
                    done += predictor.sound_seconds_of(batch)
                    if done >= most:
                        break
                sound, core = sound + done, core + time.process_time() - began
        except (AudioError, OSError):
            continue
    if not sound:
        what = f"none of {len(sample)} files drawn at random can be read, the first is {sample[0].path}"
        raise AudioError("archive", what, "name the folder of the recordings")
    if not sound:  # one file of one batch: too little to measure
        sound = core = 1.0
    return Calibration(
        sound, core, {key: max(1.0, size) / seconds for key, (size, seconds) in sizes.items()}, processor_name()
    )


def _check(bundle: Bundle, settings: PlanSettings) -> None:
    check_live(bundle.manifest.blend, "units need --blend mean: ranks need all files at once")
    if settings.channel == EACH:
        raise ConfigError("--channel", "is each, which needs every file opened beforehand", "give mean, loudest or 1")
    check_channel(settings.channel)
    if settings.engine == "auto":
        raise ConfigError("--engine", "is auto, and all machines need the same engine", "name one, as openvino:bf16")
    if not 0 < settings.keep_from <= 1:
        raise ConfigError("--keep-from", f"is {settings.keep_from:g}, needed is a score above 0, at most 1")
    if settings.unit_seconds <= 0:
        raise ConfigError("--unit-seconds", f"is {settings.unit_seconds:g}, needed are seconds above 0")


def _write_listing(files: Iterable[ArchiveFile], path: Path, callback: Callback) -> list[ArchiveFile]:
    """Write the listing as it comes, and return some files of it, drawn at random."""
    draw = np.random.default_rng(0)
    writer, sample, waiting = ListingWriter(path), list[ArchiveFile](), list[ArchiveFile]()
    for n_files, each in enumerate(files, start=1):
        place = n_files - 1 if n_files <= _CALIBRATION_FILES else int(draw.integers(n_files))
        if place < _CALIBRATION_FILES:
            sample[place : place + 1] = [each]
        waiting.append(each)
        if len(waiting) == 1024:
            writer.add(waiting)
            waiting = []
        if n_files % 100_000 == 0:
            callback.on_message(f"{n_files:,} files are listed")
    writer.add(waiting)
    writer.close()
    return sample


def _write_units(scratch: Path, calibration: Calibration, unit_seconds: float) -> Iterator[Unit]:
    """Divide the listing into bins of files that follow each other."""
    pyarrow, parquet = load_pyarrow()
    writer, units = ListingWriter(scratch / FILES), list[Unit]()

    def close(files: list[ArchiveFile], seconds: float) -> Unit:
        writer.add([each._replace(unit=len(units)) for each in files])
        lines = [[each.name, each.size, each.etag] for each in files]
        digest = hashlib.sha256(msgspec.json.encode(lines)).hexdigest()[:20]
        units.append(Unit(digest, len(files), sum(each.size for each in files), seconds))
        return units[-1]

    files, seconds = list[ArchiveFile](), 0.0
    for each in Listing(scratch / "listed.parquet"):
        own = calibration.seconds_of(each.size, ending_of(each.path))
        if files and calibration.core_seconds_of(seconds + own) > unit_seconds:
            yield close(files, seconds)
            files, seconds = [], 0.0
        files.append(each)
        seconds += own
    yield close(files, seconds)
    writer.close()
    columns = {name: [getattr(unit, name) for unit in units] for name in Unit.__struct_fields__}
    parquet.write_table(pyarrow.table(columns), scratch / UNITS, compression="zstd")


def _copy_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Copy the bundle with its scoring as it was asked for, tables and all."""
    folder.mkdir()
    others = [bundle.folder / graph.file for graph in bundle.manifest.for_other_hosts]
    for source in {*bundle.files, *others}:
        if source.is_file() and source.is_relative_to(bundle.folder) and source.name != MANIFEST_NAME:
            target = folder / source.relative_to(bundle.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    save_manifest(folder, msgspec.structs.replace(bundle.manifest, post=stored_post(bundle.manifest.post, folder)))
    return Bundle.load(folder)
