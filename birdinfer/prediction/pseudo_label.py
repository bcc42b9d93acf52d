"""Pseudo-labels of recordings: a run of :mod:`birdinfer.prediction.run` whose result is a folder to train on.

Out: the folder of :mod:`birdinfer.tables.pseudo_labels`, scores float16 [windows, species] after the bundle's blend and
post-processing, and ``files.csv``, the status of every recording. ``NAME.progress/`` beside it keeps what is done until
all is well. A recording that members were trained on is scored by the others alone, and left out if there are none.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from birdinfer.audio.find import Found
from birdinfer.audio.speech import rows_with_speech
from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.predictor import Predictor
from birdinfer.inference.results import Scheduler, SoundscapeResult
from birdinfer.inference.trained_on import TrainedOn, family_of
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
from birdinfer.prediction.writer import Written
from birdinfer.system.files import check_replaceable
from birdinfer.system.outputs import check_folder
from birdinfer.tables.pseudo_labels import TEACHER, Teacher, write_pseudo_labels
from birdinfer.typing import Float32

SIDE_TABLE = "files.csv"
_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabelSettings(RunSettings):
    """What is written, and what is recorded of how to use it."""

    output: Path = Path("pseudo")
    power: float = 1.0
    """Recorded, not applied: scores are meant to be raised to this."""
    keep: float = 0.0
    """Recorded, not applied: a window is meant to be used if its largest score reaches this."""
    zero: float = 0.0
    """Recorded, not applied: a score below this is meant to count as 0."""
    leave_out: frozenset[str] = frozenset()
    """Names of recordings, as row ids have them, that get no pseudo-labels."""


class OutOfFoldScheduler(Scheduler):
    """Gives each file to the members that were not trained on it."""

    def __init__(
        self, bundle: Bundle, members: Mapping[Path, frozenset[str]], make_predictor: Callable[[Bundle], Predictor]
    ) -> None:
        """Load all members; fewer are loaded when the first file needs it. ``members``: of the files without all."""
        super().__init__(make_predictor(bundle))
        self._bundle, self._members, self._make = bundle, members, make_predictor
        self._predictors: dict[frozenset[str], Predictor] = {}
        self._lock = threading.Lock()

    def predictor_for(self, path: Path) -> Predictor | None:
        """Return the predictor of the members that may score a file."""
        names = self._members.get(path)
        if names is None:
            return self._default
        with self._lock:
            if names not in self._predictors:
                self._predictors[names] = self._make(self._bundle.with_members(names))
            return self._predictors[names]


class PseudoLabelTables(Tables):
    """The folder of pseudo-labels."""

    def __init__(self, bundle: Bundle, folder: Path, settings: PseudoLabelSettings, found: Found) -> None:
        """Check that the folder can be written, and find out who may score what.

        Raises:
            OutputError: the folder holds an input, or other things than pseudo-labels.
            ConfigError: a setting is out of range.
            MetadataError: the bundle's record of folds is damaged.
        """
        check_folder(settings.output, [folder, *files_of(found), *bundle.files])
        check_replaceable(settings.output, "pseudo-labels", "name another folder", TEACHER)
        super().__init__(settings.output, settings.output / SIDE_TABLE)
        self._bundle, self._settings, self._folder = bundle, settings, folder
        self.record = TrainedOn(bundle)
        self._filenames = {path: path.relative_to(folder).as_posix() for path in found.names}
        everyone = frozenset(member.name for member in bundle.manifest.members)
        allowed = {path: self.record.unaware_of([name]) for path, name in self._filenames.items()}
        self.trained_on = [path for path, names in allowed.items() if not names]
        """Recordings that every member was trained on."""
        self._members = {path: names for path, names in allowed.items() if names and names != everyone}

    @property
    def n_out_of_fold(self) -> int:
        """Recordings that only some of the members score."""
        return len(self._members)

    def make_scheduler(self, bundle: Bundle, make_predictor: Callable[[Bundle], Predictor]) -> Scheduler:
        """Let each file be scored by the members that were not trained on it."""
        return OutOfFoldScheduler(bundle, self._members, make_predictor)

    def write_result(self, scores: ScoreStore, results: Sequence[SoundscapeResult]) -> Written:
        """Write the folder."""
        bundle, settings = self._bundle, self._settings
        members = bundle.manifest.members
        held_out = {self._filenames[path]: self.record.fold_of(self._filenames[path]) for path in self._members}
        teacher = Teacher(
            labels=bundle.labels, scientific_names=tuple(each.scientific_name for each in bundle.manifest.species),
            bundle=bundle.sha256(), members=tuple(each.name for each in members),
            families=tuple(family_of(bundle, each) for each in members),
            steps=tuple(repr(step) for step in bundle.manifest.post.all_steps), recordings=str(self._folder),
            power=settings.power, keep=settings.keep, zero=settings.zero, held_out=held_out,
        )  # fmt: skip
        n_rows = write_pseudo_labels(self.output, teacher, self._recordings(scores, results))
        return Written(n_rows, 0, 0)

    def _recordings(
        self, scores: ScoreStore, results: Sequence[SoundscapeResult]
    ) -> Iterator[tuple[str, list[tuple[float, float]], Float32]]:
        seconds = self._bundle.manifest.rows.window_seconds
        for result in results:
            rows = scores.scores(result.path)
            if rows is None:
                continue
            # The last window may be longer than what is left of the recording.
            ends = np.minimum(seconds * np.arange(1, len(rows) + 1), max(result.seconds, seconds / 1000)).tolist()
            spoken = rows_with_speech(result.speech or (), seconds) if self._settings.voice == "skip" else ()
            kept = [index for index, end in enumerate(ends) if index * seconds < end and index not in spoken]
            yield self._filenames[result.path], [(index * seconds, ends[index]) for index in kept], rows[kept]


def pseudo_label(
    bundle: Bundle,
    folder: Path,
    settings: PseudoLabelSettings | None = None,
    callback: PredictionCallback | None = None,
) -> PredictionOutcome:
    """Score all recordings of a folder, and write a folder of pseudo-labels to train on.

    Any bundle is a teacher: folds of one's own, adopted models, blends; with its post-processing. A recording that some
    members were trained on is scored by the others; one that all of them were trained on is left out.

    Raises:
        BirdinferError: the run cannot be done as asked, and nothing was changed; or it had to end: no model works, the
            disk of the recordings is gone; what is done is kept, and ``resume`` continues.
        KeyboardInterrupt, SystemExit: stopped; finished files are kept for ``resume``.
    """
    settings, callback = settings or PseudoLabelSettings(), callback or PredictionCallback()
    _check_ranges(settings)
    if not folder.is_dir():
        raise ConfigError("SOUNDSCAPES", f"{folder} is no folder", "name the folder that holds the recordings")
    found = _without(find_inputs([folder], callback), settings.leave_out, callback)
    _require(found, folder, "name a folder with others than the held-out ones")
    tables = PseudoLabelTables(bundle, folder, settings, found)
    if tables.trained_on:
        named = ", ".join(path.name for path in tables.trained_on[:_NAMED])
        more = ", ..." if len(tables.trained_on) > _NAMED else ""
        what = f"left out: {len(tables.trained_on)} recordings that every member was trained on: {named}{more}"
        callback.on_warning(what)
        gone = frozenset(tables.trained_on)
        found = replace(found, names={path: name for path, name in found.names.items() if path not in gone})
        _require(found, folder, "name others, or a bundle that was not trained on them")
    if tables.n_out_of_fold:
        what = f"{tables.n_out_of_fold} recordings are scored out of fold, by members that were not trained on them"
        callback.on_message(what)
    if tables.record.without_record:
        names = ", ".join(tables.record.without_record)
        callback.on_message(f"no record of what {names} was trained on: it may have been these recordings")
    return run_prediction(bundle, found, settings, callback, tables)


def _without(found: Found, names: frozenset[str], callback: PredictionCallback) -> Found:
    kept = {path: name for path, name in found.names.items() if name not in names}
    if len(kept) < len(found.names):
        callback.on_message(f"{len(found.names) - len(kept)} recordings are held out and get no pseudo-labels")
    return replace(found, names=kept)


def _require(found: Found, folder: Path, hint: str) -> None:
    if not found.names:
        raise InputNotFoundError(folder, "holds no recording that may have pseudo-labels", hint)


def _check_ranges(settings: PseudoLabelSettings) -> None:
    if not 0 < settings.power <= 10:
        raise ConfigError("--power", f"is {settings.power:g}, allowed is 0 < power <= 10")
    for option, value in (("--keep", settings.keep), ("--zero", settings.zero)):
        if not 0 <= value <= 1:
            raise ConfigError(option, f"is {value:g}, allowed are numbers from 0 to 1")
