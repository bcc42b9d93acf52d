"""Runs odd inputs and reports the outcome, in child processes where one might crash or hang the interpreter."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lies import KINDS, broken_law, odd_sound
from mutants import audio_seeds, mutate, odd_audio, odd_json, odd_name, odd_table

from birdinfer.errors import BirdinferError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.predictor import Predictor, make_plan

DECODE_FILES = Path(__file__).with_name("decode_files.py")


@dataclass
class Tally:
    """What became of a kind of input."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    """Crashes, hangs, and exceptions that are not birdinfer's own, each with its input."""
    longest_seconds: float = 0.0


def fuzz_audio(folder: Path, n_inputs: int, seed: int, limit_seconds: float = 120.0, batch: int = 500) -> Tally:
    """Decode damaged files in batches, each in a process of its own; files at fault stay in the folder."""
    (folder / "seeds").mkdir(parents=True, exist_ok=True)
    seeds = audio_seeds(folder / "seeds")
    tally = Tally()
    for begin in range(0, n_inputs, batch):
        files = folder / f"{begin:06d}"
        files.mkdir()
        for number in range(begin, min(begin + batch, n_inputs)):
            suffix, raw = odd_audio(np.random.default_rng([seed, number]), seeds)
            (files / f"{number:06d}{suffix}").write_bytes(raw)
        _decode_batch(files, tally, limit_seconds)
    return tally


def _decode_batch(files: Path, tally: Tally, limit_seconds: float) -> None:
    log = files.with_suffix(".log")
    n_files = len(list(files.iterdir()))
    while not log.exists() or len(log.read_text().splitlines()) < n_files:
        end = _decode_in_child(files, log, limit_seconds)
        lines = log.read_text().splitlines() if log.exists() else []
        if not lines or "\t" in lines[-1]:
            assert not end or lines, f"{files}: {end}"
            if end:
                tally.faults.append(f"{files}: {end}")
                break
        else:  # it went down with this file
            with log.open("a") as text:
                text.write(f"\t{limit_seconds if 'limit' in end else 0:.3f}\tfault: {end}\n")
    for line in log.read_text().splitlines():
        name, seconds, outcome = line.split("\t", 2)
        tally.inputs += 1
        tally.read += outcome == "read"
        tally.refused += outcome == "refused"
        tally.longest_seconds = max(tally.longest_seconds, float(seconds))
        if outcome not in ("read", "refused"):
            tally.faults.append(f"{files / name}: {outcome}")
        else:
            (files / name).unlink()


def _decode_in_child(files: Path, log: Path, limit_seconds: float) -> str:
    """How the process ended, "" if as it should."""
    try:
        child = subprocess.run(
            [sys.executable, str(DECODE_FILES), str(files), str(log)],
            capture_output=True, text=True, timeout=limit_seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"over the limit of {limit_seconds:g} s"
    # What libmpg123 notes of damaged MP3s on its own is no more than noise.
    if child.returncode or "Traceback" in child.stderr:
        return f"exit {child.returncode}: {child.stderr[-300:]!r}"
    return ""


def fuzz_headers(folder: Path, n_inputs: int, seed: int) -> Tally:
    """Read files whose headers lie and whose ends are cut off; a fault is what breaks the law of tests/lies.py."""
    tally = Tally()
    for number in range(n_inputs):
        kind = KINDS[number % len(KINDS)]
        began = time.perf_counter()
        wrong = broken_law(odd_sound(np.random.default_rng([seed, number]), kind), folder)
        tally.inputs, tally.read = tally.inputs + 1, tally.read + (not wrong)
        tally.longest_seconds = max(tally.longest_seconds, time.perf_counter() - began)
        if wrong:
            tally.faults.append(f"{kind}, seed [{seed}, {number}]: {wrong}")
    return tally


def fuzz_bundles(source: Path, folder: Path, n_inputs: int, seed: int) -> Tally:
    """Load bundles whose manifest or graph is damaged, and get them ready to predict."""
    manifest = (source / "manifest.json").read_bytes()
    graphs = {path.name: path.read_bytes() for path in source.glob("*.onnx")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in graphs.items():
        (folder / name).write_bytes(raw)

    def load(rng: np.random.Generator) -> None:
        spoiled = str(rng.choice(list(graphs))) if rng.random() < 0.1 else ""
        (folder / "manifest.json").write_bytes(manifest if spoiled else odd_json(rng, manifest))
        if spoiled:
            raw = graphs[spoiled]
            (folder / spoiled).write_bytes(raw[: rng.integers(len(raw))])
        try:
            Predictor(Bundle.load(folder), make_plan("onnxruntime", workers=1))
        finally:
            if spoiled:
                (folder / spoiled).write_bytes(graphs[spoiled])

    return _tally(load, n_inputs, seed)


def fuzz_tables(good: bytes, path: Path, read: Callable[[Path], object], n_inputs: int, seed: int) -> Tally:
    """Read damaged tables with one of the readers."""

    def read_one(rng: np.random.Generator) -> None:
        path.write_bytes(odd_table(rng, good))
        read(path)

    return _tally(read_one, n_inputs, seed)


def fuzz_names(
    folder: Path, bundle: Path, n_inputs: int, seed: int, limit_seconds: float = 120.0, batch: int = 50
) -> Tally:
    """Run ``birdinfer predict`` on folders of files with odd names, in processes of their own."""
    (folder / "seeds").mkdir(parents=True, exist_ok=True)
    sound = [(Path(name).suffix.encode(), raw) for name, raw in audio_seeds(folder / "seeds").items()]
    tally = Tally()
    for begin in range(0, n_inputs, batch):
        rng = np.random.default_rng([seed, begin])
        files = os.fsencode(folder) + b"/" + odd_name(rng, begin, b"")[:100]
        Path(os.fsdecode(files)).mkdir()
        numbers = range(begin, min(begin + batch, n_inputs))
        for number in numbers:
            suffix, raw = sound[rng.integers(len(sound))]
            with open(files + b"/" + odd_name(rng, number, suffix), "wb") as file:  # noqa: PTH123 - names of bytes
                file.write(raw if rng.random() < 0.9 else mutate(rng, raw))
        tally.inputs += len(numbers)
        _predict_in_child(files, bundle, folder / f"{begin}.csv", len(numbers), tally, limit_seconds)
    return tally


def _predict_in_child(
    files: bytes, bundle: Path, output: Path, n_files: int, tally: Tally, limit_seconds: float
) -> None:
    """One run of the command; a result of each file stands in the table beside the submission."""
    command = [sys.executable, "-m", "birdinfer", "predict", "-q", "--bundle", str(bundle), "-o", str(output), "--"]
    began = time.perf_counter()
    try:
        child = subprocess.run([*command, files], capture_output=True, timeout=limit_seconds, check=False)
    except subprocess.TimeoutExpired:
        tally.faults.append(f"{files!r}: over the limit of {limit_seconds:g} s")
        return
    tally.longest_seconds = max(tally.longest_seconds, time.perf_counter() - began)
    if b"Traceback" in child.stderr or child.returncode not in (0, 2, 3):
        tally.faults.append(f"{files!r}: exit {child.returncode}: {child.stderr[-500:]!r}")
    elif child.returncode == 2:
        tally.refused += n_files
    else:
        report = output.with_suffix(".files.csv")
        with report.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
            rows = list(csv.DictReader(text))
        tally.read += sum(row["status"] != "unreadable" for row in rows)
        tally.refused += sum(row["status"] == "unreadable" for row in rows)
        if len(rows) != n_files:
            tally.faults.append(f"{files!r}: {len(rows)} of {n_files} files in the report")
    if b"\x1b" in child.stderr or b"\x1b" in child.stdout:
        tally.faults.append(f"{files!r}: escape sequences reach the terminal: {child.stderr[-500:]!r}")


def _tally(run: Callable[[np.random.Generator], None], n_inputs: int, seed: int) -> Tally:
    tally = Tally()
    for number in range(n_inputs):
        began = time.perf_counter()
        try:
            run(np.random.default_rng([seed, number]))
        except BirdinferError as error:
            tally.refused += 1
            if not str(error).isprintable():
                tally.faults.append(f"seed [{seed}, {number}]: {error!r}")
        except Exception as error:
            tally.faults.append(f"seed [{seed}, {number}]: {error!r}"[:400])
        else:
            tally.read += 1
        tally.inputs += 1
        tally.longest_seconds = max(tally.longest_seconds, time.perf_counter() - began)
    return tally
