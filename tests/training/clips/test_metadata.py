import shutil

import numpy as np
import pytest
from making import write_sound
from tiny_clips import LABELS, RATE, write_clips, write_table

from birdinfer.errors import ConfigError, InputNotFoundError, LabelError, MetadataError
from birdinfer.training.clips.metadata import read_metadata, without_rare


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

    def test_label_called_na_stays_text(self, data):
        """pandas reads NA, None and null as missing unless told not to."""
        shutil.move(data / "train_audio" / "comcuc", data / "train_audio" / "NA")
        write_train(data, [["NA", "NA/XC0.wav"]])
        (data / "taxonomy.csv").unlink()
        assert read_metadata(data).labels == ("NA",)

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

    @pytest.mark.parametrize("nobody", ["", "Unknown", "anonymous"])
    def test_nobody_is_no_author(self, data, nobody):
        write_train(data, [["0012", "0012/XC1.wav", nobody]], ("primary_label", "filename", "author"))
        assert read_metadata(data).clips[0].author == ""


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

    def test_a_rating_that_is_none_is_told_and_counts_as_unrated(self, data):
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

    def test_rare_species_lose_clips_column_and_mention(self, uneven):
        metadata = without_rare(uneven, 2)
        assert metadata.labels == ("comcuc",)
        assert [clip.filename for clip in metadata.clips] == ["comcuc/XC0.wav", "comcuc/XC1.wav"]
        assert metadata.clips[0].secondary_labels == ()
        assert metadata.notes == (
            "3 species have fewer than 2 clips and are left out, with 1 clips: 0012, 1161364, 47158son16",
            "2 secondary labels have lost their column and are left out: 0012, 1161364",
        )

    def test_one_leaves_out_none_not_even_species_without_clips(self, uneven):
        assert without_rare(uneven, 1) == uneven

    def test_enough_everywhere(self, clips_dir):
        metadata = read_metadata(clips_dir)
        assert without_rare(metadata, 6) == metadata

    def test_nothing_would_be_left(self, uneven):
        with pytest.raises(ConfigError, match="is 3, no species has more than 2 - lower it"):
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
        with pytest.raises(MetadataError, match=f"lacks the column {missing}; found are kind, {other}"):
            read_metadata(data)

    def test_missing_fold_column(self, data):
        with pytest.raises(MetadataError, match="lacks the column my_fold"):
            read_metadata(data, "my_fold")

    def test_no_rows(self, data):
        write_train(data, [])
        with pytest.raises(MetadataError, match="has no rows"):
            read_metadata(data)

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x81" * 9])
    def test_no_table_at_all(self, data, content):
        (data / "train.csv").write_bytes(content)
        with pytest.raises(MetadataError, match="is not a table"):
            read_metadata(data)

    def test_one_file_with_two_labels(self, data):
        write_train(data, [["0012", "0012/XC1.wav"], ["comcuc", "0012/XC1.wav"]])
        with pytest.raises(MetadataError, match=r"0012/XC1\.wav is labelled '0012' and 'comcuc'"):
            read_metadata(data)

    def test_label_outside_the_taxonomy(self, data):
        write_train(data, [["martian", "0012/XC1.wav"]])
        with pytest.raises(LabelError, match=r"martian not in taxonomy\.csv"):
            read_metadata(data)

    def test_doubled_label_in_the_taxonomy(self, data):
        write_table(data / "taxonomy.csv", ["primary_label"], [["0012"], ["0012"]])
        with pytest.raises(LabelError, match="stands twice"):
            read_metadata(data)

    def test_no_sound_at_all(self, data):
        write_train(data, [["0012", "0012/gone.ogg"]])
        with pytest.raises(InputNotFoundError, match="none of 1 listed sound files"):
            read_metadata(data)
