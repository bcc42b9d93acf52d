"""Scores in Parquet and .npz: what was written is read back, what is no such table is refused in one line."""

import zipfile

import numpy as np
import pytest

from birdinfer.audio.status import Status
from birdinfer.config import WindowConfig
from birdinfer.errors import ConfigError, InputNotFoundError, MetadataError, OutputError
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import SubmissionWriter
from birdinfer.system.outputs import SCORE_FILES, check_outputs, side_table
from birdinfer.tables import binary_scores
from birdinfer.tables.binary_scores import binary_rows
from birdinfer.tables.scores import read_scores

LABELS = ["comcuc", "0012", 'a,"b']
ROW_IDS = ["siteA/x_5", "siteA/x_10", "ä_5"]
ENDINGS = [".parquet", ".npz"]


@pytest.fixture(params=ENDINGS)
def path(request, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"scores{request.param}"


def written(path, scores, row_ids=ROW_IDS, labels=LABELS):
    with binary_rows(path, row_ids, labels) as add:
        for row in scores:
            add(row)
    return path


def test_scores_come_back_bit_for_bit(path, monkeypatch):
    monkeypatch.setattr(binary_scores, "_GROUP_VALUES", 6)  # two groups of Parquet
    scores = np.random.default_rng(0).random((3, 3), np.float32)
    table = read_scores(written(path, scores))
    assert (table.row_ids, table.labels) == (ROW_IDS, LABELS)
    assert table.values.dtype == np.float64
    np.testing.assert_array_equal(table.values, scores)


def test_rows_and_order_are_those_of_the_csv(path):
    store, results = ScoreStore(3), []
    for name in ("b", "a"):
        file = path.with_name(f"{name}.ogg")
        store.add(file, np.random.default_rng(1).random((2, 3), np.float32))
        results.append(SoundscapeResult(file, Status.ok, n_rows=2, seconds=10.0))
    writer = SubmissionWriter(LABELS, (0.1, 0.2, 0.3), WindowConfig())
    csv = path.with_suffix(".csv")
    assert writer.write(path, store, results) == writer.write(csv, store, results)
    binary, text = read_scores(path), read_scores(csv)
    assert (binary.row_ids, binary.labels) == (text.row_ids, text.labels)
    np.testing.assert_allclose(binary.values, text.values, rtol=1e-6)


def test_own_tables_are_replaced_others_are_not(path):
    check_outputs([(written(path, np.zeros((3, 3), np.float32)), SCORE_FILES)])
    if path.suffix == ".npz":
        np.savez(path, other=np.zeros(3))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"row_id": ["a"]}), path)
    with pytest.raises(OutputError, match=r"is there and no table of scores of birdinfer"):
        check_outputs([(path, SCORE_FILES)])
    assert side_table(path).name == "scores.files.csv"


def test_formats_of_2021_and_2022_are_csv_alone(path):
    with pytest.raises(ConfigError, match="is for scores, and 2021 has none"):
        SubmissionWriter(LABELS, (0.1, 0.2, 0.3), WindowConfig(), year=2021).check_format(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"row_id,a\nx_5,0\n", b"PAR1" * 20])
def test_what_is_no_table_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(MetadataError, match=r"is no (Parquet table|\.npz of scores)"):
        read_scores(path)


def test_what_is_wrong_with_a_table_is_named(path):
    with pytest.raises(InputNotFoundError):
        read_scores(path)
    scores = np.zeros((3, 3), np.float32)
    with pytest.raises(MetadataError, match="row_id 'x_5' stands 2 times"):
        read_scores(written(path, scores, row_ids=["x_5", "x_5", "x_10"]))
    scores[1, 2] = np.nan
    with pytest.raises(MetadataError, match="holds nan - a finite number is needed"):
        read_scores(written(path, scores, labels=["a", "b", "c"]))


def test_arrays_that_do_not_fit_and_objects_are_refused(tmp_path):
    path = tmp_path / "scores.npz"
    np.savez(path, row_ids=np.array(["a_5"]), labels=np.array(["a"]), scores=np.zeros((2, 1)))
    with pytest.raises(MetadataError, match=r"holds row_ids \(1,\), labels \(1,\) and scores \(2, 1\)"):
        read_scores(path)
    np.savez(path, row_ids=np.array([object()]), labels=np.array(["a"]), scores=np.zeros((1, 1)))
    with pytest.raises(MetadataError, match=r"is no \.npz of scores"):
        read_scores(path)
    np.savez(path, row_ids=np.array(["a_5"]), scores=np.zeros((1, 1)))
    with pytest.raises(MetadataError, match="lacks labels"):
        read_scores(path)
    assert zipfile.is_zipfile(path)
