"""Where and when a recording was made: what its recorder wrote into it, its name, and what the user says.

In: a file and its name within the input. Out: :class:`Recording`, with the clock at each of its seconds.

The time of the first sample is taken from ``name_pattern`` if that gives one; else from the file, in the order GUANO,
WAMD, ``bext``, AudioMoth's comment, Vorbis comments (:mod:`birdinfer.audio.metadata`); else from the file's name
(:mod:`birdinfer.tables.recording_names`). A clock that was never set is no time.

**Time zones.** A file or name may give the offset of its clock (``+10:00``, ``Z``); most give none. Without
``timezone`` the clock stays as it was recorded. With it, a time without an offset is read as the time of that zone, and
one with an offset is converted to it. From the first sample on seconds count: the clock of a recorder does not jump
within a file. Only where ``timezone`` is one whose clocks are changed (``Europe/Berlin``) does the time shown change
with them, and in the hour that comes twice a time without an offset is the first of the two. A recorder that keeps
winter time all year has an offset: ``+01:00``.
"""

import difflib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from birdinfer.audio.kinds import without_ending
from birdinfer.audio.metadata import FileMetadata, is_clock_set, parse_offset, read_metadata
from birdinfer.errors import ConfigError
from birdinfer.system.files import utf8_text
from birdinfer.tables.recording_names import RecordingName, parse_name, site_of_folders


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A recording, with its site and time as far as they are known."""

    path: Path
    name: str
    """Its path within the input without the ending, with ``/``: ``siteA/20250227_060000``, as in row ids."""
    file: str
    """The same with the ending: ``siteA/20250227_060000.WAV``."""
    seconds: float = 0.0
    """Sound that was processed."""
    sample_rate: int = 0
    """In Hz; 0: unknown."""
    channel: int | None = None
    """The one that was processed, from 1; None: the mean of all."""
    site: str = ""
    start: datetime | None = None
    """The clock at the first sample, with its zone where it is known; None: unknown."""
    time_source: str = ""
    """What ``start`` is from: ``GUANO``, ``WAMD``, ``bext``, ``AudioMoth``, ``Vorbis comment``, ``name``; or ""."""
    latitude: float | None = None
    longitude: float | None = None
    device: str = ""
    """Model and serial number, where the file holds them."""

    def clock(self, seconds: float) -> datetime | None:
        """Return the clock time at a moment of the recording, right across midnight and a change of the clocks."""
        passed = timedelta(seconds=seconds)
        if self.start is None or self.start.tzinfo is None:
            return self.start and self.start + passed
        # In UTC: adding to a time with a zone adds to what the clock shows, not to the time that has passed.
        return (self.start.astimezone(UTC) + passed).astimezone(self.start.tzinfo)


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginSettings:
    """What the user says about time and place of the recordings."""

    timezone: str = ""
    """A zone (``Europe/Berlin``) or an offset (``+02:00``, ``UTC``) in which clock times are read and shown; "": as
    recorded."""
    name_pattern: str = ""
    """How names of files are built: ``{site}_%Y%m%d_%H%M%S*``, with ``*`` for any text and the codes of strptime; with
    ``/``, the folders before it, too. What a fitting name gives comes before all else; other names are read as ever."""
    site_from: Literal["name", "folder"] = "name"
    """``folder``: the nearest folder that is no date and not for all sound, whatever the file is called."""

    def __post_init__(self) -> None:
        """Raise ConfigError if zone or pattern cannot be used."""
        find_zone(self.timezone)
        _compiled(self.name_pattern)

    def check_names(self, names: Iterable[str]) -> None:
        """Raise ConfigError if ``name_pattern`` fits none of the recordings, as with a slip in it."""
        names = list(names)
        if self.name_pattern and names and not any(_by_pattern(name, self.name_pattern) for name in names):
            what = f"{self.name_pattern!r} fits no recording, as {names[0]!r}"
            raise ConfigError("name_pattern", what, "* stands for any text, {site} for the site; leave the ending out")


def describe_recording(
    path: Path, name: str, settings: OriginSettings, *, seconds: float = 0.0, sample_rate: int = 0,
    written: FileMetadata | None = None,
) -> Recording:  # fmt: skip
    """Find out where and when a recording was made.

    Args:
        path: the file; one that cannot be read is described by its name.
        name: its name within the input, as :func:`~birdinfer.audio.find.find_recordings` gives it.
        settings: what the user says.
        seconds: sound that was processed.
        sample_rate: in Hz.
        written: what the file says, where it was read before; None: it is read now.
    """
    if written is None:
        written = FileMetadata()
        with suppress(OSError):
            written = read_metadata(path)
    ending = path.name[len(without_ending(path.name)) :]
    keeps_ending = name.rpartition("/")[2] == utf8_text(path.name)  # as of a.wav beside a.flac
    bare = name.removesuffix(ending) if keeps_ending else name
    by_name = parse_name(bare)
    by_pattern = _by_pattern(bare, settings.name_pattern) or RecordingName()
    start, source = next(
        (
            (start, source)
            for start, source in (
                (_with_zone(by_pattern), "name"),
                (written.start, written.source),
                (_with_zone(by_name), "name"),
            )
            if start is not None
        ),
        (None, ""),
    )
    position = written.position or by_name.position
    return Recording(
        path=path,
        name=name,
        file=bare + ending,
        seconds=seconds,
        sample_rate=sample_rate,
        site=_site(path, bare, settings, by_pattern.site or by_name.site),
        start=None if start is None else _in_zone(start, find_zone(settings.timezone)),
        time_source=source,
        latitude=position.latitude if position else None,
        longitude=position.longitude if position else None,
        device=written.device,
    )


def timed_name(path: Path, name: str) -> str:
    """Name a recording so that its clock time can be read from the name, also where only its file's metadata state it.

    Site and folders stay. The name itself is returned where it has a time, or the file has none.
    """
    by_name = parse_name(name)
    start = by_name.start or describe_recording(path, name, OriginSettings()).start
    if by_name.start is not None or start is None:
        return name
    moment = f"{start:%Y%m%d_%H%M%S}"
    timed = "/".join([*name.split("/")[:-1], f"{by_name.site}_{moment}" if by_name.site else moment])
    return timed if parse_name(timed).site == by_name.site else name


def _with_zone(name: RecordingName) -> datetime | None:
    return None if name.start is None else name.start.replace(tzinfo=name.zone)


def _in_zone(start: datetime, zone: tzinfo | None) -> datetime:
    """Read or convert a time; one that the clocks have left out in spring becomes the hour after it."""
    if zone is None:
        return start
    return (start if start.tzinfo else start.replace(tzinfo=zone)).astimezone(UTC).astimezone(zone)


def _site(path: Path, name: str, settings: OriginSettings, by_name: str | None) -> str:
    if settings.site_from == "name":
        return by_name or ""
    return site_of_folders(name.split("/")[:-1] or [path.absolute().parent.name]) or ""


@cache
def find_zone(text: str) -> tzinfo | None:
    """Return a time zone by its name or offset; None for "".

    Raises:
        ConfigError: there is none of that name, or this system knows no zones.
    """
    if not text:
        return None
    offset = parse_offset(text)
    if offset is not None:
        return offset
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = available_timezones()
        if not known:
            hint = "pip install tzdata, or give an offset such as +02:00"
            raise ConfigError("timezone", f"{text!r}: this system knows no time zones", hint) from error
        by_place = {zone.rpartition("/")[2].casefold(): zone for zone in sorted(known)}
        by_place |= {zone.casefold(): zone for zone in known}
        near = difflib.get_close_matches(text.casefold().replace(" ", "_"), by_place, 1)
        hint = f"perhaps {by_place[near[0]]}" if near else "give one such as Europe/Berlin, or an offset such as +02:00"
        raise ConfigError("timezone", f"{text!r} is no time zone", hint) from error


_CODES = {
    "Y": "[0-9]{4}", "y": "[0-9]{2}", "m": "[0-9]{1,2}", "d": "[0-9]{1,2}", "b": "[A-Za-z]{3}", "j": "[0-9]{3}",
    "H": "[0-9]{1,2}", "I": "[0-9]{1,2}", "M": "[0-9]{1,2}", "S": "[0-9]{1,2}", "f": "[0-9]{1,6}", "p": "[AaPp][Mm]",
    "z": "Z|[+-][0-9]{2}:?[0-9]{2}",
}  # fmt: skip
_A_DAY = tuple(map(set, ("Ymd", "ymd", "Ybd", "ybd", "Yj", "yj")))
_A_TIME = tuple(map(set, ("H", "Ip")))
_TOKEN = re.compile(r"%(?P<code>.?)|\{(?P<field>[^}]*)\}|(?P<any>\*)|(?P<text>[^%{*]+|\{)", re.DOTALL)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Turn a pattern of names into a regular expression with a group for the site and each code."""
    parts: list[str] = []
    used: list[str] = []
    for token in _TOKEN.finditer(pattern):
        code, field = token["code"], token["field"]
        if code in _CODES:
            parts.append(f"(?P<{code}>{_CODES[code]})")
            used.append(f"%{code}")
        elif field == "site":
            parts.append("(?P<site>.+)")
            used.append("{site}")
        elif code == "%" or token["text"]:
            parts.append(re.escape(token["text"] or "%"))
        elif token["any"]:
            parts.append(".*")
        else:
            hint = f"known are {{site}}, * and {' '.join(f'%{known}' for known in _CODES)}"
            raise ConfigError("name_pattern", f"{pattern!r}: {token[0]!r} has no meaning", hint)
    twice = next((one for one in used if used.count(one) > 1), None)
    if twice or (pattern and not used):
        what = f"{twice} stands there twice" if twice else "neither a site nor a time stands there"
        raise ConfigError("name_pattern", f"{pattern!r}: {what}", "write it as {site}_%Y%m%d_%H%M%S")
    return re.compile("".join(parts), re.DOTALL)


def _by_pattern(name: str, pattern: str) -> RecordingName | None:
    """Read a name by the pattern; None where it does not fit."""
    n_parts = pattern.count("/") + 1
    found = _compiled(pattern).fullmatch("/".join(name.split("/")[-n_parts:])) if pattern else None
    if found is None:
        return None
    given = found.groupdict()
    site = given.pop("site", None)
    is_moment = any(day <= given.keys() for day in _A_DAY) and any(time <= given.keys() for time in _A_TIME)
    if not is_moment:
        return RecordingName(site=site)
    try:
        clock = datetime.strptime(" ".join(given.values()), " ".join(f"%{code}" for code in given))
    except ValueError:  # 31 February: the name means something else
        return None
    zone = parse_offset(given["z"]) if "z" in given else None
    clock = clock.replace(tzinfo=None)
    return RecordingName(site=site, start=clock if is_clock_set(clock) else None, zone=zone)
