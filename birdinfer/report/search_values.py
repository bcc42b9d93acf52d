"""Where the values of a searched key stand on an axis: numbers side by side or decade by decade, all else as words.

In: the values as trials.csv spells them. Out: :class:`Scale`, and axes that are marked by it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from birdinfer.report.picture import shown
from birdinfer.report.search_files import Layout

_LOG_FROM = 20.0
"""Numbers that differ by a greater factor are laid out decade by decade, if nobody says how they were drawn."""
_MOST_MARKED = 6
"""So few whole numbers (batch sizes) are all named."""
_MARGIN = 0.05
_LETTERS_ABREAST = 40
"""As many letters find room under an axes."""
_MOST_LETTERS = 22


class Scale(NamedTuple):
    """An axis for the values of one key."""

    words: tuple[str, ...]
    """From left to right; empty for numbers."""
    numbers: tuple[float, ...]
    """Each once, ascending; empty for words."""

    layout: Layout
    """Numbers side by side or decade by decade; words are always linear."""

    @property
    def n_values(self) -> int:
        """How many there are."""
        return len(self.words) + len(self.numbers)

    def place(self, text: str) -> float:
        """Where a value stands; nan for one that the axis does not have."""
        if self.words:
            return float(self.words.index(text)) if text in self.words else math.nan
        return _number(text)


def scale_of(texts: Sequence[str], drawn: Layout | None = None) -> Scale:
    """The axis for values: of numbers if each is one, else of words. Empty ones have no place.

    Args:
        texts: as trials.csv spells them.
        drawn: how the space draws them; None if it does not say.
    """
    known = dict.fromkeys(text for text in texts if text)
    numbers = {_number(text) for text in known}
    if not known or any(math.isnan(each) for each in numbers):
        return Scale(tuple(sorted(known)), (), "linear")
    low, high = min(numbers), max(numbers)
    is_wide = high > _LOG_FROM * low if drawn is None else drawn == "log"
    return Scale((), tuple(sorted(numbers)), "log" if is_wide and low > 0 else "linear")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def mark_axis(axes: Any, scale: Scale) -> None:
    """Give the horizontal axis of axes its layout, its ends and its names."""
    if scale.words:
        _mark_words(axes, scale.words)
    elif scale.numbers:
        _show_all(axes, scale)
        _mark_numbers(axes, scale)


def _show_all(axes: Any, scale: Scale) -> None:
    """From the lowest to the highest number; axes cannot tell by themselves what is marked at their bottom."""
    low, high = scale.numbers[0], scale.numbers[-1]
    if scale.layout == "log":
        axes.set_xscale("log")
        margin = (high / low) ** _MARGIN
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = _MARGIN * ((high - low) or abs(high) or 1.0)
        axes.set_xlim(low - margin, high + margin)


def _mark_numbers(axes: Any, scale: Scale) -> None:
    if len(scale.numbers) <= _MOST_MARKED and all(each.is_integer() for each in scale.numbers):
        axes.xaxis.set_major_locator(FixedLocator(scale.numbers))
        axes.xaxis.set_minor_locator(NullLocator())
    elif scale.layout == "log":
        n_decades = math.log10(scale.numbers[-1] / scale.numbers[0])
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if n_decades <= 2 else (1.0,), numticks=6))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if scale.layout == "log":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _mark_words(axes: Any, words: Sequence[str]) -> None:
    names = [shown(word if len(word) <= _MOST_LETTERS else f"{word[: _MOST_LETTERS - 1]}…") for word in words]
    is_wide = len(names) * max(map(len, names)) > _LETTERS_ABREAST
    turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if is_wide else {}
    axes.set_xticks(range(len(names)), names, fontsize="small", **turned)
    axes.set_xlim(-0.6, len(names) - 0.4)
