import pytest

from birdinfer.detections.thresholds import read_thresholds
from birdinfer.errors import MetadataError
from birdinfer.species import Species

SPECIES = [Species("comcuc", "Cuculus canorus", "Common Cuckoo"), Species("eurbla", "Turdus merula", "Blackbird")]


@pytest.mark.parametrize(
    "table",
    [
        "label,threshold\ncomcuc,0.5\neurbla,1\n",
        "Scientific name;threshold\nCuculus canorus;0.5\nturdus  merula;1\n",
        "note,species,threshold\nx,Common Cuckoo,0.5\n,eurbla,1\n",
    ],
)
def test_thresholds_are_read_by_label_or_name(tmp_path, table):
    path = tmp_path / "t.csv"
    path.write_text(table)
    assert read_thresholds(path, SPECIES) == {"comcuc": 0.5, "eurbla": 1.0}


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("label,threshold\ncomcuk,0.5\n", "row 2: 'comcuk' is no species of the bundle"),
        ("label,threshold\ncomcuc,0.5\nCuculus canorus,0.6\n", "row 3: comcuc stands twice"),
        ("label,threshold\ncomcuc,50\n", "row 2: threshold is 50, allowed are numbers from 0 to 1"),
        ("label,threshold\ncomcuc,\n", "row 2: threshold is nan"),
        ("label,limit\ncomcuc,0.5\n", "threshold"),
        ("bird,threshold\ncomcuc,0.5\n", "has no column of species"),
    ],
)
def test_what_is_no_threshold_is_named_with_its_row(tmp_path, table, problem):
    path = tmp_path / "t.csv"
    path.write_text(table)
    with pytest.raises(MetadataError, match=problem):
        read_thresholds(path, SPECIES)
