"""A bucket: one file of the cache, with the decoded sound of about a hundred clips and what is known of each.

In: clips as 16-bit counts. Out: any stretch of them as float32 [samples], memory-mapped. Little-endian; first the
counts of all clips, one after another, then their index (JSON), then a tail with the lengths of both. The index comes
last because nothing is known of a clip before it is decoded. A bucket bears its name only when it is whole (files.py).
"""

import json
import math
import struct
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.errors import InputNotFoundError
from birdinfer.files import atomic_file

Float32 = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]

FORMAT = 1
"""Part of every bucket's name: another layout never meets an old file."""

_TAIL = struct.Struct("<QQ8s")
"""Bytes of counts, bytes of the index, and:"""
_MAGIC = b"BIRDCLIP"
_MOST, _LEAST = 32_767, -32_768


class Decoded(NamedTuple):
    """A clip on its way into a bucket."""

    name: str
    counts: Int16
    """[samples]; empty if it cannot be decoded."""
    step: float
    """What one count stands for."""
    failed: str = ""
    """Why it cannot be decoded, "" if it can."""
    note: str = ""
    """What is wrong with it although it can."""
    voice_seconds: float = 0.0
    """Speech that was cut out."""


class Entry(NamedTuple):
    """A line of the index."""

    name: str
    begin: int
    """Its first count within the bucket."""
    n_samples: int
    step: float
    failed: str
    note: str
    voice_seconds: float


class Counts(NamedTuple):
    """A clip's sound where it lies; a slice of it is float32 [samples]."""

    counts: Int16
    step: float

    def __getitem__(self, stretch: slice, /) -> Float32:  # type: ignore[override]
        return np.multiply(self.counts[stretch], np.float32(self.step), dtype=np.float32)


class Bucket:
    """A bucket to read from. The file is mapped when its sound is first asked for."""

    def __init__(self, path: Path) -> None:
        """Read the index.

        Raises:
            InputNotFoundError: there is no such bucket, or it is not whole.
        """
        self._path = path
        self.entries = {entry.name: entry for entry in _read_index(path)}

    def sound(self, entry: Entry) -> Counts:
        """A clip's sound."""
        return Counts(self._counts[entry.begin : entry.begin + entry.n_samples], entry.step)

    @cached_property
    def _counts(self) -> Int16:
        n_counts = sum(entry.n_samples for entry in self.entries.values())
        # A map of nothing is refused by the system; asarray, for slices of np.memmap are slow to make.
        return np.asarray(np.memmap(self._path, "<i2", "r", 0, (n_counts,))) if n_counts else np.zeros(0, np.int16)


def write_bucket(path: Path, clips: Iterable[Decoded]) -> None:
    """Write a bucket clip by clip; nothing bears its name before it is whole.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    entries: list[Entry] = []
    n_counts = 0
    with atomic_file(path) as file:
        for clip in clips:
            file.write(clip.counts.astype("<i2", copy=False).tobytes())
            entries.append(Entry(clip.name, n_counts, len(clip.counts), *clip[2:]))
            n_counts += len(clip.counts)
        index = json.dumps(entries).encode()
        file.write(index)
        file.write(_TAIL.pack(2 * n_counts, len(index), _MAGIC))


def is_whole(path: Path) -> bool:
    """Whether there is a bucket, as long as it says it is."""
    try:
        _read_lengths(path)
    except InputNotFoundError:
        return False
    return True


def to_counts(samples: Float32) -> tuple[Int16, float]:
    """A waveform as 16-bit counts, and what one count stands for.

    The step is the smallest power of two that lets the loudest sample fit. So what was 16-bit sound before stays what
    it was, bit by bit; Vorbis may overshoot 1; and quiet clips lose nothing.

    Args:
        samples: [samples], finite.
    """
    if not len(samples):
        return np.zeros(0, np.int16), 1.0
    needed = max(float(samples.max()) / _MOST, float(samples.min()) / _LEAST)
    step = 2.0 ** math.ceil(math.log2(needed)) if needed > 0 else 1.0
    # In float64: the step of a clip that is almost silent may be too small for float32's reciprocal.
    counts = np.rint(samples / np.float64(step))
    return np.clip(counts, _LEAST, _MOST).astype(np.int16), step


def _read_lengths(path: Path) -> tuple[int, int]:
    """Bytes of the counts and of the index."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL.size))
            tail = file.read()
    except OSError as error:
        raise InputNotFoundError(path, f"cannot be read ({error.strerror})", "start again: it is made anew") from error
    n_counts, n_index, magic = _TAIL.unpack(tail) if len(tail) == _TAIL.size else (0, 0, b"")
    if magic != _MAGIC or n_counts + n_index + _TAIL.size != size:
        raise InputNotFoundError(path, "is no whole part of the cache", "start again: it is made anew")
    return n_counts, n_index


def _read_index(path: Path) -> list[Entry]:
    n_counts, n_index = _read_lengths(path)
    with path.open("rb") as file:
        file.seek(n_counts)
        index = file.read(n_index)
    try:
        return [Entry(*row) for row in json.loads(index)]
    except (ValueError, TypeError) as error:
        raise InputNotFoundError(path, f"is damaged ({error})", "delete it: it is made anew") from error
