import csv

import numpy as np
import pytest
from make_bundles import write_sound
from tiny_clips import LABELS, RATE, TINY_FRONTEND, call, write_clips, write_table
from tiny_fold import fold_checkpoint, write_fold
from tiny_models import WAVEFORM

from birdinfer.audio.windows import read_window
from birdinfer.config import WindowConfig
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, LabelError, MetadataError
from birdinfer.export.acceptance.labelled import held_out_windows, soundscape_windows
from birdinfer.features import log_mel as mel
from birdinfer.species import Species
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.data.targets import truth


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("data"))


class TestHeldOut:
    """Of each label the clips 0 and 3 are held out; clip 0 names the next label as a secondary one."""

    @pytest.fixture(scope="class")
    @staticmethod
    def fold(data, tmp_path_factory):
        return write_fold(tmp_path_factory.mktemp("runs") / "tiny", data, lambda index: (index + 1) % 3)

    @pytest.fixture(scope="class")
    @staticmethod
    def found(data, fold):
        return held_out_windows(fold, fold_checkpoint(data), None)

    def test_each_clip_is_cut_as_in_validation(self, data, found):
        """1.5 s are two windows of 1 s, which overlap."""
        assert found.inputs.shape == (16, 1, *TINY_FRONTEND.input_shape)
        assert found.inputs.dtype == np.float32
        clip = data / "train_audio" / "comcuc" / "XC0.wav"
        for row, start in ((0, 0.0), (1, 0.5)):
            expected = mel.windows_to_input(read_window(clip, start, TINY_FRONTEND), 1, TINY_FRONTEND)
            np.testing.assert_array_equal(found.inputs[row], expected[0])

    def test_truth_is_that_of_validation(self, data, found):
        clips = {clip.filename: clip for clip in read_metadata(data).clips}
        expected = truth([clips[f"{label}/XC{index}.wav"] for label in LABELS for index in (0, 3)], LABELS)
        np.testing.assert_array_equal(found.truth, np.repeat(expected, 2, axis=0))

    def test_in_which_window_a_secondary_label_is_present_is_not_known(self, found):
        assert (~found.known).sum(axis=1).tolist() == [1, 1, 0, 0] * 4
        assert found.truth[~found.known].all()
        assert not found.known[0, 1]

    def test_windows_of_one_clip_are_of_one_recording(self, found):
        assert found.recordings.tolist() == np.repeat(np.arange(8), 2).tolist()
        assert found.failed == ()

    def test_clips_of_one_group_are_of_one_recording(self, data, fold, tmp_path):
        with (data / "train.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        grouped = [[*row, "same" if row[2].endswith(("XC0.wav", "XC3.wav")) else ""] for row in rows[1:]]
        write_table(tmp_path / "train.csv", [*rows[0], "group"], grouped)
        (tmp_path / "train_audio").symlink_to(data / "train_audio")
        assert set(held_out_windows(fold, fold_checkpoint(data), tmp_path).recordings) == {0}

    def test_as_many_windows_as_validation_even_if_they_are_to_be_few(self, data, fold):
        found = held_out_windows(fold, fold_checkpoint(data, val_windows=1), None, max_windows=8)
        assert found.recordings.tolist() == list(range(8))

    def test_long_clips_have_more_windows_where_there_is_space(self, tmp_path):
        folder = write_clips(tmp_path / "data", clips_per_label=2)
        write_sound(folder / "train_audio" / "0012" / "XC1.wav", call("0012", 10.0, 1), RATE)
        found = held_out_windows(write_fold(tmp_path / "run", folder), fold_checkpoint(folder, val_windows=1), None)
        assert np.bincount(found.recordings).tolist() == [2, 10, 2, 2]

    def test_too_many_are_thinned_out_evenly_over_labels(self, data, fold):
        found = held_out_windows(fold, fold_checkpoint(data), None, max_windows=10)
        per_label = [(found.truth & found.known)[:, column].sum() for column in range(len(LABELS))]
        assert len(found.inputs) == 10
        assert sorted(per_label) == [2, 2, 3, 3]

    def test_the_same_windows_every_time(self, data, fold):
        first, again = (held_out_windows(fold, fold_checkpoint(data), None, 9) for _ in range(2))
        np.testing.assert_array_equal(first.inputs, again.inputs)

    def test_none_that_it_was_trained_on(self, data, fold):
        """A missing clip is reported: all that was asked for was held out."""
        with pytest.raises(AudioError, match=r"none of the fold's 8 held-out clips can be decoded"):
            held_out_windows(fold, fold_checkpoint(data), _without_sound(data, fold.parent / "empty"))

    def test_unreadable_clips_are_skipped_and_reported(self, fold, tmp_path):
        folder = write_clips(tmp_path / "data")
        (folder / "train_audio" / "0012" / "XC0.wav").write_bytes(b"RIFF")
        (folder / "train_audio" / "0012" / "XC3.wav").unlink()
        found = held_out_windows(fold, fold_checkpoint(folder), None)
        assert sorted(line.split()[0] for line in found.failed) == ["0012/XC0.wav", "0012/XC3.wav"]
        assert len(found.inputs) == len(found.truth) == len(found.known) == len(found.recordings) == 12
        assert not (found.truth & found.known)[:, LABELS.index("0012")].any()

    def test_a_run_that_held_out_nothing_has_none(self, data, fold):
        with pytest.raises(ConfigError, match=r"data.all_data: the run trained on all clips .* - test it on soundsc"):
            held_out_windows(fold, fold_checkpoint(data, all_data=True), None)


def _without_sound(data, folder):
    (folder / "train_audio").mkdir(parents=True)
    (folder / "train.csv").write_bytes((data / "train.csv").read_bytes())
    return folder


SPECIES = tuple(Species(label) for label in LABELS)
COLUMNS = ("0012", "unknown", "comcuc", "47158son16")
TRUTH = {
    "a_b_1": (1, 0, 0, 0),
    "a_b_2": (0, 1, 1, 0),
    "a_b_3": (0, 0, 0, 1),
    "a_b_4": (0, 0, 0, 0),
    "c_2": (0, 0, 1, 1),
    "c_1": (1, 0, 0, 0),
}


class TestSoundscapes:
    """Two files of 4 s with a second of each label; a table of five labels, one of them unknown."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "soundscapes"
        (folder / "deep").mkdir(parents=True)
        for path, order in ((folder / "a_b.wav", LABELS), (folder / "deep" / "c.flac", LABELS[::-1])):
            sound = np.concatenate([call(label, 1.0, 0) for label in order])
            write_sound(path, sound, RATE)
        return folder

    def table(self, folder, rows=None, columns=COLUMNS):
        rows = TRUTH if rows is None else rows
        return write_table(folder / "truth.csv", ["row_id", *columns], [[row, *cells] for row, cells in rows.items()])

    def found(self, folder, rows=None, input_config=TINY_FRONTEND, **more):
        return soundscape_windows(folder, self.table(folder, rows), SPECIES, input_config, **more)

    def test_a_row_is_the_window_that_ends_there(self, folder):
        found = self.found(folder)
        for row, (name, start) in enumerate([("a_b.wav", i) for i in range(4)] + [("deep/c.flac", i) for i in (1, 0)]):
            window = read_window(folder / name, float(start), TINY_FRONTEND)
            np.testing.assert_array_equal(found.inputs[row], mel.windows_to_input(window, 1, TINY_FRONTEND)[0])

    def test_cells_are_found_by_name(self, folder):
        found = self.found(folder)
        table = np.array(list(TRUTH.values()), bool)
        for column, label in enumerate(LABELS):
            if label in COLUMNS:
                assert found.known[:, column].all()
                np.testing.assert_array_equal(found.truth[:, column], table[:, COLUMNS.index(label)])
            else:
                assert not found.known[:, column].any()

    def test_a_file_is_a_recording(self, folder):
        assert self.found(folder).recordings.tolist() == [0, 0, 0, 0, 1, 1]

    def test_waveforms_for_a_model_that_takes_them(self, folder):
        found = self.found(folder, input_config=WAVEFORM)
        assert found.inputs.shape == (6, RATE)

    def test_too_many_are_thinned_out_evenly_over_the_rarest_label_of_each(self, folder):
        found = self.found(folder, max_windows=4)
        present = {LABELS[column] for column in np.flatnonzero(found.truth.any(axis=0))}
        assert len(found.inputs) == 4
        assert present == {"0012", "comcuc", "47158son16"}
        assert not found.truth.any(axis=1).all()

    def test_windows_of_broken_seconds_end_where_row_ids_round_them(self, folder):
        """2.5 s end at 2 and 5, as row ids count."""
        input_config = TINY_FRONTEND.__class__(TINY_FRONTEND.audio, WindowConfig(1.5), TINY_FRONTEND.mel)
        found = self.found(folder, {"a_b_2": (1, 0, 0, 0), "a_b_3": (0, 0, 1, 0)}, input_config)
        window = read_window(folder / "a_b.wav", 1.5, input_config)
        np.testing.assert_array_equal(found.inputs[1], mel.windows_to_input(window, 1, input_config)[0])

    @pytest.mark.parametrize("step", [2, 5])
    def test_rows_of_another_length_are_refused(self, folder, step):
        rows = {f"a_b_{end}": (0, 0, 0, 0) for end in (step, 2 * step)}
        with pytest.raises(MetadataError, match=rf"has rows of {step} s, the model takes windows of 1 s"):
            self.found(folder, rows)

    @pytest.mark.parametrize("row", ["a_b", "a_b_x", "_5"])
    def test_a_row_id_without_its_end_is_refused(self, folder, row):
        with pytest.raises(MetadataError, match=r"does not end in _<end second>"):
            self.found(folder, {row: (0, 0, 0, 0)})

    def test_truth_that_is_none_is_refused(self, folder):
        with pytest.raises(MetadataError, match=r"row 'a_b_1', column 'comcuc' holds 0.5 - truth is 0 or 1"):
            self.found(folder, {"a_b_1": (0, 0, 0.5, 0)})

    def test_a_table_of_other_labels_is_refused(self, folder):
        table = self.table(folder, {"a_b_1": (1,)}, ["unknown"])
        with pytest.raises(LabelError, match=r"has a column for none of the 4 labels, first 'comcuc'"):
            soundscape_windows(folder, table, SPECIES, TINY_FRONTEND)

    def test_a_file_that_is_not_there_is_refused(self, folder):
        with pytest.raises(InputNotFoundError, match=r"holds no sound file of 1 that .*truth.csv names, first d_e"):
            self.found(folder, {**TRUTH, "d_e_1": (0, 0, 0, 0)})

    def test_an_unreadable_file_and_a_row_beyond_the_end_are_skipped_and_reported(self, folder):
        (folder / "deep" / "c.flac").write_bytes(b"fLaC")
        found = self.found(folder, {**TRUTH, "a_b_9": (1, 0, 0, 0)})
        assert len(found.inputs) == len(found.truth) == 4
        assert sorted(line.split()[0] for line in found.failed) == ["a_b.wav", "c.flac"]

    def test_no_readable_file_is_an_error(self, folder):
        for path in (folder / "a_b.wav", folder / "deep" / "c.flac"):
            path.write_bytes(b"nothing")
        with pytest.raises(AudioError, match=r"not one of the rows of .*truth.csv can be decoded"):
            self.found(folder)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("labels.csv", "filename,start,end,primary_label\na_b.wav,0,1,comcuc;0012\nc.flac,3,4,comcuc\n"),
            ("labels.csv", "Begin File,File Offset (s),Begin Time (s),End Time (s),Species\n"
             "a_b.wav,0,0,1,comcuc\na_b.wav,0.2,0.2,0.8,0012\nx/deep/c.flac,3,7,8,comcuc\n"),
        ],
    )  # fmt: skip
    def test_annotations_are_of_every_window_of_their_recordings(self, folder, tmp_path, name, content):
        (tmp_path / name).write_text(content)
        found = soundscape_windows(folder, tmp_path / name, SPECIES, TINY_FRONTEND)
        assert found.recordings.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        assert found.known.all()
        present = [[LABELS[at] for at in np.flatnonzero(row)] for row in found.truth]
        assert [set(labels) for labels in present] == [{"comcuc", "0012"}, *[set()] * 6, {"comcuc"}]
