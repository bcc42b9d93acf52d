"""What a recording's name tells: a file name without its ending -> the site, and the clock time of its first sample.

Recorders and competitions write both into the name. Nothing is guessed beyond that. A time zone (``Z``, ``+0100``) is
passed over, so the time is the one that the recorder's clock showed.

::

    BC2026_Test_0001_S05_20250227_010002   BirdCLEF 2026               S05       2025-02-27 01:00:02
    H02_20230420_074000                    BirdCLEF 2025               H02       2023-04-20 07:40:00
    3575_COL_20170105                      BirdCLEF 2021: id, site     COL       a day has no hour: unknown
    20250227_010002                        AudioMoth                   unknown   2025-02-27 01:00:02
    PLOT-7_A_20250227_010002               Song Meter                  PLOT-7_A  2025-02-27 01:00:02
    PLOT7-20250227T010002Z                 others                      PLOT7     2025-02-27 01:00:02
    PLOT7_2025-02-27_01-00-02              others                      PLOT7     2025-02-27 01:00:02
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

_DAY = r"(?<![0-9])(?P<year>(?:19|20)[0-9]{2})(?P<dash>-?)(?P<month>[0-9]{2})(?P=dash)(?P<day>[0-9]{2})"
_TIME = r"[T_\- ]?(?P<hour>[0-9]{2})(?P<colon>[:\-.]?)(?P<minute>[0-9]{2})(?P=colon)(?P<second>[0-9]{2})"
_MOMENT = re.compile(f"{_DAY}{_TIME}(?![0-9])")
_DAY_ALONE = re.compile(f"{_DAY}(?![0-9])")
_COMPETITION = re.compile(r"BC[0-9]{4}_[A-Za-z]+_[0-9]+_(?P<site>.+)")
_NUMBERED_SITE = re.compile(r"[0-9]+_(?P<site>[A-Z]{3})")
"""2021 puts the recording's number before one of four sites of three letters: COL, COR, SNE, SSW."""
_BETWEEN_PARTS = "_-. "
_HOUR_SECONDS = 3_600


class RecordingName(NamedTuple):
    """What a name tells of its recording."""

    site: str | None
    """Where it was made, as the name spells it; None where the name does not say."""
    start: datetime | None
    """The recorder's clock at the first sample, without a time zone; None where the name tells no time of day."""


def parse_name(stem: str) -> RecordingName:
    """Read a recording's name.

    The first date in the name that exists counts, and what stands before it is the site. A date without a time of day
    gives a site only; without a date there is neither.

    Args:
        stem: the file's name without its ending, any text.
    """
    for pattern in (_MOMENT, _DAY_ALONE):
        for found, moment in _moments(pattern, stem):
            return RecordingName(_site(stem[: found.start()]), moment if pattern is _MOMENT else None)
    return RecordingName(None, None)


def hour_at(name: RecordingName, seconds_from_start: float) -> int | None:
    """The hour of the day, 0 to 23, so many seconds into a recording; after 23 comes 0. None where it is not known.

    Args:
        name: of the recording.
        seconds_from_start: any finite number.
    """
    if name.start is None:
        return None
    midnight = name.start.replace(hour=0, minute=0, second=0)
    return int(((name.start - midnight).total_seconds() + seconds_from_start) // _HOUR_SECONDS % 24)


def _moments(pattern: re.Pattern[str], stem: str) -> Iterator[tuple[re.Match[str], datetime]]:
    """Where a date stands in the name; 31 February and 25 o'clock are none."""
    for found in pattern.finditer(stem):
        number = {name: int(digits) for name, digits in found.groupdict().items() if digits.isdigit()}
        hour, minute, second = (number.get(name, 0) for name in ("hour", "minute", "second"))
        try:
            yield found, datetime(number["year"], number["month"], number["day"], hour, minute, second)
        except ValueError:
            continue


def _site(before: str) -> str | None:
    """The site in what stands before the date."""
    named = before.strip(_BETWEEN_PARTS)
    for pattern in (_COMPETITION, _NUMBERED_SITE):
        if whole := pattern.fullmatch(named):
            return whole["site"]
    return named or None
