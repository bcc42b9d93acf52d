"""Clips -> sets of clips that hold the same recording, whatever their names, collections, encodings and trims.

In: clips. Out: :class:`Duplicates`, and what a run makes of them. Fingerprints (see ``fingerprints``) meet in an index
of words: where two clips share a word, but for its doubtful bits, they are aligned and compared, bit by bit, first
at a few places, then over all their overlap.
Of different recordings half the bits differ, be they of one species or not. 10,000 clips of 40 s take
750 MB at most, and 21 s on one core, and 80 ms each to decode them.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from birdinfer.audio.stream import AudioStream
from birdinfer.errors import BirdinferError
from birdinfer.system.cpu import available_cores, one_thread_per_worker
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.sources import Decoded
from birdinfer.typing import Bool, Float32, Int64, UInt32

# ---- Links between numbered things -> the sets that hang together, directly or through others (union-find)


def components(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Number the sets of ``n`` things that pairs of indices link: a set per thing, from 0 in order of appearance."""
    parent = list(range(n))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]  # halve the path, so that later walks are short
            index = parent[index]
        return index

    for one, other in links:
        parent[root(other)] = root(one)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(n)]


# ---- Fingerprints: 32-bit words that stay nearly the same when the sound is encoded again


SAMPLE_RATE = 16_000
FRAME_SECONDS = 0.256
HOP_SECONDS = 0.032
LONGEST_SECONDS = 600.0
"""More of a clip is not fingerprinted: 170 kB a clip at most."""

_FRAME, _HOP = round(FRAME_SECONDS * SAMPLE_RATE), round(HOP_SECONDS * SAMPLE_RATE)
_LAG = _FRAME // _HOP
_N_DOUBTFUL = 2
_N_BANDS = 33
_LOW_HZ, _HIGH_HZ = 500.0, 7_500.0
_SILENCE = 1e-12
"""Mean square within the bands, -120 dB: below lies what arithmetic leaves of digital silence."""
_LEAST_CHANGE = 0.05
"""Of a frame's energy, the part that must have moved between bands since the earlier frame: a held tone's bits say
nothing of the recording. In bird clips it is a twentieth or more in 99.9 of 100 frames. (A tone out of an encoder may
move as much; its bits are then chance.)"""
_CHUNK_FRAMES = 512
"""Frames transformed at once: 8 MB."""


class Fingerprint(NamedTuple):
    """What is kept of a clip's sound."""

    words: UInt32
    """Sub-fingerprints [n], 32 ms apart."""
    doubtful: UInt32
    """[n]: the two bits of a word that another encoding changes most easily are 1, the others 0."""
    distinctive: Bool
    """[n]: whether there is sound that changes, so that the word distinguishes recordings."""

    @property
    def seconds(self) -> float:
        """Sound that was fingerprinted, s."""
        return len(self.words) * HOP_SECONDS


def fingerprint(path: Path) -> Fingerprint:
    """Decode a file forward, as far as it goes and not beyond :data:`LONGEST_SECONDS`.

    Returns:
        n sub-fingerprints; none of a clip shorter than 0.512 s.

    Raises:
        InputNotFoundError: there is no such file.
        AudioError: not one sample can be decoded.
    """
    with AudioStream(path, SAMPLE_RATE) as stream:
        return of_blocks(stream.blocks())


def of_blocks(blocks: Iterable[Float32]) -> Fingerprint:
    """Fingerprint a waveform at 16 kHz that comes in blocks [samples]; more than it needs is not taken."""
    pieces, kept = [np.zeros((0, _N_BANDS), np.float32)], np.zeros(0, np.float32)
    n_left = round(LONGEST_SECONDS * SAMPLE_RATE)
    for block in blocks:
        kept = np.concatenate([kept, block[:n_left]])
        n_left -= len(block)
        energies = band_energies(kept)
        pieces.append(energies)
        kept = kept[len(energies) * _HOP :]
        if n_left <= 0:
            break
    return of_energies(np.concatenate(pieces))


def band_energies(samples: Float32) -> Float32:
    """Mean square per band of each whole frame.

    Args:
        samples: waveform [samples] at 16 kHz.

    Returns:
        [frames, 33], >= 0; frame n begins at sample 512 n.
    """
    if len(samples) < _FRAME:
        return np.zeros((0, _N_BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_HOP]
    energies = [_energies(frames[begin : begin + _CHUNK_FRAMES]) for begin in range(0, len(frames), _CHUNK_FRAMES)]
    return np.concatenate(energies)


def of_energies(energies: Float32) -> Fingerprint:
    """Band energies [frames, 33] -> sub-fingerprints of all frames but the first eight."""
    slope = energies[:, :-1] - energies[:, 1:]
    growth = slope[_LAG:] - slope[:-_LAG]
    around = energies[:, :-1] + energies[:, 1:]
    certainty = np.abs(growth) / (around[_LAG:] + around[:-_LAG] + np.finfo(np.float32).tiny)
    doubtful = np.zeros(growth.shape, np.bool_)
    np.put_along_axis(doubtful, np.argpartition(certainty, _N_DOUBTFUL, axis=1)[:, :_N_DOUBTFUL], True, axis=1)
    power = energies[_LAG:].sum(axis=1)
    distinctive = (power > _SILENCE) & (np.abs(growth).sum(axis=1) > _LEAST_CHANGE * power)
    return Fingerprint(_packed(growth > 0), _packed(doubtful), distinctive)


def _packed(bits: Bool) -> UInt32:
    return np.packbits(bits, axis=1).view(">u4").ravel().astype(np.uint32)


def _energies(frames: Float32) -> Float32:
    window, first, bands = _window_and_bands()
    spectrum = np.fft.rfft(frames * window, axis=1)[:, first : first + len(bands)]
    power: Float32 = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32, copy=False)
    return power @ bands


@functools.cache
def _window_and_bands() -> tuple[Float32, int, Float32]:
    """A Hann window [samples] that gives mean squares; the first bin needed; which band a bin is in [bins, 33]."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    scaled = hann * np.sqrt(2 / (_FRAME * np.square(hann).sum()))  # Parseval; twice, for the negative half
    edges = np.round(np.geomspace(_LOW_HZ, _HIGH_HZ, _N_BANDS + 1) * FRAME_SECONDS).astype(np.intp)
    band = np.searchsorted(edges, np.arange(edges[0], edges[-1]), side="right") - 1
    return scaled.astype(np.float32), int(edges[0]), np.eye(_N_BANDS, dtype=np.float32)[band]


_NEIGHBOURS = 16
"""A word's place is compared with the next so many that hold the same word: a common one would meet itself in
thousands of pairs, and copies find one another by rarer words, or hand in hand."""
_PARTS = 16
"""The index is searched in so many parts, one after another, to bound memory."""
_GLANCES = (-24, -16, -8, 8, 16, 24)
"""UInt32 beside a shared one, so far apart that their frames have no sample in common."""
_MOST_WRONG_AT_A_GLANCE = 0.42
"""Of their bits: lets pass 98 of 100 pairs that are alike with 35 wrong bits in 100, and 2 of 100 that are not."""
_SHORTEST_OVERLAP = 16
"""UInt32, half a second apart from first to last: what a clip of one second has."""
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
    pairs: tuple[tuple[int, int], ...] = ()
    """Indices of two clips each that are alike themselves, not through others."""


class Overlap(NamedTuple):
    """Two clips that are one recording where they overlap."""

    one: int
    """Index of a clip."""
    other: int
    shift_seconds: float
    """From the first sample of the one to that of the other."""
    seconds: float
    """That both have in common."""


class Decision(NamedTuple):
    """What a run makes of duplicates."""

    left_out: frozenset[int]
    """Indices of clips that are not part of the run."""
    kept_together: tuple[tuple[int, ...], ...]
    """Sets of indices, for ``assign_folds``."""
    notes: tuple[str, ...]


def find_duplicates(
    clips: Sequence[Clip],
    on_progress: Callable[[int, int], None],
    decode: Callable[[Clip], Decoded] | None = None,
) -> Duplicates:
    """Decode every clip once, on all cores, and compare.

    Args:
        clips: those that cannot be decoded are reported, and stop nothing.
        on_progress: called with the number of clips fingerprinted so far and of all; what it raises ends the search.
        decode: gives a clip's sound at 16 kHz as training takes it, without voices; None for all of its file.

    Returns:
        Sets without a clip in common. Silence and held tones are like nothing.
    """
    prints, failed = [], []
    with one_thread_per_worker():
        for clip, found in zip(clips, _fingerprints(clips, on_progress, decode), strict=True):
            prints.append(None if isinstance(found, str) else found)
            failed += [f"{clip.filename} ({found})"] if isinstance(found, str) else []
    pairs = tuple(sorted({pair[:2] for pair in _alike_pairs(prints)}))
    return Duplicates(_sets(len(prints), pairs), tuple(failed), pairs)


def decide(clips: Sequence[Clip], duplicates: Duplicates, mode: Literal["group", "remove"]) -> Decision:
    """What ``data.duplicates`` asks for.

    Args:
        clips: those that were searched.
        duplicates: what was found.
        mode: ``group`` keeps a set on one side of each fold; ``remove`` keeps the first of each label in a set, not the
            longest: the table's order is the user's to choose, and the same in each run. What has another label may
            share no more than an announcement, and stays: on the same side.
    """
    notes = [f"{len(duplicates.failed)} clips cannot be searched for duplicates: {_some(duplicates.failed)}"]
    notes = notes if duplicates.failed else []
    left_out: dict[int, int] = {}
    together = []
    for members in duplicates.sets:
        first: dict[str, int] = {}
        for index in members:
            kept = first.setdefault(clips[index].primary_label, index) if mode == "remove" else index
            left_out |= {index: kept} if kept != index else {}
        together.append(tuple(index for index in members if index not in left_out))
    pairs = [f"{clips[index].filename} (as {clips[kept].filename})" for index, kept in left_out.items()]
    if pairs:
        notes.append(f"{len(pairs)} recordings sound like another one and are left out: {_some(pairs)}")
    others = [(members[0], index) for members in together for index in members[1:]]
    pairs = [f"{clips[index].filename} (as {clips[first].filename})" for first, index in others]
    if pairs:
        notes.append(f"{len(pairs)} recordings sound like another one and stay on its side: {_some(pairs)}")
    differing = [
        f"{clips[index].filename} ({clips[index].primary_label}, not {clips[first].primary_label})"
        for first, index in others
        if clips[index].primary_label != clips[first].primary_label
    ]
    if differing:
        notes.append(f"{len(differing)} of them have another label: {_some(differing)}")
    return Decision(frozenset(left_out), tuple(members for members in together if len(members) > 1), tuple(notes))


def alike(prints: Sequence[Fingerprint | None]) -> tuple[tuple[int, ...], ...]:
    """Indices of clips whose fingerprints overlap with few wrong bits, two or more a set, linked directly or not."""
    return _sets(len(prints), (pair[:2] for pair in _alike_pairs(prints)))


def _sets(n_clips: int, pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    members: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(components(n_clips, pairs)):
        members[number].append(index)
    return tuple(tuple(mine) for mine in members.values() if len(mine) > 1)


def overlaps(prints: Sequence[Fingerprint | None]) -> list[Overlap]:
    """List the pairs of clips that sound alike, each once with its longest overlap, by their indices."""
    longest: dict[tuple[int, int], Overlap] = {}
    for pair in _alike_pairs(prints):
        known = longest.setdefault((pair.one, pair.other), pair)
        longest[pair.one, pair.other] = max(known, pair, key=lambda each: each.seconds)
    return [longest[key] for key in sorted(longest)]


def _alike_pairs(prints: Sequence[Fingerprint | None]) -> Iterator[Overlap]:
    for one, other, distance in _candidates(prints):
        first, second = prints[one] or _NOTHING, prints[other] or _NOTHING
        # The frame grids of two clips lie anywhere between one another's.
        if any(is_alike(first, second, distance + shift) for shift in (-1, 0, 1)):
            n_words = min(len(first.words), len(second.words) + distance) - max(0, distance)
            # A word reaches over its own frame and the one eight hops before.
            yield Overlap(one, other, distance * HOP_SECONDS, (n_words - 1) * HOP_SECONDS + 2 * FRAME_SECONDS)


def is_alike(one: Fingerprint, other: Fingerprint, distance: int) -> bool:
    """Whether two clips are one recording where they overlap; ``other`` begins ``distance`` words after ``one``.

    Enough words of the overlap have to be distinctive in both, and few enough of their bits may differ.
    """
    begin, end = max(0, distance), min(len(one.words), len(other.words) + distance)
    if end - begin < _SHORTEST_OVERLAP:
        return False
    here, there = slice(begin, end), slice(begin - distance, end - distance)
    both = one.distinctive[here] & other.distinctive[there]
    differing = (one.words[here] ^ other.words[there])[both]
    n_bits = 32 * len(differing)
    if len(differing) < _SHORTEST_OVERLAP:
        return False
    most_wrong = min(_MOST_WRONG, 0.5 - _SPREADS_AWAY * _SPREAD / math.sqrt(n_bits))
    return bool(_ONES[differing.view(np.uint8)].sum() < most_wrong * n_bits)


def _fingerprints(
    clips: Sequence[Clip], on_progress: Callable[[int, int], None], decode: Callable[[Clip], Decoded] | None
) -> Iterator[Fingerprint | str]:
    pool = ThreadPoolExecutor(available_cores())
    try:
        for done, found in enumerate(pool.map(partial(_fingerprint_or_reason, decode=decode), clips), start=1):
            on_progress(done, len(clips))
            yield found
    finally:
        pool.shutdown(cancel_futures=True)


def _fingerprint_or_reason(clip: Clip, decode: Callable[[Clip], Decoded] | None) -> Fingerprint | str:
    if decode is not None:
        decoded = decode(clip)
        samples = np.multiply(decoded.counts, np.float32(decoded.step), dtype=np.float32)
        return decoded.failed or of_energies(band_energies(samples))
    try:
        return fingerprint(clip.path)
    except BirdinferError as error:
        return error.what


class _Index(NamedTuple):
    words: UInt32
    doubtful: UInt32
    telling: Int64
    """Places to look up, ascending."""
    starts: Int64
    """Place of each clip's first word, and behind the last."""


def _candidates(prints: Sequence[Fingerprint | None]) -> Iterator[tuple[int, int, int]]:
    """(one, other, distance): clips that share a word there, each named once at least."""
    rows = [_NOTHING if each is None else each for each in prints]
    words = np.concatenate([_NOTHING.words, *(row.words for row in rows)])
    telling = np.concatenate([_NOTHING.distinctive, *(row.distinctive for row in rows)])
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


def _entries(index: _Index, part: int) -> tuple[UInt32, Int64]:
    """UInt32 sorted, and their places: each as it is, and with one or both of its doubtful bits turned."""
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


def _alike_at_a_glance(index: _Index, one: Int64, other: Int64) -> Bool:
    """Whether words near two places are alike, too; [pairs]. UInt32 beyond a clip's end are not looked at."""
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
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
