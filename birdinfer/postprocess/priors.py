"""Shift scores by site, hour and month: one file's probabilities [rows, species] -> the same shape.

A species that is common at a site, at an hour of the day or in a month gains; one that was never recorded there loses.
The fewer windows were labelled there, the smaller the shift. BirdCLEF 2026's first place shifted logits by half of the
site's difference. The counts are in a table (``birdinfer prior`` makes it from labelled soundscapes), site and time in
the file's name (:mod:`birdinfer.tables.recording_names`). With n windows at a site, hour or month, and k for
shrinkage::

    rate     = n / (n + k) * observed + k / (n + k) * overall
    logit p' = logit p + site_strength  * (logit rate_site - logit rate_overall)
                       + hour_strength  * (logit rate_hour - logit rate_overall)
                       + month_strength * (logit rate_month - logit rate_overall)

which is Bayes' rule for independent site, hour and month if all strengths are 1. ``site_hour_strength`` adds what a
site has at an hour beyond both: there ``overall`` is the rate that the shifts of site and hour give together, so that
without windows of that site at that hour nothing is added. Evaluate it on soundscapes that are not in the table: on
those of the table it always looks good.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.postprocess.base import BoundStep, TableStep
from birdinfer.postprocess.numeric import shift_logits
from birdinfer.species import Species
from birdinfer.tables.recording_names import hour_at, month_at, parse_name
from birdinfer.tables.step_tables import PriorTable, read_priors
from birdinfer.typing import Float32, Float64

RATE_FLOOR = 1e-4
"""Rates are clipped to this and 1 - this, so that logits lie between -9.21 and 9.21."""
_HOURS, _MONTHS = 24, range(1, 13)


def shrunk_rates(counts: Float64, windows: Float64, overall: Float64, shrinkage_windows: float) -> Float64:
    """Shrink rates of few windows towards the overall ones: n / (n + k) * observed + k / (n + k) * overall.

    ``overall``: [species], or [groups, species].
    Returns [groups, species], in [0, 1]: for n = 0 the overall rate, for k = 0 the observed one.

    >>> shrunk_rates(np.array([[6.0]]), np.array([12.0]), np.array([0.25]), shrinkage_windows=12).tolist()
    [[0.375]]
    """
    n = windows[:, None]
    observed = np.divide(counts, n, out=np.zeros_like(counts), where=n > 0)
    trust = np.divide(n, n + shrinkage_windows, out=np.zeros_like(n), where=n > 0)
    rates: Float64 = overall + trust * (observed - overall)
    return rates


def logit_difference(rates: Float64, overall: Float64) -> Float64:
    """Logit of the rate minus logit of the overall rate, any shape; rates are clipped by :data:`RATE_FLOOR`."""
    return _logit(rates) - _logit(overall)


def with_neighbours(counts: Float64, radius: int) -> Float64:
    """Add part of the neighbouring hours' or months' counts to each: those d away count 1 - d / (radius + 1).

    Day and year are circles: the hour 23 is a neighbour of 0.
    """
    offsets = range(-radius, radius + 1)
    summed: Float64 = np.sum([(1 - abs(d) / (radius + 1)) * np.roll(counts, d, axis=0) for d in offsets], axis=0)
    return summed


def _logit(rates: Float64) -> Float64:
    kept = rates.clip(RATE_FLOOR, 1 - RATE_FLOOR)
    logits: Float64 = np.log(kept / (1 - kept))
    return logits


class PriorShift(TableStep, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="prior_shift"):
    """Logits shifted by how often each species occurs at the file's site and at each row's hour and month."""

    site_strength: float = 0.5
    """Weight of the site, 0 to 2: 0 does without, 1 is Bayes' rule."""
    hour_strength: float = 0.5
    """Weight of the hour of the day, 0 to 2. Without any weight of a time rows are finished as they come, else when the
    file ends."""
    month_strength: float = 0.0
    """Weight of the month, 0 to 2."""
    site_hour_strength: float = 0.0
    """Weight of what the site has at the hour beyond site and hour, 0 to 2."""
    shrinkage_windows: float = 24.0
    """k: number of windows at a site or hour with the same weight as the overall rate. 24 are two soundscapes of a
    minute, since the windows of one soundscape are similar."""
    hour_radius: int = 1
    """Hours on either side that count towards an hour, 0 to 11, with linearly decreasing weight."""
    month_radius: int = 1
    """Months likewise, 0 to 5."""
    row_seconds: float = 5.0
    """From one row to the next: determines the hour of a row in a long file."""

    ranges: ClassVar = {
        "site_strength": (0, 2),
        "hour_strength": (0, 2),
        "month_strength": (0, 2),
        "site_hour_strength": (0, 2),
        "shrinkage_windows": (0, 1e9),
        "hour_radius": (0, 11),
        "month_radius": (0, 5),
        "row_seconds": (0.1, 3600),
    }

    @property
    def context_rows(self) -> int | None:
        return None if self.depends_on_time else 0

    @property
    def is_neutral(self) -> bool:
        return self.site_strength == 0 and not self.depends_on_time

    @property
    def depends_on_time(self) -> bool:
        """Whether it shifts rows of one file differently."""
        return max(self.hour_strength, self.month_strength, self.site_hour_strength) > 0

    def bind(self, species: Sequence[Species]) -> BoundStep:
        """Species that the table lacks are not changed; ConfigError if it knows none of them, or no month."""
        table = read_priors(Path(self.table))
        self.known_columns(species, table.labels)
        if self.month_strength and all(one.month is None for one in table.occasions):
            what = f"{self.table} counts no months, which month_strength weighs"
            raise ConfigError("prior_shift", what, "birdinfer prior makes it again, from names with a date")
        return _SiteAndTime(self, table, [one.label for one in species])


class _SiteAndTime:
    def __init__(self, step: PriorShift, table: PriorTable, labels: Sequence[str]) -> None:
        counts, windows = _counts(table, labels), table.windows.astype(np.float64)
        overall = counts.sum(axis=0) / windows.sum()
        sites = sorted({one.site for one in table.occasions if one.site is not None})
        at_site = _members([one.site for one in table.occasions], sites)
        at_hour = with_neighbours(_members([one.hour for one in table.occasions], range(_HOURS)), step.hour_radius)
        at_month = with_neighbours(_members([one.month for one in table.occasions], _MONTHS), step.month_radius)

        def shifts(weights: Float64, expected: Float64 = overall) -> Float64:
            rates = shrunk_rates(weights @ counts, weights @ windows, expected, step.shrinkage_windows)
            return logit_difference(rates, expected)

        of_sites, of_hours = shifts(at_site), shifts(at_hour)
        self._of_site = dict(zip(sites, step.site_strength * of_sites, strict=True))
        self._of_hour = step.hour_strength * of_hours
        self._of_month = step.month_strength * shifts(at_month)
        self._of_site_hour: dict[tuple[str, int], Float64] = {}
        for site, own, of_site in zip(sites, at_site, of_sites, strict=True) if step.site_hour_strength else ():
            together = at_hour * own  # [hours, occasions]
            expected = 1 / (1 + np.exp(-(_logit(overall) + of_site + of_hours)))
            found = np.where(overall > 0, step.site_hour_strength * shifts(together, expected), 0)
            self._of_site_hour |= {(site, hour): found[hour] for hour in np.flatnonzero(together @ windows).tolist()}
        self._nothing = np.zeros(len(labels))
        self._row_seconds, self._depends_on_time = step.row_seconds, step.depends_on_time

    def __call__(self, probabilities: Float32, file_id: str) -> Float32:
        """Shift one file's rows; an unknown site or time, or a name without them, shifts nothing."""
        name = parse_name(file_id)
        of_site = self._of_site.get(name.site or "", self._nothing)
        if name.start is None or not self._depends_on_time:
            return shift_logits(probabilities, of_site)
        seconds = [row * self._row_seconds for row in range(len(probabilities))]
        times = [(hour_at(name, each) or 0, month_at(name, each) or 1) for each in seconds]
        shifted = probabilities.copy()
        for hour, month in dict.fromkeys(times):
            rows = np.array([each == (hour, month) for each in times])
            of_both = self._of_site_hour.get((name.site or "", hour), self._nothing)
            shift = of_site + self._of_hour[hour] + self._of_month[month - 1] + of_both
            shifted[rows] = shift_logits(probabilities[rows], shift)
        return shifted


def _members(values: Sequence[object], groups: Sequence[object]) -> Float64:
    """[groups, values]: 1 if a value belongs to the group, else 0; None belongs to no group."""
    return np.array([[float(value == group) for value in values] for group in groups]).reshape(-1, len(values))


def _counts(table: PriorTable, labels: Sequence[str]) -> Float64:
    """Windows with each label [occasions, labels]; 0 for labels that the table lacks, which shifts nothing."""
    counts = np.zeros((len(table.occasions), len(labels)))
    column = {label: index for index, label in enumerate(table.labels)}
    known = [index for index, label in enumerate(labels) if label in column]
    counts[:, known] = table.present[:, [column[labels[index]] for index in known]]
    return counts
