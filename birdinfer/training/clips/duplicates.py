"""Clips -> sets of clips that hold the same recording, whatever their names, collections, encodings and trims.

In: clips. Out: :class:`Duplicates`, and what a run makes of them. Fingerprints (see ``fingerprints``) meet in an index
of words: where two clips share a word, but for its doubtful bits, they are laid upon one another and compared, bit by
bit, first at a few places, then over all their overlap.
Of different recordings half the bits differ, be they of one species or not. 10,000 clips of 40 s take
750 MB at most, and 21 s on one core after they were heard, which takes 80 ms for each.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.cores import available_cores, one_thread_per_lane
from birdinfer.errors import BirdinferError
from birdinfer.training.clips.components import components
from birdinfer.training.clips.fingerprints import Fingerprint, Flags, Words, fingerprint
from birdinfer.training.clips.metadata import Clip

Int64 = npt.NDArray[np.int64]

_NEIGHBOURS = 16
"""A word's place is compared with the next so many that hold the same word: a common one would meet itself in
thousands of pairs, and copies find one another by rarer words, or hand in hand."""
_PARTS = 16
"""The index is searched in so many parts, one after another, to bound memory."""
_GLANCES = (-24, -16, -8, 8, 16, 24)
"""Words beside a shared one, so far apart that their frames have no sample in common."""
_MOST_WRONG_AT_A_GLANCE = 0.42
"""Of their bits: lets pass 98 of 100 pairs that are alike with 35 wrong bits in 100, and 2 of 100 that are not."""
_SHORTEST_OVERLAP = 16
"""Words, half a second apart from first to last: what a clip of one second has."""
_MOST_WRONG = 0.35
"""Of the bits of a long overlap; Haitsma and Kalker's threshold."""
_SPREAD, _SPREADS_AWAY = 0.86, 6.0
"""Of n words of different recordings half the bits differ, with a standard deviation of 0.86 / sqrt(32 n), measured on
20,000 pairs of stretches of real clips; what is alike must be this many of them below a half."""
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
_NOTHING = Fingerprint(np.zeros(0, np.uint32), np.zeros(0, np.uint32), np.zeros(0, np.bool_))
_LISTED = 3


class Duplicates(NamedTuple):
    """What sounds alike."""

    sets: tuple[tuple[int, ...], ...]
    """Indices of clips, two or more a set, ascending."""
    failed: tuple[str, ...]
    """Clips that could not be searched: file name and why."""


class Decision(NamedTuple):
    """What a run makes of duplicates."""

    left_out: frozenset[int]
    """Indices of clips that are not part of the run."""
    kept_together: tuple[tuple[int, ...], ...]
    """Sets of indices, for ``lay_folds``."""
    notes: tuple[str, ...]


def find_duplicates(clips: Sequence[Clip], on_progress: Callable[[int, int], None]) -> Duplicates:
    """Decode every clip once, on all cores, and compare.

    Args:
        clips: whatever cannot be decoded is told, and stops nothing.
        on_progress: called with the number of clips heard so far and of all; what it raises ends the search.

    Returns:
        Sets without a clip in common. Silence and held tones are like nothing.
    """
    prints, failed = [], []
    with one_thread_per_lane():
        for clip, heard in zip(clips, _hear(clips, on_progress), strict=True):
            prints.append(None if isinstance(heard, str) else heard)
            failed += [f"{clip.filename} ({heard})"] if isinstance(heard, str) else []
    return Duplicates(alike(prints), tuple(failed))


def decide(clips: Sequence[Clip], duplicates: Duplicates, mode: Literal["group", "remove"]) -> Decision:
    """What ``data.duplicates`` asks for.

    Args:
        clips: those that were searched.
        duplicates: what was found.
        mode: ``group`` keeps a set on one side of each fold; ``remove`` keeps the first of a set, not the longest:
            the table's order is the user's to choose, and the same in each run.
    """
    notes = [f"{len(duplicates.failed)} clips cannot be searched for duplicates: {_some(duplicates.failed)}"]
    notes = notes if duplicates.failed else []
    others = [(members[0], index) for members in duplicates.sets for index in members[1:]]
    pairs = [f"{clips[index].filename} (as {clips[first].filename})" for first, index in others]
    if pairs:
        what = "are left out" if mode == "remove" else "stay on its side"
        notes.append(f"{len(pairs)} recordings sound like another one and {what}: {_some(pairs)}")
    differing = [
        f"{clips[index].filename} ({clips[index].primary_label}, not {clips[first].primary_label})"
        for first, index in others
        if clips[index].primary_label != clips[first].primary_label
    ]
    if differing:
        notes.append(f"{len(differing)} of them have another label: {_some(differing)}")
    if mode == "remove":
        return Decision(frozenset(index for _, index in others), (), tuple(notes))
    return Decision(frozenset(), duplicates.sets, tuple(notes))


def alike(prints: Sequence[Fingerprint | None]) -> tuple[tuple[int, ...], ...]:
    """Sets of fingerprints that overlap with few wrong bits, directly or through others.

    Args:
        prints: one per clip; None is like nothing.

    Returns:
        Indices, ascending, two or more a set.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(components(len(prints), _alike_pairs(prints))):
        members[number].append(index)
    return tuple(tuple(mine) for mine in members.values() if len(mine) > 1)


def _alike_pairs(prints: Sequence[Fingerprint | None]) -> Iterator[tuple[int, int]]:
    for one, other, distance in _candidates(prints):
        first, second = prints[one] or _NOTHING, prints[other] or _NOTHING
        # The frame grids of two clips lie anywhere between one another's.
        if any(is_alike(first, second, distance + shift) for shift in (-1, 0, 1)):
            yield one, other


def is_alike(one: Fingerprint, other: Fingerprint, distance: int) -> bool:
    """Whether two clips are one recording where they overlap.

    Args:
        one: a fingerprint.
        other: another.
        distance: words by which ``other`` begins after ``one``; may be negative.

    Returns:
        Whether enough words of the overlap tell recordings apart in both, and few enough of their bits differ.
    """
    begin, end = max(0, distance), min(len(one.words), len(other.words) + distance)
    if end - begin < _SHORTEST_OVERLAP:
        return False
    here, there = slice(begin, end), slice(begin - distance, end - distance)
    both = one.tells[here] & other.tells[there]
    differing = (one.words[here] ^ other.words[there])[both]
    n_bits = 32 * len(differing)
    if len(differing) < _SHORTEST_OVERLAP:
        return False
    most_wrong = min(_MOST_WRONG, 0.5 - _SPREADS_AWAY * _SPREAD / math.sqrt(n_bits))
    return bool(_ONES[differing.view(np.uint8)].sum() < most_wrong * n_bits)


def _hear(clips: Sequence[Clip], on_progress: Callable[[int, int], None]) -> Iterator[Fingerprint | str]:
    pool = ThreadPoolExecutor(available_cores())
    try:
        for done, heard in enumerate(pool.map(_fingerprint_or_reason, clips), start=1):
            on_progress(done, len(clips))
            yield heard
    finally:
        pool.shutdown(cancel_futures=True)


def _fingerprint_or_reason(clip: Clip) -> Fingerprint | str:
    try:
        return fingerprint(clip.path)
    except BirdinferError as error:
        return error.what


class _Index(NamedTuple):
    """All fingerprints, one after another."""

    words: Words
    doubtful: Words
    telling: Int64
    """Places to look up, ascending."""
    starts: Int64
    """Place of each clip's first word, and behind the last."""


def _candidates(prints: Sequence[Fingerprint | None]) -> Iterator[tuple[int, int, int]]:
    """(one, other, distance): clips that share a word there, each named once at least."""
    rows = [_NOTHING if each is None else each for each in prints]
    words = np.concatenate([_NOTHING.words, *(row.words for row in rows)])
    telling = np.concatenate([_NOTHING.tells, *(row.tells for row in rows)])
    # A word that lasts is looked up at its beginning only: all of its places would meet all others.
    telling[1:] &= words[1:] != words[:-1]
    index = _Index(
        words,
        np.concatenate([_NOTHING.doubtful, *(row.doubtful for row in rows)]),
        np.flatnonzero(telling),
        np.cumsum([0, *(len(row.words) for row in rows)]),
    )
    span = 2 * max((len(row.words) for row in rows), default=0) + 1
    for part in range(_PARTS):
        for key in np.unique(_meetings(index, part, span)).tolist():
            pair, distance = divmod(key, span)
            yield *divmod(pair, len(prints)), distance - span // 2


def _meetings(index: _Index, part: int, span: int) -> Int64:
    """A key for each two places, in different clips, that hold the same word: the clips and their distance."""
    here, places = _entries(index, part)
    clip = np.searchsorted(index.starts, places, side="right") - 1
    keys = [np.zeros(0, np.int64)]
    for step in range(1, _NEIGHBOURS + 1):
        meets = np.flatnonzero((here[step:] == here[:-step]) & (clip[step:] != clip[:-step]))
        if not len(meets):
            continue
        # Variants of words come in no order of clips: the earlier place of the two goes first.
        one, other = np.sort([places[meets], places[meets + step]], axis=0)
        first, second = np.sort([clip[meets], clip[meets + step]], axis=0)
        distance = (one - index.starts[first]) - (other - index.starts[second])
        key = (first * (len(index.starts) - 1) + second) * span + distance + span // 2
        keys.append(key[_alike_at_a_glance(index, one, other)])
    return np.concatenate(keys)


def _entries(index: _Index, part: int) -> tuple[Words, Int64]:
    """Words sorted, and their places: each as it is, and with one or both of its doubtful bits turned."""
    words, doubtful = index.words[index.telling], index.doubtful[index.telling]
    last = doubtful & (~doubtful + np.uint32(1))
    found = []
    for turned in (np.zeros_like(last), last, doubtful ^ last, doubtful):
        variant = words ^ turned
        chosen = variant % _PARTS == part
        found.append((variant[chosen], index.telling[chosen]))
    here = np.concatenate([variant for variant, _ in found])
    order = np.argsort(here, kind="stable")
    return here[order], np.concatenate([places for _, places in found])[order]


def _alike_at_a_glance(index: _Index, one: Int64, other: Int64) -> Flags:
    """Whether words near two places are alike, too; [pairs]. Words beyond a clip's end are not looked at."""
    wrong, looked_at = np.zeros(len(one), np.int64), np.zeros(len(one), np.int64)
    clip_of_one, clip_of_other = (np.searchsorted(index.starts, place, side="right") for place in (one, other))
    for step in _GLANCES:
        inside = np.ones(len(one), np.bool_)
        for place, clip in ((one, clip_of_one), (other, clip_of_other)):
            inside &= (place + step >= index.starts[clip - 1]) & (place + step < index.starts[clip])
        differing = index.words[(one + step)[inside]] ^ index.words[(other + step)[inside]]
        wrong[inside] += _ONES[differing.view(np.uint8)].reshape(-1, 4).sum(axis=1, dtype=np.int64)
        looked_at += inside
    return wrong <= _MOST_WRONG_AT_A_GLANCE * 32 * looked_at


def _some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
