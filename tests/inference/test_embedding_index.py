"""The nearest windows are those of float64 over all, whatever the query, and the index is that of its embeddings."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_embeddings import write_embeddings

from birdinfer.callbacks import Callback
from birdinfer.errors import BirdinferError, ConfigError, InputNotFoundError, MetadataError
from birdinfer.inference import embedding_index
from birdinfer.inference.embedding_index import EmbeddingIndex, widen

WIDTH = 8
SIZES = {"a": 7, "b": 1, "site/c": 12, "d,\n\"e\"": 5}  # fmt: skip


def made(seed=0):
    """Recordings with windows that are equal, or 0 throughout, and of very different lengths."""
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(0, 1, (size, WIDTH)) * rng.choice([1e-4, 1, 1e3]) for name, size in SIZES.items()}
    values["site/c"][3:6] = values["a"][2]
    values["site/c"][7] = 0
    values["a"][5] = values["a"][6]
    return {name: each.astype(np.float16) for name, each in values.items()}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return EmbeddingIndex.open(write_embeddings(tmp_path_factory.mktemp("index") / "m", made()))


def similarities(values, query, metric):
    values, query = values.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return 1 / (1 + np.linalg.norm(values - query, axis=1))
    lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(query)
    return np.divide(values @ query, lengths, out=np.zeros(len(values)), where=lengths > 0)


def wanted(values, query, metric, k, most, left_out):
    """Rows in the order of their similarity, one after the other."""
    of = np.repeat(np.arange(len(SIZES)), list(SIZES.values()))
    taken = []
    for row in np.argsort(-similarities(values, query, metric), kind="stable").tolist():
        if row not in left_out and [of[each] for each in taken].count(of[row]) < (most or 99) and len(taken) < k:
            taken.append(row)
    return taken


@given(
    source=st.integers(0, sum(SIZES.values()) - 1), noise=st.sampled_from([0, 1e-6, 0.1, 10]),
    metric=st.sampled_from(["cosine", "euclidean"]), k=st.sampled_from([1, 3, 30]), most=st.sampled_from([None, 1, 2]),
    left_out=st.sets(st.integers(0, sum(SIZES.values()) - 1), max_size=25), seed=st.integers(0, 99),
)  # fmt: skip
def test_nearest_is_what_float64_over_all_windows_finds(index, source, noise, metric, k, most, left_out, seed):
    values = np.concatenate(list(made().values()))
    near = values[source].astype(np.float32) + np.random.default_rng(seed).normal(0, noise, WIDTH).astype(np.float32)
    queries = np.stack([near, np.ones(WIDTH, np.float32)]) if near.any() else np.ones((2, WIDTH), np.float32)
    rows = [np.array(sorted(left_out), np.intp), np.zeros(0, np.intp)]
    found = index.nearest(queries, k, metric=metric, per_recording=most, left_out=rows)
    for query, excluded, neighbours in zip(queries, (left_out, set()), found, strict=True):
        assert [each.row for each in neighbours] == wanted(values, query, metric, k, most, excluded)
        expected = similarities(values, query, metric)[[each.row for each in neighbours]]
        assert np.allclose([each.similarity for each in neighbours], expected, rtol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 7, 60), (2, 4, 10_000)])
def test_nearest_does_not_depend_on_blocks(index, monkeypatch, sizes):
    queries = np.random.default_rng(3).normal(0, 1, (5, WIDTH)).astype(np.float32)
    before = index.nearest(queries, 6)
    for name, size in zip(("_BLOCK_ROWS", "_TASK_ROWS", "_MOST_PRODUCTS"), sizes, strict=True):
        monkeypatch.setattr(embedding_index, name, size)
    assert index.nearest(queries, 6) == before


def test_nearest_stays_exact_where_float32_cannot_separate_windows(tmp_path):
    rng = np.random.default_rng(0)
    one = rng.normal(0, 1, 64)
    close = (one + rng.normal(0, 1e-3, (300, 64))).astype(np.float16)
    index = EmbeddingIndex.open(write_embeddings(tmp_path / "m", {"a": close}))
    query = one.astype(np.float32)
    found = [each.row for each in index.nearest(query[np.newaxis], 50)[0]]
    assert found == np.argsort(-similarities(close, query, "cosine"), kind="stable")[:50].tolist()


def test_widen_is_exact_for_every_finite_number():
    half = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    half = half[np.isfinite(half)]
    assert np.array_equal(widen(half.view(np.int16), np.empty(len(half), np.int32)), half.astype(np.float32))


def test_windows_are_found_by_recording_and_row(index):
    for name, size in SIZES.items():
        windows = index.windows_of(name)
        assert [each.row_id for each in windows] == [f"{name}_{5 * at + 5}" for at in range(size)]
        assert [index.window(each.row) for each in windows] == windows
        assert [each.start_seconds for each in windows] == [5.0 * at for at in range(size)]
    assert index.windows_of("nothing") == []
    assert len(index) == sum(SIZES.values())


class Events(Callback):
    def __init__(self):
        self.tasks, self.warnings = [], []

    def on_progress(self, task, done, total):
        self.tasks.append((task, done == total))

    def on_warning(self, line):
        self.warnings.append(line)


def test_open_makes_the_index_once_and_again_for_other_embeddings(tmp_path):
    folder = write_embeddings(tmp_path / "m", made())
    first, second, third = Events(), Events(), Events()
    EmbeddingIndex.open(tmp_path, first)
    EmbeddingIndex.open(folder, second)
    assert first.tasks[-1] == ("index", True)
    assert second.tasks == []
    write_embeddings(folder, {"a": made(1)["a"]})
    index = EmbeddingIndex.open(folder, third)
    assert third.tasks
    assert np.array_equal(index.values, made(1)["a"])


@pytest.mark.parametrize("name", ["values.npy", "lengths.npy", "search.json"])
def test_open_makes_a_damaged_index_again(tmp_path, name):
    folder = write_embeddings(tmp_path / "m", made())
    EmbeddingIndex.open(folder)
    path = folder / ".search" / name
    path.write_bytes(path.read_bytes()[:-9])
    assert len(EmbeddingIndex.open(folder)) == sum(SIZES.values())


def test_open_removes_what_a_killed_process_has_left(tmp_path):
    folder = write_embeddings(tmp_path / "m", made())
    left = folder / "..search.abc.part" / "new"
    left.mkdir(parents=True)
    (left / "values.npy").write_bytes(bytes(1000))
    before = {path.name for path in folder.iterdir()} - {left.parent.name}
    EmbeddingIndex.open(folder)
    assert {path.name for path in folder.iterdir()} == before | {".search"}


def test_open_works_where_nothing_can_be_written(tmp_path):
    folder, events = write_embeddings(tmp_path / "m", made()), Events()
    (folder / ".search").mkdir()
    (folder / ".search" / "thesis.txt").write_text("mine")
    with EmbeddingIndex.open(folder, events) as index:
        assert len(index.nearest(np.ones((1, WIDTH), np.float32), 3)[0]) == 3
    assert "the index is made for this search alone" in events.warnings[0]
    assert [path.name for path in (folder / ".search").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "index.csv").unlink(), InputNotFoundError, "the run has not ended"),
        (lambda folder: (folder / "0.npy").unlink(), InputNotFoundError, "no such file"),
        (lambda folder: np.save(folder / "0.npy", np.ones((3, WIDTH), np.float16)), MetadataError, "not fit 0.npy"),
        (lambda folder: np.save(folder / "1.npy", np.ones((1, 3), np.float16)), MetadataError, "not fit 1.npy"),
        (lambda folder: (folder / "index.csv").write_text("a,b\n"), MetadataError, "is no index"),
        (lambda folder: (folder / "index.csv").write_text((folder / "index.csv").read_text()[:100]), MetadataError,
         "is damaged"),
        (lambda folder: (folder / "index.csv").write_bytes(b"row_id,\xff"), MetadataError, "is damaged"),
        (lambda folder: (folder / "embeddings.json").write_text("{"), MetadataError, "embeddings.json"),
    ],
)  # fmt: skip
def test_open_refuses_damaged_embeddings_in_one_line(tmp_path, damage, error, message):
    folder = write_embeddings(tmp_path / "m", made())
    damage(folder)
    with pytest.raises(error, match=message) as refused:
        EmbeddingIndex.open(folder)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, BirdinferError)
    assert not (folder / ".search").exists()


@pytest.mark.parametrize(
    "queries", [np.ones((1, 3)), np.zeros((1, WIDTH)), np.full((1, WIDTH), np.nan), np.ones(WIDTH)]
)
def test_nearest_refuses_what_is_no_query(index, queries):
    with pytest.raises(ConfigError, match=r"the embeddings have 8 numbers|is 0 throughout, or not finite"):
        index.nearest(queries.astype(np.float32), 3)


def test_a_new_run_removes_the_index(embedding_bundle, soundscapes, tmp_path):
    """Other sounds of the same names and lengths leave index.csv as it was."""
    from birdinfer.prediction.run import PredictionSettings, predict_to_csv

    settings = PredictionSettings(output=tmp_path / "s.csv", embeddings=tmp_path / "e")
    predict_to_csv(embedding_bundle, [soundscapes], settings)
    about = EmbeddingIndex.open(tmp_path / "e").folder / ".search" / "search.json"
    assert msgspec.json.decode(about.read_bytes())["recordings"] == ["site_0", "site_1", "site_2"]
    predict_to_csv(embedding_bundle, [soundscapes], settings)
    assert not about.exists()
