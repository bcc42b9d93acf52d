from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import MetadataError
from birdinfer.tables.recordings import Recordings, match_recordings, own_recording, recording_of_table, spelled

TWO_SITES = Recordings(["siteA/20250227_060000", "siteB/20250227_060000", "S05_1", "caf\xe9"])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("siteA/20250227_060000", ["siteA/20250227_060000"]),
        ("siteA\\20250227_060000.WAV", ["siteA/20250227_060000"]),
        ("./siteA/20250227_060000.wav", ["siteA/20250227_060000"]),
        ("D:\\cards\\siteA\\20250227_060000.wav", ["siteA/20250227_060000"]),
        ("20250227_060000.wav", ["siteA/20250227_060000", "siteB/20250227_060000"]),
        ("siteC/20250227_060000.wav", []),
        ("train_soundscapes/S05_1.OGG", ["S05_1"]),
        ("S05_1", ["S05_1"]),
        ("s05_1", []),
        ("cafe\u0301.wav", ["caf\xe9"]),
    ],
)
def test_a_recording_is_found_by_path_or_by_what_of_it_is_unique(asked, found):
    assert TWO_SITES.find(asked) == found


def test_row_ids_of_2021_leave_out_the_date():
    known = Recordings(["7019_COR_20190904", "SITE_20250227_010000"])
    assert known.find("7019_COR") == ["7019_COR_20190904"]
    assert known.find("SITE_20250227") == []


def test_two_endings_keep_two_recordings_apart():
    known = Recordings(["a.wav", "a.flac"])
    assert known.find("a.wav") == ["a.wav"]
    assert known.find("a") == ["a.wav", "a.flac"]


class TestMatchRecordings:
    def match(self, *names, known=TWO_SITES):
        return match_recordings(enumerate(names, start=2), known, Path("t.csv"), "s.csv")

    def test_each_name_has_its_recording(self):
        assert self.match("siteA\\20250227_060000.wav", "S05_1.ogg", "S05_1.ogg") == {
            "siteA\\20250227_060000.wav": "siteA/20250227_060000",
            "S05_1.ogg": "S05_1",
        }

    def test_the_fitting_spelling_is_named(self):
        with pytest.raises(
            MetadataError, match=r"row 3: s.csv has no recording 's05_1.wav' - the nearest .* is 'S05_1'"
        ):
            self.match("S05_1", "s05_1.wav")
        with pytest.raises(MetadataError, match=r"may be 'siteA/20250227_060000', 'siteB/.* - write the folder, too"):
            self.match("20250227_060000.wav")

    def test_two_recordings_never_become_one(self):
        with pytest.raises(MetadataError, match=r"row 3: 'site[AB]/x' and 'site[AB]/x' would both be 'x' of s.csv"):
            self.match("siteA/x.wav", "siteB/x.wav", known=Recordings(["x"]))
        assert self.match("x", "siteA/x.wav", known=Recordings(["x"])) == {"x": "x", "siteA/x.wav": "x"}


@pytest.mark.parametrize(
    "name",
    ["P_1.txt", "P_1.Table.1.selections.txt", "P_1.BirdNET.selection.table.txt", "P_1.BirdNET.results.audacity.txt",
     "P_1.wav.csv"],
)  # fmt: skip
def test_a_table_without_files_is_about_the_recording_whose_name_it_has(name):
    assert own_recording(Path(name)) == "P_1"
    assert recording_of_table(Path(name), Recordings(["Q", "P_1"]), "s.csv") == "P_1"


@pytest.mark.parametrize("name", ["SITE.20250227.010002", "5341.250227010002", "P-2.4.0"])
def test_numbers_at_the_end_of_a_recording_are_its_own(name):
    assert own_recording(Path(f"{name}.Table.1.selections.txt")) == name
    assert own_recording(Path(f"{name}.BirdNET.results.audacity.txt")) == name


def test_a_table_of_another_name_is_about_the_only_recording():
    assert recording_of_table(Path("audacity.txt"), Recordings(["P_1"]), "s.csv") == "P_1"
    with pytest.raises(MetadataError, match=r"names no recording, and s.csv has several - call it as the recording"):
        recording_of_table(Path("audacity.txt"), TWO_SITES, "s.csv")


names = st.lists(st.sampled_from(["a", "B", "x y", "S05_1", "2025", "\xe9"]), min_size=1, max_size=3).map("/".join)


@given(st.sets(names, min_size=1), st.data())
def test_every_recording_is_found_by_its_path_in_any_spelling(known, data):
    name = data.draw(st.sampled_from(sorted(known)))
    for asked in (name, f"{name}.WAV", name.replace("/", "\\"), f"./{name}.flac"):
        assert Recordings(known).find(asked) == [name]
    assert spelled(spelled(name)) == spelled(name)
