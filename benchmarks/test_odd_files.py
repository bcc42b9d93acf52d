"""`birdinfer predict` on the odd files beside good ones: nothing good is lost, and memory stays where it was."""

import csv
import re
import shutil
import subprocess
import sys

import pytest

from birdinfer.inference.bundle import demo_bundle_path
from bundles import SHARED_DATA

N_GOOD = 6


def predict(inputs, output):
    """Exit code and peak memory in MB of one process."""
    command = [sys.executable, "-m", "birdinfer", "predict", *map(str, inputs), "--bundle", str(demo_bundle_path())]
    run = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True, timeout=600, check=False)
    assert "Traceback" not in run.stderr
    return run.returncode, float(re.search(r"peak memory (\d+) MB", run.stderr).group(1))


def rows_of(path, stems):
    with path.open(encoding="utf-8", newline="") as text:
        return [row for row in csv.reader(text) if row[0].rpartition("_")[0] in stems]


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the odd files beside the checkout")
def test_odd_files_beside_good_ones(soundscapes, table, tmp_path):
    odd = sorted(path for path in (SHARED_DATA / "odd_files").iterdir() if path.suffix != ".csv")
    good = tmp_path / "good"
    good.mkdir()
    for path in soundscapes[:N_GOOD]:
        shutil.copy(path, good)
    alone, beside = tmp_path / "alone.csv", tmp_path / "beside.csv"
    code_alone, peak_alone = predict([good], alone)
    code_beside, peak_beside = predict([*odd, good], beside)
    stems = {path.stem for path in good.iterdir()}
    with beside.with_suffix(".files.csv").open(encoding="utf-8", newline="") as text:
        statuses = [row["status"] for row in csv.DictReader(text)]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    table.append(
        {
            "what": f"{len(odd)} odd files beside {N_GOOD} good ones: peak memory against the good ones alone",
            "measured": f"{peak_beside / peak_alone:.2f}",
            "bound": "<= 1.25",
            "detail": f"{peak_alone:.0f} and {peak_beside:.0f} MB; {counts}",
        }
    )
    assert (code_alone, code_beside) == (0, 3)
    assert rows_of(beside, stems) == rows_of(alone, stems)
    assert len(statuses) == len(odd) + N_GOOD
    assert peak_beside <= 1.25 * peak_alone
