"""What a model returns in Python: the probabilities of a recording, as arrays, as detections or as a table of pandas.

In: rows float32 [windows, species] of one recording, and what is wrong with it. Out: :class:`Result`, and of a live
source one :class:`ScoredWindow` after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from birdinfer.audio.speech import Span
from birdinfer.audio.status import Status
from birdinfer.detections.events import Detection, find_events
from birdinfer.detections.formats.parquet import COLUMNS
from birdinfer.detections.recordings import Recording
from birdinfer.detections.thresholds import make_thresholds
from birdinfer.errors import ConfigError, LabelError, MissingExtraError
from birdinfer.species import Species
from birdinfer.typing import Float32, Float64

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 3
"""Species in a text about a window."""
_LISTED = 20
"""Detections in a text about several."""
_DTYPES = {
    "text": "object", "number": "float64", "score": "float32", "count": "int32", "clock": "datetime64[ms]",
    "utc": "datetime64[ms, UTC]", "channel": "Int16",
}  # fmt: skip
"""Of pandas, by the kind of value."""


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Result:
    """What a model says about one recording.

    >>> import numpy as np
    >>> robin, wren = Species("eurrob1", "", "European Robin"), Species("winwre4")
    >>> result = Result(
    ...     recording=Recording(path=Path("dawn.wav"), name="dawn", file="dawn.wav", seconds=14.0),
    ...     probabilities=np.array([[0.75, 0.0], [0.875, 0.125], [0.25, 0.5]], np.float32),
    ...     species=(robin, wren),
    ...     window_seconds=5.0,
    ...     status=Status.ok,
    ...     thresholds=np.array([0.25, 0.25], np.float32),
    ... )
    >>> result
    <Result of dawn.wav: ok, 14.0 s, 3 windows of 5 s, 2 species; highest European Robin 0.88 at 5 s>
    >>> result.labels, result.names, result.times.tolist()
    (('eurrob1', 'winwre4'), ('European Robin', 'winwre4'), [0.0, 5.0, 10.0])
    >>> result.detections(0.5)
    2 detections
    dawn.wav     0.0 -    10.0 s  0.875  European Robin
    dawn.wav    10.0 -    14.0 s  0.500  winwre4
    """

    recording: Recording
    """What was recorded where and when, with the seconds that were processed."""
    probabilities: Float32
    """[windows, species], post-processed, 0 to 1; no window where nothing could be scored."""
    species: tuple[Species, ...]
    """Of the columns."""
    window_seconds: float
    status: Status
    """``ok``, or what is wrong with the recording; its sound that could be decoded is scored all the same."""
    thresholds: Float32 | None
    """Of the bundle: the probability from which on each species is present [species]; None: its calibration is of other
    scores."""
    problem: str = ""
    """What is wrong with the recording, in one line."""
    microphone: str = ""
    """What is wrong with which of its channels, in one line: ``channel 2: dead``."""
    speech: tuple[Span, ...] | None = None
    """Where people speak, from and to in seconds; None: not looked for."""
    skips_speech: bool = False
    """Whether windows with speech hold no detections."""

    @property
    def path(self) -> Path:
        """The file; of sound in memory its name."""
        return self.recording.path

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Of the columns: eBird codes, iNaturalist numbers ..."""
        return tuple(each.label for each in self.species)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the columns: common names, or scientific ones, or labels where there is no other."""
        return tuple(each.name for each in self.species)

    @property
    def times(self) -> Float64:
        """Start of each window in seconds from the recording's first sample [windows]."""
        return np.asarray(np.arange(len(self.probabilities)) * self.window_seconds, np.float64)

    def detections(
        self,
        threshold: float | None = None,
        *,
        thresholds: Mapping[str, float] | None = None,
        merge_gap: float = 0.0,
        top_k: int | None = None,
    ) -> "Detections":
        """List which species sings when: neighbouring windows in which a species is present are one detection.

        Args:
            threshold: a species is present from this probability on, 0 to 1; None: the bundle's thresholds.
            thresholds: of some species, by label, in place of it.
            merge_gap: windows that are at most so many seconds apart are one detection.
            top_k: only the species with the highest probabilities of each window count.

        Returns:
            Detections by start, then by column.

        Raises:
            ConfigError: an argument is out of its range.
            LabelError: the model does not know a label.
        """
        if merge_gap < 0:
            raise ConfigError("merge_gap", f"is {merge_gap:g} s, needed is at least 0")
        if top_k is not None and top_k < 1:
            raise ConfigError("top_k", f"is {top_k}, needed is at least 1")
        return Detections(find_events(
            self.recording, [(0, self.probabilities)], self.species, self._thresholds(threshold, thresholds or {}),
            row_seconds=self.window_seconds, merge_gap=merge_gap, top_k=top_k,
            left_out=(self.speech or ()) if self.skips_speech else (),
        ))  # fmt: skip

    def to_pandas(self) -> "pd.DataFrame":
        """Make a table: a row for each window, by file and start in seconds, and a column for each label.

        Tables of several recordings are joined by ``pandas.concat``. MissingExtraError without pandas.
        """
        pandas = _pandas()
        index = pandas.MultiIndex.from_product([[self.recording.file], self.times], names=["file", "start"])
        columns = pandas.Index(self.labels, name="label")
        table: pd.DataFrame = pandas.DataFrame(self.probabilities, index=index, columns=columns)
        return table

    def _thresholds(self, threshold: float | None, by_label: Mapping[str, float]) -> Float32:
        for value in (threshold, *by_label.values()):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError("threshold", f"is {value}, allowed are 0 to 1")
        for label in by_label:
            if label not in self.labels:
                close = get_close_matches(str(label), self.labels, 1)
                raise LabelError("thresholds", f"the model knows no {label!r}", f"perhaps {close[0]}" if close else "")
        if threshold is not None:
            return make_thresholds(self.species, threshold, by_label)
        if self.thresholds is None:
            what = "is needed: the bundle's calibration is of other scores, its post-processing has changed"
            raise ConfigError("threshold", what, "pass one")
        own = dict(zip(self.labels, self.thresholds.tolist(), strict=True))
        return make_thresholds(self.species, 0.0, own | dict(by_label))

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.probabilities)

    def __repr__(self) -> str:
        status = f"{self.status} ({self.problem.removeprefix(f'{self.status}: ')})" if self.problem else self.status
        windows = f"{len(self) or 'no'} window{'' if len(self) == 1 else 's'} of {self.window_seconds:g} s"
        text = f"{self.path}: {status}, {self.recording.seconds:.1f} s, {windows}, {len(self.species)} species"
        if self.probabilities.size:
            row, column = np.unravel_index(self.probabilities.argmax(), self.probabilities.shape)
            highest = f"{self.names[column]} {self.probabilities[row, column]:.2f} at {self.times[row]:g} s"
            text += f"; highest {highest}"
        return f"<Result of {text}>"


class Detections(list[Detection]):
    """A list of detections, of one recording or several, that prints one a line and becomes a table."""

    def to_pandas(self) -> "pd.DataFrame":
        """Make a table, a row for each detection, as of ``detections.parquet``. MissingExtraError without pandas."""
        pandas = _pandas()
        table: pd.DataFrame = pandas.DataFrame(
            {
                name: pandas.Series([value(each) for each in self], dtype=_DTYPES[kind])
                for name, (kind, value) in COLUMNS.items()
            }
        )
        return table

    def __repr__(self) -> str:
        lines = [f"{len(self)} detection" + ("" if len(self) == 1 else "s")]
        for each in self[:_LISTED]:
            span = f"{each.start_seconds:7.1f} - {each.end_seconds:7.1f} s"
            lines.append(f"{each.recording.file} {span}  {each.confidence:.3f}  {each.species.name}")
        if len(self) > _LISTED:
            lines.append(f"and {len(self) - _LISTED} more")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False, eq=False)
class ScoredWindow:
    """One window of a live source.

    >>> import numpy as np
    >>> species = (Species("eurrob1", "", "European Robin"), Species("winwre4"))
    >>> scores = np.array([0.25, 0.5], np.float32)
    >>> window = ScoredWindow(start_seconds=5.0, end_seconds=10.0, probabilities=scores, species=species)
    >>> window
    <ScoredWindow 5-10 s: winwre4 0.50, European Robin 0.25>
    >>> [(each.label, probability) for each, probability in window.top(1)]
    [('winwre4', 0.5)]
    """

    start_seconds: float
    """From the first sample of the source."""
    end_seconds: float
    probabilities: Float32
    """[species], post-processed, 0 to 1."""
    species: tuple[Species, ...]

    def top(self, n: int) -> list[tuple[Species, float]]:
        """Return the species with the highest probabilities, and these, from the highest on."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.species[column], float(self.probabilities[column])) for column in order]

    def __repr__(self) -> str:
        highest = ", ".join(f"{species.name} {probability:.2f}" for species, probability in self.top(_SHOWN))
        return f"<ScoredWindow {self.start_seconds:g}-{self.end_seconds:g} s: {highest}>"


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("pandas", "pandas") from error
    return pandas
