"""What it costs to store a run's progress: a commit for each finished file, and reading all of it back."""

import contextlib
import sqlite3
import time
from pathlib import Path

import numpy as np

from birdinfer.audio.status import Status
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.identity import RunIdentity
from birdinfer.prediction.store import RunStore

N_FILES = 3_000
N_ROWS, N_LABELS = 12, 206
IDENTITY = RunIdentity("bundle", "", "onnxruntime:fp32", "1.0", "0.1")


def plain_inserts(path, rows):
    """The same bytes by nothing but sqlite3, a commit for each file; ms a file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE chunks (file INTEGER PRIMARY KEY, rows BLOB)")
        began = time.perf_counter()
        for index in range(N_FILES):
            connection.execute("INSERT INTO chunks VALUES (?, ?)", (index, rows.tobytes()))
            connection.commit()
        return (time.perf_counter() - began) / N_FILES * 1_000


def test_a_commit_for_each_file(table, tmp_path):
    rows = np.random.default_rng(0).random((N_ROWS, N_LABELS), np.float32)
    paths = [tmp_path / f"soundscape_{index}.ogg" for index in range(N_FILES)]
    for path in paths:
        path.touch()
    plain_ms = plain_inserts(tmp_path / "plain.sqlite", rows)
    with RunStore(tmp_path / "submission.csv", N_LABELS) as store:
        store.begin(IDENTITY)
        began = time.perf_counter()
        for path in paths:
            store.note_opened(path)
            store.add(path, rows)
            store.finish(SoundscapeResult(path, Status.ok, n_rows=N_ROWS, seconds=60.0))
        commit_ms = (time.perf_counter() - began) / N_FILES * 1_000
    with RunStore(tmp_path / "submission.csv", N_LABELS) as store:
        began = time.perf_counter()
        assert len(store.resume(IDENTITY, paths)) == N_FILES
        resume_ms = (time.perf_counter() - began) / N_FILES * 1_000
        last = store.scores.row(Path(paths[-1]), 3)
        assert last is not None
        assert np.array_equal(last, rows[3])
    table.append(
        {
            "what": f"progress of a run, {N_FILES:,} files of {N_ROWS} x {N_LABELS} scores, a commit for each",
            "measured": f"{commit_ms / plain_ms:.2f} of a plain insert with its commit",
            "bound": "<= 4",
            "detail": f"{commit_ms:.2f} ms a file, plain {plain_ms:.2f}; "
            f"{resume_ms:.2f} ms a file to resume, with checksums",
        }
    )
    assert commit_ms <= 4 * plain_ms
