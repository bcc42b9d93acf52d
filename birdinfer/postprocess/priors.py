"""Shift scores by site and hour: one file's probabilities [rows, species] -> the same shape.

A species that is common at a site, or at an hour of the day, gains; one that was never recorded there loses. The fewer
windows were labelled there, the smaller the shift. BirdCLEF 2026's first place shifted logits by half of the site's
difference. The counts are in a table (``birdinfer prior`` makes it from labelled soundscapes), site and hour in the
file's name (:mod:`birdinfer.tables.recording_names`). With n windows at a site or hour, and k for shrinkage::

    rate     = n / (n + k) * observed + k / (n + k) * overall
    logit p' = logit p + site_strength * (logit rate_site - logit rate_overall)
                       + hour_strength * (logit rate_hour - logit rate_overall)

which is Bayes' rule for independent site and hour if both strengths are 1. Evaluate it on soundscapes that are not in
the table: on those of the table it always looks good.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from birdinfer.postprocess.base import BoundStep, TableStep
from birdinfer.postprocess.numeric import shift_logits
from birdinfer.species import Species
from birdinfer.tables.recording_names import hour_at, parse_name
from birdinfer.tables.step_tables import PriorTable, read_priors
from birdinfer.typing import Float32, Float64

RATE_FLOOR = 1e-4
"""Rates are clipped to this and 1 - this, so that logits lie between -9.21 and 9.21."""
_HOURS = 24


def shrunk_rates(counts: Float64, windows: Float64, overall: Float64, shrinkage_windows: float) -> Float64:
    """Shrink rates of few windows towards the overall ones: n / (n + k) * observed + k / (n + k) * overall.

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


def with_neighbouring_hours(counts: Float64, radius: int) -> Float64:
    """Add part of the neighbouring hours' counts to each hour: those d hours away count 1 - d / (radius + 1).

    The day is a circle: 23 is a neighbour of 0.
    """
    offsets = range(-radius, radius + 1)
    summed: Float64 = np.sum([(1 - abs(d) / (radius + 1)) * np.roll(counts, d, axis=0) for d in offsets], axis=0)
    return summed


def _logit(rates: Float64) -> Float64:
    kept = rates.clip(RATE_FLOOR, 1 - RATE_FLOOR)
    logits: Float64 = np.log(kept / (1 - kept))
    return logits


class PriorShift(TableStep, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="prior_shift"):
    """Logits shifted by how often each species occurs at the file's site and at each row's hour."""

    site_strength: float = 0.5
    """Weight of the site, 0 to 2: 0 does without, 1 is Bayes' rule."""
    hour_strength: float = 0.5
    """Weight of the hour of the day, 0 to 2; at 0 rows are finished as they come, else when the file ends."""
    shrinkage_windows: float = 24.0
    """k: number of windows at a site or hour with the same weight as the overall rate. 24 are two soundscapes of a
    minute, since the windows of one soundscape are similar."""
    hour_radius: int = 1
    """Hours on either side that count towards an hour, 0 to 11, with linearly decreasing weight."""
    row_seconds: float = 5.0
    """From one row to the next: determines the hour of a row in a long file."""

    ranges: ClassVar = {
        "site_strength": (0, 2),
        "hour_strength": (0, 2),
        "shrinkage_windows": (0, 1e9),
        "hour_radius": (0, 11),
        "row_seconds": (0.1, 3600),
    }

    @property
    def context_rows(self) -> int | None:
        return 0 if self.hour_strength == 0 else None

    @property
    def is_neutral(self) -> bool:
        return self.site_strength == 0 and self.hour_strength == 0

    def bind(self, species: Sequence[Species]) -> BoundStep:
        """Species that the table lacks are not changed; ConfigError if it knows none of them."""
        table = read_priors(Path(self.table))
        self.known_columns(species, table.labels)
        return _SiteAndHour(self, table, [one.label for one in species])


class _SiteAndHour:
    def __init__(self, step: PriorShift, table: PriorTable, labels: Sequence[str]) -> None:
        sites = sorted({one.site for one in table.occasions if one.site is not None})
        at_site = _members([one.site for one in table.occasions], sites)
        at_hour = _members([one.hour for one in table.occasions], range(_HOURS))
        of_sites = _shifts(table, labels, at_site, step.shrinkage_windows)
        of_hours = _shifts(table, labels, with_neighbouring_hours(at_hour, step.hour_radius), step.shrinkage_windows)
        self._of_site = dict(zip(sites, step.site_strength * of_sites, strict=True))
        self._of_hour = step.hour_strength * of_hours
        self._nothing = np.zeros(len(labels))
        self._row_seconds, self._hours_matter = step.row_seconds, step.hour_strength > 0

    def __call__(self, probabilities: Float32, file_id: str) -> Float32:
        """Shift one file's rows; an unknown site or hour, or a name without them, shifts nothing."""
        name = parse_name(file_id)
        of_site = self._of_site.get(name.site or "", self._nothing)
        if name.start is None or not self._hours_matter:
            return shift_logits(probabilities, of_site)
        hours = np.array([hour_at(name, row * self._row_seconds) for row in range(len(probabilities))], np.intp)
        shifted = probabilities.copy()
        for hour in np.unique(hours):
            rows = hours == hour
            shifted[rows] = shift_logits(probabilities[rows], of_site + self._of_hour[hour])
        return shifted


def _members(values: Sequence[object], groups: Sequence[object]) -> Float64:
    """[groups, values]: 1 if a value belongs to the group, else 0; None belongs to no group."""
    return np.array([[float(value == group) for value in values] for group in groups]).reshape(-1, len(values))


def _shifts(table: PriorTable, labels: Sequence[str], weights: Float64, shrinkage_windows: float) -> Float64:
    """Logit differences [groups, labels] by ``weights`` [groups, occasions]; 0 for labels that the table lacks."""
    windows, counts = table.windows.astype(np.float64), np.zeros((len(table.occasions), len(labels)))
    column = {label: index for index, label in enumerate(table.labels)}
    known = [index for index, label in enumerate(labels) if label in column]
    counts[:, known] = table.present[:, [column[labels[index]] for index in known]]
    overall = counts.sum(axis=0) / windows.sum()
    return logit_difference(shrunk_rates(weights @ counts, weights @ windows, overall, shrinkage_windows), overall)
