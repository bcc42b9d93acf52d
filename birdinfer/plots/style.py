"""What all pictures share: saving, colours, and names that any font can show."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from birdinfer.system.files import write_atomic

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
"""Colours that the colour-blind can distinguish (Okabe and Ito 2008), without their yellow, which is faint on white."""
_DOTS_PER_INCH = 110
_MOST_LETTERS = 36


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; raise OutputError if that fails."""
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # A bird's name in a script that the font lacks becomes boxes, which is no reason to warn or to stop.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH)
    write_atomic(path, picture.getvalue())


def palette(n_colours: int) -> Sequence[str]:
    """Return ``n_colours`` colours: the first of :data:`PALETTE`, or steps through a rainbow if there are too few."""
    if n_colours <= len(PALETTE):
        return PALETTE[:n_colours]
    rainbow = colormaps["turbo"]
    return [to_hex(rainbow(0.05 + 0.9 * index / (n_colours - 1))) for index in range(n_colours)]


def shown(name: str) -> str:
    """Escape a name for matplotlib, where dollars begin a formula and a leading underscore hides a legend entry.

    A long name is cut in its middle, because names differ at their ends more often.
    """
    is_short = len(name) <= _MOST_LETTERS
    short = name if is_short else f"{name[: _MOST_LETTERS // 3]}…{name[1 - (_MOST_LETTERS - _MOST_LETTERS // 3) :]}"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")
