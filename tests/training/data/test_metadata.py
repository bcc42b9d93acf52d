import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import write_sound
from table_mutations import mutated
from tiny_clips import LABELS, RATE, write_clips, write_table

from birdinfer.errors import ConfigError, InputNotFoundError, LabelError, MetadataError
from birdinfer.training.data.metadata import read_metadata, without_rare


@pytest.fixture
def data(tmp_path):
    return write_clips(tmp_path / "data", clips_per_label=2)


def write_train(folder, rows, header=("primary_label", "filename")):
    return write_table(folder / "train.csv", list(header), rows)


class TestReadMetadata:
    def test_clips_and_species(self, clips_dir):
        metadata = read_metadata(clips_dir)
        assert metadata.labels == LABELS
        assert len(metadata.clips) == 24
        assert metadata.notes == ()
        first = metadata.clips[0]
        assert (first.filename, first.primary_label, first.secondary_labels) == ("comcuc/XC0.wav", "comcuc", ("0012",))
        assert first.duration_seconds == pytest.approx(1.5)
        assert first.path.is_file()
        assert metadata.species[0].class_name == "Aves"

    def test_pitfall_6_numeric_labels_stay_text(self, data):
        """Pitfall 6: "0012" read as an integer would be 12, "1161364" in a column with blanks 1161364.0."""
        labels = {clip.primary_label for clip in read_metadata(data).clips}
        assert labels == {"comcuc", "0012", "1161364", "47158son16"}

    def test_a_species_called_na_is_one_if_the_taxonomy_says_so(self, data):
        """pandas reads NA, None and null as missing unless set otherwise."""
        shutil.move(data / "train_audio" / "comcuc", data / "train_audio" / "NA")
        write_train(data, [["NA", "NA/XC0.wav"]])
        write_table(data / "taxonomy.csv", ["primary_label"], [["NA"]])
        assert read_metadata(data).labels == ("NA",)
        (data / "taxonomy.csv").unlink()
        with pytest.raises(MetadataError, match=r"row 2 has no primary_label, only 'NA' - .* belongs in taxonomy\.csv"):
            read_metadata(data)

    def test_without_taxonomy_the_labels_are_sorted(self, data):
        (data / "taxonomy.csv").unlink()
        assert read_metadata(data).labels == tuple(sorted(LABELS))

    def test_first_years_names(self, data):
        """2021 and 2022: train_metadata.csv, bare file names, 2021 also another folder."""
        (data / "train.csv").unlink()
        shutil.move(data / "train_audio", data / "train_short_audio")
        write_table(data / "train_metadata.csv", ["primary_label", "filename"], [["0012", "XC1.wav"]])
        assert read_metadata(data).clips[0].path == data / "train_short_audio" / "0012" / "XC1.wav"

    def test_keeps_the_fold_column(self, data):
        write_train(data, [["0012", "0012/XC1.wav", "3"]], ("primary_label", "filename", "my_fold"))
        assert read_metadata(data, "my_fold").clips[0].given_fold == "3"

    @pytest.mark.parametrize("no_one", ["", "Unknown", "anonymous", "nan", "NA", "None"])
    def test_no_one_is_no_author(self, data, no_one):
        write_train(data, [["0012", "0012/XC1.wav", no_one]], ("primary_label", "filename", "author"))
        assert read_metadata(data).clips[0].author == ""

    @pytest.mark.parametrize("column", ["group", "url"])
    def test_blanks_have_nothing_in_common(self, data, column):
        write_train(data, [["0012", "0012/XC1.wav", "nan"]], ("primary_label", "filename", column))
        assert read_metadata(data).clips[0].recording == ""


class TestColumns:
    def read_one(self, data, **cells):
        write_train(data, [["0012", "0012/XC1.wav", *cells.values()]], ("primary_label", "filename", *cells))
        return read_metadata(data).clips[0]

    def test_columns_that_a_year_lacks_are_empty(self, data):
        clip = read_metadata(data).clips[0]
        assert (clip.rating, clip.url, clip.collection, clip.site, clip.recording) == (None, "", "", "", "")

    def test_rating_url_collection_and_site(self, data):
        clip = self.read_one(
            data, rating="4.5", url="https://xeno-canto.org/1", collection="XC", latitude="54.1199", longitude="-0.5445"
        )
        assert (clip.rating, clip.collection, clip.site) == (4.5, "XC", "54.12,-0.54")
        assert clip.recording == clip.url == "https://xeno-canto.org/1"

    def test_a_recording_is_the_group_before_the_url(self, data):
        clip = self.read_one(data, url="https://xeno-canto.org/1", group=" XC1 ")
        assert clip.recording == clip.group == "XC1"

    def test_a_rating_that_is_none_is_reported_and_counts_as_unrated(self, data):
        rows = [["0012", f"0012/XC{index}.wav", rating] for index, rating in enumerate(("A", "7"))]
        write_train(data, rows, ("primary_label", "filename", "rating"))
        metadata = read_metadata(data)
        assert [clip.rating for clip in metadata.clips] == [None, None]
        line = "2 ratings are no number from 0 to 5 and count as unrated: A of 0012/XC0.wav, 7 of 0012/XC1.wav"
        assert metadata.notes == (line,)


class TestWithoutRare:
    @pytest.fixture
    def uneven(self, data):
        """Two clips of comcuc, one of 0012, none of the others."""
        rows = [
            ["comcuc", "comcuc/XC0.wav", "['0012', '1161364']"],
            ["comcuc", "comcuc/XC1.wav", "[]"],
            ["0012", "0012/XC0.wav", "['comcuc']"],
        ]
        write_train(data, rows, ("primary_label", "filename", "secondary_labels"))
        return read_metadata(data)

    def test_rare_species_lose_their_clips_and_keep_column_and_mention(self, uneven):
        metadata = without_rare(uneven, 2)
        assert metadata.labels == uneven.labels
        assert metadata.clips == uneven.clips[:2]
        assert metadata.clips[0].secondary_labels == ("0012", "1161364")
        assert metadata.notes == (
            "1 clips are left out: of 1 species with fewer than 2, which keep their columns: 0012",
        )

    def test_one_leaves_out_none_not_even_species_without_clips(self, uneven):
        assert without_rare(uneven, 1) == uneven

    def test_enough_everywhere(self, clips_dir):
        metadata = read_metadata(clips_dir)
        assert without_rare(metadata, 6) == metadata

    def test_nothing_would_be_left(self, uneven):
        with pytest.raises(ConfigError, match="is 3, no species has more than 2 - lower it to 2"):
            without_rare(uneven, 3)


class TestWhatIsLeftOut:
    def test_pitfall_13_repeated_rows(self, data):
        """Pitfall 13: duplicates."""
        write_train(data, [["0012", "0012/XC1.wav"]] * 3)
        metadata = read_metadata(data)
        assert len(metadata.clips) == 1
        assert "2 rows of train.csv repeat a filename" in metadata.notes[0]

    def test_missing_files_are_counted_and_named(self, data):
        rows = [["0012", f"0012/gone{index}.ogg"] for index in range(5)]
        write_train(data, [["0012", "0012/XC1.wav"], *rows])
        metadata = read_metadata(data)
        assert len(metadata.clips) == 1
        assert metadata.notes == (
            "5 sound files are missing and left out: 0012/gone0.ogg, 0012/gone1.ogg, 0012/gone2.ogg and 2 more",
        )

    def test_pitfall_13_broken_clips(self, data):
        """Pitfall 13: empty files, text under a sound's name, a header without samples."""
        folder = data / "train_audio" / "0012"
        (folder / "empty.ogg").touch()
        (folder / "text.ogg").write_text("404 not found")
        write_sound(folder / "bare.wav", np.zeros(0, np.float32), RATE)
        names = ["XC0.wav", "empty.ogg", "text.ogg", "bare.wav"]
        write_train(data, [["0012", f"0012/{name}"] for name in names])
        metadata = read_metadata(data)
        assert [clip.filename for clip in metadata.clips] == ["0012/XC0.wav"]
        assert "3 clips cannot be decoded" in metadata.notes[0]
        assert "0012/empty.ogg (is empty (0 bytes))" in metadata.notes[0]
        assert "0012/bare.wav (holds no sound)" in metadata.notes[0]

    def test_secondary_labels_outside_the_taxonomy(self, data):
        header = ("primary_label", "filename", "secondary_labels")
        write_train(data, [["0012", "0012/XC1.wav", "['martian', 'comcuc', '0012']"]], header)
        metadata = read_metadata(data)
        assert metadata.clips[0].secondary_labels == ("comcuc",)
        assert "1 secondary labels are not in the taxonomy and are left out: martian" in metadata.notes[0]


class TestWhatIsRefused:
    def test_no_folder(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"no such folder.*--data"):
            read_metadata(tmp_path / "none")

    def test_no_table(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"neither train\.csv nor train_metadata\.csv"):
            read_metadata(tmp_path)

    def test_no_audio_folder(self, data):
        shutil.rmtree(data / "train_audio")
        with pytest.raises(InputNotFoundError, match="train_audio"):
            read_metadata(data)

    @pytest.mark.parametrize(("missing", "other"), [("primary_label", "filename"), ("filename", "primary_label")])
    def test_missing_column_names_those_found(self, data, missing, other):
        write_train(data, [["a", "b"]], ("kind", other))
        with pytest.raises(MetadataError, match=f"has no column {missing} - its columns are: kind, {other}"):
            read_metadata(data)

    def test_missing_fold_column(self, data):
        with pytest.raises(MetadataError, match="has no column my_fold"):
            read_metadata(data, "my_fold")

    def test_no_rows(self, data):
        write_train(data, [])
        with pytest.raises(MetadataError, match="has no rows"):
            read_metadata(data)

    @pytest.mark.parametrize(("content", "what"), [(b"", "has no column"), (b"\xfe\x00\x81" * 9, "what is no UTF-8")])
    def test_no_table_at_all(self, data, content, what):
        (data / "train.csv").write_bytes(content)
        with pytest.raises(MetadataError, match=what):
            read_metadata(data)

    def test_one_file_with_two_labels(self, data):
        write_train(data, [["0012", "0012/XC1.wav"], ["comcuc", "0012/XC1.wav"]])
        with pytest.raises(MetadataError, match=r"rows 2 and 3: 0012/XC1\.wav is labelled '0012' and 'comcuc'"):
            read_metadata(data)

    def test_label_outside_the_taxonomy(self, data):
        write_train(data, [["martian", "0012/XC1.wav"]])
        with pytest.raises(LabelError, match=r"row 2 has the label 'martian', which is not in taxonomy\.csv - add"):
            read_metadata(data)

    def test_doubled_label_in_the_taxonomy(self, data):
        write_table(data / "taxonomy.csv", ["primary_label"], [["0012"], ["0012"]])
        with pytest.raises(LabelError, match="stands twice"):
            read_metadata(data)

    def test_no_sound_at_all(self, data):
        write_train(data, [["0012", "0012/gone.ogg"]])
        with pytest.raises(InputNotFoundError, match="none of 1 listed sound files"):
            read_metadata(data)

    @pytest.mark.parametrize("cell", ["", "  ", "nan", "None", "<NA>"])
    def test_a_row_without_a_label_is_named(self, data, cell):
        write_train(data, [["0012", "0012/XC1.wav"], [cell, "0012/XC0.wav"]])
        with pytest.raises(
            MetadataError, match=r"train\.csv: row 3 has no primary_label.* - fill it in, or take the row"
        ):
            read_metadata(data)

    def test_a_row_without_a_filename_is_named(self, data):
        write_train(data, [["0012", "0012/XC1.wav"], ["0012", " "]])
        with pytest.raises(MetadataError, match="row 3 has no filename"):
            read_metadata(data)

    @pytest.mark.parametrize(
        ("label", "meant"),
        [
            ("comcuc ", "'comcuc' but for spaces"),
            ("ComCuc", "'comcuc' but for case"),
            ("12", "'0012' but for leading zeros"),
            ("1161364.0", "'1161364' but for the .0 that pandas writes"),
        ],
    )
    def test_a_label_that_is_nearly_one_is_named_in_quotes(self, data, label, meant):
        header = ("primary_label", "filename", "secondary_labels")
        for row in ([label, "0012/XC0.wav", ""], ["47158son16", "0012/XC0.wav", f"['{label.strip()}' 'x']"]):
            if row[0] == label or label == label.strip():
                write_train(data, [["0012", "0012/XC1.wav", "[]"], row], header)
                with pytest.raises(
                    LabelError, match=f"row 3 has the label '{label}', which is {meant} - write it as in"
                ):
                    read_metadata(data)

    def test_two_spellings_of_one_label_without_a_taxonomy(self, data):
        (data / "taxonomy.csv").unlink()
        write_train(data, [["7", "0012/XC1.wav"], ["7.0", "0012/XC0.wav"]])
        with pytest.raises(
            LabelError, match=r"row 3 has the label '7\.0', which is row 2's '7' but for the \.0 that pan"
        ):
            read_metadata(data)

    @pytest.mark.parametrize("fold", ["-4", "0.5", "-9.0", "1e400"])
    def test_a_fold_that_is_none_is_named(self, data, fold):
        write_train(data, [["0012", "0012/XC1.wav", fold]], ("primary_label", "filename", "fold"))
        with pytest.raises(MetadataError, match=rf"row 2 has the fold '{fold}'"):
            read_metadata(data, "fold")

    @pytest.mark.parametrize(
        ("start", "end", "what"),
        [("5", "5", "row 2 is from 5 s to 5 s"), ("x", "5", "row 2: start is 'x'"), ("0", "-1", "row 2: end is '-1'")],
    )
    def test_a_part_that_is_none_is_named(self, data, start, end, what):
        write_train(data, [["0012", "0012/XC1.wav", start, end]], ("primary_label", "filename", "start", "end"))
        with pytest.raises(MetadataError, match=what):
            read_metadata(data)


class TestAsPeopleWriteThem:
    @pytest.mark.parametrize(
        ("cell", "fold"),
        [
            ("-2.0", "-2"),
            ("-1.0", "-1"),
            ("3.0", "3"),
            (" 2 ", "2"),
            ("nan", ""),
            ("test", "-2"),
            ("Train", "-1"),
            ("a", "a"),
        ],
    )
    def test_folds(self, data, cell, fold):
        write_train(data, [["0012", "0012/XC1.wav", cell]], ("primary_label", "filename", "fold"))
        assert read_metadata(data, "fold").clips[0].given_fold == fold

    @pytest.mark.parametrize(
        "cell",
        ["0012, 1161364", "0012;1161364", "0012|1161364", "{'0012', '1161364'}", "['0012' '1161364']", "0012 1161364"],
    )
    def test_secondary_labels(self, data, cell):
        write_train(data, [["comcuc", "comcuc/XC1.wav", cell]], ("primary_label", "filename", "secondary_labels"))
        assert set(read_metadata(data).clips[0].secondary_labels) == {"0012", "1161364"}

    @pytest.mark.parametrize("cell", ["nan", "None", "[nan]", "set()", ""])
    def test_no_secondary_labels(self, data, cell):
        write_train(data, [["comcuc", "comcuc/XC1.wav", cell]], ("primary_label", "filename", "secondary_labels"))
        assert read_metadata(data).notes == ()

    def test_a_secondary_list_that_is_cut_off_is_refused(self, data):
        write_train(
            data, [["0012", "0012/XC1.wav", "['comcuc', '11"]], ("primary_label", "filename", "secondary_labels")
        )
        with pytest.raises(MetadataError, match=r"row 2: secondary_labels .* is no list of labels, \] is missing"):
            read_metadata(data)

    def test_several_primary_labels(self, data):
        write_train(
            data, [["comcuc;0012", "comcuc/XC1.wav", "1161364"]], ("primary_label", "filename", "secondary_labels")
        )
        (clip,) = read_metadata(data).clips
        assert (clip.primary_label, clip.secondary_labels) == ("comcuc", ("0012", "1161364"))

    def test_file_names(self, data):
        write_train(data, [["0012", "0012\\XC1.wav"], ["0012", "train_audio/0012/XC0.WAV"], ["0012", "0012/XC1.wav"]])
        metadata = read_metadata(data)
        assert [clip.filename for clip in metadata.clips] == ["0012/XC1.wav", "0012/XC0.wav"]
        assert metadata.notes == (
            "1 rows of train.csv repeat a filename and are left out",
            "1 sound files are spelled otherwise in the table, and found: 0012/XC0.wav",
        )

    def test_a_missing_file_names_the_one_that_fits(self, data):
        write_train(data, [["0012", "0012/XC1.wav"], ["0012", "0012/XC0.mp3"]])
        (note,) = read_metadata(data).notes
        assert note.endswith("0012/XC0.mp3 (train_audio/0012/XC0.wav may be meant)")

    def test_parts_of_files(self, data):
        """As in the labelled soundscapes of 2026, where every row stands twice."""
        rows = [
            ["0012/XC1.wav", "00:00:00", "00:00:01", "0012;comcuc"],
            ["0012/XC1.wav", "00:00:00", "00:00:01", "1161364"],
            ["0012/XC1.wav", "1", "1.5", "comcuc"],
            ["0012/XC0.wav", "0.5", "60", "0012"],
            ["0012/XC0.wav", "0", "0.5", "nocall"],
            ["0012/XC0.wav", "0", "0.5", ""],
            ["0012/XC0.wav", "5", "10", "0012"],
        ]
        write_train(data, rows, ("filename", "start", "end", "primary_label"))
        metadata = read_metadata(data)
        assert [(clip.filename, clip.primary_label, clip.secondary_labels) for clip in metadata.clips] == [
            ("0012/XC1.wav#t=0,1", "0012", ("comcuc", "1161364")),
            ("0012/XC1.wav#t=1,1.5", "comcuc", ()),
            ("0012/XC0.wav#t=0.5,60", "0012", ()),
        ]
        assert [clip.duration_seconds for clip in metadata.clips] == pytest.approx([1, 0.5, 1])
        assert [clip.recording for clip in metadata.clips] == ["0012/XC1.wav", "0012/XC1.wav", "0012/XC0.wav"]
        assert metadata.notes == (
            "2 parts of files without a species are left out",
            "1 clips cannot be decoded and are left out: 0012/XC0.wav#t=5,10 (holds no sound)",
        )

    def test_a_table_that_ends_in_a_line_is_noted(self, data):
        (data / "train.csv").write_text("primary_label,filename\n0012,0012/XC1.wav")
        assert read_metadata(data).notes == ("train.csv has no line end behind its last row: is it whole?",)

    @given(seed=st.integers(0, 2**32 - 1))
    def test_a_mutated_table_is_read_as_meant_or_refused_with_its_row(self, clips_dir, tmp_path_factory, seed):
        check_mutated_data(clips_dir, tmp_path_factory.mktemp("mutated"), seed)


def check_mutated_data(clips_dir, folder, seed):
    """train.csv or taxonomy.csv of a folder is mutated: the same clips, or a refusal with the row."""
    name = ("train.csv", "taxonomy.csv")[seed % 2]
    for file in ("train.csv", "taxonomy.csv"):
        shutil.copy(clips_dir / file, folder)
    (folder / "train_audio").symlink_to(clips_dir / "train_audio")
    with (clips_dir / name).open(newline="") as file:
        mutant = mutated(list(csv.reader(file)), seed)
    (folder / name).write_bytes(mutant.content)
    if mutant.row is None:
        found, meant = read_metadata(folder), read_metadata(clips_dir)
        assert [clip._replace(path=Path()) for clip in found.clips] == [
            clip._replace(path=Path()) for clip in meant.clips
        ]
        assert found.species == meant.species
    else:
        with pytest.raises(MetadataError, match=rf"{name}: row {mutant.row} "):
            read_metadata(folder)
