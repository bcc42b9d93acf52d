import numpy as np
import pytest

from birdinfer.errors import InputNotFoundError, LabelError, MetadataError, OutputError
from birdinfer.tables.pseudo_labels import (
    INDEX,
    SCORES,
    TEACHER,
    PseudoWindow,
    Teacher,
    is_pseudo_labels,
    read_pseudo_labels,
    write_pseudo_labels,
)

OURS = Teacher(labels=("0012", "b"), bundle="abc", families=("cnn/efficientnet_b0",), keep=0.5, held_out={"x": (1,)})
FIRST, SECOND = np.float32([[0.25, 1], [0, 0.5]]), np.float32([[0.125, 0.75]])


@pytest.fixture
def folder(tmp_path):
    windows = [(0.0, 5.0), (5.0, 10.0)]
    n_written = write_pseudo_labels(
        tmp_path / "pl", OURS, iter([("a/x.ogg", windows, FIRST), ("y.ogg", [(2.5, 7.5)], SECOND)])
    )
    assert n_written == 3
    return tmp_path / "pl"


def test_read_pseudo_labels_gives_what_was_written(folder):
    found = read_pseudo_labels(folder)
    assert found.teacher == OURS
    assert found.windows == (
        PseudoWindow("a/x.ogg", 0, 5),
        PseudoWindow("a/x.ogg", 5, 10),
        PseudoWindow("y.ogg", 2.5, 7.5),
    )
    assert isinstance(found.scores, np.memmap)
    assert np.array_equal(found.scores, np.concatenate([FIRST, SECOND]))


def test_write_pseudo_labels_of_no_recording_is_read_again(tmp_path):
    assert write_pseudo_labels(tmp_path / "none", OURS, []) == 0
    assert read_pseudo_labels(tmp_path / "none").scores.shape == (0, 2)


def test_write_pseudo_labels_replaces_its_own_kind_only(folder, tmp_path):
    assert is_pseudo_labels(folder)
    assert write_pseudo_labels(folder, OURS, [("z.ogg", [(0.0, 5.0)], SECOND)]) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(OutputError, match="holds other things than pseudo-labels"):
        write_pseudo_labels(tmp_path / "other", OURS, [])


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (TEACHER, None, InputNotFoundError, "no such file"),
        (TEACHER, b'{"labels": ["a"], "bundle": "", "other": 1}', MetadataError, "unknown field `other`"),
        (
            TEACHER,
            b'{"labels": ["0012", "b"], "bundle": "", "scientific_names": ["x"]}',
            MetadataError,
            "has 1 scientific names of 2 labels",
        ),
        (TEACHER, b'{"labels": ["a", "a"], "bundle": ""}', LabelError, "stands twice"),
        (SCORES, b"no array", InputNotFoundError, "is no array of scores"),
        (INDEX, b"filename,start,end,row\nx.ogg,0,5,0\n", MetadataError, "does not name each of the 3 rows"),
        (INDEX, b"filename,start,end,row\nx.ogg,5,5,0\n", MetadataError, "row 2 needs start < end"),
        (INDEX, b"filename,start,end,row\nx.ogg,0,5,0\nx.ogg,5,9,0\n", MetadataError, "row 3 needs"),
    ],
)
def test_read_pseudo_labels_refuses_what_is_damaged(folder, name, content, error, message):
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(error, match=message):
        read_pseudo_labels(folder)


@pytest.mark.parametrize("value", [np.nan, -0.5, 2])
def test_read_pseudo_labels_refuses_what_is_no_probability(folder, value):
    np.save(folder / SCORES, np.float16([[0, 1], [0, value], [0, 0]]))
    with pytest.raises(MetadataError, match="row 1 holds"):
        read_pseudo_labels(folder)


def test_read_pseudo_labels_refuses_another_number_of_labels(folder):
    np.save(folder / SCORES, np.zeros((3, 5), np.float16))
    with pytest.raises(MetadataError, match=r"is float16 \[3, 5\], needed is float16 \[windows, 2\]"):
        read_pseudo_labels(folder)
