"""``tracking.json`` in a fold's folder: which record of which tracker is the fold's, and what it has been told.

It holds ids and counts, never a credential. What is read is checked: anyone may have written it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from birdinfer.errors import MetadataError
from birdinfer.files import write_atomic

NOTES = "tracking.json"

RunId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tracker's record of the fold."""

    run_id: RunId
    epochs_told: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    is_finished: bool = False
    """Whether it was told how the fold ended."""


def read_notes(path: Path) -> dict[str, Note]:
    """Notes by tracker; empty if there are none yet.

    Raises:
        MetadataError: the file is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Note])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, OSError, RecursionError) as error:
        what = f"cannot be used ({error}), trackers begin new records"
        raise MetadataError(path, what, "delete the records of before") from error


def write_notes(path: Path, notes: Mapping[str, Note]) -> None:
    """Replace the notes.

    Raises:
        OutputError: they cannot be written.
    """
    write_atomic(path, msgspec.json.format(msgspec.json.encode(notes)) + b"\n")
