"""What is heard where and when: one file's probabilities [rows, species] -> the same shape, shifted by site and hour.

A species that is common at a site, or at an hour of the day, gains; one that was never heard there loses, and the less
was listened to there, the less of either. BirdCLEF 2026's first place shifted logits by half of what the site says.
The counts stand in a table (``birdinfer prior`` makes it of labelled soundscapes), site and hour in the file's name
(:mod:`birdinfer.recording_names`). With n windows at a site or hour, and k windows' worth of doubt::

    rate     = n / (n + k) * observed + k / (n + k) * overall
    logit p' = logit p + site_strength * (logit rate_site - logit rate_overall)
                       + hour_strength * (logit rate_hour - logit rate_overall)

which is Bayes' rule with site and hour taken for independent, where both strengths are 1. Judge it on soundscapes that
are not in the table: on its own it always looks good.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError
from birdinfer.labels import Species
from birdinfer.postprocess.nudges import shift_logits
from birdinfer.postprocess.step import Bound
from birdinfer.postprocess.step_tables import TableStep
from birdinfer.recording_names import hour_at, parse_name
from birdinfer.tables.prior_tables import PriorTable, read_priors

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

RATE_FLOOR = 1e-4
"""Rates are kept within this and 1 - this before their logit is taken: a logit within -9.21 and 9.21."""
_HOURS = 24


def shrunk_rates(heard: Float64, windows: Float64, overall: Float64, shrinkage_windows: float) -> Float64:
    """Rates of few windows drawn to the overall ones: n / (n + k) * observed + k / (n + k) * overall.

    Args:
        heard: [groups, species], windows with the species.
        windows: [groups], n, 0 or more.
        overall: [species], rate over all groups.
        shrinkage_windows: k, 0 or more.

    Returns:
        [groups, species], in [0, 1]: for n = 0 the overall rate, for k = 0 the observed one.
    """
    n = windows[:, None]
    observed = np.divide(heard, n, out=np.zeros_like(heard), where=n > 0)
    trust = np.divide(n, n + shrinkage_windows, out=np.zeros_like(n), where=n > 0)
    rates: Float64 = overall + trust * (observed - overall)
    return rates


def logit_difference(rates: Float64, overall: Float64) -> Float64:
    """Logit rate - logit overall, any shape; rates are kept within ``RATE_FLOOR`` and 1 - ``RATE_FLOOR``."""
    return _logit(rates) - _logit(overall)


def with_neighbouring_hours(counts: Float64, radius: int) -> Float64:
    """Counts of each hour, and part of its neighbours': those d hours away count 1 - d / (radius + 1).

    The day is a circle: 23 is a neighbour of 0.

    Args:
        counts: [24, ...], by hour.
        radius: 0 to 11; 0 changes nothing.

    Returns:
        The same shape.
    """
    offsets = range(-radius, radius + 1)
    summed: Float64 = np.sum([(1 - abs(d) / (radius + 1)) * np.roll(counts, d, axis=0) for d in offsets], axis=0)
    return summed


def _logit(rates: Float64) -> Float64:
    kept = rates.clip(RATE_FLOOR, 1 - RATE_FLOOR)
    logits: Float64 = np.log(kept / (1 - kept))
    return logits


class PriorShift(TableStep, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="prior_shift"):
    """Logits shifted by how often each species is heard at the file's site and at each row's hour."""

    site_strength: float = 0.5
    """Weight of the site, 0 to 2: 0 does without, 1 is Bayes' rule."""
    hour_strength: float = 0.5
    """Weight of the hour of the day, 0 to 2; at 0 a file is worked on as it comes, else in one go."""
    shrinkage_windows: float = 24.0
    """k: so many windows at a site or hour weigh as much as the overall rate. 24 are two soundscapes of a minute: the
    windows of one say much the same."""
    hour_radius: int = 1
    """Hours on either side that count towards an hour, 0 to 11, the less the farther off (linearly)."""
    row_seconds: float = 5.0
    """From one row to the next: which hour a row of a long file is in."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("site_strength", self.site_strength, 0, 2),
            ("hour_strength", self.hour_strength, 0, 2),
            ("shrinkage_windows", self.shrinkage_windows, 0, 1e9),
            ("hour_radius", self.hour_radius, 0, 11),
            ("row_seconds", self.row_seconds, 0.1, 3600),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, allowed are {low:g} to {high:g}")

    @property
    def reach(self) -> int | None:
        """A row's hour depends on how many rows come before it; its site on nothing."""
        return 0 if self.hour_strength == 0 else None

    @property
    def is_neutral(self) -> bool:
        """Whether neither site nor hour has a weight."""
        return self.site_strength == 0 and self.hour_strength == 0

    def bind(self, species: Sequence[Species]) -> Bound:
        """The function for these columns; species that the table lacks stay as they are.

        Raises:
            InputNotFoundError: there is no such table.
            MetadataError: it is not as :func:`birdinfer.tables.prior_tables.read_priors` needs it.
            ConfigError: it knows none of the species.
        """
        table = read_priors(Path(self.table))
        if not {one.label for one in species} & set(table.labels):
            raise ConfigError("prior_shift", f"{self.table} knows none of the species", "its labels must be theirs")
        return _SiteAndHour(self, table, [one.label for one in species])


class _SiteAndHour:
    """The shifts of each site and each hour, looked up by a file's name."""

    def __init__(self, step: PriorShift, table: PriorTable, labels: Sequence[str]) -> None:
        """Work them out once.

        Args:
            step: the parameters.
            table: the counts.
            labels: of the scores' columns.
        """
        sites = sorted({one.site for one in table.occasions if one.site is not None})
        at_site = _members([one.site for one in table.occasions], sites)
        at_hour = _members([one.hour for one in table.occasions], range(_HOURS))
        of_sites = _shifts(table, labels, at_site, step.shrinkage_windows)
        of_hours = _shifts(table, labels, with_neighbouring_hours(at_hour, step.hour_radius), step.shrinkage_windows)
        self._of_site = dict(zip(sites, step.site_strength * of_sites, strict=True))
        self._of_hour = step.hour_strength * of_hours
        self._nothing = np.zeros(len(labels))
        self._row_seconds, self._hours_matter = step.row_seconds, step.hour_strength > 0

    def __call__(self, probabilities: Float32, stem: str) -> Float32:
        """One file's rows from its beginning; a part of a name that tells nothing, or nothing known, shifts nothing."""
        name = parse_name(stem)
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
    """[groups, values]: 1 where a value is the group's, else 0; None is nobody's."""
    return np.array([[float(value == group) for value in values] for group in groups]).reshape(-1, len(values))


def _shifts(table: PriorTable, labels: Sequence[str], weights: Float64, shrinkage_windows: float) -> Float64:
    """Logit differences [groups, labels] of groups of occasions; 0 for labels that the table lacks.

    Args:
        table: the counts.
        labels: of the scores' columns.
        weights: [groups, occasions], how much of an occasion is the group's.
        shrinkage_windows: k.
    """
    windows, heard = table.windows.astype(np.float64), np.zeros((len(table.occasions), len(labels)))
    column = {label: index for index, label in enumerate(table.labels)}
    known = [index for index, label in enumerate(labels) if label in column]
    heard[:, known] = table.heard[:, [column[labels[index]] for index in known]]
    overall = heard.sum(axis=0) / windows.sum()
    return logit_difference(shrunk_rates(weights @ heard, weights @ windows, overall, shrinkage_windows), overall)
