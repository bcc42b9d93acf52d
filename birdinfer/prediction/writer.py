"""Write scores as the table that a BirdCLEF competition scores, in the format of its year, and a side table of files.

A row's number is the END of its window in whole seconds: ``soundscape_42_15`` is second 10 to 15 of
``soundscape_42.ogg``. Without a sample there is a row for each window that was scored, and for those that a time budget
left out. With a sample_submission.csv the rows and columns are exactly its own, in its order. A row without a score (a
file that could not be read, a window past its end) gets the bundle's fallback, each species' mean probability. 2021
lists the species found per row (``nocall`` if none), 2022 asks for one row per file, species and end with a truth
value, 2023 to 2026 have one column of probabilities per species.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from birdinfer.audio.channels import split_channel
from birdinfer.audio.find import recording_name
from birdinfer.audio.levels import ChannelLevel
from birdinfer.audio.speech import rows_with_speech, speech_seconds
from birdinfer.audio.status import FINE, Status
from birdinfer.audio.windows import count_windows, end_seconds
from birdinfer.config import WindowConfig
from birdinfer.errors import AudioError, ConfigError, MetadataError
from birdinfer.inference.rank_blend import RankBlender
from birdinfer.inference.results import SoundscapeResult
from birdinfer.inference.soundscapes import is_plausible
from birdinfer.prediction.ranks import ranked_rows, ranking_seconds
from birdinfer.prediction.relatives import relatives_of
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.species import Species
from birdinfer.submission.formats import (
    YEARS,
    Sample,
    check_year,
    detected,
    is_detected,
    is_wide,
    list_cell,
    number_line,
    truth_cell,
    value_names,
)
from birdinfer.system.files import atomic_text
from birdinfer.tables.binary_scores import binary_rows, check_can_write, is_binary
from birdinfer.tables.cells import near_miss, plain_label
from birdinfer.tables.csv import CsvWriter
from birdinfer.tables.row_ids import RowId, make_row_id, parse_row_id, row_stem
from birdinfer.typing import Float32, Float64

_LEFT_OUT = frozenset({Status.skipped_by_budget, Status.stopped})


class Written(NamedTuple):
    """Counts of a result: rows, those without scores, and labels of the bundle that the sample does not ask for."""

    rows: int
    fallback_rows: int
    unused_labels: int
    rows_without_file: int = 0  # of the sample
    rows_past_end: int = 0  # of the sample, where a file that is whole has no window
    detections: Mapping[str, int] = MappingProxyType({})  # by label, where these are written


_Scores = npt.NDArray[np.floating[Any]]
_Real = TypeVar("_Real", bound=np.floating[Any])


class _Place(NamedTuple):
    """A row of the table, and where its scores are stored."""

    row: RowId
    file: Path | None
    at: int | None  # its number in the file; None: it has no scores
    is_spoken: bool


class _Placing:
    """The rows of a table, to be gone through several times."""

    def __init__(self, places: Callable[[], Iterator[_Place]]) -> None:
        self._places = places

    def __iter__(self) -> Iterator[_Place]:
        return self._places()


MissingSpecies = Literal["error", "prior", "genus"] | float
"""Species that a sample asks for and the bundle lacks: refused, or filled: with the bundle's mean fallback, the
highest score of their genus, or this."""


class SubmissionWriter:
    """Write the scores of a run as a table in the format of a year."""

    def __init__(
        self,
        labels: Sequence[str],
        fallback: Sequence[float],
        window: WindowConfig,
        *,
        year: int = YEARS[-1],
        sample: Sample | None = None,
        threshold: float = 0.5,
        missing_species: MissingSpecies = "error",
        names: Mapping[Path, str] | None = None,
        skips_speech: bool = False,
        ranks: RankBlender | None = None,
        species: Sequence[Species] = (),
    ) -> None:
        """Check before anything is predicted that the table can be written.

        ``labels`` are in the scores' column order, ``fallback`` is a probability per species for rows without a score,
        ``year`` is 2021 to 2026. Without a sample all windows and labels are written. 2021 and 2022 count a species as
        present from ``threshold`` on. ``names`` of the recordings stand in the row ids; each file's own name where they
        are left out. A sample may also name a file without its folders. :attr:`missing` are the species that the sample
        asks for and the bundle lacks, all scored ``filler``, 0 to 1. ``skips_speech``: windows with human speech count
        as not scored; without a sample they have no row. ``ranks`` blends the groups whose scores the store holds.
        ``species`` are the bundle's, for ``missing_species`` of "genus": the highest score of its genus, or 0.

        Raises:
            ConfigError: no such year, windows that do not end at whole seconds, which row ids count, or a threshold on
                ranks.
            MetadataError: the sample has the format of another year, or labels that the bundle does not score and
                that are not to be filled, or no other ones.
        """
        check_year(year)
        if window.window_seconds != int(window.window_seconds):
            problem = f"is {window.window_seconds:g}, row ids count whole seconds"
            raise ConfigError("window_seconds", problem, "use another bundle")
        if ranks is not None and not is_wide(year):
            what = f"{year} asks for species above a threshold, and the bundle blends by rank, which is no probability"
            raise ConfigError("--year", what, "give --blend mean")
        self._ranks = ranks
        self._labels = tuple(labels)
        self._fallback = np.asarray(fallback, np.float32)
        self._window, self._year, self._sample, self._threshold = window, year, sample, threshold
        self._column: dict[str, int] = {label: index for index, label in enumerate(self._labels)}
        fillers = {"error": 0.0, "genus": 0.0, "prior": float(self._fallback.mean())}
        self.filler = fillers[missing_species] if isinstance(missing_species, str) else missing_species
        self.missing: tuple[str, ...] = ()
        self._relatives: tuple[tuple[int, ...], ...] = ()
        if sample is not None:
            self._check_sample(sample, may_lack=missing_species != "error")
            if missing_species == "genus":
                self._relatives = relatives_of(self.missing, sample.path, species)
        # What is missing is scored in columns behind the bundle's own.
        self._column = {label: index for index, label in enumerate((*self._labels, *self.missing))}
        self._skips_speech = skips_speech
        self._fillers = np.full(len(self.missing), self.filler, np.float32)
        self._names = names or {}
        asked = dict.fromkeys(row.stem for row in self._sample_rows()) if sample else {}
        self._asked = {normalize("NFC", name): name for name in asked} | {name: name for name in asked}
        """The names of a sample's row ids, by themselves and composed (NFC): macOS takes names apart."""

    def check_names(self, paths: Sequence[Path]) -> None:
        """Check before anything is predicted that no two files have the same rows; raise AudioError if so."""
        by_name: dict[str, Path] = {}
        for path in paths:
            name = self._name_in_rows(path)
            other = by_name.setdefault(name, path)
            if other == path or (self._sample and name not in self._asked):
                continue
            other_way = "leave one out" if self._sample else f"leave out --year {self._year}"
            raise AudioError(path, f"would have the same rows as {other} ({name}_...)", f"rename one, or {other_way}")

    def _name_in_rows(self, path: Path) -> str:
        """The recording as row ids name it: a sample's spelling of its name, or of its file's name without folders."""
        names = [self._names.get(path), recording_name(path)]
        spelled = [row_stem(name, self._year) for name in names if name]
        if self._sample is None:
            return spelled[0]
        composed = (normalize("NFC", name) for name in spelled)
        return next((self._asked[name] for name in (*spelled, *composed) if name in self._asked), spelled[-1])

    def missing_problem(self) -> str:
        """Say which species are filled because the bundle lacks them, in one line; "" if none is."""
        if not self.missing or self._sample is None:
            return ""
        held = f"hold {self.filler:.4g} in all rows" if self._ranks is None else "are in the middle of all ranks"
        if n_related := sum(map(bool, self._relatives)):
            held = f"hold the highest of their genus ({n_related}) or {held.removeprefix('hold ')}"
        what = f"{len(self.missing)} of its species are not in the bundle and {held}"
        return f"{self._sample.path}: {what}: {self.missing_text()}"

    def missing_text(self) -> str:
        """The first missing species; before all others those that may be the bundle's in another spelling."""
        alike = {plain_label(label): [label] for label in self._labels}
        near = [near_miss(label, alike.get(plain_label(label), ())) for label in self.missing]
        pairs = zip(self.missing, near, strict=True)
        named = [f"{label!r}, in the bundle {meant}" if meant else label for label, meant in pairs]
        named.sort(key=lambda text: not text.startswith("'"))
        return ", ".join(named[:5]) + (", ..." if len(named) > 5 else "")

    def sample_problem(self, paths: Sequence[Path]) -> str:
        """Say which of the sample's rows no file can answer, in one line; "" if all can be, or there is no sample."""
        if self._sample is None:
            return ""
        stems = {self._name_in_rows(path): path for path in paths}
        n_rows_of = Counter(row.stem for row in self._sample_rows())
        lost = [stem for stem in n_rows_of if stem not in stems]
        if not lost:
            return ""
        n_lost = sum(n_rows_of[stem] for stem in lost)
        if not paths:
            return f"{self._sample.path}: there is no recording, all {n_lost} rows hold the fallback"
        if len(lost) == len(n_rows_of):
            what = f"none of {len(stems)} files is in the sample, all {n_lost} rows hold the fallback"
        else:
            what = f"{len(lost)} of its {len(n_rows_of)} recordings are not there, {n_lost} rows hold the fallback"
        theirs = next(row.text for row in self._sample_rows() if row.stem == lost[0])
        yours = next((path for stem, path in stems.items() if stem not in n_rows_of), paths[0]).name
        names = f"its rows look like {theirs}, your files like {yours}"
        return f"{self._sample.path}: {what} ({names}) - predict its recordings, or name the sample of yours"

    def write(
        self, path: Path, score_store: ScoreStore, results: Sequence[SoundscapeResult], *, group: int | None = None
    ) -> Written:
        """Write the table, whole or not at all; ``results`` holds every file, in the order of the rows.

        ``group``: of a blend by rank, write the scores of this group as they are before they are ranked.
        """
        # Only the wide format takes the sample's columns; the others always use all labels.
        columns = self._sample.columns if self._sample and self._year >= 2023 else self._labels
        n_rows = n_fallback = n_without_file = n_past_end = 0
        whole = {result.path for result in results if result.status in FINE} if self._sample else ()
        placed = _Placing(self._places(score_store, results))
        is_ranked = self._ranks is not None and group is None
        with self._rows(path, placed, columns, np.float64 if is_ranked else np.float32) as add:
            values: Iterator[_Scores] = (
                self._ranked(placed, score_store, path.parent)
                if is_ranked
                else self._scored(placed, score_store, group or 0)
            )
            for place, scores in zip(placed, values, strict=True):
                n_rows, n_fallback = n_rows + 1, n_fallback + (place.at is None)
                n_without_file += place.file is None
                n_past_end += place.at is None and not place.is_spoken and place.file in whole
                add(place.row, scores)
        n_unused = len(set(self._labels).difference(columns))
        return Written(n_rows, n_fallback, n_unused, n_without_file, n_past_end)

    @contextlib.contextmanager
    def _rows(
        self, path: Path, placed: "_Placing", columns: Sequence[str], dtype: npt.DTypeLike
    ) -> Iterator[Callable[[RowId, _Scores], object]]:
        """Open the table in the format of its ending; yields what takes a row's id and the scores of all species."""
        picked = np.array([self._column[label] for label in columns], np.intp)
        if is_binary(path):
            with binary_rows(path, [place.row.text for place in placed], columns, dtype) as add:
                yield lambda row, scores: add(scores[picked])
            return
        with atomic_text(path) as text:
            table = CsvWriter(text)
            table.row("row_id", value_names(self._year, columns))
            if self._year >= 2023:
                yield lambda row, scores: table.line(row.text, number_line(scores[picked]))
            else:
                yield lambda row, scores: table.row(row.text, [self._cell(row, scores)])

    def check_format(self, path: Path) -> None:
        """Raise ConfigError or MissingExtraError, before any work, where a file of this ending cannot be written."""
        if is_binary(path) and not is_wide(self._year):
            raise ConfigError("--output", f"{path.suffix} is for scores, and {self._year} has none", "name a .csv")
        check_can_write(path)

    def ranking_seconds(self, n_rows: int) -> float:
        """Estimate what ranking this many rows takes; 0 without ranks."""
        return 0.0 if self._ranks is None else ranking_seconds(n_rows, self._ranks)

    def _places(self, score_store: ScoreStore, results: Sequence[SoundscapeResult]) -> Callable[[], Iterator["_Place"]]:
        """Make what yields the rows of the table; the same ones at each call, though the store may grow."""
        path_of = {self._name_in_rows(result.path): result.path for result in results}
        n_rows_of = {result.path: score_store.n_rows(result.path) or 0 for result in results}
        spoken = self._rows_with_speech(results)

        def places() -> Iterator[_Place]:
            for row in self._sample_rows() if self._sample else self._own_rows(n_rows_of, results):
                file, index = path_of.get(row.stem), self._index(row.end_seconds)
                is_spoken = index in spoken.get(file, ())
                if is_spoken and not self._sample:
                    continue
                is_scored = file is not None and index == int(index) and 0 <= index < n_rows_of[file]
                yield _Place(row, file, int(index) if is_scored and not is_spoken else None, is_spoken)

        return places

    def _scored(self, places: Iterable["_Place"], score_store: ScoreStore, group: int) -> Iterator[Float32]:
        """Scores of the rows [species], of one group if the bundle has several."""
        n_species = len(self._labels)
        for place in places:
            scores = self._stored(place, score_store)
            own = None if scores is None else scores[group * n_species :][:n_species]
            # A group that a run short of time has given up has no score.
            values = self._fallback if own is None or np.isnan(own[0]) else own
            yield self._filled(values, self._fillers)

    def _ranked(self, places: "_Placing", score_store: ScoreStore, folder: Path) -> Iterator[Float64]:
        """Blended ranks of the rows [species], for which rows without scores have the fallback in all groups."""
        assert self._ranks is not None
        n_rows, fallback = sum(1 for _ in places), np.tile(self._fallback, self._ranks.n_groups)
        stored = (self._stored(place, score_store) for place in places)
        scores = (fallback if each is None else each for each in stored)
        middle = np.full(len(self.missing), (n_rows - 1) / 2 / max(1, n_rows))
        for values in ranked_rows(scores, n_rows, self._ranks, folder):
            yield self._filled(values, middle)

    def _filled(self, values: npt.NDArray[_Real], fillers: npt.NDArray[_Real]) -> npt.NDArray[_Real]:
        """The values of a row, and behind them those of the missing species."""
        if self._relatives:
            fillers = fillers.copy()
            for at, columns in enumerate(self._relatives):
                if columns:
                    fillers[at] = values[list(columns)].max()
        return np.concatenate([values, fillers]) if self.missing else values

    def _stored(self, place: "_Place", score_store: ScoreStore) -> Float32 | None:
        return None if place.at is None or place.file is None else score_store.row(place.file, place.at)

    def _cell(self, row: RowId, values: _Scores) -> str:
        if self._year == 2021:
            return list_cell(self._labels, detected(values, self._threshold).tolist())
        return truth_cell(is_detected(float(values[self._column[row.label]]), self._threshold))

    def _index(self, end: int) -> float:
        """The number of the window that ends at this second, from 0; a fraction if none does."""
        return end / self._window.window_seconds - 1

    def _rows_with_speech(self, results: Sequence[SoundscapeResult]) -> dict[Path | None, frozenset[int]]:
        if not self._skips_speech:
            return {}
        return {
            each.path: rows_with_speech(each.speech, self._window.window_seconds) for each in results if each.speech
        }

    def _own_rows(self, n_rows_of: Mapping[Path, int], results: Sequence[SoundscapeResult]) -> Iterator[RowId]:
        """Rows of all sound that was scored, and of what a time budget left out; the side table shows the others."""
        for result in results:
            name = self._name_in_rows(result.path)
            n_rows = n_rows_of[result.path]
            if result.status in _LEFT_OUT:
                n_rows = max(n_rows, self._rows_of(result.expected_seconds))
            for end in end_seconds(n_rows, self._window):
                if self._year == 2022:
                    yield from (make_row_id(name, end, label) for label in self._labels)
                else:
                    yield make_row_id(name, end)

    def _rows_of(self, seconds: float | None) -> int:
        """Rows of a sound of this length; 0 if it is unknown or implausible."""
        if seconds is None or not is_plausible(seconds):
            return 0
        rate = 1_000_000  # whole microseconds: no rounding of seconds makes or loses a row
        window, tail = round(self._window.window_seconds * rate), round(self._window.min_tail_seconds * rate)
        return max(1, count_windows(round(seconds * rate), window, tail))

    def _sample_rows(self) -> Iterator[RowId]:
        assert self._sample is not None
        for row_id in self._sample.row_ids:
            yield parse_row_id(row_id, self._year, self._sample.path)

    def _check_sample(self, sample: Sample, may_lack: bool) -> None:
        names = value_names(self._year, sample.columns)
        if tuple(names) != sample.columns:
            raise self._refused(f"its columns are not those of {self._year} (row_id,{','.join(names)})")
        if self._year >= 2023:
            asked = sample.columns
            if set(asked) & {"birds", "target"} and not set(asked) & set(self._labels):
                raise self._refused(f"its columns ({','.join(asked)}) are those of 2021 or 2022: give --year")
        else:
            asked = tuple(dict.fromkeys(row.label for row in self._sample_rows() if row.label))
        self.missing = tuple(label for label in asked if label not in self._column)
        if self.missing and (len(self.missing) == len(asked) or not may_lack):
            what = f"asks for {len(self.missing)} species that the bundle does not score: {self.missing_text()}"
            if len(self.missing) == len(asked):
                raise self._refused(f"{what}; it scores none that is asked for", "name another --bundle, or sample")
            raise self._refused(what, "name another --bundle; --missing-species prior fills their columns")
        for row_id in sample.row_ids:
            parse_row_id(row_id, self._year, sample.path)

    def _refused(self, what: str, hint: str = "") -> MetadataError:
        assert self._sample is not None
        return MetadataError(self._sample.path, what, hint)


_LEVELS = ("peak_dbfs", "rms_dbfs", "zeros", "clipped", "dc", "bandwidth_hz")


def write_file_report(path: Path, results: Sequence[SoundscapeResult]) -> None:
    """Write the side table: each file's status, seconds processed and expected, rows scored, level, problem, channels.

    ``channel`` is what was processed. The level of every channel of the file stands in the cells of :data:`_LEVELS`,
    with ``;`` between channels: dBFS are relative to a full-scale square wave, ``zeros`` and ``clipped`` are shares of
    the samples, ``dc`` is their mean. ``microphone`` names what is wrong with which channel,
    ``speech_seconds`` is empty where speech was not looked for.
    """
    with atomic_text(path) as text:
        table = CsvWriter(text)
        names = ["status", "seconds", "expected_seconds", "rows", "level", "problem"]
        table.row("file", [*names, "channel", *_LEVELS, "microphone", "speech_seconds"])
        for result in results:
            expected = "" if result.expected_seconds is None else f"{result.expected_seconds:.3f}"
            seconds = f"{result.seconds:.3f}"
            cells = [result.status, seconds, expected, result.n_rows, result.level, result.problem]
            levels = [";".join(cells) for cells in zip(*map(_level_cells, result.levels), strict=True)]
            speech = "" if result.speech is None else f"{speech_seconds(result.speech):.1f}"
            file = str(split_channel(result.path)[0])
            channels = [result.channel, *(levels or [""] * len(_LEVELS)), result.microphone]
            table.row(file, [*cells, *channels, speech])


def _level_cells(level: ChannelLevel) -> list[str]:
    """Cells of one channel; a level without any power is ``-inf``, as R and pandas read it."""
    peak_dbfs = 20 * math.log10(level.peak) if level.peak else -math.inf
    rms_dbfs = -math.inf if level.rms_dbfs is None else level.rms_dbfs
    shares = (f"{level.zeros:.4f}", f"{level.clipped:.6f}", f"{round(level.dc, 4) + 0.0:.4f}")  # no -0.0000
    return [f"{peak_dbfs:.1f}", f"{rms_dbfs:.1f}", *shares, str(level.bandwidth_hz)]
