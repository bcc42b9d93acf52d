"""Clips -> a folder of decoded sound, built by however many processes at once.

In: clips. Out: :class:`~birdinfer.training.data.sources.CachedSource` over buckets, about 128 clips each, at most 128
of them (a process keeps each open, and some systems let it open 256 files). A bucket is called by the hash of the
settings and of its files' names, sizes and times, so that what is found under a name is what would be made.

A process takes a bucket by locking a file beside it; locks end with their process, however it ends. Whoever finds all
buckets taken waits for the others. A kill at any moment leaves whole buckets and, of the one that was being made, a
file under another name, which the next one to take this bucket removes.
"""

import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import OutputError
from birdinfer.system.cpu import available_cores
from birdinfer.system.files import cache_path, check_writable
from birdinfer.system.locks import try_lock
from birdinfer.system.outputs import check_folder
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.sources import (
    CachedSource,
    CacheSettings,
    ClipDecoder,
    Decoded,
    bucket_of,
    is_whole,
    write_bucket,
)

__all__ = ["CacheSettings", "build_cache", "default_folder"]

_CLIPS_PER_BUCKET, _MOST_BUCKETS = 128, 128
_POLL_SECONDS = 0.2
_SPARE_BYTES = 64e6
"""Left free for what else is written."""
_ANOTHER_DISK = "name another disk's folder with XDG_CACHE_HOME, or set data.cache = false"


class _Planned(NamedTuple):
    path: Path
    clips: tuple[Clip, ...]
    """By name."""


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/birdinfer/clips``, by default below ``~/.cache``."""
    return cache_path().parent / "clips"


def build_cache(
    clips: Sequence[Clip],
    settings: CacheSettings,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    between: Callable[[], None] = lambda: None,
) -> CachedSource:
    """Decode all clips that are not in the cache yet.

    Args:
        clips: no two with one filename.
        settings: what is done to them.
        folder: where the cache lies; None for :func:`default_folder`.
        on_progress: called after each clip with the number of clips that are ready, and of all.
        between: called between clips and while waiting; may raise to stop.

    Returns:
        Their sound. What could not be decoded, and what is odd, stands in its ``failed`` and ``notes``.

    Raises:
        OutputError: the folder cannot be written to, or the disk is too small.
        ConfigError, MissingExtraError: voices are to be removed and cannot be found here.
    """
    home = (folder or default_folder()) / settings.folder_name
    rate = settings.input_config.audio.sample_rate
    names = build_buckets(
        clips, settings.key, home, lambda: ClipDecoder(settings),
        lambda clip: round(2 * rate * settings.decoded_seconds(clip.duration_seconds)), on_progress, between,
    )  # fmt: skip
    return CachedSource(settings.input_config, home, names)


def build_buckets(
    clips: Sequence[Clip],
    key: object,
    home: Path,
    make_decoder: Callable[[], Callable[[Clip], Decoded]],
    bytes_of: Callable[[Clip], int],
    on_progress: Callable[[int, int], None],
    between: Callable[[], None],
) -> list[str]:
    """Build the buckets of clips that are not in a folder yet, and return the names of all of them.

    Args:
        clips: no two with one filename.
        key: what the content depends on besides the files; JSON.
        home: the folder.
        make_decoder: called once if anything is missing: makes what a clip's entry is, from several threads.
        bytes_of: how much of the disk a clip takes.
        on_progress: as of :func:`build_cache`.
        between: as of :func:`build_cache`.
    """
    with _Pool() as pool:
        planned = _plan(clips, key, home, pool)
        missing = [bucket for bucket in planned if not is_whole(bucket.path)]
        if missing:
            _check_space(home, sum(bytes_of(clip) for bucket in missing for clip in bucket.clips))
            _Builder(make_decoder(), pool, len(clips), on_progress, between).build(missing)
    return [bucket.path.name for bucket in planned]


class _Pool(ThreadPoolExecutor):
    def __init__(self) -> None:
        self.n_threads = available_cores()
        super().__init__(self.n_threads, "decode")

    def __exit__(self, *error: object) -> None:
        self.shutdown(cancel_futures=True)


class _Builder:
    def __init__(
        self,
        decode: Callable[[Clip], Decoded],
        pool: _Pool,
        n_clips: int,
        on_progress: Callable[[int, int], None],
        between: Callable[[], None],
    ) -> None:
        self._decode, self._pool, self._n_clips = decode, pool, n_clips
        self._on_progress, self._between = on_progress, between

    def build(self, missing: Sequence[_Planned]) -> None:
        """Until all are there, whoever has built them."""
        while missing:
            n_waiting = sum(len(bucket.clips) for bucket in missing)
            self._on_progress(self._n_clips - n_waiting, self._n_clips)
            n_built = 0
            for bucket in missing:
                self._between()
                n_built += self._build_if_free(bucket, self._n_clips - n_waiting)
                n_waiting -= len(bucket.clips) if is_whole(bucket.path) else 0
            missing = [bucket for bucket in missing if not is_whole(bucket.path)]
            if missing and not n_built:
                time.sleep(_POLL_SECONDS)
        self._on_progress(self._n_clips, self._n_clips)

    def _build_if_free(self, bucket: _Planned, n_ready: int) -> bool:
        with try_lock(bucket.path.with_name(f".{bucket.path.name}.lock")) as is_ours:
            if not is_ours or is_whole(bucket.path):
                return False
            for garbage in bucket.path.parent.glob(f".{bucket.path.name}.*.part"):
                garbage.unlink(missing_ok=True)
            write_bucket(bucket.path, self._decoded(bucket, n_ready))
        return True

    def _decoded(self, bucket: _Planned, n_ready: int) -> Iterator[Decoded]:
        ahead: deque[Future[Decoded]] = deque()
        rest = iter(bucket.clips)
        for index in range(len(bucket.clips)):
            for clip in rest:
                ahead.append(self._pool.submit(self._decode, clip))
                if len(ahead) > 2 * self._pool.n_threads:
                    break
            yield ahead.popleft().result()
            self._on_progress(n_ready + index + 1, self._n_clips)
            self._between()


def _plan(clips: Sequence[Clip], key: object, home: Path, pool: _Pool) -> list[_Planned]:
    n_buckets = min(_MOST_BUCKETS, 2 ** max(0, round(np.log2(max(1, len(clips)) / _CLIPS_PER_BUCKET))))
    held: list[list[tuple[tuple[str, int, int], Clip]]] = [[] for _ in range(n_buckets)]
    for its, clip in zip(pool.map(_file_key, clips), clips, strict=True):
        held[bucket_of(clip.filename, n_buckets)].append((its, clip))
    planned = []
    for bucket in held:
        bucket.sort(key=lambda one: one[0])
        facts = json.dumps([key, [its for its, _ in bucket]])
        name = hashlib.sha256(facts.encode()).hexdigest()[:32]
        planned.append(_Planned(home / f"{name}.clips", tuple(clip for _, clip in bucket)))
    return planned


def _file_key(clip: Clip) -> tuple[str, int, int]:
    """A file's name, size and time of change; one that is not there has neither, until it is."""
    try:
        facts = clip.path.stat()
    except OSError:
        return clip.filename, -1, -1
    return clip.filename, facts.st_size, facts.st_mtime_ns


def _check_space(home: Path, needed: int) -> None:
    """Refuse to begin what cannot be ended.

    Raises:
        OutputError: the folder cannot be made or written to, or its disk has too little space.
    """
    check_folder(home, hint=_ANOTHER_DISK)
    check_writable(home / "clips")
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    if needed + _SPARE_BYTES > free:
        raise OutputError(
            home,
            f"the cache needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free",
            _ANOTHER_DISK,
        )
