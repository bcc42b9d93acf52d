import pytest
from made_data import noise as make_noise
from made_data import row, write_data, write_sound, write_table

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.report.listing import read_listing


def test_read_listing_reads_what_training_reads_and_more(tmp_path):
    cells = {"secondary_labels": "['b']", "rating": "3.5", "latitude": "1.5", "longitude": "2", "date": "2013-05-25"}
    listing = read_listing(write_data(tmp_path, [row("a/1.wav", **cells, time="05:30"), row("b/2.wav")], taxonomy="ab"))
    first = listing.clips[0]
    assert (first.clip.secondary_labels, first.clip.rating, first.clip.site) == (("b",), 3.5, "1.50,2.00")
    assert (first.date, first.month, first.hour) == ("2013-05-25", 5, 5)
    assert [one.label for one in listing.species] == ["a", "b"]
    assert {kind: places for kind, places in listing.faults.items() if places} == {}


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ({"date": "2013-05-00", "time": "?"}, ("2013-05", None)),
        ({"date": "2013-00-00", "time": "7:05 pm"}, ("", 19)),
        ({"date": "", "time": "12:10 am"}, ("", 0)),
        ({"recorded_at": "2021-12-31T23:59:00"}, ("2021-12-31", 23)),
        ({"date": "no", "time": "25:00"}, ("", None)),
    ],
)
def test_read_listing_reads_dates_and_hours(tmp_path, cells, found):
    (clip,) = read_listing(write_data(tmp_path, [row("a/1.wav", **cells)])).clips
    assert (clip.date, clip.hour) == found


def test_read_listing_reads_the_clock_in_a_name(tmp_path):
    (clip,) = read_listing(write_data(tmp_path, [row("a/S05_20250227_063002.wav")])).clips
    assert (clip.date, clip.hour) == ("2025-02-27", 6)


def test_read_listing_keeps_every_fault_and_the_clips(tmp_path):
    rows = [
        row("a/1.wav", rating="11", latitude="99", longitude="0"),
        row("x/2.wav"),
        row("a/3.wav", secondary_labels="['b'"),
        row("a/4.wav", primary_label=""),
        row("b/5.wav", secondary_labels="['z', 'a']"),
        row("b/5.wav", primary_label="a"),
        row("b/6.wav"),
        row("b/6.wav"),
        row("A/7.wav"),
    ]
    listing = read_listing(write_data(tmp_path, rows, taxonomy="ab"))
    assert [each.clip.filename for each in listing.clips] == [
        "a/1.wav", "x/2.wav", "a/3.wav", "b/5.wav", "b/6.wav", "A/7.wav",
    ]  # fmt: skip
    assert listing.faults["ratings"] == ["row 2: '11' of a/1.wav"]
    assert listing.faults["places"] == ["row 2: 99, 0 of a/1.wav"]
    assert listing.faults["labels outside the taxonomy"] == ["x (1 clip)", "A (1 clip, 'a' but for case)"]
    assert [line.partition(":")[0] for line in listing.faults["refused rows"]] == [
        "row 4",
        "row 5 has no primary_label",
    ]
    assert listing.faults["two labels"] == ["rows 6 and 7: b/5.wav is b and a"]
    assert listing.faults["repeated rows"] == ["rows 8 and 9: b/6.wav"]
    assert listing.faults["secondary labels outside the taxonomy"] == ["z (1 clip)"]


def test_read_listing_finds_files_without_a_row_and_labels_without_a_species(tmp_path):
    write_data(tmp_path, [row("a/1.wav")])
    write_sound(tmp_path / "train_audio" / "b" / "2.wav", make_noise(0.1))
    (tmp_path / "train_audio" / "notes.txt").write_text("none")
    listing = read_listing(tmp_path)
    assert listing.not_listed == ("b/2.wav",)
    assert [one.label for one in listing.species] == ["a"]


def test_read_listing_counts_labelled_soundscapes(tmp_path):
    write_data(tmp_path, [row("a/1.wav")], taxonomy="ab")
    write_sound(tmp_path / "train_soundscapes" / "s1.wav", make_noise(0.1))
    window = {"filename": "s1.wav", "start": 0, "end": 5, "primary_label": "b;c"}
    gone = {"filename": "s2.wav", "start": 5, "end": 10, "primary_label": "b"}
    write_table(tmp_path / "train_soundscapes_labels.csv", [window, window, gone])
    scapes = read_listing(tmp_path).soundscapes
    assert (scapes.labels, scapes.n_repeated, scapes.missing) == ({"b": 10, "c": 5}, 1, ("s2.wav",))
    (tmp_path / "train_soundscapes_labels.csv").write_text("filename,start,end,primary_label\ns1.wav,x,5,b\n")
    assert "row 2" in read_listing(tmp_path).soundscapes.problem


def test_read_listing_of_parts_of_files(tmp_path):
    part = {"filename": "1.wav", "start": 0, "end": 5}
    rows = [part | {"primary_label": label} for label in ("a", "b", "nocall")] + [
        part | {"primary_label": "", "end": 9}
    ]
    (clip,) = read_listing(write_data(tmp_path, rows)).clips
    assert (clip.clip.primary_label, clip.clip.secondary_labels, clip.clip.is_part) == ("a", ("b",), True)


def test_read_listing_refuses_what_is_no_data_folder(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such folder"):
        read_listing(tmp_path / "none")
    with pytest.raises(InputNotFoundError, match=r"train\.csv"):
        read_listing(tmp_path)
    write_table(tmp_path / "train.csv", [{"label": "a"}])
    with pytest.raises(MetadataError, match="no column primary_label"):
        read_listing(tmp_path)
