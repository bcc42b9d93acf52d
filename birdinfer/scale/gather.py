"""The parts of a plan -> what ``detect`` and ``predict`` write, with the same bytes.

In: a plan whose units are done. Out: a folder of detections, or a table of all scores. Both are made by the code of
those commands, which is given the files' results and scores unit by unit: at any time one unit is in memory.
"""

import hashlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, overload

import numpy as np

from birdinfer.audio.find import Found
from birdinfer.audio.status import FINE, Status
from birdinfer.detections.recordings import Recording, describe_recording
from birdinfer.errors import ConfigError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.detect import DetectionSettings, DetectionTables
from birdinfer.prediction.run import PredictionCallback, SubmissionTables
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import MissingSpecies, SubmissionWriter, Written
from birdinfer.scale.listing import ArchiveFile, absolute
from birdinfer.scale.marker import FileRecord, Marker, read_tables
from birdinfer.scale.plan import OpenPlan, kept_from
from birdinfer.scale.run import check_complete, read_marker
from birdinfer.submission.formats import read_sample
from birdinfer.system.outputs import check_folder
from birdinfer.typing import Float32

_READERS = 32
_BLOCK_ROWS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSettings:
    """Which table of scores is written."""

    output: Path = Path("submission.csv")
    sample_submission: Path | None = None
    missing_species: MissingSpecies = "error"
    year: int = 2026
    threshold: float = 0.5
    force: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """What was written."""

    output: Path
    n_files: int
    n_left: int
    """Files of units that are not done."""
    n_problems: int
    """Other files with which something is wrong."""
    written: Written


def gather_detections(
    opened: OpenPlan, settings: DetectionSettings, callback: PredictionCallback | None = None, *, partial: bool = False
) -> Gathered:
    """Write a folder of detections; ``partial`` takes what is done.

    Raises:
        BirdinferError: units are not done, thresholds are below what the plan keeps, the folder cannot be written.
    """
    callback = callback or PredictionCallback()
    settings = replace(settings, voice=opened.plan.voice)
    if opened.plan.is_local:
        inputs = [absolute(each, opened.plan.base) for each in opened.plan.archive]
        check_folder(settings.output, inputs)
    with _Parts(opened, partial) as parts:
        if settings.origin.name_pattern:
            settings.origin.check_names(each.name for each in opened.listing)
        tables = _Tables(parts, settings)
        for line in tables.filter.notes:
            callback.on_warning(line)
        parts.fetch(("part",), callback)
        results, scores = _Results(parts), _Scores(parts, tables.bundle, "part")
        settings.output.mkdir(parents=True, exist_ok=True)
        tables.remove_leftovers()
        written = tables.write(scores, results)
        tables.finish(scores, results, callback)
        return _gathered(settings.output, parts, written)


def gather_table(
    opened: OpenPlan, settings: TableSettings, callback: PredictionCallback | None = None, *, partial: bool = False
) -> Gathered:
    """Write the table of all scores, as ``predict`` does; ConfigError if the plan has not kept them."""
    callback = callback or PredictionCallback()
    if opened.plan.scores == "none":
        hint = "plan and run it again with --scores float32"
        raise ConfigError("--submission", "needs all scores, and the plan keeps those of detections alone", hint)
    with _Parts(opened, partial) as parts:
        bundle = parts.bundle
        writer = SubmissionWriter(
            bundle.labels, bundle.manifest.fallback_probabilities, bundle.manifest.rows, year=settings.year,
            sample=read_sample(settings.sample_submission) if settings.sample_submission else None,
            threshold=settings.threshold, missing_species=settings.missing_species, names=parts.names,
            skips_speech=opened.plan.voice == "skip", species=bundle.manifest.species,
        )  # fmt: skip
        inputs = [settings.sample_submission] if settings.sample_submission else []
        tables = SubmissionTables(settings.output, writer, [*inputs, *bundle.files], settings.force)
        parts.fetch(("scores",), callback)
        results = _Results(parts)
        if line := writer.missing_problem():
            callback.on_warning(line)
        written = tables.write(_Scores(parts, bundle, "scores"), results)
        return _gathered(settings.output, parts, written)


def _gathered(output: Path, parts: "_Parts", written: Written) -> Gathered:
    n_problems = sum(result.status not in FINE for result in _Results(parts)) - parts.n_left
    n_files = parts.opened.plan.n_files
    return Gathered(output=output, n_files=n_files, n_left=parts.n_left, n_problems=n_problems, written=written)


@dataclass(slots=True)
class _Unit:
    """What is in memory of a unit."""

    number: int
    files: dict[Path, ArchiveFile]
    records: dict[Path, FileRecord]
    """Empty if it is not done."""
    marker: Marker | None
    tables: dict[str, Any]


class _Parts:
    """Reads parts and markers, from copies where the plan is remote; the unit that was read last is kept."""

    def __init__(self, opened: OpenPlan, partial: bool) -> None:
        if not partial:
            check_complete(opened)
        self.opened = opened
        self.done = opened.done()
        self._is_done = frozenset(self.done)
        self.n_left = sum(unit.n_files for number, unit in enumerate(opened.units) if number not in self._is_done)
        with ExitStack() as closing:
            self._folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="birdinfer-gather-")))
            self.bundle = opened.fetch_bundle(self._folder / "bundle")
            self._closing = closing.pop_all()
        self.names: Mapping[Path, str] = _Names(self)
        self._latest: _Unit | None = None
        self._unit_of: dict[Path, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def fetch(self, kinds: Sequence[str], callback: PredictionCallback) -> None:
        """Copy all markers and parts of these kinds, many at a time; nothing to do where they are local."""
        if self.opened.place.is_local:
            return
        names = [self.opened.marker_name(unit) for unit in self.done]
        names += [self.opened.part_name(unit, kind) for unit in self.done for kind in kinds]
        with ThreadPoolExecutor(_READERS) as pool:
            copies = pool.map(lambda name: self.opened.place.fetch(name, self._folder / name), names)
            for number, _ in enumerate(copies, start=1):
                callback.on_progress("parts", number, len(names))

    def path_of(self, file: ArchiveFile) -> Path:
        """Name a file in results: a local one as it was listed, another one within the archive."""
        plan = self.opened.plan
        return Path(file.path if plan.is_local else file.path.removeprefix(f"{plan.archive[0].rstrip('/')}/"))

    def units(self) -> Iterator[_Unit]:
        """Read all units in order, without their tables."""
        for number, files in itertools.groupby(self.opened.listing, lambda file: file.unit):
            yield self._begin(number, list(files))

    def unit_with(self, path: Path) -> _Unit:
        """Return the unit of a file; without a place in memory for each file as long as they come in order."""
        if self._latest is None or path not in self._latest.files:
            if self._unit_of is None:
                self._unit_of = {self.path_of(file): file.unit for file in self.opened.listing}
            number = self._unit_of[path]
            self._begin(number, self.opened.listing.of_unit(number))
        assert self._latest is not None
        return self._latest

    def table(self, unit: _Unit, kind: str) -> Any:
        """Return a table of a unit; ConfigError if it is not as its marker says."""
        if kind not in unit.tables:
            name = self.opened.part_name(unit.number, kind)
            copy = self._folder / name
            content = copy.read_bytes() if copy.is_file() else self.opened.place.read(name)
            if unit.marker is None or hashlib.sha256(content).hexdigest() != unit.marker.sha256[kind]:
                marker = self.opened.place.at(self.opened.marker_name(unit.number))
                what = f"is not what its marker says (unit {unit.number})"
                raise ConfigError(self.opened.place.at(name), what, f"remove {marker}, and run the plan again")
            unit.tables |= read_tables({kind: content})
        return unit.tables[kind]

    def _begin(self, number: int, files: Sequence[ArchiveFile]) -> _Unit:
        if self._latest is None or self._latest.number != number:
            marker = self._marker(number) if number in self._is_done else None
            in_order = {self.path_of(file): file for file in files}
            records = dict(zip(in_order, marker.files, strict=True)) if marker else {}
            self._latest = _Unit(number, in_order, records, marker, {})
        return self._latest

    def _marker(self, number: int) -> Marker:
        copy = self._folder / self.opened.marker_name(number)
        return Marker.decode(copy.read_bytes()) if copy.is_file() else read_marker(self.opened, number)


class _Names(Mapping[Path, str]):
    """The names of the recordings."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts

    def __getitem__(self, path: Path) -> str:
        return self._parts.unit_with(path).files[path].name

    def __iter__(self) -> Iterator[Path]:
        return (path for unit in self._parts.units() for path in unit.files)

    def __len__(self) -> int:
        return self._parts.opened.plan.n_files


class _Results(Sequence[SoundscapeResult]):
    """The results of all files, in the order of the listing; then what cannot be opened."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        unopened = parts.opened.plan.unopened
        self._unopened = [SoundscapeResult(Path(path), Status.not_opened, problem=why) for path, why in unopened]

    def __iter__(self) -> Iterator[SoundscapeResult]:
        for unit in self._parts.units():
            for path in unit.files:
                record = unit.records.get(path)
                stopped = SoundscapeResult(path, Status.stopped, problem="not reached")
                yield record.result(path) if record else stopped
        yield from self._unopened

    def __len__(self) -> int:
        return self._parts.opened.plan.n_files + len(self._unopened)

    @overload
    def __getitem__(self, index: int) -> SoundscapeResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SoundscapeResult]: ...
    def __getitem__(self, index: int | slice) -> SoundscapeResult | Sequence[SoundscapeResult]:
        return list(self)[index]


class _Scores(ScoreStore):
    """The scores of all files, read from their units."""

    def __init__(self, parts: _Parts, bundle: Bundle, kind: str) -> None:
        """Take the columns of a bundle, which may know fewer species than the plan's; ``kind`` of the tables."""
        super().__init__(len(bundle.labels))
        self._parts, self._kind = parts, kind
        self._row_seconds = bundle.manifest.rows.window_seconds
        self._labels = bundle.labels
        places = {label: column for column, label in enumerate(parts.bundle.labels)}
        self._columns = np.array([places[label] for label in bundle.labels], np.intp)
        self._read: tuple[Path | None, Float32] = (None, np.zeros((0, self.n_labels), np.float32))

    def n_rows(self, path: Path) -> int | None:
        """Return how many rows a file has; None if it has none."""
        if path not in self._parts.unit_with(path).records:
            return None
        return self._parts.unit_with(path).records[path].n_rows or None

    def row(self, path: Path, index: int) -> Float32 | None:
        """Return a row [species] of a file; None if it has no such row."""
        if self._read[0] != path:
            self._read = (path, np.concatenate([np.zeros((0, self.n_labels), np.float32), *self._blocks(path)]))
        found: Float32 = self._read[1]
        return found[index] if 0 <= index < len(found) else None

    def blocks(self, path: Path) -> Iterator[tuple[int, Float32]]:
        """Yield the index of a block's first row and its scores [rows, species], for all of a file, in their order."""
        first = 0
        for block in self._blocks(path):
            yield first, block
            first += len(block)

    def _blocks(self, path: Path) -> Iterator[Float32]:
        unit = self._parts.unit_with(path)
        if path not in unit.records or not unit.records[path].n_rows:
            return
        n_rows, table = unit.records[path].n_rows, self._parts.table(unit, self._kind)
        first, last = self._places(unit)[unit.files[path].name]
        own = table.slice(first, last - first)
        if self._kind == "scores":
            flat = own["scores"].combine_chunks().flatten().to_numpy().astype(np.float32)
            wide = flat.reshape(n_rows, -1)[:, self._columns]
            yield from (wide[begin : begin + _BLOCK_ROWS] for begin in range(0, n_rows, _BLOCK_ROWS))
            return
        column_of = {label: column for column, label in enumerate(self._labels)}
        columns = np.array([column_of.get(label, -1) for label in own["label"].to_pylist()], np.intp)
        rows = np.rint(own["start"].to_numpy() / self._row_seconds).astype(np.intp)[columns >= 0]
        scores = own["score"].to_numpy()[columns >= 0]
        columns = columns[columns >= 0]
        for begin in range(0, n_rows, _BLOCK_ROWS):
            block = np.zeros((min(_BLOCK_ROWS, n_rows - begin), self.n_labels), np.float32)
            here = (rows >= begin) & (rows < begin + len(block))
            block[rows[here] - begin, columns[here]] = scores[here]
            yield block

    def _places(self, unit: _Unit) -> dict[str, tuple[int, int]]:
        """Where the rows of each recording lie in a unit's table."""
        key = f"places of {self._kind}"
        if key not in unit.tables:
            files = self._parts.table(unit, self._kind)["file"].to_numpy(zero_copy_only=False)
            edges = [0, *(np.flatnonzero(files[1:] != files[:-1]) + 1).tolist(), len(files)] if len(files) else [0]
            found = {files[begin]: (begin, end) for begin, end in itertools.pairwise(edges)}
            unit.tables[key] = {file.name: found.get(file.name, (0, 0)) for file in unit.files.values()}
        places: dict[str, tuple[int, int]] = unit.tables[key]
        return places


class _Tables(DetectionTables):
    """Detections of recordings that need not be there any more: their metadata were kept."""

    def __init__(self, parts: _Parts, settings: DetectionSettings) -> None:
        nothing = Found(names=MappingProxyType({}), unopened=(), others={}, passed_over=(), linked=())
        super().__init__(parts.bundle, settings, nothing)
        self._parts, self._names = parts, parts.names
        least = kept_from(parts.bundle, parts.opened.plan.keep_from)[self._is_scored]
        if (low := self._thresholds < least).any():
            label = self.bundle.labels[int(np.flatnonzero(low)[0])]
            what = f"the plan keeps scores from {parts.opened.plan.keep_from:g} on, and that of {label} is less"
            raise ConfigError("threshold", what, "give a higher one, or plan it again with --keep-from")

    def _recording(self, result: SoundscapeResult) -> Recording:
        plan, unit = self._parts.opened.plan, self._parts.unit_with(result.path)
        file = unit.files[result.path]
        path = absolute(file.path, plan.base) if plan.is_local else result.path
        described = describe_recording(
            path, file.name, self._settings.origin, seconds=result.seconds, sample_rate=result.sample_rate,
            written=unit.records[result.path].metadata,
        )  # fmt: skip
        return replace(described, channel=int(result.channel) if result.channel.isdecimal() else None)
