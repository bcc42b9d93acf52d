"""Clips -> what the headers of their files say, without decoding: rate, channels, length, and what is wrong.

Copies of a file under two names are found by their bytes: only files of one size are read.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from birdinfer.audio.decoder import Decoder
from birdinfer.audio.ogg import is_ended
from birdinfer.audio.sound_file import NativeSound
from birdinfer.errors import AudioError, InputNotFoundError

_THREADS = 8
"""More than cores: a cold disk answers several questions at once."""
_PER_CALL = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    """A file by its header."""

    path: Path
    size: int = 0
    """Bytes; 0 of a file that is missing."""
    sample_rate: int = 0
    channels: int = 0
    seconds: float = 0.0
    problem: str = ""
    """What is wrong: it is truncated, or its header is."""
    is_missing: bool = False
    is_unreadable: bool = False
    """Whether training can use nothing of it."""


def read_headers(paths: Sequence[Path], on_progress: Callable[[int, int], None]) -> dict[Path, FileFacts]:
    """Read the headers of files, each once; ``on_progress`` gets the number of files done and of all."""
    distinct, found = list(dict.fromkeys(paths)), dict[Path, FileFacts]()
    pool = ThreadPoolExecutor(_THREADS)
    try:
        parts = [distinct[begin : begin + _PER_CALL] for begin in range(0, len(distinct), _PER_CALL)]
        for facts in pool.map(lambda part: [read_facts(path) for path in part], parts):
            found |= {each.path: each for each in facts}
            on_progress(len(found), len(distinct))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def read_facts(path: Path) -> FileFacts:
    """Read the header of one file, and of an Ogg its last page; a fault is a fact."""
    size = 0
    try:
        with path.open("rb") as file:
            is_ogg, size = file.read(4) == b"OggS", file.seek(0, 2)
        return _facts_of_ogg(path, size) if is_ogg else _facts_of_others(path, size)
    except (InputNotFoundError, FileNotFoundError, NotADirectoryError):
        return FileFacts(path=path, is_missing=True, problem="is missing")
    except AudioError as error:
        return FileFacts(path=path, size=size, is_unreadable=True, problem=error.what)
    except (OSError, ValueError) as error:  # ValueError: NUL in a name
        reason = getattr(error, "strerror", None) or error
        return FileFacts(path=path, is_unreadable=True, problem=f"cannot be read ({reason})")


def _facts_of_ogg(path: Path, size: int) -> FileFacts:
    """Read it as libsndfile does: all its pages, which an Ogg's reader checks, are the whole file."""
    with Decoder(path) as decoder:
        seconds = (decoder.frames or 0) / decoder.sample_rate
        problem = "" if is_ended(path) else "truncated: its last page is missing or cut"
        return FileFacts(
            path=path, size=size, sample_rate=decoder.sample_rate, channels=decoder.channels, seconds=seconds,
            problem=problem if seconds else "holds no sound", is_unreadable=not seconds,
        )  # fmt: skip


def _facts_of_others(path: Path, size: int) -> FileFacts:
    sound = NativeSound(path)
    try:
        damage, seconds = sound.check_claim(), sound.estimated_seconds
        return FileFacts(
            path=path, size=size, sample_rate=sound.sample_rate, channels=sound.channels, seconds=seconds,
            problem=damage.text if seconds else "holds no sound", is_unreadable=not seconds,
        )  # fmt: skip
    finally:
        sound.close()


def identical_files(facts: Sequence[FileFacts]) -> list[tuple[Path, ...]]:
    """Find files with the same bytes, two or more a set, in the order in which they are given."""
    of_size: dict[int, list[Path]] = defaultdict(list)
    for each in facts:
        if each.size:
            of_size[each.size].append(each.path)
    sets: dict[tuple[int, bytes], list[Path]] = defaultdict(list)
    for size, same in of_size.items():
        for path in same if len(same) > 1 else ():
            try:
                with path.open("rb") as file:
                    sets[size, hashlib.file_digest(file, "sha256").digest()].append(path)
            except OSError:  # gone meanwhile
                continue
    return [tuple(same) for same in sets.values() if len(same) > 1]
