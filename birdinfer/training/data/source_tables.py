"""``data.sources`` of a recipe -> clips and their labels, whatever kind a source is of.

Each window of a labelled soundscape, of pseudo-labels or of a table of segments becomes a :class:`Clip`, a part of its
file, with a row of :class:`~birdinfer.training.data.label_rows.LabelRows`. A window shorter than the network's is
widened to it, and has the labels of all windows that lie in it by half or more.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.audio.find import find_recordings
from birdinfer.audio.stream import probe
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, LabelError, MetadataError
from birdinfer.species import Species, SpeciesNames
from birdinfer.tables.labelled_windows import read_labelled_windows
from birdinfer.tables.pseudo_labels import Teacher, read_pseudo_labels
from birdinfer.tables.recording_names import parse_name
from birdinfer.tables.recordings import Recordings
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.clip_files import Stretch
from birdinfer.training.data.label_rows import LabelRows, PseudoRows, Soft, TableRows, UnknownRows
from birdinfer.training.data.metadata import clips_of_folder
from birdinfer.training.data.segment_table import read_segments
from birdinfer.training.recipe.data_config import SourceConfig
from birdinfer.typing import Float32

PREFIX = "@"
"""Begins the names of clips of sources: ``@soundscapes/x.ogg#t=0,5``."""
_HALF = 0.5
"""A soft label from which on it counts as present where it is validated."""
_LISTED = 3


class TrainingSource(NamedTuple):
    """A source, ready to be drawn from."""

    config: SourceConfig
    rows: LabelRows | None = None
    """Labels of its clips' rows; None where the clips' own labels are all."""


class SourceClips(NamedTuple):
    """What a source holds."""

    source: TrainingSource
    clips: tuple[Clip, ...]
    notes: tuple[str, ...]
    """What was left out, a line each."""


class _Window(NamedTuple):
    """A labelled window, as a table has it."""

    recording: str
    start_seconds: float
    end_seconds: float
    row: int
    """Of the table's labels."""


def find_source(config: SourceConfig, data_dir: Path) -> tuple[Path, Path | None]:
    """Find a source's folder of recordings and its table.

    Raises:
        ConfigError: there is none, neither here nor in the data folder.
    """
    table = _found(config, "table", config.table, data_dir) if config.table else None
    path = config.path
    if not path and table is not None:
        path = read_pseudo_labels(table).teacher.recordings
    return _found(config, "path", path, data_dir), table


def is_of_source(filename: str) -> bool:
    """Whether a name of a run's tables is that of a source's clip."""
    return filename.startswith(PREFIX)


def read_source(
    config: SourceConfig,
    number: int,
    data_dir: Path,
    species: Sequence[Species],
    window_seconds: float,
    also: Collection[str] = (),
) -> SourceClips:
    """Read a source.

    Args:
        config: which.
        number: of the recipe's sources, from 1.
        data_dir: the data folder.
        species: the columns of the scores.
        window_seconds: length of the network's windows.
        also: primary labels of clips besides these (:attr:`~birdinfer.training.data.clip.Metadata.also`).

    Raises:
        BirdinferError: its folder or table is missing or damaged, or none of its labels has a column.
    """
    path, table = find_source(config, data_dir)
    if config.kind == "clips":
        clips, notes = clips_of_folder(path, table, [one.label for one in species], also)
        named = tuple(_of_source(clip, config, number) for clip in clips)
        return SourceClips(TrainingSource(config), named, _titled(config, notes))
    if config.kind in {"unlabelled", "background"}:
        return _whole_recordings(config, number, path, len(species))
    assert table is not None
    reader = _Reader(config, number, path, table, data_dir, species, window_seconds)
    return {"soundscapes": reader.soundscapes, "segments": reader.segments, "pseudo_labels": reader.pseudo_labels}[
        config.kind
    ]()


def _whole_recordings(config: SourceConfig, number: int, path: Path, n_labels: int) -> SourceClips:
    """Whole recordings, of which no label is known, or which are known to have none."""
    names = find_recordings([path]).names
    with ThreadPoolExecutor() as pool:
        lengths = dict(zip(names, pool.map(_seconds, names), strict=True))
    clips: list[Clip] = []
    for file, seconds in lengths.items():
        if not isinstance(seconds, str):
            name = f"{PREFIX}{config.title}/{file.relative_to(path).as_posix() if path.is_dir() else file.name}"
            site = _site(names[file])
            clips.append(
                Clip(name, file, "", duration_seconds=seconds, recording=name, site=site, source=number, row=len(clips))
            )
    broken = [f"{file.name} ({problem})" for file, problem in lengths.items() if isinstance(problem, str)]
    notes = [f"{len(broken)} recordings cannot be decoded: {_some(broken)}"] if broken else []
    if not clips:
        raise MetadataError(path, "has no recording that can be used", "; ".join(notes))
    rows: LabelRows = UnknownRows(n_labels, len(clips))
    if config.kind == "background":
        rows = TableRows([{}] * len(clips), n_labels, np.ones(len(clips), np.float32))
    return SourceClips(TrainingSource(config, rows), tuple(clips), _titled(config, notes))


class _File(NamedTuple):
    """A recording."""

    path: Path
    name: str
    """Its path in the folder of recordings."""
    seconds: float


class _Placed(NamedTuple):
    """A window that has sound."""

    clip: Clip
    window: _Window
    rows: tuple[int, ...]
    """Of the table's labels: its own, or, of one that was widened, of all windows in it."""


class _Reader:
    """Reads a source of windows."""

    def __init__(
        self,
        config: SourceConfig,
        number: int,
        path: Path,
        table: Path,
        data_dir: Path,
        species: Sequence[Species],
        window_seconds: float,
    ) -> None:
        self._config, self._number, self._path, self._table = config, number, path, table
        self._data_dir, self._species, self._window_seconds = data_dir, species, window_seconds
        self._labels = [one.label for one in species]
        self._column = {label: index for index, label in enumerate(self._labels)}
        self._notes: list[str] = []

    def soundscapes(self) -> SourceClips:
        found = read_labelled_windows([self._table], self._window_seconds, self._species, "taxonomy.csv")
        self._notes += found.notes
        windows = [
            _Window(window.recording, window.start_seconds, window.end_seconds, row)
            for row, window in enumerate(found.windows)
        ]
        values = [{self._column[label]: 1.0 for label in labels} for labels in found.windows.values()]
        return self._of_table(windows, values, [1.0] * len(values), frozenset(self._labels))

    def segments(self) -> SourceClips:
        table = read_segments(self._table, self._labels, self._window_seconds)
        self._notes += table.notes
        observed, power, values = self._observed(), self._config.power or 1.0, []
        for segment in table.segments:
            there = observed.get(_site(segment.recording))
            values.append(
                {
                    self._column[label]: value**power
                    for label, value in segment.values.items()
                    if value >= self._config.zero and (there is None or label in there)
                }
            )
        windows = [
            _Window(segment.recording, segment.start_seconds, segment.end_seconds, row)
            for row, segment in enumerate(table.segments)
            if max(segment.values.values(), default=0.0) >= self._config.keep
        ]
        return self._of_table(windows, values, [segment.weight for segment in table.segments], table.known)

    def pseudo_labels(self) -> SourceClips:
        found = read_pseudo_labels(self._table)
        teacher, config = found.teacher, self._config
        soft = Soft(config.power or teacher.power, config.zero or teacher.zero)
        rows = PseudoRows(self._table, self._shared(teacher), len(self._labels), soft)
        largest, best, keep = rows.largest(), rows.best(), config.keep or teacher.keep
        windows = [_Window(*window, row) for row, window in enumerate(found.windows) if largest[row] >= keep]
        if len(windows) < len(found.windows):
            left_out = len(found.windows) - len(windows)
            self._notes.append(
                f"{left_out} of {len(found.windows)} windows have no label of {keep:g} or more: left out"
            )
        placed = self._place(windows)
        rows.rows_of = [one.rows for one in placed]
        rows.weights = np.ones(len(placed), np.float32)
        observed = self._observed()
        if observed:
            number = {site: index for index, site in enumerate(observed)}
            rows.observed = np.array([[label in there for label in self._labels] for there in observed.values()])
            rows.sites = np.array([number.get(_site(one.window.recording), -1) for one in placed], np.intp)
        return self._result(
            [one.clip._replace(primary_label=self._labels[best[one.window.row]]) for one in placed], rows
        )

    def _of_table(
        self,
        windows: Sequence[_Window],
        values: Sequence[Mapping[int, float]],
        weights: Sequence[float],
        known: frozenset[str],
    ) -> SourceClips:
        placed, merged = self._place(windows), []
        for one in placed:
            labels: dict[int, float] = {}
            for row in one.rows:
                for column, value in values[row].items():
                    labels[column] = max(value, labels.get(column, 0.0))
            merged.append(labels)
        own: Float32 = np.array([weights[one.window.row] for one in placed], np.float32)
        rows_of = TableRows(merged, len(self._labels), own)
        if len(known) < len(self._labels):
            rows_of.known = np.array([label in known for label in self._labels])
        return self._result(
            [self._labelled(one.clip, labels) for one, labels in zip(placed, merged, strict=True)], rows_of
        )

    def _labelled(self, clip: Clip, values: Mapping[int, float]) -> Clip:
        """A clip with the labels that are validated; trained on, one that has none goes by its largest."""
        ordered = sorted(values, key=lambda column: (-values[column], column))
        least = 0.0 if self._config.role == "train" else _HALF
        present = [column for column in ordered if values[column] >= _HALF] or [
            column for column in ordered[:1] if values[column] >= least
        ]
        labels = [self._labels[column] for column in present]
        return clip._replace(primary_label=labels[0] if labels else "", secondary_labels=tuple(labels[1:]))

    def _result(self, clips: Sequence[Clip], rows: LabelRows) -> SourceClips:
        if not clips:
            raise MetadataError(self._table, "has no window that can be used", "; ".join(self._notes))
        return SourceClips(TrainingSource(self._config, rows), tuple(clips), _titled(self._config, self._notes))

    # ---- Windows of a table -> parts of files

    def _place(self, windows: Sequence[_Window]) -> list[_Placed]:
        """The windows that have sound, recording by recording."""
        files = self._files({window.recording for window in windows})
        of_file: dict[str, list[_Window]] = defaultdict(list)
        for window in windows:
            if window.recording in files:
                of_file[window.recording].append(window)
        placed: list[_Placed] = []
        n_beyond = 0
        for recording, own in sorted(of_file.items()):
            file = files[recording]
            within = sorted((one for one in own if one.start_seconds < file.seconds), key=lambda one: one[1:])
            n_beyond += len(own) - len(within)
            for window in within:
                start, end = window.start_seconds, min(window.end_seconds, file.seconds)
                part = widened(start, end, file.seconds, self._window_seconds)
                rows = (window.row,) if part == (start, end) else _rows_in(within, *part)
                placed.append(_Placed(self._clip(file, window, part, len(placed)), window, rows))
        if n_beyond:
            self._notes.append(f"{n_beyond} windows begin behind the end of their recording: left out")
        return placed

    def _clip(self, file: _File, window: _Window, part: tuple[float, float], row: int) -> Clip:
        name = f"{PREFIX}{self._config.title}/{file.name}"
        return Clip(
            filename=Stretch(name, window.start_seconds, window.end_seconds).name,
            path=file.path,
            primary_label="",
            duration_seconds=part[1] - part[0],
            recording=name,
            site=_site(window.recording),
            begin_seconds=part[0],
            end_seconds=part[1],
            source=self._number,
            row=row,
        )

    def _files(self, recordings: set[str]) -> dict[str, _File]:
        """The files of the table's recordings that can be read."""
        there = find_recordings([self._path]).names
        by_name = {name: path for path, name in there.items()}
        known = Recordings(by_name)
        found = {asked: known.find(asked) for asked in sorted(recordings)}
        missing = [asked for asked, names in found.items() if len(names) != 1]
        if missing:
            self._notes.append(f"{len(missing)} recordings of {self._table.name} are missing: {_some(missing)}")
        paths = {asked: by_name[names[0]] for asked, names in found.items() if len(names) == 1}
        with ThreadPoolExecutor() as pool:
            seconds = dict(zip(paths, pool.map(_seconds, paths.values()), strict=True))
        broken = [f"{asked} ({value})" for asked, value in seconds.items() if isinstance(value, str)]
        if broken:
            self._notes.append(f"{len(broken)} recordings cannot be decoded: {_some(broken)}")
        root = self._path if self._path.is_dir() else self._path.parent
        return {
            asked: _File(path, path.relative_to(root).as_posix(), value)
            for asked, path in paths.items()
            if not isinstance(value := seconds[asked], str)
        }

    # ---- Species

    def _shared(self, teacher: Teacher) -> list[tuple[int, int]]:
        names, scientific = SpeciesNames(self._species), teacher.scientific_names or ("",) * len(teacher.labels)
        meant = {
            index: names.find(label) or names.find(name)
            for index, (label, name) in enumerate(zip(teacher.labels, scientific, strict=True))
        }
        pairs = {self._column[labels[0]]: index for index, labels in meant.items() if len(labels) == 1}
        if not pairs:
            what = f"none of its {len(teacher.labels)} labels is in the taxonomy, first {teacher.labels[0]!r}"
            raise LabelError(self._table, what, "take a teacher that knows these species")
        if len(pairs) < len(self._labels):
            lacking = [label for label in self._labels if self._column[label] not in pairs]
            self._notes.append(f"{len(lacking)} species are not known to the teacher and masked: {_some(lacking)}")
        return sorted((theirs, own) for own, theirs in pairs.items())

    def _observed(self) -> dict[str, frozenset[str]]:
        """Site -> species that were ever found there; empty without ``site_table``."""
        if not self._config.site_table:
            return {}
        table = _found(self._config, "site_table", self._config.site_table, self._data_dir)
        found: dict[str, set[str]] = defaultdict(set)
        for window, labels in read_labelled_windows([table], self._window_seconds, self._species).windows.items():
            if site := _site(window.recording):
                found[site] |= labels
        if not found:
            raise MetadataError(table, "names no recording whose name has a site", "leave site_table out")
        return {site: frozenset(labels) for site, labels in found.items()}


def widened(start: float, end: float, duration: float, window_seconds: float) -> tuple[float, float]:
    """Widen a stretch that is shorter than a window to one, about its middle and within its file.

    >>> widened(5, 10, 60, 20), widened(0, 5, 60, 20), widened(5, 10, 60, 5)
    ((0, 20), (0, 20), (5, 10))
    """
    if end - start >= window_seconds - 1e-3:
        return start, end
    begin = max(0, min((start + end - window_seconds) / 2, duration - window_seconds))
    return begin, min(begin + window_seconds, duration)


def draw_weights(clips: Sequence[Clip], source: TrainingSource) -> Float32 | None:
    """How often each of a source's clips is drawn, [clips]; None: all alike."""
    if source.config.drawn_by == "window" or source.rows is None:
        return None
    sums = source.rows.sums()
    largest: dict[Path, float] = defaultdict(float)
    counts = Counter(clip.path for clip in clips)
    for clip in clips:
        largest[clip.path] = max(largest[clip.path], float(sums[clip.row]))
    weights: Float32 = np.array([largest[clip.path] / counts[clip.path] for clip in clips], np.float32)
    return weights if weights.any() else None


def _rows_in(windows: Sequence[_Window], begin: float, end: float) -> tuple[int, ...]:
    """Rows of the windows that lie between two times by half or more."""
    return tuple(
        one.row
        for one in windows
        if min(end, one.end_seconds) - max(begin, one.start_seconds) >= (one.end_seconds - one.start_seconds) / 2 - 1e-6
    )


def _of_source(clip: Clip, config: SourceConfig, number: int) -> Clip:
    recording = f"{PREFIX}{config.title}/{clip.recording}" if clip.recording == clip.filename else clip.recording
    return clip._replace(filename=f"{PREFIX}{config.title}/{clip.filename}", source=number, recording=recording)


def _found(config: SourceConfig, key: str, given: str, data_dir: Path) -> Path:
    places = (Path(given), data_dir / given)
    found = next((place for place in places if given and place.exists()), None)
    if found is None:
        what = f"{given!r} is not there, neither here nor in {data_dir}"
        raise ConfigError(f"data.sources {config.title}: {key}", what, "name a folder or file that is")
    return found


def _seconds(path: Path) -> float | str:
    try:
        seconds = float(probe(path).duration_seconds)
    except (AudioError, InputNotFoundError) as error:
        return error.what
    return seconds if math.isfinite(seconds) and seconds > 0 else "holds no sound"


def _site(recording: str) -> str:
    return parse_name(recording).site or ""


def _titled(config: SourceConfig, notes: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{config.title}: {note}" for note in notes)


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
