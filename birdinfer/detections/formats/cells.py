"""What the tables of detections share: their settings, and how names, times and scores are written in a cell.

In: a text, seconds, a probability, a detection. Out: the text of a cell that breaks no table and starts no formula.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from birdinfer.detections.events import Detection
from birdinfer.detections.recordings import Recording
from birdinfer.species import Species, SpeciesNames
from birdinfer.system.files import utf8_text
from birdinfer.tables.cells import is_blank, number_of

Found = Callable[[], Iterator[tuple[Recording, list[Detection]]]]
"""Yields every recording of a run with its detections, by start, then by species; may be called again and again."""

_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
"""Tabs, ends of lines and the like, any of which some reader takes for the end of a cell or row."""
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""First characters of what spreadsheets compute, also in full width."""


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """What tables need to know of the bundle."""

    species: Sequence[Species]
    """All that the bundle knows, to see which names are shared by two."""
    sample_rate: int
    """Of the network in Hz: Raven's boxes reach up to half of it, or of the recording's if that is lower."""


def plain_text(text: str) -> str:
    r"""Write a name as text that needs no quotes for its ends of lines: control characters become escapes.

    >>> print(plain_text("a\tb"))
    a\x09b
    """
    return utf8_text(_CONTROL.sub(_escape, text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def name_cell(text: str) -> str:
    """Write a label, a species' name or a site; ``'`` stands before what a spreadsheet would compute.

    >>> name_cell("=1+1"), name_cell("-2")
    ("'=1+1", '-2')
    """
    text = plain_text(text)
    is_formula = text.startswith(_FORMULA) and number_of(text) != number_of(text)
    return f"'{text}" if is_formula else text


def file_cell(path: str) -> str:
    """Write a path within the input; ``./``, which changes no path, stands before what a spreadsheet would compute.

    >>> file_cell("=1+1/a.wav"), file_cell("siteA/a.wav")
    ('./=1+1/a.wav', 'siteA/a.wav')
    """
    text = plain_text(path)
    return f"./{text}" if text.startswith(_FORMULA) else text


def seconds_cell(seconds: float) -> str:
    """Write seconds to the microsecond, with one decimal at least, as BirdNET-Analyzer does.

    >>> seconds_cell(15), seconds_cell(12.3456)
    ('15.0', '12.3456')
    """
    text = f"{seconds:.6f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def clock_cell(detection: Detection) -> str:
    """Write the clock time at which a detection starts, in whole seconds, with its zone if known; "" if unknown."""
    clock = detection.recording.clock(detection.start_seconds)
    return "" if clock is None else clock.isoformat(timespec="seconds")


def degrees_cell(degrees: float | None) -> str:
    """Write a latitude or longitude; "" if unknown."""
    return "" if degrees is None else f"{degrees:.6f}".rstrip("0").rstrip(".")


def shown_names(species: Sequence[Species]) -> dict[str, str]:
    """Choose the name by which each label is shown where there is space for one.

    It is the common name, else the scientific one, unless another species has the same or it cannot stand in any
    table; else the label. So a table that is read again names the same species.

    >>> shown_names([Species("a", "Insecta", "Cicada"), Species("b", "Insecta", " ")])
    {'a': 'Cicada', 'b': 'b'}
    """
    names = SpeciesNames(species)

    def is_clear(name: str, label: str) -> bool:
        only = not is_blank(name) and names.find(name) == (label,)
        return only and ";" not in name and name.isprintable() and not name.startswith(_FORMULA)

    return {
        each.label: next(
            (name.strip() for name in (each.common_name, each.scientific_name) if is_clear(name, each.label)),
            each.label,
        )
        for each in species
    }
