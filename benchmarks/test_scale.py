"""``birdinfer scale``: units against one ``predict``, and sound from a slow store against a local disk."""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from birdinfer.callbacks import Callback
from birdinfer.inference.bundle import Bundle, demo_bundle_path
from birdinfer.scale.marker import Marker
from birdinfer.scale.plan import PlanSettings, make_plan_at
from birdinfer.scale.unit import Worker
from birdinfer.synthetic.soundscapes import write_soundscapes

N_FILES, FILE_SECONDS = 2_000, 20.0
UNIT_SECONDS = 3.0
"""A thirtieth of a unit as it is by itself, so that what units cost is rather seen too high."""
ROUNDS = 2
STREAM_BYTES, STAGED_FILES, STAGED_SECONDS = 20e6, 60, 60.0

pytestmark = pytest.mark.slow


def run(*words: object) -> tuple[float, float]:
    """Run birdinfer; its core time, with that of its processes, and its wall time, in seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "birdinfer", *map(str, words)], check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def sounds(folder: Path, n_files: int, seconds: float, ending: str = "ogg") -> Path:
    """A folder of that many names for twenty synthetic soundscapes."""
    write_soundscapes(folder / "source", n_files=20, duration_seconds=seconds)
    sources = sorted((folder / "source").rglob("*.ogg"))
    (folder / "archive").mkdir()
    for index in range(n_files):
        day, minute = divmod(index, 1440)
        name = f"S{index % 7}_202605{day + 1:02d}_{minute // 60:02d}{minute % 60:02d}00"
        if ending == "ogg":
            os.link(sources[index % 20], folder / "archive" / f"{name}.ogg")
        else:
            import soundfile

            soundfile.write(folder / "archive" / f"{name}.{ending}", *soundfile.read(sources[index % 20]))
    return folder / "archive"


@pytest.mark.timeout(1800)
def test_units_against_one_predict(table, tmp_path):
    archive, plan = sounds(tmp_path, N_FILES, FILE_SECONDS), tmp_path / "plan"
    core, wall = [], []
    for number in range(ROUNDS):
        shutil.rmtree(plan, ignore_errors=True)
        run("scale", "plan", archive, "--plan", plan, "--bundle", "demo", "--unit-seconds", UNIT_SECONDS)
        pair = [
            lambda: run("predict", archive, "--bundle", "demo", "-o", tmp_path / "s.csv", "-q", "--force"),
            lambda: run("scale", "run", plan, "-q"),
        ]
        seconds = {order: pair[order]() for order in ((0, 1), (1, 0))[number % 2]}
        core.append(seconds[1][0] / seconds[0][0] - 1)
        wall.append(seconds[1][1] / seconds[0][1] - 1)
    found = f"{statistics.median(core):+.1%} core time, {statistics.median(wall):+.1%} wall time"
    n_units = len(list(plan.glob("run=*/_markers/*.json")))
    table.append(
        {
            "what": f"scale run against one predict, {N_FILES:,} files of {FILE_SECONDS:.0f} s, demo bundle",
            "measured": found,
            "bound": "<= 5 % core time",
            "detail": f"{n_units} units; rounds: {', '.join(f'{each:+.1%}' for each in core)} core, "
            f"{', '.join(f'{each:+.1%}' for each in wall)} wall; predict writes the table of all scores, too",
        }
    )
    assert n_units > 10
    assert statistics.median(core) <= 0.05


def speed(plan: Path, archive: str) -> float:
    """Seconds of sound a second that one process predicts, from its first unit on."""
    shutil.rmtree(plan, ignore_errors=True)
    opened = make_plan_at(
        str(plan), [archive], Bundle.load(demo_bundle_path()), PlanSettings(unit_seconds=1), Callback()
    )
    with Worker(plan) as worker:
        began, sound = time.perf_counter(), 0.0
        for _, marker in worker.run(opened.missing()):
            assert isinstance(marker, Marker)
            assert not marker.n_problems
            sound += marker.sound_seconds
        return sound / (time.perf_counter() - began)


@pytest.mark.timeout(600)
def test_sound_from_a_slow_store_keeps_a_core_busy(table, tmp_path):
    archive = sounds(tmp_path, STAGED_FILES, STAGED_SECONDS, "wav")
    program = [sys.executable, str(Path(__file__).with_name("slow_store.py")), str(archive), str(STREAM_BYTES)]
    ratios, speeds = [], []
    with subprocess.Popen(program, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            for number in range(ROUNDS):
                places = (str(archive), address) if number % 2 == 0 else (address, str(archive))
                found = {place: speed(tmp_path / "plan", place) for place in places}
                speeds.append(found[str(archive)])
                ratios.append(found[address] / found[str(archive)])
        finally:
            server.kill()
    n_bytes = sum(path.stat().st_size for path in archive.iterdir()) / STAGED_FILES / STAGED_SECONDS
    needed = statistics.median(speeds) * n_bytes
    table.append(
        {
            "what": f"sound from a store of {STREAM_BYTES / 1e6:.0f} MB/s a stream against a local disk, one process",
            "measured": f"{statistics.median(ratios):.0%} of the speed",
            "bound": ">= 90 %",
            "detail": f"{min(ratios):.0%} to {max(ratios):.0%}; the core takes {needed / 1e6:.0f} MB/s of 16-bit WAV",
        }
    )
    assert statistics.median(ratios) >= 0.9
