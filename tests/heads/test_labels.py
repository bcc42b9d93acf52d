"""Labels of embedded windows: whose recording, which windows, what is unknown."""

import numpy as np
import pytest
from made_embeddings import embeddings_of

from birdinfer.errors import BirdinferError
from birdinfer.heads.labels import read_labels
from birdinfer.tables.reviews import ANSWER

RECORDINGS = ("a/one", "a/one", "a/two", "b/one", "b/one", "b/one")


@pytest.fixture
def embedded():
    return embeddings_of(np.zeros((len(RECORDINGS), 3)), *RECORDINGS)


def table(tmp_path, text, name="train.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_read_labels_gives_a_recordings_labels_to_each_of_its_windows(tmp_path, embedded):
    path = table(
        tmp_path,
        "filename,primary_label,secondary_labels,author\n"
        "a/one.ogg,x,[],Ann\na/two.ogg,y,\"['x', 'z']\",Bob\nb/one.ogg,z,[],Ann\nb/gone.ogg,z,[],Cid\n",
    )
    found = read_labels(path, embedded)
    assert [each.label for each in found.species] == ["x", "y", "z"]
    assert found.windows.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.clips.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.truth.tolist() == [[1, 0, 0]] * 2 + [[1, 1, 1]] + [[0, 0, 1]] * 3
    assert found.groups.tolist() == [0, 1, 0]
    assert found.notes == ("1 recordings of train.csv are not embedded: b/gone",)


@pytest.mark.parametrize(
    ("file", "windows"), [("train_audio/a/one.ogg", [0, 1]), ("two.wav", [2]), ("a\\one.ogg", [0, 1])]
)
def test_read_labels_knows_a_recording_by_the_end_of_its_path(tmp_path, embedded, file, windows):
    found = read_labels(table(tmp_path, f"filename,primary_label\n{file},x\n"), embedded)
    assert found.windows.tolist() == windows


def test_read_labels_takes_reviews_for_the_windows_that_they_are_about(tmp_path, embedded):
    path = table(
        tmp_path,
        f"recording,start,end,label,confidence,{ANSWER}\n"
        "b/one,5,15,x,0.9,right\nb/one,0,3,y,0.8,wrong\na/one,0,5,x,0.7,unsure\ngone,0,5,x,0.7,right\n"
        "a/two,0,5,x,0.6,wrong\na/one,0,5,y,0.6,right\na/one,0,5,z,0.9,right\n",
        "reviews.csv",
    )
    found = read_labels(path, embedded)
    assert found.windows.tolist() == [4, 5, 3, 2, 0]
    assert found.clips.tolist() == [0, 0, 1, 2, 3]
    nan = float("nan")
    truth = [[1, nan], [1, nan], [nan, 0], [0, nan], [nan, 1]]
    assert np.array_equal(found.truth, truth, equal_nan=True)
    assert found.notes == (
        "2 reviews are unsure, or of what is not embedded",
        "1 species are left out, all their reviews are right, or all wrong: z",
    )


def test_read_labels_takes_names_from_the_taxonomy(tmp_path, embedded):
    table(tmp_path, "primary_label,scientific_name,common_name,class_name\nx,Xus xus,Ex,Aves\n", "taxonomy.csv")
    (x, y) = read_labels(table(tmp_path, "filename,primary_label\na/one,x\na/two,y\n"), embedded).species
    assert (x.scientific_name, x.class_name, y.scientific_name) == ("Xus xus", "Aves", "")


def test_read_labels_takes_the_tables_own_folds(tmp_path, embedded):
    path = table(tmp_path, "filename,primary_label,fold\na/one,x,7\na/two,y,9\nb/one,y,7\n")
    assert read_labels(path, embedded, fold_column="fold").folds.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename\na/one\n", "has no column primary_label"),
        ("filename,primary_label\nelsewhere,x\n", "names none of the recordings"),
        ("filename,primary_label\na/one,\n", "row 2 has no primary_label"),
        ("filename,primary_label,secondary_labels\na/one,x,['y'\n", "row 2: secondary_labels"),
        ("filename,primary_label\n", "has no rows"),
        (f"file,start,end,label,{ANSWER}\na/one,0,5,x,right\n", "has no species with reviews that are right and"),
        (f"file,start,end,label,{ANSWER}\na/one,5,1,x,right\n", "row 2 has no start and end"),
    ],
)
def test_read_labels_refuses_in_one_line(tmp_path, embedded, text, message):
    with pytest.raises(BirdinferError, match=message) as refused:
        read_labels(table(tmp_path, text), embedded)
    assert "\n" not in str(refused.value)
