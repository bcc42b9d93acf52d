"""Names of recordings: a path within an input, without ending -> the site, and the clock time of its first sample.

Recorders and competitions write both into the name. Where a file's name has no site, the folder that it lies in is the
site, as the cards of recorders are copied; a folder of a date (``20250227``) or for all sound (``Data``) is none.
Nothing is guessed beyond that. The time is the one that the recorder's clock showed, beside it stand its time zone
(``Z``, ``+0100``) and the position where the name has them. A clock that was never set shows no time.

::

    BC2026_Test_0001_S05_20250227_010002   BirdCLEF 2026               S05       2025-02-27 01:00:02
    H02_20230420_074000                    BirdCLEF 2025               H02       2023-04-20 07:40:00
    3575_COL_20170105                      BirdCLEF 2021: id, site     COL       a day has no hour: unknown
    3575_COL                               in its row ids              COL       unknown
    20250227_010002                        AudioMoth                   unknown   2025-02-27 01:00:02
    plot7/20250227_010002                  AudioMoth, in a folder      plot7     2025-02-27 01:00:02
    plot7/242A2604603691DD_20250227_010002 AudioMoth with its id       plot7     2025-02-27 01:00:02
    PLOT-7_A_20250227_010002               Song Meter                  PLOT-7_A  2025-02-27 01:00:02
    PLOT-7_20250227_010002_010             Song Meter SM4              PLOT-7    2025-02-27 01:00:02.010
    PLOT7-20250227T010002Z                 others                      PLOT7     2025-02-27 01:00:02 UTC
    PLOT7_2025-02-27_01-00-02              others                      PLOT7     2025-02-27 01:00:02
    PLOT7_0+1_20250227$010002              Song Meter SM3              PLOT7     2025-02-27 01:00:02
    5341.250227010002                      SoundTrap                   5341      2025-02-27 01:00:02
    67BFB662                               AudioMoth until 2019        unknown   2025-02-27 00:48:34 UTC
    20250227T010002+1000_PLOT7_[-27.3,152] Frontier Labs               PLOT7     2025-02-27 01:00:02 +10:00
    PLOT7_022725_010002_020002             Easy Hi-Q Recorder          PLOT7     2025-02-27 01:00:02
    PLOT7 2-27-2025_1;00;02_AM             i-Sound Recorder            PLOT7     2025-02-27 01:00:02
    PLOT7_0100-27022025                    others: hour, then day      PLOT7     2025-02-27 01:00:00
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone

from birdinfer.audio.metadata import Position, is_clock_set, parse_offset, position_at

_YEAR = r"(?<![0-9])(?P<year>(?:19|20)[0-9]{2})"
_DAY = r"(?P<dash>[-_.]?)(?P<month>[0-9]{2})(?P=dash)(?P<day>[0-9]{2})"
_HOUR = r"(?P<hour>[0-9]{2})(?P<colon>[:\-._]?)(?P<minute>[0-9]{2})"
_TIME = rf"(?:[T_\-. $]|-birdnet-)?{_HOUR}(?P=colon)(?P<second>[0-9]{{2}})(?![0-9])"
_SIX = r"(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?P<second>[0-9]{2})"
_MOMENTS = (
    re.compile(f"{_YEAR}{_DAY}{_TIME}"),
    re.compile(rf"{_YEAR}{_DAY}[T_\-. ]{_HOUR}(?![0-9])"),
    re.compile(rf"{_YEAR}(?P<month>[ 0-9][0-9])(?P<day>[ 0-9][0-9])T{_SIX}(?![0-9])"),
    re.compile(
        rf"(?<![0-9])(?P<month>[0-9]{{2}})(?P<day>[0-9]{{2}})(?P<year>[0-9]{{2}})_{_SIX}"
        r"(?=_(?:[01][0-9]|2[0-3])(?:[0-5][0-9]){2}$)"
    ),
    re.compile(rf"(?<![0-9])(?P<year>[0-9]{{2}})(?P<month>[0-9]{{2}})(?P<day>[0-9]{{2}}){_TIME}"),
    re.compile(
        r"(?<![0-9])(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})-(?P<year>20[0-9]{2})_"
        r"(?P<hour>[0-9]{1,2});(?P<minute>[0-9]{2});(?P<second>[0-9]{2})_(?P<half>[AP])M"
    ),
    re.compile(
        r"(?<![0-9])(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})-"
        r"(?P<day>[0-9]{2})(?P<month>[0-9]{2})(?P<year>20[0-9]{2})(?![0-9])"
    ),
)
"""A day with a time of day: plain; without seconds; with a blank for a zero (Frontier Labs 3.08); American, the time of
the end behind it; with a year of two digits; American, with AM and PM; the time before the day."""
_DAY_ALONE = re.compile(rf"{_YEAR}{_DAY.replace('[-_.]', '-')}(?![0-9])")
_FRACTION = re.compile(r"[.](?P<digits>[0-9]{3,6})(?![0-9A-Za-z])|_(?P<milliseconds>[0-9]{3})$")
_ZONE = re.compile(r"_?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})(?![0-9A-Za-z])")
_NUMBER = r"[0-9]{1,3}[.][0-9]+"
_POSITION = re.compile(
    rf"[\[_](?P<latitude>[+-]?{_NUMBER})(?:[ ,]|(?=[+-]))(?P<longitude>[+-]?{_NUMBER})(?![0-9.])"
    r"|_(?P<whole_latitude>[+-][0-9]{2})(?P<whole_longitude>[+-][0-9]{3})(?![0-9])"
)
"""Frontier Labs: in brackets, or as in ISO 6709."""
_UNIX_TIME = re.compile("[0-9A-F]{8}")
"""AudioMoths until 2019: the name is the second since 1970."""
_CLOCKS_SET = range(0x52C35A80, 0x7A000000)
"""Such seconds of 2014 to 2034; others are a number, or a clock that was never set."""
_SITE_BEHIND = re.compile(r"[+-][0-9]{4}_(?P<site>[^][]+)_\[[^][]+,[^][]+\]")
"""Frontier Labs: zone, site, position."""
_END_BEHIND = re.compile(r"[^_]*_E(?:19|20)[0-9]{6}T.*")
"""Frontier Labs: ``S`` and the begin, ``E`` and the end; the ``S`` is no site."""
_CHANNELS = re.compile(r"_0\+1(_[01])?$")
_OWN_CHANNEL = re.compile("_+ch[0-9]+$")
"""What birdinfer puts behind the name of a file whose channels are recordings of their own (``--channel each``)."""
_DEVICE_ID = re.compile("[0-9A-F]{16}")
"""An AudioMoth's: its site only where no folder names one."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_COMPETITION = re.compile(r"BC[0-9]{4}_[A-Za-z]+_[0-9]+_(?P<site>.+)")
_NUMBERED_SITE = re.compile(r"[0-9]+_(?P<site>[A-Z]{3})")
"""2021 puts the recording's number before one of four sites of three letters: COL, COR, SNE, SSW."""
_BETWEEN_PARTS = "_-. "
_GENERAL = re.compile(
    "[.]{0,2}|data|audio|sounds?|soundscapes?|recordings?|raw|wavs?|flac|ogg|mp3|dcim|rec|channel ?[0-9a-d]?",
    re.IGNORECASE,
)
"""Names that say what is in a file or folder, not where it was recorded."""
_HOUR_SECONDS = 3_600


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingName:
    """Where and when a recording was made, by its name."""

    site: str | None = None
    """As the name spells it; None where the name has none."""
    start: datetime | None = None
    """The recorder's clock at the first sample, without a time zone; None where the name has no time of day."""
    zone: timezone | None = None
    """Of that clock; None where the name has none."""
    position: Position | None = None


def parse_name(name: str) -> RecordingName:
    """Read a recording's name.

    The first date in the file's name that exists counts, and what stands before it is the site, or else the nearest
    folder. A date without a time of day gives a site only; a name without a date or a folder gives neither.

    >>> parse_name("BC2026_Test_0001_S05_20250227_010002")
    RecordingName(site='S05', start=datetime.datetime(2025, 2, 27, 1, 0, 2), zone=None, position=None)
    """
    *folders, stem = name.split("/")
    found = _parse(stem)
    if found.site is not None and not _DEVICE_ID.fullmatch(found.site):
        return found
    return replace(found, site=site_of_folders(folders) or found.site)


def site_of_folders(folders: Sequence[str]) -> str | None:
    """Return the nearest folder that names a site, the last one first; None where they are dates, or for all sound."""
    for folder in reversed(folders):
        is_dated = any(True for _ in _dates(folder))
        site = _parse(folder).site if is_dated else None if _GENERAL.fullmatch(folder.strip()) else folder.strip()
        if site:
            return site
    return None


def _parse(stem: str) -> RecordingName:
    stem = _OWN_CHANNEL.sub("", stem)
    for found, moment in _dates(stem):
        behind = stem[found.end() :]
        if found.re is _DAY_ALONE or not is_clock_set(moment):
            return RecordingName(site=_site(stem[: found.start()], behind), position=_position(behind))
        zone = None
        if "second" in found.re.groupindex:
            fraction = _FRACTION.match(behind)
            if fraction:
                digits = fraction["digits"] or fraction["milliseconds"]
                moment += timedelta(microseconds=int(digits.ljust(6, "0")))
            given = _ZONE.match(behind, fraction.end() if fraction else 0)
            zone = parse_offset(given["zone"]) if given else None
        site = _site(stem[: found.start()], behind)
        return RecordingName(site=site, start=moment, zone=zone, position=_position(behind))
    if _UNIX_TIME.fullmatch(stem) and not stem.isdecimal() and int(stem, 16) in _CLOCKS_SET:
        return RecordingName(start=datetime.fromtimestamp(int(stem, 16), UTC).replace(tzinfo=None), zone=UTC)
    whole = _NUMBERED_SITE.fullmatch(stem)
    return RecordingName(site=whole["site"] if whole else None)


def hour_at(name: RecordingName, seconds_from_start: float) -> int | None:
    """Find the hour of the day, 0 to 23, at a time within a recording; after 23 comes 0. None where it is not known."""
    if name.start is None:
        return None
    midnight = name.start.replace(hour=0, minute=0, second=0, microsecond=0)
    return int(((name.start - midnight).total_seconds() + seconds_from_start) // _HOUR_SECONDS % 24)


def month_at(name: RecordingName, seconds_from_start: float) -> int | None:
    """Find the month, 1 to 12, at a time within a recording; None where it is not known."""
    return None if name.start is None else (name.start + timedelta(seconds=seconds_from_start)).month


def _dates(stem: str) -> Iterator[tuple[re.Match[str], datetime]]:
    """Find dates in the name, those with a time of day first; 31 February and 25 o'clock are none, 24:00:00 is."""
    for found in (found for pattern in (*_MOMENTS, _DAY_ALONE) for found in pattern.finditer(stem)):
        given = found.groupdict()
        year, month, day = (int(given[name]) for name in ("year", "month", "day"))
        year += 2000 if year < 100 else 0
        hour, minute, second = (int(given.get(name) or 0) for name in ("hour", "minute", "second"))
        if half := given.get("half"):
            hour = hour % 12 + (12 if half == "P" else 0) if 1 <= hour <= 12 else -1
        is_midnight = (hour, minute, second) == (24, 0, 0)
        try:
            moment = datetime(year, month, day, 0 if is_midnight else hour, minute, second)
            yield found, moment + timedelta(days=is_midnight)
        except ValueError:
            continue


def _site(before: str, behind: str) -> str | None:
    """Return the site that stands before a date, or behind it in names of Frontier Labs."""
    named = _CHANNELS.sub("", before.rstrip(_BETWEEN_PARTS)).strip(_BETWEEN_PARTS)
    for pattern in (_COMPETITION, _NUMBERED_SITE):
        if whole := pattern.fullmatch(named):
            return whole["site"]
    is_begin = named == "S" and _END_BEHIND.fullmatch(behind)
    if named and not is_begin and not _GENERAL.fullmatch(named) and not _UUID.fullmatch(named):
        return named
    after = _SITE_BEHIND.fullmatch(behind)
    return after["site"] if after and not _GENERAL.fullmatch(after["site"]) else None


def _position(behind: str) -> Position | None:
    found = _POSITION.search(behind)
    if found is None:
        return None
    latitude, longitude = (found[name] or found[f"whole_{name}"] for name in ("latitude", "longitude"))
    return position_at(float(latitude), float(longitude))
