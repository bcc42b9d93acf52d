import pytest
from made_detections import SETTINGS, SPECIES, found

from birdinfer.detections.formats import write_table
from birdinfer.species import SpeciesNames
from birdinfer.tables.annotations import read_annotations


def test_there_is_a_track_for_each_recording_with_detections(tmp_path):
    folder = write_table("audacity", tmp_path, found, SETTINGS)
    tracks = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}
    assert tracks == {
        "siteA/a.txt": "0.000000\t5.000000\tEurasian Blackbird; 0.1235\n"
        "5.000000\t20.000000\tEurasian Blackbird; 0.9877\n5.000000\t10.000000\tCommon Cuckoo; 0.5000\n",
        "siteB/c.txt": "2.500000\t7.250000\t47158son16; 0.5000\n",
    }


def test_the_reader_of_truths_finds_the_same_species(tmp_path):
    folder, names = write_table("audacity", tmp_path, found, SETTINGS), SpeciesNames(SPECIES)
    annotations = [each for name in ("A/a", "B/c") for each in read_annotations(folder / f"site{name}.txt").annotations]
    labels = [names.find(each.species[0][0]) for each in annotations]
    assert labels == [("eurbla",), ("eurbla",), ("0012",), ("47158son16",)]
    assert [each[2:4] for each in annotations] == [(0, 5), (5, 20), (5, 10), (2.5, 7.25)]


@pytest.mark.filterwarnings("ignore")  # of what crowsetta imports and calls
def test_crowsetta_reads_it(tmp_path):
    crowsetta = pytest.importorskip("crowsetta", reason="an independent reader")
    track = write_table("audacity", tmp_path, found, SETTINGS) / "siteA" / "a.txt"
    sequence = crowsetta.formats.seq.AudSeq.from_file(track).to_seq()
    assert sequence.onsets_s.tolist() == [0, 5, 5]
    assert sequence.offsets_s.tolist() == [5, 20, 10]
    assert sequence.labels.tolist()[2] == "Common Cuckoo; 0.5000"
