"""What was tried for each member when it was exported: a manifest -> a table, a line a variant.

Size, speed and likeness to fp32 stand side by side, with the verdict at the end. A figure that could not be measured,
for want of labels, is ``-``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from birdinfer.manifest import Figures, Manifest, Variant

_NUMBERS = ("MB", "windows/s", "x fp32", "macro AUC", "fall (95 %)", "least Spearman", "largest |dp|")
_MORE_THAN_ANY_LINE = 10_000
"""Characters: where the table's own width is asked for."""


def variants_table(manifest: "Manifest") -> "Table":
    """A line for each variant of each member, in the manifest's order.

    It is as wide as what it holds: cut to the 80 characters of a pipe, figures would be lost.

    Args:
        manifest: of a bundle; members without variants (adopted, or exported before there were any) have no line.

    Returns:
        Columns member, variant, MB (10^6 bytes), windows/s, x fp32 (windows per second over those of fp32), macro AUC,
        fall (macro AUC of fp32 less its own, with its interval of 95 %), least Spearman, largest |dp| (difference of
        probability from fp32), made by, verdict (``taken``, or the limit that failed).
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("member", "variant"):
        table.add_column(heading, no_wrap=True)
    for heading in _NUMBERS:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("made by", "verdict"):
        table.add_column(heading, no_wrap=True)
    for member in manifest.members:
        for variant in member.variants:
            numbers = _cells(variant.figures)
            names = escape(member.name), escape(variant.name)
            table.add_row(*names, *numbers, escape(variant.made_by) or "-", _verdict(variant))
    table.width = Console(width=_MORE_THAN_ANY_LINE).measure(table).maximum
    return table


def _cells(figures: "Figures") -> tuple[str, ...]:
    """A cell for each of ``_NUMBERS``."""
    return (
        f"{figures.size_mb:.1f}",
        f"{figures.windows_per_second:.1f}",
        f"{figures.times_fp32:.2f}",
        _rounded(figures.macro_auc, ".4f"),
        _fall(figures),
        _rounded(figures.least_spearman, ".4f"),
        f"{figures.max_probability_difference:.1e}",
    )


def _fall(figures: "Figures") -> str:
    """``+0.0004 (-0.0003 .. +0.0011)``; without bounds where a single recording gives none."""
    if figures.auc_fall is None or figures.auc_fall_interval is None:
        return _rounded(figures.auc_fall, "+.4f")
    low, high = figures.auc_fall_interval
    return f"{figures.auc_fall:+.4f} ({low:+.4f} .. {high:+.4f})"


def _rounded(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)


def _verdict(variant: "Variant") -> str:
    from rich.markup import escape

    return f"[yellow]{escape(variant.refused)}[/]" if variant.refused else "[green]taken[/]"
