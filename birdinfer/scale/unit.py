"""The unit of work: some files of a plan, predicted as on one machine, stored as a part and then a marker.

Whatever runs units (:mod:`birdinfer.scale.local`, a scheduler of a cluster) calls :func:`run_unit`, or the command
``birdinfer scale work``, in any process on any machine, as often as it likes: a unit that has a marker is done, and two
that work on the same one write the same bytes. So a unit that was lost is simply run again.

Each start of a unit leaves a mark, which its end removes. Where three starts have had no end, something in the unit may
kill its process: from then on its files are predicted one by one in a process of their own
(:mod:`birdinfer.scale.alone`), and a file at which that process dies twice is ``crashed``. A lost machine takes that
watching process along, and so is not blamed on a file.
"""

import atexit
import hashlib
import os
import platform
import queue
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from birdinfer.audio.metadata import FileMetadata, read_metadata
from birdinfer.audio.status import Status
from birdinfer.errors import BirdinferError, ConfigError, InputNotFoundError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.engines import parse_spec
from birdinfer.inference.predictor import Predictor, make_plan
from birdinfer.inference.results import SoundscapeResult
from birdinfer.inference.soundscapes import predict_soundscapes
from birdinfer.inference.voice import detector_version, speech_finders
from birdinfer.prediction.identity import RunIdentity
from birdinfer.prediction.run import step_names
from birdinfer.scale.alone import predict_alone
from birdinfer.scale.listing import ArchiveFile, absolute, local_mark
from birdinfer.scale.marker import FileRecord, KeptScores, Marker, joined, parquet_bytes, tables_of
from birdinfer.scale.places import Place
from birdinfer.scale.plan import TRIES, kept_from, open_plan
from birdinfer.scale.staging import CHANGED, GONE, MOST_BYTES, Stager
from birdinfer.system.locks import try_lock
from birdinfer.typing import Float32

MOST_STARTS = 3
"""Starts of a unit without an end after which its files are predicted one by one."""
SCRATCH = "BIRDINFER_SCRATCH"
_DTYPES: dict[str, Any] = {"none": None, "float16": np.float16, "float32": np.float32}


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkSettings:
    """What a process that runs units may use."""

    threads: int = 1
    scratch: Path | None = None
    """For staged sound; None: ``BIRDINFER_SCRATCH``, or the system's folder of temporary files."""
    most_bytes: int = MOST_BYTES
    """Of staged sound."""


class Worker:
    """Runs units of one plan in this process; the loaded predictor serves all of them. Use as a context manager."""

    def __init__(self, uri: str | Path, settings: WorkSettings | None = None) -> None:
        """Open the plan and load its bundle; ConfigError if this machine would give other scores than the plan's."""
        self.settings = settings = settings or WorkSettings()
        self.open, plan = (opened := open_plan(uri)), opened.plan
        scratch = settings.scratch or (Path(os.environ[SCRATCH]) if os.environ.get(SCRATCH) else None)
        with ExitStack() as closing:
            self.scratch = closing.enter_context(own_folder(scratch or Path(tempfile.gettempdir())))
            self.stager: Stager | None = None
            """What fetches sound; None: it is local."""
            if not plan.is_local:
                stager = Stager(Place(plan.archive[0]), self.scratch / "sound", settings.most_bytes)
                self.stager = closing.enter_context(stager)
            bundle = self.open.fetch_bundle(self.scratch / "bundle")
            self._kept_from = kept_from(bundle, plan.keep_from)
            self._check_identity(bundle)
            speech = speech_finders(plan.voice) if plan.voice else None
            engine = make_plan(plan.engine, settings.threads, plan.batch_size)
            self._predictor = Predictor(bundle, engine, channel=plan.channel, speech=speech)
            self._closing = closing.pop_all()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was staged."""
        self._closing.close()

    def run(self, units: Iterable[int]) -> Iterator[tuple[int, Marker | BirdinferError]]:
        """Run units one after the other; the sound of the next one is fetched meanwhile.

        Yields:
            Each unit with its marker, or with why it has none: the plan's place or the archive's does not give or take
            a file (StoreError), no model works, the archive's disk is gone.
        """
        waiting: queue.Queue[_Staged | BaseException | None] = queue.Queue(1)

        def feed() -> None:
            try:
                for unit in units:
                    waiting.put(self._stage(unit))
                waiting.put(None)
            except BaseException as error:  # raised in the thread that waits for it
                waiting.put(error)

        threading.Thread(target=feed, name="feed", daemon=True).start()
        while (staged := waiting.get()) is not None:
            if isinstance(staged, BaseException):
                raise staged
            yield staged.unit, self._outcome(staged)

    def predict(self, files: Sequence[ArchiveFile], paths: Sequence[Path]) -> tuple[list[FileRecord], dict[str, Any]]:
        """Predict files of a unit: their records and tables, in order."""
        plan, names = self.open.plan, {path: file.name for path, file in zip(paths, files, strict=True)}
        sink = _Sink(self, dict(zip(paths, files, strict=True)))
        known = sink.lost_files() if plan.is_local else {}
        left = [path for path in paths if path not in known]
        bundle = self._predictor.bundle
        timed = step_names(bundle, names)
        for result in predict_soundscapes(self._predictor, left, sink=sink, names=timed):
            known[result.path] = sink.outcome(result)
        records = [FileRecord.of(names[path], known[path], sink.metadata.get(path, FileMetadata())) for path in paths]
        kept = [(names[path], sink.kept[path]) for path in paths if path in sink.kept]
        return records, tables_of(kept, bundle.labels, bundle.manifest.rows.window_seconds)

    def paths_of(self, files: Sequence[ArchiveFile]) -> list[Path]:
        """Return where files lie, or will lie when they are fetched."""
        if self.stager is not None:
            return self.stager.announce(files)
        return [absolute(each.path, self.open.plan.base) for each in files]

    def new_scores(self) -> KeptScores:
        """Return what keeps the scores of one recording."""
        plan = self.open.plan
        return KeptScores(self._kept_from, plan.keep_top, _DTYPES[plan.scores])

    def _stage(self, unit: int) -> "_Staged":
        """Begin to fetch the files of a unit, unless it is done."""
        opened = self.open
        try:
            if not 0 <= unit < opened.plan.n_units:
                what = f"there is no unit {unit}, the last is {opened.plan.n_units - 1}"
                raise ConfigError(opened.place.uri, what)
            if opened.place.info(opened.marker_name(unit)) is not None:
                return _Staged(unit, [], [], Marker.decode(opened.place.read(opened.marker_name(unit))))
            files = opened.listing.of_unit(unit)
            return _Staged(unit, files, self.paths_of(files), None)
        except BirdinferError as error:
            return _Staged(unit, [], [], error)

    def _outcome(self, staged: "_Staged") -> Marker | BirdinferError:
        if staged.done is not None:
            return staged.done
        try:
            return self._run(staged)
        except BirdinferError as error:
            return error
        finally:
            if self.stager is not None:
                for path in staged.paths:
                    self.stager.release(path)

    def _run(self, staged: "_Staged") -> Marker:
        opened, unit = self.open, staged.unit
        folder, digest = f"{opened.plan.run}/{TRIES}", opened.units[unit].digest
        earlier = [name for name in opened.place.names(folder) if name.startswith(f"{digest}-")]
        mark = f"{folder}/{digest}-{secrets.token_hex(6)}"
        opened.place.write(mark, b"")
        began, began_core = time.perf_counter(), time.process_time()
        is_deadly = len(earlier) >= MOST_STARTS
        if is_deadly:
            records, tables = self._one_by_one(staged)
        else:
            records, tables = self.predict(staged.files, staged.paths)
        contents = {kind: parquet_bytes(table) for kind, table in tables.items()}
        for kind, content in contents.items():
            opened.place.write(opened.part_name(unit, kind), content)
        marker = Marker(
            unit, digest, {kind: hashlib.sha256(content).hexdigest() for kind, content in contents.items()},
            tuple(records), time.process_time() - began_core, time.perf_counter() - began, platform.node(),
        )  # fmt: skip
        opened.place.write(opened.marker_name(unit), marker.encode())
        for name in (mark, *(f"{folder}/{name}" for name in earlier)):
            opened.place.remove(name)
        return marker

    def _one_by_one(self, staged: "_Staged") -> tuple[list[FileRecord], dict[str, Any]]:
        outcomes = predict_alone(self.open.place.uri, staged.unit, len(staged.files), self.scratch)
        records, tables = [], [tables_of([], self._predictor.labels, 1.0)]
        if self.open.plan.scores != "none":
            tables = [tables_of([("", self.new_scores())], self._predictor.labels, 1.0)]
        for file, outcome in zip(staged.files, outcomes, strict=True):
            if isinstance(outcome, str):
                records.append(FileRecord(file.name, Status.crashed, problem=outcome))
            else:
                records += outcome[0]
                tables.append(outcome[1])
        return records, joined(tables)

    def _check_identity(self, bundle: Bundle) -> None:
        plan = self.open.plan
        voice = f"{plan.voice} by silero-vad {detector_version()}" if plan.voice else ""
        own = RunIdentity.of(bundle, parse_spec(plan.engine), self._kept_from, channel=plan.channel, voice=voice)
        if own != plan.identity:
            what = own.difference(plan.identity).removeprefix("holds a run of another ")
            raise ConfigError(platform.node() or "this machine", f"differs from the plan's: {what}", "install the same")


@dataclass(frozen=True, slots=True)
class _Staged:
    unit: int
    files: Sequence[ArchiveFile]
    paths: Sequence[Path]
    done: Marker | BirdinferError | None


class _Sink:
    """Takes the rows of a unit's files, and lets each wait until its sound is there."""

    def __init__(self, worker: Worker, files: dict[Path, ArchiveFile]) -> None:
        self._worker, self._files = worker, files
        self.kept: dict[Path, KeptScores] = {}
        self.metadata: dict[Path, FileMetadata] = {}
        self._problems: dict[Path, str] = {}

    def note_opened(self, path: Path) -> None:
        if self._worker.stager is not None and (problem := self._worker.stager.wait(path)):
            self._problems[path] = problem

    def add(self, path: Path, rows: Float32) -> None:
        if path not in self.kept:
            self.kept[path] = self._worker.new_scores()
        self.kept[path].add(rows)

    def finish(self, result: SoundscapeResult) -> None:
        with suppress(OSError):
            self.metadata[result.path] = read_metadata(result.path)
        if self._worker.stager is not None:
            self._worker.stager.release(result.path)

    def outcome(self, result: SoundscapeResult) -> SoundscapeResult:
        """Return a file's result, which has nothing to do with its sound where that never came."""
        problem = self._problems.get(result.path)
        return SoundscapeResult(result.path, Status.not_opened, problem=problem) if problem else result

    def lost_files(self) -> dict[Path, SoundscapeResult]:
        """Find local files that are gone or have changed; InputNotFoundError if that is all of them."""
        problems = {}
        for path, file in self._files.items():
            try:
                if local_mark(path) != (file.size, file.etag):
                    problems[path] = CHANGED
            except OSError:
                problems[path] = GONE
        gone = [path for path, problem in problems.items() if problem == GONE]
        if gone and len(gone) == len(self._files):
            raise InputNotFoundError(gone[0], "is gone, and all files beside it", "is its disk in its place?")
        return {path: SoundscapeResult(path, Status.not_opened, problem=text) for path, text in problems.items()}


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for this process in another one, and remove those of processes that were killed."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("birdinfer-scale-*"):
        with try_lock(left.with_name(f".{left.name}.lock")) as is_left:
            if is_left:
                shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"birdinfer-scale-{secrets.token_hex(6)}"
    with try_lock(folder.with_name(f".{folder.name}.lock")):  # before it is there: it is never taken for a left one
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_WORKERS: dict[str, Worker] = {}


def run_unit(uri: str, unit: int, settings: WorkSettings | None = None) -> Marker:
    """Run one unit in this process, which keeps the loaded plan for the next one; raise why it cannot be done."""
    if uri not in _WORKERS:
        _WORKERS[uri] = Worker(uri, settings)
        atexit.register(_WORKERS[uri].close)
    ((_, outcome),) = _WORKERS[uri].run([unit])
    if isinstance(outcome, BirdinferError):
        raise outcome
    return outcome
