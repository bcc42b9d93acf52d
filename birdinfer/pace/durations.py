"""Durations as people write and read them: ``1h25m`` -> seconds; seconds -> ``23 min 10 s``."""

import math
import re

from birdinfer.errors import ConfigError

_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_WRITTEN = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")
_MOST_SECONDS = 366 * 86_400


def parse_duration(text: str, option: str = "--time-budget") -> float:
    """``85m``, ``1h25m``, ``90s``, ``1.5h`` or ``5400`` (seconds) -> seconds, above 0 and at most a year.

    Raises:
        ConfigError: it is nothing of that kind.
    """
    written = text.replace(" ", "").lower()
    found = _WRITTEN.fullmatch(f"{written}s" if re.fullmatch(_NUMBER, written) else written)
    hours, minutes, seconds = (float(part or 0) for part in (found.groups() if found else (0, 0, 0)))
    total = 3_600 * hours + 60 * minutes + seconds
    if not 0 < total <= _MOST_SECONDS:
        raise ConfigError(option, f"{text!r} is no length of time above 0", "write it as 85m, 1h25m, 90s or 5400")
    return total


def in_words(seconds: float) -> str:
    """``4.2 s``, ``45 s``, ``23 min 10 s``, ``5 h 12 min``: as exact as one wants to know it.

    Args:
        seconds: below 0 counts as 0.
    """
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 7_200:
        return _joined(whole // 60, "min", whole % 60, "s")
    minutes = math.floor(seconds / 60 + 0.5)
    return _joined(minutes // 60, "h", minutes % 60, "min")


def _joined(many: int, unit: str, rest: int, smaller: str) -> str:
    return f"{many} {unit} {rest} {smaller}" if rest else f"{many} {unit}"
