"""Findings and tables of the report -> one HTML file: no network, no other file, light and dark, laptop and phone."""

import re
from collections.abc import Sequence
from html import escape
from importlib import resources

from birdinfer.report.charts import bars_chart, columns_chart, heat_table, map_chart, ranks_chart
from birdinfer.report.findings import Finding, Severity
from birdinfer.report.survey import Survey
from birdinfer.report.tables import UNKNOWN, Cell, Table
from birdinfer.version import __version__

_MOST_ROWS = 200
"""Of a table on the page; its CSV has all."""
_MOST_BARS = 15
_MOST_FOLD_ROWS = 1_000
_SIGNS = {Severity.stops: "■", Severity.misleads: "▲", Severity.costs: "●", Severity.note: "○"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:"


def report_page(survey: Survey, tables: dict[str, Table], findings: Sequence[Finding]) -> str:
    """Write the page of a report."""
    sections = [_findings_section(findings), *_sections(survey, tables)]
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{escape(title)}</h2>{content}</section>' for name, title, content in sections
    )
    name = survey.listing.data.resolve().name or str(survey.listing.data)
    top = f"<header><h1>{escape(name)}</h1><p>{_totals(survey, tables)}</p></header>"
    menu = f'<nav aria-label="Sections">{links}</nav>'
    how = "headers and sound" if survey.is_decoded else "headers; birdinfer data --sound decodes the files, too"
    foot = f"birdinfer {__version__}, from tables, {how}. The tables are CSVs beside this page."
    whole = f'{top}{menu}<main>{body}</main><footer class="quiet">{foot}</footer>'
    return html_page(f"Data: {name}", whole, "report.css", "report.js")


def html_page(title: str, body: str, style: str, script: str) -> str:
    """Put a body into a page that needs no other file and may load none."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="generator" content="birdinfer {__version__}"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{own_file(style)}</style></head>'
        f"<body>{body}<script>{own_file(script)}</script></body></html>\n"
    )


def own_file(name: str) -> str:
    """Read a file of the package that becomes a part of a page."""
    return (resources.files("birdinfer.report") / "page_files" / name).read_text("utf-8")


def _totals(survey: Survey, tables: dict[str, Table]) -> str:
    clips = survey.clips
    there = sum(bool(each.clip.primary_label) for each in clips if each.is_usable)
    species = [row for row in tables["species"].rows if row[1]]
    hours = sum(each.seconds for each in clips) / 3600
    scapes, scape_hours = len(survey.soundscapes), sum(each.seconds for each in survey.soundscapes) / 3600
    parts = [
        f"<b>{len(clips):,}</b> clips, <b>{there:,}</b> of them can be used", f"<b>{hours:,.1f}</b> hours",
        f"<b>{len(species):,}</b> of <b>{len(survey.listing.species):,}</b> species",
        f"<b>{_known(tables['authors']):,}</b> authors",
        *([f"<b>{scapes:,}</b> soundscapes, {scape_hours:,.1f} hours"] if scapes else ()),
    ]  # fmt: skip
    return " · ".join(parts)


def _known(table: Table) -> int:
    return sum(row[0] != UNKNOWN for row in table.rows)


def _findings_section(findings: Sequence[Finding]) -> tuple[str, str, str]:
    if not findings:
        return "findings", "Findings", "<p>Nothing was found.</p>"
    return "findings", f"Findings ({len(findings)})", "".join(map(_finding, findings))


def _finding(finding: Finding) -> str:
    severity = finding.severity
    examples = "".join(f"<li>{escape(each)}</li>" for each in finding.examples)
    rest = finding.count - len(finding.examples)
    if rest > 0 and finding.examples:
        where = f', all in <a href="#table-{finding.table}">{finding.table}.csv</a>' if finding.table else ""
        examples += f'<li class="quiet">and {rest:,} more{where}</li>'
    advice = re.sub("`([^`]+)`", r"<code>\1</code>", escape(finding.advice))
    return (
        f'<article class="finding {severity.name}"><h3><span class="badge">{_SIGNS[severity]} {severity.text}</span> '
        f"{escape(finding.title)}</h3>" + (f"<ul>{examples}</ul>" if examples else "") + f"<p>{advice}</p></article>"
    )


def _sections(survey: Survey, tables: dict[str, Table]) -> list[tuple[str, str, str]]:
    found = [
        ("species", "Species", _species(survey, tables)),
        ("folds", "Folds", _folds(survey, tables["folds"])),
        ("clips", "Lengths, rates and ratings", _clips(tables)),
        ("sources", "Authors and collections", _sources(tables)),
        ("where", "Where and when", _where(tables)),
        ("secondary", "Who occurs with whom", _shown(tables["secondary"])),
        ("alike", "Duplicates and parts of one recording", _alike(tables)),
    ]  # fmt: skip
    if "voices" in tables:
        found.append(("voices", "Human voices", _shown(tables["voices"])))
    elif survey.voice_problem:
        found.append(("voices", "Human voices", f"<p>Not looked for: {escape(survey.voice_problem)}</p>"))
    if survey.soundscapes or tables["soundscapes"].rows:
        found.append(("soundscapes", "Soundscapes", _shown(tables["soundscapes"])))
    return found


def _alike(tables: dict[str, Table]) -> str:
    return _shown(tables["duplicates"]) + _shown(tables["cut_recordings"])


def _species(survey: Survey, tables: dict[str, Table]) -> str:
    table = tables["species"]
    counts = [int(count or 0) for count in table.column("clips")]
    total, n = sum(counts) or 1, len(counts)
    half = next((index for index in range(n) if sum(counts[: index + 1]) * 2 >= total), 0) + 1
    most, median, least = (counts[0], counts[n // 2], counts[-1]) if n else (0, 0, 0)
    text = (
        f"The most frequent species has {most:,} clips, the median one {median:,}, the rarest {least:,}; half of all "
        f"clips are of {half:,} species."
    )
    return ranks_chart("Clips of each species, the most frequent first (logarithmic)", counts, text) + _shown(table)


def _folds(survey: Survey, table: Table) -> str:
    if survey.fold_problem:
        return f"<p>The recipe's folds cannot be assigned: {escape(survey.fold_problem)}</p>"
    config = survey.recipe.data
    rows = [
        (f"{row[0]} {row[1]}", [int(cell or 0) for cell in row[2:-1]], "" if row[-1] else "not validated")
        for row in table.rows[:_MOST_FOLD_ROWS]
    ]
    totals = [sum(int(row[place] or 0) for row in table.rows) for place in range(2, len(table.columns) - 1)]
    names = table.columns[2:-1]
    keys = f"data.n_folds = {config.n_folds} and data.group_by = {list(config.group_by)}"
    how = f"<p>As the recipe assigns them with <code>{escape(keys)}</code>.</p>"
    return (
        how
        + columns_chart("Clips of each fold", list(zip(names, map(float, totals), strict=True)))
        + heat_table(
            "Clips of each species in each fold: the darker, the more of the species", ("species", *names, ""), rows
        )
    )


def _clips(tables: dict[str, Table]) -> str:
    return (
        columns_chart("Length of clips", _pairs(tables["durations"]))
        + _known_columns("Ratings, in stars", tables["ratings"], "unrated")
        + _shown(tables["formats"])
    )


def _pairs(table: Table) -> list[tuple[str, float]]:
    place = table.columns.index("clips")
    return [(str(row[0]), float(row[place] or 0)) for row in table.rows]


def _sources(tables: dict[str, Table]) -> str:
    parts = [bars_chart("Authors with most clips", _pairs(tables["authors"])[:_MOST_BARS]), _shown(tables["authors"])]
    return "".join([*parts, _shown(tables["collections"])])


def _where(tables: dict[str, Table]) -> str:
    sites = [pair for pair in _pairs(tables["sites"]) if pair[0] != UNKNOWN]
    parts = [map_chart(f"{len(sites):,} sites; a circle's area is its number of clips", sites)]
    parts += [_known_columns(tables[name].title, tables[name], UNKNOWN) for name in ("months", "hours")]
    return "".join([*parts, _shown(tables["sites"])])


def _known_columns(title: str, table: Table, unknown: str) -> str:
    """Draw the clips of which something is known, and say of how many it is not."""
    pairs = _pairs(table)
    n_unknown = sum(value for name, value in pairs if name == unknown)
    known = [pair for pair in pairs if pair[0] != unknown]
    if not any(value for _, value in known):
        return f"<p>{escape(title)}: known of no clip.</p>"
    return columns_chart(f"{title} ({n_unknown:,.0f} clips {unknown})" if n_unknown else title, known)


def _shown(table: Table) -> str:
    """Show a table's first rows, which a click on a heading sorts."""
    if not table.rows:
        return f'<p id="table-{table.name}">{escape(table.title)}: none.</p>'
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in table.columns)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows[:_MOST_ROWS])
    n = len(table.rows)
    first = f"the first {_MOST_ROWS} of {n:,} rows" if n > _MOST_ROWS else f"{n:,} row{'s' if n > 1 else ''}"
    return (
        f'<details id="table-{table.name}"><summary>{escape(table.title)} <small>{first}; '
        f'<a href="{table.name}.csv">{table.name}.csv</a></small></summary>'
        '<div class="scroll" tabindex="0"><table class="sortable">'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></details>"
    )


def _cell(value: Cell) -> str:
    if isinstance(value, int | float):
        return f'<td class="number" data-value="{value}">{value:,}</td>'
    return f"<td>{escape(value or '')}</td>"
