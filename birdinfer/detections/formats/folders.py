"""Write a folder with a table for each recording, in the folders of the input; it appears whole or not at all.

Names are such that any disk takes them, also one of Windows, and no two recordings share a table: what a disk does not
distinguish (case, the form of an accent) is found by asking it.
"""

import contextlib
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import Found, plain_text
from birdinfer.detections.recordings import Recording
from birdinfer.system.files import atomic_folder, check_replaceable

KIND = "tables of birdinfer"
HINT = "name another folder for the results, or remove it"
MARKER = ".birdinfer"
"""In each folder of tables: one that has it may be replaced."""

_NOT_IN_NAMES = re.compile(r'[<>:"|?*\\]|[. ]$')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:[.].*)?", re.IGNORECASE)
"""Devices of Windows."""
_MOST_BYTES = 200
"""Of a name without its ending: 255 are allowed, and a temporary name is longer."""


@contextlib.contextmanager
def tables_folder(path: Path) -> Iterator[Path]:
    """Make a folder of tables that replaces an older one; OutputError if it holds anything else."""
    with atomic_folder(path, KIND, HINT, MARKER) as folder:
        (folder / MARKER).touch()
        yield folder


def check_tables_folder(path: Path) -> None:
    """Check before hours of work that a folder of tables can be written; errors as of :func:`tables_folder`."""
    check_replaceable(path, KIND, HINT, MARKER)


def write_per_recording(
    path: Path, ending: str, found: Found, write: Callable[[TextIO, Recording, Sequence[Detection]], None]
) -> None:
    """Write a folder with a table for each recording of which sound was processed.

    Args:
        path: the folder.
        ending: of the tables' names, which are otherwise those of the recordings.
        found: recordings and their detections.
        write: writes one table.
    """
    with tables_folder(path) as folder:
        for recording, detections in found():
            if recording.seconds > 0:
                with _free_path(folder, recording.name, ending).open("x", encoding="utf-8", newline="") as text:
                    write(text, recording, detections)


def _free_path(folder: Path, name: str, ending: str) -> Path:
    *above, last = [safe_name(part) for part in name.split("/") if part] or ["_"]
    # A folder of a table's name would stand in the way of the table.
    parent = folder.joinpath(*(f"{part}_" if part.lower().endswith(ending) else part for part in above))
    parent.mkdir(parents=True, exist_ok=True)
    numbered = itertools.chain([""], (f"~{number}" for number in itertools.count(2)))
    return next(path for each in numbered if not (path := parent / f"{last}{each}{ending}").exists())


def safe_name(name: str) -> str:
    r"""Spell the name of a file or folder so that any disk takes it.

    >>> safe_name("2024-01-01-birdnet-06:00:00"), safe_name(".."), safe_name("nul"), safe_name("a\n")
    ('2024-01-01-birdnet-06_00_00', '_._', '_nul', 'a_x0a')
    """
    safe = _NOT_IN_NAMES.sub("_", plain_text(name))
    if safe.startswith(".") or _RESERVED.fullmatch(safe):  # hidden, or the folder above
        safe = f"_{safe}"
    if len(safe.encode()) > _MOST_BYTES:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        safe = f"{safe.encode()[: _MOST_BYTES - 9].decode(errors='ignore')}~{digest}"
    return safe
