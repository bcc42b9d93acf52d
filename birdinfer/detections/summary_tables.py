"""Write what a survey has found as CSV tables: long ones for people, matrices as occupancy models take them.

In: a :class:`~birdinfer.detections.summary.Summary`. Species stand by label, sites by name, days by date. Minutes are
of sound; a rate is minutes with the species in an hour of effort, 0 to 60.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from birdinfer.detections.formats.cells import name_cell
from birdinfer.detections.summary import Effort, SiteDay, Summary, accumulate
from birdinfer.species import Species
from birdinfer.system.files import atomic_text
from birdinfer.tables.csv import CsvWriter

_SPECIES = ("label", "scientific_name", "common_name")
_NOT_SURVEYED = "NA"


def write_summary(folder: Path, summary: Summary) -> list[Path]:
    """Write all tables of a survey into a folder, each whole or not at all, and return their paths.

    ``species_by_day.csv``: each species by site and day, with the effort.
    ``effort_by_day.csv``: recordings, minutes of effort and minutes left out of each site and day.
    ``presence.csv``: a row per species and site, a column per day: 1, 0 or NA where there was no survey.
    ``presence_effort.csv``: minutes of effort in the same columns, a row per site.
    ``activity_by_hour.csv``: each species by hour of the clock.
    ``accumulation.csv``: number of species after 1, 2 ... survey days.

    Raises:
        OutputError: one cannot be written.
    """
    tables = {
        "species_by_day.csv": _species_by_day(summary),
        "effort_by_day.csv": _effort_by_day(summary),
        "presence.csv": _presence(summary),
        "presence_effort.csv": _presence_effort(summary),
        "activity_by_hour.csv": _activity_by_hour(summary),
        "accumulation.csv": _accumulation(summary),
    }
    for name, rows in tables.items():
        with atomic_text(folder / name) as text:
            table = CsvWriter(text)
            for first, *cells in rows:
                table.row(str(first), cells)
    return [folder / name for name in tables]


_Rows = Iterable[Sequence[object]]


def _species_by_day(summary: Summary) -> _Rows:
    counts = ("detections", "minutes", "highest_confidence", "effort_minutes", "minutes_per_hour")
    yield (*_SPECIES, "site", "date", *counts)
    for label in summary.labels():
        days = summary.occurrences[label]
        for each in sorted(days, key=_place):
            found, effort = days[each], summary.effort[each].seconds
            highest = f"{found.highest_confidence:.4f}"
            minutes = (_minutes(found.seconds), highest, _minutes(effort), _rate(found.seconds, effort))
            yield (*_names(summary.species[label]), each.site, _date(each.day), found.detections, *minutes)


def _effort_by_day(summary: Summary) -> _Rows:
    yield ("site", "date", "recordings", "effort_minutes", "left_out_minutes")
    for each in sorted(summary.effort, key=_place):
        effort = summary.effort[each]
        minutes = (_minutes(effort.seconds), _minutes(effort.left_out_seconds))
        yield (each.site, _date(each.day), effort.recordings, *minutes)


def _presence(summary: Summary) -> _Rows:
    surveys = set(summary.surveys())
    sites, days = _sites_and_days(surveys)
    yield (*_SPECIES, "site", *map(_date, days))
    for label in summary.labels():
        found = summary.occurrences[label]
        if surveys.isdisjoint(found):
            continue
        for site in sites:
            row = [SiteDay(site, day) for day in days]
            cells = [int(each in found) if each in surveys else _NOT_SURVEYED for each in row]
            yield (*_names(summary.species[label]), site, *cells)


def _presence_effort(summary: Summary) -> _Rows:
    sites, days = _sites_and_days(summary.surveys())
    yield ("site", *map(_date, days))
    for site in sites:
        efforts = [summary.effort.get(SiteDay(site, day), Effort()) for day in days]
        yield (site, *(_minutes(effort.seconds) for effort in efforts))


def _activity_by_hour(summary: Summary) -> _Rows:
    yield (*_SPECIES, "hour", "detections", "minutes", "effort_minutes", "minutes_per_hour")
    for label in (each for each in summary.labels() if each in summary.hour_activity):
        for hour, (detections, seconds) in enumerate(summary.hour_activity[label].tolist()):
            effort = float(summary.hour_effort[hour])
            minutes = (_minutes(seconds), _minutes(effort), _rate(seconds, effort))
            yield (*_names(summary.species[label]), hour, int(detections), *minutes)


def _accumulation(summary: Summary) -> _Rows:
    yield ("survey_days", "species", "low", "high")
    for days, counts in enumerate(accumulate(summary), 1):
        yield (days, *(f"{count:.2f}" for count in counts))


def _sites_and_days(surveys: Iterable[SiteDay]) -> tuple[list[str], list[date]]:
    surveys = list(surveys)
    return sorted({each.site for each in surveys}), sorted({each.day for each in surveys if each.day is not None})


def _place(each: SiteDay) -> tuple[str, date]:
    return each.site, each.day or date.min


def _names(species: Species) -> tuple[str, str, str]:
    return name_cell(species.label), name_cell(species.scientific_name), name_cell(species.common_name)


def _date(day: date | None) -> str:
    return day.isoformat() if day else ""


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.3f}"


def _rate(seconds: float, effort: float) -> str:
    return f"{60 * seconds / effort:.4f}" if effort > 0 else ""
