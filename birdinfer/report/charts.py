"""Numbers -> small charts as HTML and SVG: no library, no script, every value also as text, light and dark.

Colours are classes of ``page_files/report.css``; what a colour shows is written there as well, as a number.
"""

import math
from collections.abc import Sequence
from html import escape

from birdinfer.report.tables import Cell

_MAP_WIDTH, _MAP_HEIGHT = 720, 360
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""Degrees between two lines of a map."""
_MOST_ROUND = 14
"""Columns whose values are written above them; of more, every value is in the bar's title."""


def columns_chart(title: str, values: Sequence[tuple[str, float]], unit: str = "clips") -> str:
    """Draw columns side by side, each with its name below and its value above."""
    most = max((value for _, value in values), default=0) or 1
    bars = "".join(
        f'<div class="column" title="{escape(name)}: {_number(value)} {unit}"><b>{_number(value) if value else ""}</b>'
        f'<i style="height:{100 * value / most:.1f}%"></i><span>{escape(name)}</span></div>'
        for name, value in values
    )
    kind = "columns" if len(values) <= _MOST_ROUND else "columns many"
    return f'<figure><figcaption>{escape(title)}</figcaption><div class="{kind}">{bars}</div></figure>'


def bars_chart(title: str, values: Sequence[tuple[str, float]], unit: str = "clips") -> str:
    """Draw horizontal bars, one a line, each with its name and value."""
    most = max((value for _, value in values), default=0) or 1
    lines = "".join(
        f'<div class="bar"><span>{escape(name)}</span><i style="--share:{value / most:.4f}"></i>'
        f"<b>{_number(value)}</b></div>"
        for name, value in values
    )
    caption = f"<figcaption>{escape(title)} <small>{unit}</small></figcaption>"
    return f'<figure>{caption}<div class="bars">{lines}</div></figure>'


def ranks_chart(title: str, values: Sequence[float], text: str) -> str:
    """Draw values from the greatest to the least as an area, logarithmic from 0; ``text`` says it in words."""
    ordered = [math.log1p(value) for value in sorted(values, reverse=True)]
    most, n = (ordered[0] if ordered else 0) or 1, max(1, len(ordered))
    heights = [100 - 100 * value / most for value in ordered]
    steps = "".join(
        f"L{1000 * index / n:.1f} {y:.2f}L{1000 * (index + 1) / n:.1f} {y:.2f}" for index, y in enumerate(heights)
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg class="ranks" viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="{escape(text)}">'
        f'<path d="M0 100{steps}L1000 100Z"/></svg><p class="quiet">{escape(text)}</p></figure>'
    )


def heat_table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float], str]]) -> str:
    """Draw rows by columns, each cell its number on a shade that is its share of the row.

    Args:
        title: of the chart.
        columns: headings: of the names, of the values, and of what stands behind them.
        rows: a name, values, and a text behind them.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = []
    for name, values, remark in rows:
        total = sum(values) or 1
        cells = "".join(
            f'<td style="--share:{value / total:.3f}">{_number(value) if value else ""}</td>' for value in values
        )
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}<td class="behind">{escape(remark)}</td></tr>')
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><div class="scroll" tabindex="0"><table class="heat"><thead>'
        f"<tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div></figure>"
    )


def map_chart(title: str, sites: Sequence[tuple[str, float]]) -> str:
    """Draw sites, each "latitude,longitude" and its clips, as circles on a grid of degrees; the area is the number."""
    places = [(*map(float, site.split(",")), count) for site, count in sites]
    if not places:
        return ""
    norths, easts = [place[0] for place in places], [place[1] for place in places]
    low_n, high_n, low_e, high_e = _box(norths, easts)

    def at(north: float, east: float) -> tuple[float, float]:
        return (
            _MAP_WIDTH * (east - low_e) / (high_e - low_e),
            _MAP_HEIGHT * (high_n - north) / (high_n - low_n),
        )

    most = max(count for *_, count in places)
    radius = min(16.0, 200 / len(places) ** 0.5)
    grid = []
    for east in _marks(low_e, high_e):
        x, _ = at(low_n, east)
        grid.append(
            f'<path d="M{x:.1f} 0V{_MAP_HEIGHT}"/><text x="{x + 3:.1f}" y="{_MAP_HEIGHT - 4}">{east:g}° E</text>'
        )
    for north in _marks(low_n, high_n):
        _, y = at(north, low_e)
        grid.append(f'<path d="M0 {y:.1f}H{_MAP_WIDTH}"/><text x="3" y="{y - 3:.1f}">{north:g}° N</text>')
    circles = []
    for north, east, count in sorted(places, key=lambda place: -place[2]):
        x, y = at(north, east)
        text = f"{north:g}, {east:g}: {_number(count)} clips"
        size = 1 + radius * (count / most) ** 0.5
        circles.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"><title>{text}</title></circle>')
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg class="map" viewBox="0 0 {_MAP_WIDTH} {_MAP_HEIGHT}" '
        f'role="img" aria-label="{len(places)} sites, from {min(norths):g} to {max(norths):g} degrees north and from '
        f'{min(easts):g} to {max(easts):g} degrees east">{"".join(grid)}{"".join(circles)}</svg></figure>'
    )


def _box(norths: Sequence[float], easts: Sequence[float]) -> tuple[float, float, float, float]:
    """Widen the extent of the sites to the picture's shape, with a margin."""
    north, east = (max(norths) + min(norths)) / 2, (max(easts) + min(easts)) / 2
    high = max(max(norths) - min(norths), (max(easts) - min(easts)) * _MAP_HEIGHT / _MAP_WIDTH, 0.1) * 0.55
    wide = high * _MAP_WIDTH / _MAP_HEIGHT
    return north - high, north + high, east - wide, east + wide


def _marks(low: float, high: float) -> list[float]:
    """Round degrees within a span, four to ten of them."""
    step = next(
        step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if (high - low) / step <= 9
    )
    first = int(low // step) + 1
    return [round(step * number, 2) for number in range(first, first + 10) if step * number < high]


def _number(value: Cell) -> str:
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value or "")
