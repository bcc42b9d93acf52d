"""Scores -> rows: the file a BirdCLEF competition scores, in the shape of its year.

Conventions
-----------
* A row's number is the END of its window in whole seconds: ``soundscape_42_15`` is second 10 to 15 of
  ``soundscape_42.ogg``. The name is the file's, as it stands: nothing is put in front of it.
* With a sample_submission.csv the rows and columns are exactly its own, in its order. A row for which there is no score
  (a file that could not be read, a window past its end) gets the bundle's fallback: each species' mean probability.
* 2021 lists the species found per row (``nocall`` if none), 2022 asks for one row per file, species and end with a
  truth value, 2023 to 2026 have one column of probabilities per species.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.config import WindowConfig
from birdinfer.errors import AudioError, ConfigError, MetadataError
from birdinfer.files import atomic_text
from birdinfer.row_ids import RowId, make_row_id, parse_row_id, row_stem
from birdinfer.soundscapes import SoundscapeResult, is_believed
from birdinfer.spool import ScoreSpool
from birdinfer.submission_shapes import (
    YEARS,
    check_year,
    heard,
    is_heard,
    list_cell,
    number_cells,
    truth_cell,
    value_names,
)
from birdinfer.tables.csv_files import CsvWriter, csv_rows
from birdinfer.windows import count_windows, end_seconds

Float32 = npt.NDArray[np.float32]


class Sample(NamedTuple):
    """What sample_submission.csv asks for."""

    path: Path
    row_ids: tuple[str, ...]
    columns: tuple[str, ...]
    """All but ``row_id``."""


class Written(NamedTuple):
    """What a submission holds."""

    rows: int
    fallback_rows: int
    """Rows without a score of their own."""
    unused_labels: int
    """Labels of the bundle that the sample does not ask for."""


def read_sample(path: Path) -> Sample:
    """Read the rows and columns of a sample_submission.csv; its values are of no interest.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it has no ``row_id`` in front, no rows, or a row or column twice.
    """
    with csv_rows(path) as rows:
        header = next(rows, [])
        row_ids = tuple(row[0] for row in rows if row)
    if header[:1] != ["row_id"]:
        raise MetadataError(path, f"its first column is {(header or ['missing'])[0]!r}, needed is 'row_id'")
    for kind, names in (("column", header), ("row_id", row_ids)):
        name, times = Counter(names).most_common(1)[0] if names else ("", 0)
        if times > 1:
            raise MetadataError(path, f"{kind} {name!r} stands {times} times")
    if not row_ids:
        raise MetadataError(path, "has no rows")
    return Sample(path, row_ids, tuple(header[1:]))


class SubmissionWriter:
    """Turns a spool of scores into a submission of one year's shape."""

    def __init__(
        self,
        labels: Sequence[str],
        fallback: Sequence[float],
        window: WindowConfig,
        year: int = YEARS[-1],
        sample: Sample | None = None,
        threshold: float = 0.5,
    ) -> None:
        """Check that what is asked for can be written, before anything is predicted.

        Args:
            labels: species in the scores' column order.
            fallback: a probability per species for rows without a score.
            window: the windows' length.
            year: whose shape, 2021 to 2026.
            sample: the rows and columns wanted; all windows and labels if None.
            threshold: from what probability on 2021 and 2022 count a species as heard.

        Raises:
            ConfigError: no such year, or windows that do not end at whole seconds, which row ids count.
            MetadataError: the sample asks for what the bundle does not score, or has another year's shape.
        """
        check_year(year)
        if window.window_seconds != int(window.window_seconds):
            raise ConfigError(
                "window_seconds", f"is {window.window_seconds:g}, row ids count whole seconds", "use another bundle"
            )
        self._labels = tuple(labels)
        self._fallback = np.asarray(fallback, np.float32)
        self._window = window
        self._year = year
        self._sample = sample
        self._threshold = threshold
        self._column = {label: index for index, label in enumerate(self._labels)}
        if sample is not None:
            self._check_sample(sample)

    def check_names(self, paths: Sequence[Path]) -> None:
        """Find out before anything is predicted whether the rows of files can be told apart.

        Raises:
            AudioError: two files would have the same rows.
        """
        by_stem: dict[str, Path] = {}
        for path in paths:
            stem = row_stem(path.stem, self._year)
            other = by_stem.setdefault(stem, path)
            if other != path:
                raise AudioError(
                    path,
                    f"would have the same rows as {other} ({stem}_...)",
                    f"rename one, or leave out --year {self._year}",
                )

    def write(self, path: Path, spool: ScoreSpool, results: Sequence[SoundscapeResult]) -> Written:
        """Write the submission, atomically.

        Args:
            path: where to.
            spool: the scores, under each file's stem.
            results: every file, in the order of the rows; their probabilities are not looked at.

        Raises:
            OutputError: it cannot be written.
        """
        columns = self._columns()
        picked = [self._column[label] for label in columns]
        n_rows = n_fallback = 0
        stem_of = {row_stem(result.path.stem, self._year): result.path.stem for result in results}
        with atomic_text(path) as text:
            table = CsvWriter(text)
            table.row("row_id", value_names(self._year, columns))
            for row in self._sample_rows() if self._sample else self._own_rows(spool, results):
                scores = self._scores(spool, stem_of.get(row.stem), row.end_seconds)
                n_rows, n_fallback = n_rows + 1, n_fallback + (scores is None)
                values = self._fallback if scores is None else scores
                table.row(row.text, self._cells(row, values, picked))
        return Written(n_rows, n_fallback, len(self._labels) - len(columns))

    def _columns(self) -> tuple[str, ...]:
        """The species of the wide shape; the other shapes always speak of all labels."""
        return self._sample.columns if self._sample and self._year >= 2023 else self._labels

    def _cells(self, row: RowId, values: Float32, picked: list[int]) -> list[str]:
        if self._year == 2021:
            return [list_cell(self._labels, heard(values, self._threshold).tolist())]
        if self._year == 2022:
            return [truth_cell(is_heard(float(values[self._column[row.label]]), self._threshold))]
        return number_cells(values[picked])

    def _scores(self, spool: ScoreSpool, stem: str | None, end: int) -> Float32 | None:
        scores = spool.scores(stem) if stem is not None else None
        index = end / self._window.window_seconds - 1
        if scores is None or index != int(index) or not 0 <= index < len(scores):
            return None
        row: Float32 = scores[int(index)]
        return row

    def _own_rows(self, spool: ScoreSpool, results: Sequence[SoundscapeResult]) -> Iterator[RowId]:
        """Every window of every file."""
        usual = self._usual_rows(spool, results)
        for result in results:
            stem = row_stem(result.path.stem, self._year)
            for end in end_seconds(self._n_rows(spool, result, usual), self._window):
                if self._year == 2022:
                    yield from (make_row_id(stem, end, label) for label in self._labels)
                else:
                    yield make_row_id(stem, end)

    def _usual_rows(self, spool: ScoreSpool, results: Sequence[SoundscapeResult]) -> int:
        """What most files have; for those that tell nothing of their length."""
        known = (self._rows_of(result.expected_seconds) or spool.n_windows(result.path.stem) for result in results)
        counts = Counter(n_rows for n_rows in known if n_rows)
        return counts.most_common(1)[0][0] if counts else 1

    def _n_rows(self, spool: ScoreSpool, result: SoundscapeResult, usual: int) -> int:
        """Rows of a file: of the sound that was heard, and of what its header claims beyond that."""
        heard = spool.n_windows(result.path.stem)
        claimed = self._rows_of(result.expected_seconds)
        return usual if heard is None and claimed is None else max(heard or 0, claimed or 0)

    def _rows_of(self, seconds: float | None) -> int | None:
        """Rows of so much sound; None where that is unknown, or not to be believed."""
        if seconds is None or not is_believed(seconds):
            return None
        rate = 1_000_000  # whole microseconds: no rounding of seconds makes or loses a row
        window, tail = round(self._window.window_seconds * rate), round(self._window.min_tail_seconds * rate)
        return max(1, count_windows(round(seconds * rate), window, tail))

    def _sample_rows(self) -> Iterator[RowId]:
        assert self._sample is not None
        for row_id in self._sample.row_ids:
            yield parse_row_id(row_id, self._year, self._sample.path)

    def _check_sample(self, sample: Sample) -> None:
        names = value_names(self._year, sample.columns)
        if tuple(names) != sample.columns:
            raise self._refused(f"its columns are not those of {self._year} (row_id,{','.join(names)})")
        if self._year >= 2023:
            asked = sample.columns
            if set(asked) & {"birds", "target"} and not set(asked) & set(self._labels):
                raise self._refused(f"its columns ({','.join(asked)}) are those of 2021 or 2022: give --year")
        else:
            asked = tuple(dict.fromkeys(row.label for row in self._sample_rows() if row.label))
        unknown = [label for label in asked if label not in self._column]
        if unknown:
            raise self._refused(
                f"asks for {len(unknown)} labels that the bundle does not score: {', '.join(unknown[:5])}"
            )
        for row_id in sample.row_ids:
            parse_row_id(row_id, self._year, sample.path)

    def _refused(self, what: str) -> MetadataError:
        assert self._sample is not None
        return MetadataError(self._sample.path, what)


def write_file_report(path: Path, results: Sequence[SoundscapeResult]) -> None:
    """What became of each file, as a table: its status, seconds heard and expected, rows scored, level, problem.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_text(path) as text:
        table = CsvWriter(text)
        table.row("file", ["status", "seconds", "expected_seconds", "rows", "level", "problem"])
        for result in results:
            expected = "" if result.expected_seconds is None else f"{result.expected_seconds:.3f}"
            seconds = f"{result.seconds:.3f}"
            cells = [result.status, seconds, expected, result.n_rows, result.level, result.problem]
            table.row(str(result.path), cells)
