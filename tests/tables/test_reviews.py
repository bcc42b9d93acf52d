import numpy as np
import pytest

from birdinfer.errors import InputNotFoundError, LabelError, MetadataError
from birdinfer.species import Species
from birdinfer.tables.reviews import ANSWER, read_reviews, reviews_of_truth

SPECIES = [Species("eurbla", "Turdus merula", "Eurasian Blackbird"), Species("0012"), Species("comcuc")]
HEADER = f"recording,file,start,end,label,confidence,{ANSWER},reviewed"


def write(path, *rows, header=HEADER):
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_reads_what_the_page_exports(tmp_path):
    path = write(
        tmp_path / "reviews.csv",
        "a/x,a/x.wav,0.0,5.0,eurbla,0.9312,right,2026-05-01",
        "a/x,a/x.wav,5.0,10.0,0012,0.5,wrong,2026-05-01",
        "b/x,b/x.wav,0.0,5.0,Turdus merula,0.25,unsure,2026-05-01",
        "b/x,b/x.wav,5.0,10.0,eurbla,0.125,wrong,2026-05-01",
        "b/x,b/x.wav,10.0,15.0,eurbla,0.5,,",
    )
    reviews = read_reviews([path], SPECIES)
    assert reviews.confidences.tolist() == [0.9312, 0.5, 0.125]
    assert reviews.right.tolist() == [True, False, False]
    assert reviews.species.tolist() == [0, 1, 0]
    assert reviews.recordings.tolist() == [0, 0, 1]
    assert reviews.notes == ("left out: 1 unsure", "left out: 1 without an answer")


def test_an_event_of_several_tables_counts_once(tmp_path):
    same, other, both = (f"x,{name},0,5,eurbla,0.5" for name in ("x.wav", "y.wav", "z.wav"))
    first = write(tmp_path / "1.csv", f"{same},right,", f"{other},right,", f"{both},wrong,")
    second = write(tmp_path / "2.csv", f"{same},Right,", f"{other},wrong,", f"{other},right,", f"{both},unsure,")
    reviews = read_reviews([first, second], SPECIES)
    assert reviews.right.tolist() == [True, False]
    assert set(reviews.notes) == {
        "left out: 1 reviewed twice",
        "left out: 1 unsure",
        "left out: 1 right in one row and wrong in another",
    }


def test_a_table_without_times_has_an_event_in_each_row(tmp_path):
    path = write(tmp_path / "r.csv", "x,comcuc,0.5,1", "x,comcuc,0.5,0", header=f"recording,label,confidence,{ANSWER}")
    assert read_reviews([path], SPECIES).right.tolist() == [True, False]


def test_a_recording_is_one_however_its_name_is_spelled(tmp_path):
    path = write(tmp_path / "r.csv", "a\\x.WAV,0,5,comcuc,0.5,right", "a/x,5,10,comcuc,0.5,wrong", header=HEADER[10:-9])
    assert read_reviews([path], SPECIES).recordings.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("row", "error", "problem"),
    [
        ("x,x.wav,0,5,eurbla,0.5,maybe,", MetadataError, rf"row 2 holds 'maybe' as {ANSWER} - right, wrong or unsure"),
        ("x,x.wav,0,5,eurbla,1.5,right,", MetadataError, r"row 2 holds '1.5' as confidence"),
        ("x,x.wav,0,5,eurbla,,right,", MetadataError, r"row 2 holds '' as confidence"),
        ("x,,0,5,eurbla,0.5,right,", MetadataError, r"row 2 names no file"),
        ("x,x.wav,0,5,Eurbla,0.5,right,", LabelError, r"row 2: 'Eurbla' is 'eurbla' but for case"),
        ("x,x.wav,0,5,stranger,0.5,right,", LabelError, r"row 2: 'stranger' is no species of the bundle"),
    ],
)
def test_a_row_that_is_no_review_is_refused_with_its_number(tmp_path, row, error, problem):
    with pytest.raises(error, match=problem):
        read_reviews([write(tmp_path / "r.csv", row)], SPECIES)


def test_a_table_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match="the page of birdinfer detect"):
        read_reviews([tmp_path / "none.csv"], SPECIES)
    with pytest.raises(MetadataError, match=f"has no column {ANSWER}"):
        read_reviews([write(tmp_path / "r.csv", header="label,confidence,file")], SPECIES)
    with pytest.raises(MetadataError, match="has no column file or recording"):
        read_reviews([write(tmp_path / "r.csv", header=f"label,confidence,{ANSWER}")], SPECIES)


def test_cells_of_a_truth_are_reviews_from_the_least_confidence_on():
    scores, truth = np.array([[0.9, 0.1], [0.05, 0.5]]), np.array([[1, 0], [1, 1]], bool)
    reviews = reviews_of_truth(scores, truth, ["b", "a"], 0.1)
    assert reviews.confidences.tolist() == [0.9, 0.1, 0.5]
    assert reviews.right.tolist() == [True, False, True]
    assert reviews.species.tolist() == [0, 1, 1]
    assert reviews.recordings.tolist() == [0, 0, 1]


def test_channels_of_a_file_are_events_of_their_own_in_one_recording(tmp_path):
    (tmp_path / "r.csv").write_text(
        f"recording,file,start,end,label,confidence,{ANSWER}\n"
        f"a_ch1,a.wav,0,5,{SPECIES[0].label},0.5,right\n"
        f"a_ch2,a.wav,0,5,{SPECIES[0].label},0.5,wrong\n"
    )
    reviews = read_reviews([tmp_path / "r.csv"], SPECIES)
    assert reviews.right.tolist() == [True, False]
    assert reviews.recordings.tolist() == [0, 0]  # a bootstrap takes both or none
