"""How long the hidden run will take: when files were done in a short run -> seconds for all of a competition's files.

A run's first round (a file for each lane) pays for loading, measuring and allocation, which does not grow with the
files. What comes after it does:

    forecast = seconds of the run + (files to come) x (seconds between one file and the next, after the first round).

The notebook imports this room on Kaggle, so it needs nothing but the standard library.
"""

import csv
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_LOOK_SECONDS = 0.05


class Done(NamedTuple):
    """A moment at which files were done."""

    seconds: float
    """Since the clock was started."""
    n_files: int
    """So many, all told."""


class FileClock:
    """Looks, while it is entered, at how many files the prediction below a folder has finished, and when.

    It counts the lines that ``birdinfer predict`` adds to ``NAME.csv.progress/done.jsonl`` (:mod:`birdinfer.journal`).
    """

    def __init__(self, working: Path) -> None:
        """Look at nothing yet.

        Args:
            working: the folder in which tables are written.
        """
        self.done: list[Done] = []
        self._working = working
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "FileClock":
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        n_files = _lines_in(self._working)
        if n_files > (self.done[-1].n_files if self.done else 0):
            self.done.append(Done(time.monotonic() - self._began, n_files))


def forecast(
    done: Sequence[Done], run_seconds: float, n_hidden_files: int, length_ratio: float = 1.0, lanes: int | None = None
) -> float | None:
    """Seconds that a run over all hidden files will take.

    Args:
        done: what a :class:`FileClock` saw of a run over equally long files.
        run_seconds: of that run, from its very beginning to its end.
        n_hidden_files: files of the hidden run.
        length_ratio: length of a hidden file over that of a file heard.
        lanes: files that were heard at a time; None: one for each core that this process may use.

    Returns:
        None if it cannot be told: too few files, or too short ones.
    """
    file_seconds = seconds_per_file(done, lanes or len(os.sched_getaffinity(0)))
    if file_seconds is None:
        return None
    return run_seconds + (n_hidden_files * length_ratio - done[-1].n_files) * file_seconds


def seconds_per_file(done: Sequence[Done], lanes: int) -> float | None:
    """Seconds from one file to the next, all lanes together, the first round left out; None where that cannot be seen.

    Of less than two rounds the first half of the files is left out.
    """
    if not done:
        return None
    last = done[-1]
    n_first = min(lanes, last.n_files // 2)
    first = next(one for one in done if one.n_files >= n_first)
    if first.n_files == last.n_files:
        return None
    return (last.seconds - first.seconds) / (last.n_files - first.n_files)


def mean_seconds(side_table: Path, otherwise: float) -> float:
    """Mean sound in a file, in seconds, by the table beside a result; ``otherwise`` if nothing was heard.

    A file that held none counts too, as it does for a :class:`FileClock`.
    """
    with side_table.open(newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return sum(seconds) / len(seconds) if sum(seconds) > 0 else otherwise


def _lines_in(working: Path) -> int:
    """Files that the run whose journal lies there has finished."""
    try:
        return max((path.read_bytes().count(b"\n") for path in working.glob("*.progress/done.jsonl")), default=0)
    except OSError:  # the journal goes when the table is written
        return 0
