"""birdinfer against birdnet and BriteKit: whole processes from start to table, same sound, same backbone, one run."""

import csv
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile

from bundles import has_bf16
from peers import NAMES, Peer, PeerMissing, plain_environ, prepare

ENGINES = ("openvino:bf16", "onnxruntime") if has_bf16() else ("onnxruntime",)
"""Engines of birdinfer that are measured. The bounds of speed and memory hold for the first: bf16 where the processor
has it. The last computes in fp32, as the peers do, and is what runs where no engine is named: the bound of one file
holds for it."""

CEILING = "birdnet without front end"
"""Computes no spectrogram at all: shown as what no real model reaches, and bounds nothing."""

ROUNDS = 3
N_FILES = 112
"""Minutes of sound, so that start-up does not decide alone."""

LONG_MINUTES = 30
SAMPLING_SECONDS = 0.05


class Run(NamedTuple):
    """What a command cost."""

    seconds: float
    peak_mb: float = float("nan")
    """Peaks of the process and of all its children, summed; nan where it was not watched."""
    shared_once_mb: float = float("nan")
    """The most that all of them held at one moment, pages that they share counted once."""


@pytest.fixture(scope="module", params=NAMES)
def peer(request: pytest.FixtureRequest, b0, tmp_path_factory) -> Peer:
    """A peer that is ready to run; skips by name where there is none."""
    try:
        return prepare(request.param, b0.folder, tmp_path_factory.mktemp("peers") / request.param)
    except PeerMissing as missing:
        pytest.skip(str(missing))


def ours(engine: str, bundle: Path, sounds: Path, out: Path) -> list[str]:
    """The command line of birdinfer."""
    command = [sys.executable, "-m", "birdinfer", "predict", str(sounds), "--bundle", str(bundle)]
    return [*command, "--engine", engine, "-o", str(out / "submission.csv")]


def run(command: list[str], *, watch: bool = False) -> Run:
    """Run a command to its end.

    Args:
        command: what to run.
        watch: watch its memory; this takes a little of the cores.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=plain_environ()
    )
    memory = FamilyMemory(process.pid)
    if watch:
        memory.start()
    _, said = process.communicate()
    seconds = time.perf_counter() - began
    memory.done.set()
    assert process.returncode == 0, f"{command}: {said[-2000:]}"
    if not watch:
        return Run(seconds)
    memory.join()
    return Run(seconds, sum(memory.peaks_mb.values()), memory.most_shared_once_mb)


class FamilyMemory(threading.Thread):
    """Watches the memory of a process and of all that it starts."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.done = threading.Event()
        self.peaks_mb: dict[int, float] = {}
        self.most_shared_once_mb = 0.0

    def run(self) -> None:
        """Look until it is done."""
        while not self.done.wait(SAMPLING_SECONDS):
            together_mb = 0.0
            for pid in family(self.pid):
                # The last look counts, not the largest: a peak only grows, but starts again where a fork becomes
                # another program.
                self.peaks_mb[pid] = field_mb(pid, "status", "VmHWM") or self.peaks_mb.get(pid, 0.0)
                together_mb += field_mb(pid, "smaps_rollup", "Pss")
            self.most_shared_once_mb = max(self.most_shared_once_mb, together_mb)


def family(pid: int) -> Iterator[int]:
    """A process and all its living descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # it has ended meanwhile
            continue
        for child in found:
            yield from family(int(child))


def field_mb(pid: int, file: str, field: str) -> float:
    """A field of /proc in MB; 0 where the process has ended."""
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def copies(folder: Path, soundscapes: list[Path], n_files: int) -> Path:
    """A folder of that many files. No links: BriteKit follows them, and would name several files alike."""
    folder.mkdir()
    for index in range(n_files):
        shutil.copyfile(soundscapes[index % len(soundscapes)], folder / f"soundscape_{index:04d}.ogg")
    return folder


def n_rows_and_files(table: Path) -> tuple[int, int]:
    """Rows below the head of a table, and how many names its first column holds."""
    with table.open(newline="", encoding="utf-8") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    return len(names), len(set(names))


def measure(peer: Peer, bundle: Path, sounds: Path, out: Path, rounds: int, *, watch: bool = False):
    """Runs of the peer and of birdinfer with each engine, in turns.

    Returns:
        Name -> its runs; the peer's comes first.
    """
    commands = {peer.name: peer.command(sounds, out)}
    commands |= {engine: ours(engine, bundle, sounds, out) for engine in ENGINES}
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            runs[name].append(run(command, watch=watch))
    return runs


@pytest.mark.timeout(3600)
def test_speed_against_a_peer(peer, b0, soundscapes, table, tmp_path):
    sounds, out = copies(tmp_path / "sounds", soundscapes, N_FILES), tmp_path / "out"
    out.mkdir()
    measure(peer, b0.folder, copies(tmp_path / "one", soundscapes, 1), out, 1)  # warm: bytecode, files in memory
    runs = measure(peer, b0.folder, sounds, out, ROUNDS)
    windows = N_FILES * 12
    assert n_rows_and_files(out / "submission.csv") == (windows, windows)
    assert n_rows_and_files(peer.table(out)) == (5 * windows, N_FILES)  # five species a window
    theirs = [run.seconds for run in runs[peer.name]]
    minutes_per_second = {name: N_FILES / statistics.median(run.seconds for run in runs[name]) for name in runs}
    for engine in ENGINES:
        ratios = [their / run.seconds for their, run in zip(theirs, runs[engine], strict=True)]
        table.append(
            {
                "what": f"whole process against {peer.name}: {engine}, {N_FILES} files of a minute, efficientnet_b0",
                "measured": f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
                "bound": ">= 3x" if engine == ENGINES[0] and peer.name != CEILING else "",
                "detail": f"{60 * minutes_per_second[engine]:.0f} against {60 * minutes_per_second[peer.name]:.0f} x "
                f"real time; the peer: {peer.how}",
            }
        )
    ratios = [their / run.seconds for their, run in zip(theirs, runs[ENGINES[0]], strict=True)]
    assert peer.name == CEILING or statistics.median(ratios) >= 3.0


@pytest.mark.timeout(600)
def test_one_file_against_a_peer(peer, b0, soundscapes, table, tmp_path):
    sounds, out = copies(tmp_path / "sounds", soundscapes, 1), tmp_path / "out"
    out.mkdir()
    measure(peer, b0.folder, sounds, out, 1)
    runs = measure(peer, b0.folder, sounds, out, 5)
    seconds = {name: statistics.median(run.seconds for run in runs[name]) for name in runs}
    for engine in ENGINES:
        table.append(
            {
                "what": f"one file of 60 s, start to table, against {peer.name}: {engine}",
                "measured": f"{seconds[peer.name] / seconds[engine]:.2f}x",
                "bound": ">= 2x" if engine == ENGINES[-1] else "",
                "detail": f"{seconds[engine]:.2f} s, {peer.name} {seconds[peer.name]:.2f} s; median of 5",
            }
        )
    assert seconds[peer.name] >= 2 * seconds[ENGINES[-1]]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is watched through Linux's /proc")
@pytest.mark.timeout(1200)
def test_memory_of_a_long_file_against_a_peer(peer, b0, soundscapes, table, tmp_path):
    (tmp_path / "sounds").mkdir()
    write_long(tmp_path / "sounds" / "soundscape_long.wav", soundscapes, LONG_MINUTES)
    (out := tmp_path / "out").mkdir()
    runs = measure(peer, b0.folder, tmp_path / "sounds", out, 1, watch=True)
    for engine in ENGINES:
        table.append(
            {
                "what": f"peak memory, one file of {LONG_MINUTES} min, against {peer.name}: {engine}",
                "measured": f"{runs[engine][0].peak_mb:.0f} MB",
                "bound": "<= 500 MB" if engine == ENGINES[0] else "",
                "detail": f"{peer.name} {runs[peer.name][0].peak_mb:.0f} MB (peaks of all its processes, summed), "
                f"{runs[peer.name][0].shared_once_mb:.0f} MB at one moment with shared pages counted once",
            }
        )
    assert runs[ENGINES[0]][0].peak_mb <= 500


def write_long(path: Path, soundscapes: list[Path], minutes: int) -> None:
    """One 16-bit WAV of many soundscapes on end."""
    first = soundfile.info(soundscapes[0])
    with soundfile.SoundFile(path, "w", first.samplerate, 1, subtype="PCM_16") as file:
        for index in range(minutes):
            wave, rate = soundfile.read(soundscapes[index % len(soundscapes)], dtype="float32", always_2d=True)
            assert rate == first.samplerate, "soundscapes of one rate"
            file.write(wave.mean(axis=1))
