from collections import Counter, defaultdict

import numpy as np
import pytest
from make_bundles import write_sound
from tiny_clips import LABELS, RATE, TINY_FRONTEND, call, write_clips
from tiny_fold import fold_checkpoint, write_fold

from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.export.acceptance.calibration_data import CalibrationWindows, draw_calibration


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six clips of 1.5 s a label; those of ``0012`` from quiet to loud, and the last of them a minute long."""
    folder = write_clips(tmp_path_factory.mktemp("data"))
    for index in range(6):
        seconds = 60.0 if index == 5 else 1.5
        sound = call("0012", seconds, index) * 10.0 ** (index / 2 - 3)
        write_sound(folder / "train_audio" / "0012" / f"XC{index}.wav", sound.astype(np.float32), RATE, "FLOAT")
    return folder


@pytest.fixture(scope="module")
def fold(data, tmp_path_factory):
    """Clips 1 and 4 of each label are held out."""
    return write_fold(tmp_path_factory.mktemp("runs") / "tiny", data)


@pytest.fixture(scope="module")
def checkpoint(data):
    return fold_checkpoint(data)


def names(windows):
    return {place.clip.filename for place in windows.places}


@pytest.mark.parametrize("seed", range(5))
def test_held_out_clips_are_never_among_them(fold, checkpoint, seed):
    windows = draw_calibration(fold, checkpoint, None, 500, seed)
    expected = {f"{label}/XC{index}.wav" for label in LABELS for index in (0, 2, 3, 5)}
    assert names(windows) == expected


@pytest.mark.parametrize("left", [-2, -3])
def test_neither_are_the_tests_and_those_left_out(data, checkpoint, tmp_path, left):
    folder = write_fold(tmp_path / "run", data, lambda index: {0: left, 1: 1}.get(index, 0))
    assert not {name for name in names(draw_calibration(folder, checkpoint, None, 500)) if "XC0" in name}


def test_of_a_run_that_held_out_nothing_all_are(data, fold):
    windows = draw_calibration(fold, fold_checkpoint(data, all_data=True), None, 500)
    assert len(names(windows)) == 6 * len(LABELS)


def test_labels_take_turns(fold, checkpoint):
    windows = draw_calibration(fold, checkpoint, None, 10)
    labels = [place.clip.primary_label for place in windows.places]
    assert len(windows) == 10
    assert set(labels[:4]) == set(labels[4:8]) == set(LABELS)
    assert sorted(Counter(labels).values()) == [2, 2, 3, 3]


@pytest.mark.parametrize("seed", range(20))
def test_quiet_ones_and_loud_ones(fold, checkpoint, seed):
    """Of seven candidates four are the loudest clip's: every seventh time chance would miss both of the quietest."""
    windows = draw_calibration(fold, checkpoint, None, 16, seed)
    of_label = Counter(place.clip.filename for place in windows.places if place.clip.primary_label == "0012")
    assert of_label["0012/XC0.wav"] + of_label["0012/XC2.wav"] >= 1
    assert 2 <= of_label["0012/XC5.wav"] <= 3


def test_long_clips_are_sampled_at_various_places(fold, checkpoint):
    windows = draw_calibration(fold, checkpoint, None, 100)
    starts = sorted(place.start_seconds for place in windows.places if place.clip.filename == "0012/XC5.wav")
    assert len(starts) == 4
    assert starts[0] < 20
    assert starts[-1] > 40
    assert min(np.diff(starts)) > 1e-3


def test_a_short_clip_gives_one_window(fold, checkpoint):
    windows = draw_calibration(fold, checkpoint, None, 500)
    times = Counter(place.clip.filename for place in windows.places)
    assert times.pop("0012/XC5.wav") == 4
    assert set(times.values()) == {1}


def test_the_seed_decides(fold, checkpoint):
    first, again, other = (draw_calibration(fold, checkpoint, None, 12, seed).places for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_each_is_what_a_model_takes(fold, checkpoint):
    windows = draw_calibration(fold, checkpoint, None, 5)
    assert len(list(windows)) == len(windows) == 5
    for window in windows:
        assert window.shape == (1, 1, *TINY_FRONTEND.input_shape)
        assert window.dtype == np.float32
        assert np.isfinite(window).all()


def test_a_window_is_the_same_whenever_it_is_asked_for(fold, checkpoint):
    windows = draw_calibration(fold, checkpoint, None, 5)
    np.testing.assert_array_equal(windows[-1], windows[4])
    part = windows[1:3]
    assert isinstance(part, CalibrationWindows)
    assert len(part) == 2
    np.testing.assert_array_equal(part[0], windows[1])
    with pytest.raises(IndexError):
        windows[5]


def test_no_window_is_held(fold, checkpoint, monkeypatch):
    """Held windows would make memory grow with their number."""
    windows = draw_calibration(fold, checkpoint, None, 5)
    inputs = []
    inside = windows._windows
    monkeypatch.setattr(inside, "_source", _Recording(inside._source, inputs))
    for _ in range(2):
        windows[0]
    assert len(inputs) == 2


class _Recording:
    def __init__(self, source, inputs):
        self.source, self.inputs = source, inputs

    def window(self, clip, start_seconds):
        self.inputs.append(clip.filename)
        return self.source.window(clip, start_seconds)


class TestUnreadable:
    @pytest.fixture
    def broken(self, data, tmp_path):
        """All clips of one label are broken, and one of another is gone."""
        folder = write_clips(tmp_path / "data")
        for index in range(6):
            (folder / "train_audio" / "comcuc" / f"XC{index}.wav").write_bytes(b"RIFF")
        (folder / "train_audio" / "0012" / "XC0.wav").unlink()
        return folder

    def test_clips_are_skipped_and_reported(self, broken, tmp_path):
        folder = write_fold(tmp_path / "run", broken)
        windows = draw_calibration(folder, fold_checkpoint(broken), None, 100)
        taken = defaultdict(int)
        for place in windows.places:
            taken[place.clip.primary_label] += 1
        assert taken == {"0012": 3, "1161364": 4, "47158son16": 4}
        assert sorted(line.split()[0] for line in windows.failed) == sorted(
            ["0012/XC0.wav", *(f"comcuc/XC{index}.wav" for index in (0, 2, 3, 5))]
        )

    def test_all_of_them_is_an_error(self, fold, checkpoint, tmp_path):
        with pytest.raises(AudioError, match=r"none of the 16 training clips that were tried can be decoded"):
            draw_calibration(fold, checkpoint, tmp_path, 100)

    def test_a_run_without_its_folds_is_refused(self, checkpoint, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"folds.csv: is missing"):
            draw_calibration(tmp_path / "fold1", checkpoint, None, 100)


def test_digital_silence_is_a_window_like_any_other(tmp_path):
    folder = write_clips(tmp_path / "data", clips_per_label=2)
    write_sound(folder / "train_audio" / "0012" / "XC0.wav", np.zeros(RATE, np.float32), RATE)
    windows = draw_calibration(write_fold(tmp_path / "run", folder), fold_checkpoint(folder), None, 100)
    silent = next(index for index, place in enumerate(windows.places) if place.clip.filename == "0012/XC0.wav")
    assert np.isfinite(windows[silent]).all()
