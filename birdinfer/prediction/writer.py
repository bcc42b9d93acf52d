"""Write scores as the table that a BirdCLEF competition scores, in the format of its year, and a side table of files.

A row's number is the END of its window in whole seconds: ``soundscape_42_15`` is second 10 to 15 of
``soundscape_42.ogg``. Without a sample there is a row for each window that was scored, and for those that a time budget
left out. With a sample_submission.csv the rows and columns are exactly its own, in its order. A row without a score (a
file that could not be read, a window past its end) gets the bundle's fallback, each species' mean probability. 2021
lists the species found per row (``nocall`` if none), 2022 asks for one row per file, species and end with a truth
value, 2023 to 2026 have one column of probabilities per species.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple
from unicodedata import normalize

import numpy as np

from birdinfer.audio.channels import split_channel
from birdinfer.audio.find import recording_name
from birdinfer.audio.levels import ChannelLevel
from birdinfer.audio.speech import rows_with_speech, speech_seconds
from birdinfer.audio.status import FINE, Status
from birdinfer.audio.windows import count_windows, end_seconds
from birdinfer.config import WindowConfig
from birdinfer.errors import AudioError, ConfigError, MetadataError
from birdinfer.inference.results import SoundscapeResult
from birdinfer.inference.soundscapes import is_plausible
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.submission.formats import (
    YEARS,
    Sample,
    check_year,
    detected,
    is_detected,
    list_cell,
    number_cells,
    truth_cell,
    value_names,
)
from birdinfer.system.files import atomic_text
from birdinfer.tables.cells import near_miss, plain_label
from birdinfer.tables.csv import CsvWriter
from birdinfer.tables.row_ids import RowId, make_row_id, parse_row_id, row_stem
from birdinfer.typing import Float32

_LEFT_OUT = frozenset({Status.skipped_by_budget, Status.stopped})


class Written(NamedTuple):
    """Counts of a result: rows, those without scores, and labels of the bundle that the sample does not ask for."""

    rows: int
    fallback_rows: int
    unused_labels: int
    rows_without_file: int = 0  # of the sample
    rows_past_end: int = 0  # of the sample, where a file that is whole has no window
    detections: Mapping[str, int] = MappingProxyType({})  # by label, where these are written


MissingSpecies = Literal["error", "prior"] | float
"""Species that a sample asks for and the bundle lacks: refused, or filled: with the bundle's mean fallback, or this."""


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
    ) -> None:
        """Check before anything is predicted that the table can be written.

        ``labels`` are in the scores' column order, ``fallback`` is a probability per species for rows without a score,
        ``year`` is 2021 to 2026. Without a sample all windows and labels are written. 2021 and 2022 count a species as
        present from ``threshold`` on. ``names`` of the recordings stand in the row ids; each file's own name where they
        are left out. A sample may also name a file without its folders. :attr:`missing` are the species that the sample
        asks for and the bundle lacks, all scored ``filler``, 0 to 1. ``skips_speech``: windows with human speech count
        as not scored; without a sample they have no row.

        Raises:
            ConfigError: no such year, or windows that do not end at whole seconds, which row ids count.
            MetadataError: the sample has the format of another year, or labels that the bundle does not score and
                that are not to be filled, or no other ones.
        """
        check_year(year)
        if window.window_seconds != int(window.window_seconds):
            problem = f"is {window.window_seconds:g}, row ids count whole seconds"
            raise ConfigError("window_seconds", problem, "use another bundle")
        self._labels = tuple(labels)
        self._fallback = np.asarray(fallback, np.float32)
        self._window, self._year, self._sample, self._threshold = window, year, sample, threshold
        self._column: dict[str, int] = {label: index for index, label in enumerate(self._labels)}
        self.filler = float(self._fallback.mean()) if isinstance(missing_species, str) else missing_species
        self.missing: tuple[str, ...] = ()
        if sample is not None:
            self._check_sample(sample, may_lack=missing_species != "error")
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
        what = f"{len(self.missing)} of its species are not in the bundle and hold {self.filler:.4g} in all rows"
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

    def write(self, path: Path, score_store: ScoreStore, results: Sequence[SoundscapeResult]) -> Written:
        """Write the table, whole or not at all; ``results`` holds every file, in the order of the rows."""
        # Only the wide format takes the sample's columns; the others always use all labels.
        columns = self._sample.columns if self._sample and self._year >= 2023 else self._labels
        picked = [self._column[label] for label in columns]
        n_rows = n_fallback = n_without_file = n_past_end = 0
        whole = {result.path for result in results if result.status in FINE} if self._sample else ()
        path_of = {self._name_in_rows(result.path): result.path for result in results}
        spoken = self._rows_with_speech(results)
        with atomic_text(path) as text:
            table = CsvWriter(text)
            table.row("row_id", value_names(self._year, columns))
            for row in self._sample_rows() if self._sample else self._own_rows(score_store, results):
                file = path_of.get(row.stem)
                is_spoken = self._index(row.end_seconds) in spoken.get(file, ())
                if is_spoken and not self._sample:
                    continue
                scores = None if is_spoken else self._scores(score_store, file, row.end_seconds)
                n_rows, n_fallback = n_rows + 1, n_fallback + (scores is None)
                n_without_file += file is None
                n_past_end += scores is None and not is_spoken and file in whole
                values = self._fallback if scores is None else scores
                if self.missing:
                    values = np.concatenate([values, self._fillers])
                table.row(row.text, self._cells(row, values, picked))
        n_unused = len(set(self._labels).difference(columns))
        return Written(n_rows, n_fallback, n_unused, n_without_file, n_past_end)

    def _cells(self, row: RowId, values: Float32, picked: list[int]) -> list[str]:
        if self._year == 2021:
            return [list_cell(self._labels, detected(values, self._threshold).tolist())]
        if self._year == 2022:
            return [truth_cell(is_detected(float(values[self._column[row.label]]), self._threshold))]
        return number_cells(values[picked])

    def _scores(self, score_store: ScoreStore, path: Path | None, end: int) -> Float32 | None:
        index = self._index(end)
        return None if path is None or index != int(index) else score_store.row(path, int(index))

    def _index(self, end: int) -> float:
        """The number of the window that ends at this second, from 0; a fraction if none does."""
        return end / self._window.window_seconds - 1

    def _rows_with_speech(self, results: Sequence[SoundscapeResult]) -> dict[Path | None, frozenset[int]]:
        if not self._skips_speech:
            return {}
        return {
            each.path: rows_with_speech(each.speech, self._window.window_seconds) for each in results if each.speech
        }

    def _own_rows(self, score_store: ScoreStore, results: Sequence[SoundscapeResult]) -> Iterator[RowId]:
        """Rows of all sound that was scored, and of what a time budget left out; the side table shows the others."""
        for result in results:
            name = self._name_in_rows(result.path)
            n_rows = score_store.n_rows(result.path) or 0
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
