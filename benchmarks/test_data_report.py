"""``birdinfer data`` on a table of 50,000 rows: a whole process, with the files on a disk, without decoding them.

Beside it a process that hashes each file and reads its header with soundfile, and does nothing else.
"""

import csv
import io
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import soundfile

N_CLIPS, N_SPECIES, N_AUTHORS, N_SITES = 50_000, 700, 3_000, 9_000
N_SOUNDS = 200
RATE = 32_000
COLUMNS = ("primary_label", "secondary_labels", "latitude", "longitude", "author", "filename", "collection", "rating",
           "url", "date", "time")  # fmt: skip
MOST_TIMES, MOST_MEGABYTES = 8.0, 2_000.0
SMOKE = {"N_CLIPS": 500}
HEADERS = """
import hashlib, sys
from pathlib import Path
import soundfile
for path in Path(sys.argv[1]).glob("train_audio/*/*.ogg"):
    hashlib.sha256(path.read_bytes())
    soundfile.info(path)
"""


def write_data(folder: Path) -> Path:
    """Write 50,000 small Ogg files that all differ, in a long tail of species, and their table."""
    rng = np.random.default_rng(20)
    sounds = [encode(rng.normal(0, 0.1, int(rng.integers(2_000, 20_000)))) for _ in range(N_SOUNDS)]
    labels = [f"species{index:04}" for index in range(N_SPECIES)]
    shares = 1 / np.arange(1, N_SPECIES + 1)
    of_clip = rng.choice(N_SPECIES, N_CLIPS, p=shares / shares.sum())
    authors = rng.zipf(1.5, N_CLIPS) % N_AUTHORS
    for label in labels:
        (folder / "train_audio" / label).mkdir(parents=True)
    with (folder / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for index in range(N_CLIPS):
            label = labels[of_clip[index]]
            name = f"{label}/XC{index}.ogg"
            # A tag behind the sound makes each file another one.
            tag = b"TAG" + index.to_bytes(4, "little") + bytes(121)
            (folder / "train_audio" / name).write_bytes(sounds[index % N_SOUNDS] + tag)
            site = rng.integers(N_SITES)
            others = [labels[other] for other in rng.integers(N_SPECIES, size=rng.integers(4))]
            table.writerow([
                label, others, f"{-60 + site // 90 * 1.1:.4f}", f"{-170 + site % 90 * 3.7:.4f}",
                f"author {authors[index]}", name, "XC" if index % 3 else "iNat", index % 11 / 2, f"https://example.org/{index}",
                f"20{index % 25:02}-{1 + index % 12:02}-{1 + index % 28:02}", f"{index % 24:02}:15",
            ])  # fmt: skip
    rows = ["primary_label,scientific_name,common_name,class_name"]
    rows += [f"{label},Genus {label},Common {label},Aves" for label in labels]
    (folder / "taxonomy.csv").write_text("\n".join(rows) + "\n")
    return folder


def encode(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="OGG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def run(*words: object) -> tuple[str, float, float]:
    """What Python prints, its seconds of processor time, which other work changes little, and its peak of MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, seconds, after.ru_maxrss / 1024


def test_data_reports_50000_rows(data, tmp_path, table):
    _, headers, _ = run("-c", HEADERS, data)
    started = perf_counter()
    printed, seconds, megabytes = run("-m", "birdinfer", "data", data, "-o", tmp_path / "report", "-q")
    wall = perf_counter() - started
    page = (tmp_path / "report" / "index.html").stat().st_size / 1e6
    table += [
        {"what": f"birdinfer data, {N_CLIPS:,} rows, CPU against hashes and headers alone",
         "measured": f"{seconds / headers:.1f} times", "bound": f"<= {MOST_TIMES:g} times",
         "detail": f"{seconds:.1f} against {headers:.1f} s; {wall:.1f} s by the clock; a page of {page:.1f} MB"},
        {"what": f"birdinfer data, {N_CLIPS:,} rows, MB of memory", "measured": f"{megabytes:.0f}",
         "bound": f"< {MOST_MEGABYTES:g}", "detail": "of the whole process"},
    ]  # fmt: skip
    assert printed.count("\n") == 4
    assert seconds <= MOST_TIMES * headers
    assert megabytes < MOST_MEGABYTES
    with (tmp_path / "report" / "clips.csv").open() as file:
        assert sum(1 for _ in file) == N_CLIPS + 1
