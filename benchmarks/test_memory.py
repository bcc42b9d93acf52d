"""Peak memory of a whole `birdinfer predict` process: it must not grow with the number or the length of files."""

import re
import subprocess
import sys

import numpy as np
import soundfile


def peak_mb(folder, bundle, output):
    """Peak memory of one process in MB, as its last line says."""
    command = [sys.executable, "-m", "birdinfer", "predict", str(folder), "--bundle", str(bundle), "-o", str(output)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(re.search(r"peak memory (\d+) MB", run.stderr).group(1))


def links(folder, soundscapes, n_files):
    """A folder of that many names for the same sound files."""
    folder.mkdir()
    for index in range(n_files):
        (folder / f"soundscape_{index:03d}.ogg").symlink_to(soundscapes[index % len(soundscapes)])
    return folder


def test_200_files_against_10(b0, soundscapes, table, tmp_path):
    few, many = (
        peak_mb(links(tmp_path / str(n_files), soundscapes, n_files), b0, tmp_path / "submission.csv")
        for n_files in (10, 200)
    )
    table.append(
        {
            "what": "peak memory, 200 files against 10, efficientnet_b0",
            "measured": f"{many / few:.3f}",
            "bound": "<= 1.10",
            "detail": f"{few:.0f} and {many:.0f} MB",
        }
    )
    assert many / few <= 1.10


def test_one_hour_against_four_minutes(b0, soundscapes, table, tmp_path):
    wave, rate = soundfile.read(soundscapes[0], dtype="float32")
    # Four minutes keep both lanes busy, as an hour does; one minute is a single run of windows for a single lane.
    for minutes in (4, 60):
        (tmp_path / str(minutes)).mkdir()
        soundfile.write(tmp_path / str(minutes) / "a.flac", np.tile(wave, minutes), rate)
    short, long = (peak_mb(tmp_path / str(minutes), b0, tmp_path / "submission.csv") for minutes in (4, 60))
    table.append(
        {
            "what": "peak memory, one file of 60 minutes against one of 4",
            "measured": f"{long / short:.3f}",
            "bound": "<= 1.15",
            "detail": f"{short:.0f} and {long:.0f} MB",
        }
    )
    assert long / short <= 1.15
