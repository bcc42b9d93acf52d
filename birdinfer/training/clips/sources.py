"""Where a clip's sound comes from: the file, decoded as it is needed, or the cache, decoded once before.

In: a clip and a second. Out: a window with its margins, mono float32 [samples], as ``windows.py`` cuts it. A source is
handed to each worker process: it is small, and what it opens it opens there.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from birdinfer.config import Hearing
from birdinfer.errors import AudioError
from birdinfer.training.clips.bucket import Bucket, Entry
from birdinfer.training.clips.metadata import Clip
from birdinfer.windows import read_window, window_of

Float32 = npt.NDArray[np.float32]


class ClipSource(Protocol):
    """Sound of clips, cut for one model."""

    @property
    def hearing(self) -> Hearing:
        """Window length, margins and rate."""
        ...

    def duration_seconds(self, clip: Clip) -> float:
        """How long a clip is, as far as it may be heard; damaged files may hold less."""
        ...

    def window(self, clip: Clip, start_seconds: float) -> Float32:
        """A window with its margins [samples].

        Raises:
            InputNotFoundError: the file is gone.
            AudioError: the clip cannot be decoded, or holds no sound there.
        """
        ...


class DecodedSource:
    """Decodes each window out of the clip's file."""

    def __init__(self, hearing: Hearing, max_seconds: float = 0.0) -> None:
        """Hear clips as ``hearing`` says, and of each its first ``max_seconds``; 0 for all of it."""
        self.hearing, self._end_seconds = hearing, max_seconds or math.inf

    def duration_seconds(self, clip: Clip) -> float:
        """As its header claims."""
        return min(clip.duration_seconds, self._end_seconds)

    def window(self, clip: Clip, start_seconds: float) -> Float32:
        """See :class:`ClipSource`."""
        return read_window(clip.path, start_seconds, self.hearing, self._end_seconds)


class CachedSource:
    """Reads windows out of the cache that :func:`~birdinfer.training.clips.cache.build_cache` has built."""

    def __init__(self, hearing: Hearing, folder: Path, buckets: Sequence[str]) -> None:
        """Hear what lies in a cache.

        Args:
            hearing: window length and margins; its rate is the cache's.
            folder: where the buckets lie.
            buckets: the name of each; a clip's name says in which of them it is.
        """
        self.hearing, self._folder, self._names = hearing, folder, tuple(buckets)
        self._open: dict[int, Bucket] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: 50,000 clips travel to a worker as the names of at most 128 buckets."""
        return {**self.__dict__, "_open": {}}

    def duration_seconds(self, clip: Clip) -> float:
        """As long as it really is, people's voices left out; 0 if it could not be decoded."""
        return self._find(clip)[1].n_samples / self.hearing.audio.sample_rate

    def window(self, clip: Clip, start_seconds: float) -> Float32:
        """See :class:`ClipSource`."""
        bucket, entry = self._find(clip)
        if entry.failed:
            raise AudioError(clip.path, entry.failed)
        begin = round(start_seconds * self.hearing.audio.sample_rate)
        return window_of(bucket.sound(entry), begin, self.hearing, clip.path)

    @property
    def bytes(self) -> int:
        """How much of the disk it takes."""
        return sum((self._folder / name).stat().st_size for name in self._names)

    @property
    def failed(self) -> tuple[str, ...]:
        """Clips that could not be decoded, a line each."""
        return tuple(f"{entry.name} ({entry.failed})" for entry in self._entries() if entry.failed)

    @property
    def notes(self) -> tuple[str, ...]:
        """Clips with which something is wrong although they are heard, a line each."""
        return tuple(f"{entry.name} ({entry.note})" for entry in self._entries() if entry.note)

    @property
    def voice_seconds(self) -> float:
        """Speech that was cut out of all clips."""
        return math.fsum(entry.voice_seconds for entry in self._entries())

    def _entries(self) -> list[Entry]:
        """All that is known, by clip's name."""
        found = [entry for index in range(len(self._names)) for entry in self._bucket(index).entries.values()]
        return sorted(found)

    def _bucket(self, index: int) -> Bucket:
        if index not in self._open:
            self._open[index] = Bucket(self._folder / self._names[index])
        return self._open[index]

    def _find(self, clip: Clip) -> tuple[Bucket, Entry]:
        bucket = self._bucket(bucket_of(clip.filename, len(self._names)))
        entry = bucket.entries.get(clip.filename)
        if entry is None:
            raise AudioError(clip.path, "is not in the cache")
        return bucket, entry


def bucket_of(filename: str, n_buckets: int) -> int:
    """In which bucket a clip lies; even over the buckets, the same on every machine."""
    digest = hashlib.sha256(filename.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") % n_buckets
