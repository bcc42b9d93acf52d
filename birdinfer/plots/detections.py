"""Pictures of a survey: activity by hour, species accumulation, and which site was surveyed when -> PNG files.

In: a :class:`~birdinfer.detections.summary.Summary`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from birdinfer.detections.summary import Summary, accumulate
from birdinfer.plots.style import PALETTE, save, shown
from birdinfer.species import Species
from birdinfer.typing import Float64

_MOST_SPECIES = 30
_MOST_SITES = 60
_MOST_DATES = 12
_NO_EFFORT = "#BBBBBB"


def draw_summary(folder: Path, summary: Summary) -> list[Path]:
    """Draw ``activity_by_hour.png``, ``accumulation.png`` and ``survey.png``; return the paths of those with content.

    Raises:
        OutputError: one cannot be written.
    """
    figures: dict[str, Callable[[Summary], Figure | None]] = {
        "activity_by_hour.png": activity_figure,
        "accumulation.png": accumulation_figure,
        "survey.png": survey_figure,
    }
    written = []
    for name, make in figures.items():
        figure = make(summary)
        if figure is not None:
            save(figure, folder / name)
            written.append(folder / name)
    return written


def activity_figure(summary: Summary) -> Figure | None:
    """Make a map of species by hour, below the effort of each hour; None without a detection that has a clock time.

    A cell is minutes with the species in an hour of effort, as a share of the species' highest, which stands at the
    right. The 30 species with the most minutes are shown.
    """
    labels = sorted(summary.hour_activity, key=lambda label: (-summary.hour_activity[label][:, 1].sum(), label))
    if not labels:
        return None
    labels = labels[:_MOST_SPECIES]
    effort = summary.hour_effort
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = np.stack([60 * summary.hour_activity[label][:, 1] / effort for label in labels])
    peaks = np.nanmax(rates, axis=1)
    figure = Figure(figsize=(10, 2.6 + 0.27 * len(labels)), layout="constrained")
    hours, cells = figure.subplots(2, 1, sharex=True, height_ratios=[1.1, 0.27 * len(labels) + 0.2])
    hours.bar(np.arange(24) + 0.5, effort / 3600, width=0.9, color=PALETTE[6])
    hours.set_ylabel("effort, hours")
    hours.set_title("when species are active: minutes with the species in an hour of effort", loc="left")
    cells.set_facecolor(_NO_EFFORT)
    shares = rates / np.where(peaks > 0, peaks, 1)[:, np.newaxis]
    image = cells.imshow(
        np.ma.masked_invalid(shares), aspect="auto", cmap="Greens", vmin=0, vmax=1, interpolation="nearest",
        extent=(0, 24, len(labels) - 0.5, -0.5),
    )  # fmt: skip
    cells.set_yticks(range(len(labels)), [shown(_name(summary.species[label])) for label in labels], fontsize="small")
    beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": "small"}
    for row, peak in enumerate(peaks):
        cells.annotate(f"{peak:.2g}", (24, row), **beside)
    cells.set(xlabel="hour of the clock" + ("" if effort.all() else " (grey: no effort)"), xlim=(0, 24))
    cells.set_xticks(range(0, 25, 2))
    cells.set_title("highest, min/h", loc="right", fontsize="small")
    figure.colorbar(image, ax=cells, label="share of the species' highest", pad=0.07)
    return figure


def accumulation_figure(summary: Summary) -> Figure | None:
    """Make a curve of the number of species over survey days, with a band; None with less than two survey days."""
    curve, surveys = accumulate(summary), summary.surveys()
    if len(curve) < 2:
        return None
    days = np.arange(1, len(curve) + 1)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    orders = summary.settings.permutations
    axes.fill_between(days, curve[:, 1], curve[:, 2], color=PALETTE[5], alpha=0.35, linewidth=0,
                      label=f"95 % of {orders} random orders")  # fmt: skip
    axes.plot(days, curve[:, 0], color=PALETTE[0], linewidth=2, label="mean")
    n_sites = len({each.site for each in surveys})
    sites = f"{n_sites} sites" if n_sites > 1 else "1 site"
    axes.set_title(f"{curve[-1, 0]:.0f} species in {len(curve)} survey days of {sites}", loc="left")
    axes.set(xlabel="survey days", ylabel="species", xlim=(1, len(curve)), ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    return figure


def survey_figure(summary: Summary) -> Figure | None:
    """Make a map of sites by day: how many species; grey where there was no survey. None without a survey.

    The first 60 sites are shown, and the days on which any was surveyed.
    """
    surveys = summary.surveys()
    if not surveys:
        return None
    sites = sorted({each.site for each in surveys})[:_MOST_SITES]
    days = sorted({each.day for each in surveys if each.day is not None})
    row, column = ({each: index for index, each in enumerate(listed)} for listed in (sites, days))
    n_species: Float64 = np.full((len(sites), len(days)), np.nan)
    for each in surveys:
        if each.site in row:
            n_species[row[each.site], column[each.day]] = 0
    for each in (day for found in summary.occurrences.values() for day in found):
        if each.site in row and each.day in column:
            n_species[row[each.site], column[each.day]] += 1  # NaN, where there was no survey, stays
    figure = Figure(figsize=(10, 1.8 + 0.25 * len(sites)), layout="constrained")
    axes: Any = figure.subplots()
    axes.set_facecolor(_NO_EFFORT)
    image = axes.imshow(np.ma.masked_invalid(n_species), aspect="auto", cmap="Greens", vmin=0, interpolation="nearest")
    axes.set_yticks(range(len(sites)), [shown(site or "unknown site") for site in sites], fontsize="small")
    marked = range(0, len(days), -(-len(days) // _MOST_DATES))
    axes.set_xticks(marked, [days[index].isoformat() for index in marked], rotation=30, ha="right")
    axes.set_title("species on each survey day (grey: not surveyed)", loc="left")
    figure.colorbar(image, ax=axes, label="species", pad=0.01)
    return figure


def _name(species: Species) -> str:
    return species.common_name or species.scientific_name or species.label
