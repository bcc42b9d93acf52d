"""Peak memory of a whole `birdinfer predict` process: it must not grow with the number or the length of files."""

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

RATE = 16_000
"""Hz, of the long file: a day of 16-bit sound stays below the 4 GiB of a WAV file, and is resampled on its way."""


def peak_mb(folder, bundle, output):
    """Peak memory of one process in MB, as its last line says."""
    command = [sys.executable, "-m", "birdinfer", "predict", str(folder), "--bundle", str(bundle), "-o", str(output)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(re.search(r"peak memory (\d+) MB", run.stderr).group(1))


def links(folder, soundscapes, n_files):
    """A folder of that many names for the same sound files."""
    folder.mkdir()
    for index in range(n_files):
        (folder / f"soundscape_{index:04d}.ogg").symlink_to(soundscapes[index % len(soundscapes)])
    return folder


@pytest.mark.timeout(1200)
def test_2000_files_against_20(b0, soundscapes, table, tmp_path):
    few, many = (
        peak_mb(links(tmp_path / str(n_files), soundscapes, n_files), b0.folder, tmp_path / "submission.csv")
        for n_files in (20, 2_000)
    )
    table.append(
        {
            "what": "peak memory, 2,000 files of a minute against 20, efficientnet_b0",
            "measured": f"{many / few:.3f}",
            "bound": "<= 1.15",
            "detail": f"{few:.0f} and {many:.0f} MB",
        }
    )
    assert many / few <= 1.15


@pytest.mark.timeout(1200)
def test_a_day_against_a_minute(b0, soundscapes, table, tmp_path):
    wave, rate = soundfile.read(soundscapes[0], dtype="float32")
    minute = wave[:: rate // RATE][: 60 * RATE]
    for name, minutes in (("minute", 1), ("day", 24 * 60)):
        (tmp_path / name).mkdir()
        with soundfile.SoundFile(tmp_path / name / "a.wav", "w", RATE, 1, subtype="PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
    short, long = (peak_mb(tmp_path / name, b0.folder, tmp_path / "submission.csv") for name in ("minute", "day"))
    table.append(
        {
            "what": "peak memory, one file of 24 hours against one of a minute, efficientnet_b0",
            "measured": f"{long / short:.3f}",
            "bound": "<= 1.15",
            "detail": f"{short:.0f} and {long:.0f} MB",
        }
    )
    assert np.isfinite(long)
    assert long / short <= 1.15
