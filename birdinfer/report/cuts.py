"""Clips -> those that may be cut from one long recording: alike for a classifier, and not independent of one another.

A rule of thumb, for nothing in a table says it: one author, place and day with adjoining numbers in the files' names
(uploads of one session among them), names that differ in the number of a part only, or names whose clocks adjoin.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from birdinfer.report.listing import ListedClip
from birdinfer.tables.recording_names import parse_name

_NUMBER = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)")
_MOST_STEP = 3
"""Between the numbers of neighbours: a data set holds some of the clips that a collection has."""
_PART_DIGITS = 3
"""Longer numbers are a collection's, in which strangers' recordings adjoin."""
_MOST_PAUSE_SECONDS = 5.0
"""Between the end of one file and the beginning of the next one, by their clocks."""


def cut_recordings(clips: Sequence[ListedClip], seconds: Sequence[float]) -> list[tuple[int, ...]]:
    """Find sets of whole files that may be parts of one recording.

    Args:
        clips: parts of files are left out, for their file is known.
        seconds: how long each is.

    Returns:
        Indices of clips, two or more a set, in the order of their numbers or clocks.
    """
    numbered: dict[tuple[str, ...], list[tuple[float, float, int]]] = defaultdict(list)
    for index, each in enumerate(clips):
        if not each.clip.is_part:
            for key, begin, end in _positions(each, seconds[index]):
                numbered[key].append((begin, end, index))
    found = [part for same in numbered.values() for part in _chains(sorted(same))]
    return sorted({tuple(part) for part in found if len(part) > 1})


def _positions(listed: ListedClip, seconds: float) -> Iterator[tuple[tuple[str, ...], float, float]]:
    """Yield what recordings of a chain share, and from where to where a clip reaches along it."""
    clip, stem = listed.clip, PurePosixPath(listed.clip.filename).stem
    named = parse_name(stem)
    if named.start is not None:
        begin = named.start.timestamp()
        yield ("clock", clip.author, named.site or ""), begin, begin + seconds + _MOST_PAUSE_SECONDS
        return
    split = _NUMBER.fullmatch(stem)
    if split is None:
        return
    before, number, behind = split[1], int(split[2]), split[3]
    if any(sign.isdecimal() for sign in before) and len(split[2]) <= _PART_DIGITS:
        yield ("part", before, behind), number, number + 1
    elif clip.author and (clip.site or listed.date):
        yield ("session", before, behind, clip.author, clip.site, listed.date), number, number + _MOST_STEP


def _chains(positions: Sequence[tuple[float, float, int]]) -> Iterator[list[int]]:
    chain: list[int] = []
    reached = float("-inf")
    for begin, end, index in positions:
        if begin > reached:
            yield chain
            chain = []
        chain.append(index)
        reached = end
    yield chain
