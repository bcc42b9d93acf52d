"""What a survey has found: species by site and day with effort, presence for occupancy models, activity, accumulation.

In: recordings with their detections, one after the other. Out: counts that grow with sites, days and species, not with
recordings; :mod:`birdinfer.detections.summary_tables` writes them. Two rules hold everywhere:

* Effort is sound in which a species could be detected: what was processed of a recording, without the stretches that
  the caller leaves out (a dead microphone, human speech). Detections in those do not count.
* The clock decides, not the file: a recording or a detection across midnight counts on both days, across the full hour
  in both hours, with the part that each has. A detection is counted where it begins.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import Found, name_cell
from birdinfer.detections.recordings import Recording
from birdinfer.errors import ConfigError
from birdinfer.species import Species
from birdinfer.typing import Float64

Stretches = Sequence[tuple[float, float]]
"""Begin and end in seconds of a recording, by begin."""
_HOURS = 24
_HOUR_SECONDS = 3_600.0
_SHORTEST = 1e-3
"""Seconds; shorter pieces come from rounding and belong to what is before them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SummarySettings:
    """What a survey day is, and how species accumulate."""

    day_begins: int = 0
    """Hour of the clock at which a survey day begins, 0 to 23. 12: a night is one day, that of its evening."""
    min_effort_minutes: float = 0.5
    """A site's day with less effort counts as not surveyed, as where a recording ends just after midnight."""
    permutations: int = 200
    """Random orders of the survey days in which species accumulate."""
    seed: int = 0
    """Of the random orders."""

    def __post_init__(self) -> None:
        if not 0 <= self.day_begins < _HOURS:
            raise ConfigError("day_begins", f"is {self.day_begins}", "give an hour from 0 to 23")
        if self.permutations < 1:
            raise ConfigError("permutations", f"is {self.permutations}", "give 1 or more")


class SiteDay(NamedTuple):
    """A survey day at a site."""

    site: str
    """As it stands in tables; "" where it is unknown."""
    day: date | None
    """None where the clock time is unknown."""


@dataclass(slots=True)
class Effort:
    """Sound of a site's day."""

    recordings: int = 0
    """Those with sound on that day, and those that begin on it but could not be read."""
    seconds: float = 0.0
    left_out_seconds: float = 0.0


@dataclass(slots=True)
class Occurrence:
    """A species on a site's day."""

    detections: int = 0
    """Those that begin on it: 0 if the only one began the day before."""
    seconds: float = 0.0
    highest_confidence: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Counts of a whole survey."""

    settings: SummarySettings
    species: dict[str, Species] = field(default_factory=dict)
    """Those that were detected, by label."""
    effort: dict[SiteDay, Effort] = field(default_factory=dict)
    occurrences: dict[str, dict[SiteDay, Occurrence]] = field(default_factory=dict)
    """By label."""
    hour_effort: Float64 = field(default_factory=lambda: np.zeros(_HOURS))
    """Seconds of effort in each hour of the clock [24]."""
    hour_activity: dict[str, Float64] = field(default_factory=dict)
    """By label: detections that begin in each hour, and seconds with the species [24, 2]."""

    def labels(self) -> list[str]:
        """List the labels of the species that were detected, in alphabetical order."""
        return sorted(self.species)

    def surveys(self) -> list[SiteDay]:
        """List the dated days with effort enough to count as surveyed, by site, then day."""
        least = 60 * self.settings.min_effort_minutes
        return sorted(
            each
            for each, effort in self.effort.items()
            if each.day is not None and effort.seconds > 0 and effort.seconds >= least
        )

    def undated_recordings(self) -> int:
        """Count the recordings without a clock time, which no day and no hour can count."""
        return sum(effort.recordings for each, effort in self.effort.items() if each.day is None)


def summarise(
    found: Found,
    settings: SummarySettings | None = None,
    left_out: Callable[[Recording], Stretches] = lambda recording: (),
) -> Summary:
    """Count what all recordings of a survey hold.

    Args:
        found: each recording with its detections, also one without any.
        settings: what a survey day is.
        left_out: returns the stretches of a recording that are no effort: the whole of it for a dead microphone.
    """
    summary = Summary(settings=settings or SummarySettings())
    for recording, detections in found():
        _add(summary, recording, detections, left_out(recording))
    return summary


class _Piece(NamedTuple):
    """A stretch of a recording within one hour of the clock."""

    begin: float
    end: float
    day: date | None
    hour: int
    """-1 where the clock time is unknown."""


def _add(summary: Summary, recording: Recording, detections: Sequence[Detection], left_out: Stretches) -> None:
    site, day_begins = name_cell(recording.site), summary.settings.day_begins
    kept, lost = _divide(recording.seconds, left_out)
    effort = list(_pieces(recording, kept, day_begins))
    no_effort = list(_pieces(recording, lost, day_begins))
    begin, _ = _day_and_hour(recording, 0.0, day_begins)
    for day in {begin, *(piece.day for piece in (*effort, *no_effort))}:
        summary.effort.setdefault(SiteDay(site, day), Effort()).recordings += 1
    for piece in no_effort:
        summary.effort[SiteDay(site, piece.day)].left_out_seconds += piece.end - piece.begin
    for piece in effort:
        summary.effort[SiteDay(site, piece.day)].seconds += piece.end - piece.begin
        if piece.hour >= 0:
            summary.hour_effort[piece.hour] += piece.end - piece.begin
    ends = [piece.end for piece in effort]
    for detection in detections:
        index, is_first = bisect_right(ends, detection.start_seconds), True
        while index < len(effort) and effort[index].begin < detection.end_seconds:
            _add_occurrence(summary, site, effort[index], detection, is_first)
            index, is_first = index + 1, False


def _add_occurrence(summary: Summary, site: str, piece: _Piece, detection: Detection, is_first: bool) -> None:
    label = detection.species.label
    seconds = min(piece.end, detection.end_seconds) - max(piece.begin, detection.start_seconds)
    summary.species.setdefault(label, detection.species)
    days = summary.occurrences.setdefault(label, {})
    found = days.setdefault(SiteDay(site, piece.day), Occurrence())
    found.detections += is_first
    found.seconds += seconds
    found.highest_confidence = max(found.highest_confidence, detection.confidence)
    if piece.hour >= 0:
        hours = summary.hour_activity.setdefault(label, np.zeros((_HOURS, 2)))
        hours[piece.hour] += is_first, seconds


def _divide(seconds: float, left_out: Stretches) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Divide a recording into stretches that are kept and stretches that are left out, which may overlap before."""
    kept, lost, at = [], [], 0.0
    for begin, end in sorted(left_out):
        begin, end = max(at, begin), min(end, seconds)
        if begin < end:
            if at < begin:
                kept.append((at, begin))
            lost.append((begin, end))
            at = end
    if at < seconds:
        kept.append((at, seconds))
    return kept, lost


def _pieces(recording: Recording, stretches: Stretches, day_begins: int) -> Iterator[_Piece]:
    """Cut stretches of a recording at the full hours of its clock."""
    for begin, end in stretches:
        at = begin
        while at < end:
            clock = recording.clock(at)
            until = end
            if clock is not None:
                gone = 60 * clock.minute + clock.second + clock.microsecond / 1e6
                until = at + max(_HOUR_SECONDS - gone, _SHORTEST)
                until = until if until < end - _SHORTEST else end
            yield _Piece(at, until, *_day_and_hour(recording, at, day_begins))
            at = until


def _day_and_hour(recording: Recording, seconds: float, day_begins: int) -> tuple[date | None, int]:
    clock = recording.clock(seconds)
    if clock is None:
        return None, -1
    return (clock.replace(tzinfo=None) - timedelta(hours=day_begins)).date(), clock.hour


def accumulate(summary: Summary) -> Float64:
    """Compute how the number of species grows with the survey days, over random orders of them.

    Returns:
        For 1, 2 ... survey days: mean number of species, and the central 95 % of the orders [days, 3].
    """
    number = {survey: index for index, survey in enumerate(summary.surveys())}
    days_of = [[number[each] for each in days if each in number] for days in summary.occurrences.values()]
    days_of = [days for days in days_of if days]
    curves = np.zeros((summary.settings.permutations, len(number)), np.int32)
    if not days_of:
        return np.zeros((len(number), 3))
    flat, first_of = np.concatenate(days_of), np.cumsum([0, *map(len, days_of[:-1])])
    rng = np.random.default_rng(summary.settings.seed)
    for curve in curves:
        place = rng.permutation(len(number))
        detected_at = np.minimum.reduceat(place[flat], first_of)
        curve[:] = np.bincount(detected_at, minlength=len(number)).cumsum()
    low, high = np.percentile(curves, (2.5, 97.5), axis=0)
    return np.stack([curves.mean(axis=0), low, high], axis=1)
