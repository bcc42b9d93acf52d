"""`birdinfer detect`: many labels against few, a day against a minute, and a run that is killed at random moments."""

import hashlib
import os
import random
import re
import statistics
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr

from birdinfer.inference.bundle import demo_bundle_path
from bundles import write_sparse

THRESHOLD = "0.1"
PER_WINDOW = 10
"""Species in a window of the sound that a bundle is fitted to; of all its other windows fewer."""
ROUNDS = 3
MINUTES = 60
KILLS = int(os.environ.get("BIRDINFER_DETECT_KILLS", "50"))
KILLED_FILES = 60
SEED = 20_260_101
PAGE = ("--page-events", "60")
RATE = 16_000
"""Hz, of the long file: a day of 16-bit sound stays below the 4 GiB of a WAV file."""
DAY_MINUTES = 24 * 60
EVENTS_OF_A_DAY = 8_000

pytestmark = pytest.mark.slow


def command(folder, out, bundle, *options):
    program = [sys.executable, "-m", "birdinfer", "detect", str(folder), "--bundle", str(bundle), "-o", str(out)]
    return [*program, "--min-confidence", THRESHOLD, *options]


def links(folder, soundscapes, n_files):
    """A folder of that many names for the same sound files, an hour apart."""
    folder.mkdir()
    for index in range(n_files):
        day, hour = divmod(index, 24)
        name = f"site_202505{day + 1:02d}_{hour:02d}0000.ogg"
        (folder / name).symlink_to(soundscapes[index % len(soundscapes)])
    return folder


@pytest.mark.timeout(1800)
def test_6500_labels_against_200(soundscapes, table, tmp_path):
    folder = links(tmp_path / "sound", soundscapes, MINUTES)
    many, few = (
        write_sparse(tmp_path / f"b{n_labels}", n_labels, soundscapes, PER_WINDOW) for n_labels in (6_500, 200)
    )
    seconds = {many: [], few: []}
    for number in range(ROUNDS):
        for bundle in ((many, few), (few, many))[number % 2]:
            out = tmp_path / f"{bundle.name}_results"
            began = time.perf_counter()
            subprocess.run(
                command(folder, out, bundle, "--format", "parquet", "--no-page", "--no-summary", "--force"),
                capture_output=True,
                check=True,
            )
            seconds[bundle].append(time.perf_counter() - began)
    ratios = [one / other for one, other in zip(seconds[many], seconds[few], strict=True)]
    parquet = tmp_path / f"{many.name}_results" / "detections.parquet"
    n_detections, megabytes = pq.read_metadata(parquet).num_rows, parquet.stat().st_size / 1e6
    table.append(
        {
            "what": f"detect, {MINUTES} real minutes at {THRESHOLD}: 6,500 labels against 200, same efficientnet_b0",
            "measured": f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            "bound": "<= 1.1",
            "detail": f"{statistics.median(seconds[many]):.1f} and {statistics.median(seconds[few]):.1f} s; Parquet of "
            f"{n_detections:,} detections {megabytes:.3f} MB (bound 1)",
        }
    )
    assert n_detections > MINUTES
    assert megabytes < 1
    assert statistics.median(ratios) <= 1.1


def write_long(path, soundscapes, minutes):
    """Real minutes in turn, shifted and louder or softer each time, so that no two score alike."""
    rng = np.random.default_rng(SEED)
    path.parent.mkdir()
    waves = [soxr.resample(*soundfile.read(each, dtype="float32"), RATE)[: 60 * RATE] for each in soundscapes]
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as file:
        for index in range(minutes):
            wave = waves[index % len(waves)]
            file.write(np.roll(wave, rng.integers(len(wave))) * rng.uniform(0.5, 1))


@pytest.mark.timeout(1800)
def test_a_day_against_a_minute(soundscapes, table, tmp_path):
    bundle = write_sparse(tmp_path / "bundle", 200, soundscapes, PER_WINDOW)
    peaks, counts = {}, {}
    for name, minutes in (("minute", 1), ("day", DAY_MINUTES)):
        write_long(tmp_path / name / "site_20250501_000000.wav", soundscapes, minutes)
        out = tmp_path / f"{name}_results"
        given = command(tmp_path / name, out, bundle, "--format", "csv,parquet,jsonl,raven", *PAGE)
        done = subprocess.run(given, capture_output=True, text=True, check=True)
        peaks[name] = float(re.search(r"peak memory (\d+) MB", done.stderr).group(1))
        counts[name] = pq.read_metadata(out / "detections.parquet").num_rows
    ratio = peaks["day"] / peaks["minute"]
    table.append(
        {
            "what": "peak memory of detect with page and summary, one file of 24 hours against one of a minute",
            "measured": f"{ratio:.3f}",
            "bound": "<= 1.15",
            "detail": f"{peaks['minute']:.0f} and {peaks['day']:.0f} MB; {counts['day']:,} detections",
        }
    )
    assert counts["day"] >= EVENTS_OF_A_DAY
    assert ratio <= 1.15


def digest(folder):
    """The names and bytes of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.timeout(3600)
def test_random_kills_change_no_byte_of_any_output(soundscapes, table, tmp_path):
    folder = links(tmp_path / "sound", soundscapes, KILLED_FILES)
    (folder / "text.ogg").write_text("not sound")
    options = ["--format", "csv,parquet,jsonl,raven,audacity,kaleidoscope", "--clips", "2", *PAGE]
    undisturbed = tmp_path / "undisturbed"
    began = time.perf_counter()
    subprocess.run(command(folder, undisturbed, demo_bundle_path(), *options), capture_output=True, check=False)
    alone_seconds = time.perf_counter() - began
    wanted = digest(undisturbed)
    rng, kills, rounds = random.Random(SEED), 0, 0
    while kills < KILLS:
        rounds += 1
        out, is_finished = tmp_path / f"round_{rounds}", False
        while not is_finished:
            run = subprocess.Popen(
                command(folder, out, demo_bundle_path(), *options, "--resume"), stderr=subprocess.PIPE
            )
            try:
                _, said = run.communicate(timeout=rng.uniform(0.05, max(1.5, alone_seconds)))
            except subprocess.TimeoutExpired:
                run.kill()
                run.communicate()
                kills += 1
            else:
                assert run.returncode == 3, said
                is_finished = True
        assert digest(out) == wanted, f"round {rounds}"
    table.append(
        {
            "what": f"detect killed {kills} times at random moments, continued with --resume: all formats and the page",
            "measured": f"{rounds} folders of {len(wanted)} files byte-identical",
            "bound": "no byte changes",
            "detail": f"{KILLED_FILES} real minutes; undisturbed {alone_seconds:.1f} s",
        }
    )
