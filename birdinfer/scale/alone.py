"""Files of a unit, one by one in a process of their own: where that dies, it is known at which file.

That process runs :mod:`birdinfer.scale.one_by_one`.
"""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from birdinfer.errors import BirdinferError
from birdinfer.scale.marker import FileRecord, read_tables

MOST_KILLS = 2
"""Kills of the process at one file after which this file is given up."""


def predict_alone(uri: str, unit: int, n_files: int, scratch: Path) -> list[tuple[list[FileRecord], Any] | str]:
    """Predict the files of a unit one by one: each one's record and tables, or how its process has died."""
    folder = scratch / f"alone-{unit}"
    folder.mkdir(exist_ok=True)
    kills: dict[int, list[str]] = {}

    def is_left(index: int) -> bool:
        return not _is_done(folder, index) and len(kills.get(index, ())) < MOST_KILLS

    while left := [index for index in range(n_files) if is_left(index)]:
        command = [sys.executable, "-m", "birdinfer.scale.one_by_one", uri, str(unit), str(folder), *map(str, left)]
        ended = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ended.returncode > 0:  # not killed: it says what does not work, which no file is to blame for
            raise BirdinferError(uri, f"unit {unit}: {(ended.stderr.strip() or 'it ended').splitlines()[-1]}")
        still = [index for index in left if not _is_done(folder, index)]
        if still:
            kills.setdefault(still[0], []).append(_how_killed(ended.returncode))
    outcomes: list[tuple[list[FileRecord], Any] | str] = []
    for index in range(n_files):
        if _is_done(folder, index):
            record = msgspec.json.decode((folder / f"{index}.json").read_bytes(), type=FileRecord)
            contents = {
                path.name.split(".")[1]: path.read_bytes() for path in sorted(folder.glob(f"{index}.*.parquet"))
            }
            outcomes.append(([record], read_tables(contents)))
        else:
            outcomes.append(f"its process died each time: {', '.join(kills[index])}")
    return outcomes


def _is_done(folder: Path, index: int) -> bool:
    return (folder / f"{index}.json").is_file()


def _how_killed(code: int) -> str:
    name = signal.Signals(-code).name if code else "it left without a result"
    return f"{name}, perhaps for lack of memory" if name == "SIGKILL" else name
