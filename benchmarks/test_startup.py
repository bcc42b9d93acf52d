"""How long a user waits before anything happens."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 9
BIRDINFER = str(Path(sys.executable).with_name("birdinfer"))


def seconds(*command):
    """Wall seconds of a whole process: the median, the least and the most."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times), min(times), max(times)


def test_help(table):
    middle, least, most = seconds(BIRDINFER, "--help")
    bare, _, _ = seconds(sys.executable, "-c", "pass")
    table.append(
        {
            "what": "birdinfer --help",
            "measured": f"{middle:.3f} s",
            "bound": "< 0.3 s",
            "detail": f"{least:.3f} to {most:.3f} s; an empty Python takes {bare:.3f} s",
        }
    )
    assert middle < 0.3


def test_one_file(b0, soundscapes, table, tmp_path):
    out = str(tmp_path / "submission.csv")
    middle, least, most = seconds(BIRDINFER, "predict", str(soundscapes[0]), "--bundle", str(b0.folder), "-o", out)
    table.append(
        {
            "what": "birdinfer predict, one file of 60 s, efficientnet_b0, whole process",
            "measured": f"{middle:.2f} s",
            "bound": "<= 0.8 s",
            "detail": f"{least:.2f} to {most:.2f} s",
        }
    )
    assert middle <= 0.8
