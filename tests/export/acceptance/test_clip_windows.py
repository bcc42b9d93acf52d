import numpy as np
import pytest
from tiny_clips import RATE, TINY_FRONTEND, call, write_clips
from tiny_fold import fold_checkpoint
from tiny_models import WAVEFORM

from birdinfer.audio.windows import read_window
from birdinfer.errors import AudioError
from birdinfer.export.acceptance.held_out import ClipWindows, Place, measured_clips, model_input
from birdinfer.features import log_mel as mel
from birdinfer.training.data.clip import Clip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("data"), clips_per_label=2)


@pytest.fixture
def clip(data):
    return Clip("0012/XC1.wav", data / "train_audio" / "0012" / "XC1.wav", "0012")


def test_a_window_is_the_input_of_prediction(clip, data):
    windows = ClipWindows(fold_checkpoint(data).recipe)
    expected = mel.windows_to_input(read_window(clip.path, 0.25, TINY_FRONTEND), 1, TINY_FRONTEND)
    np.testing.assert_array_equal(windows.network_input(Place(clip, 0.25)), expected)


def test_a_model_of_waveforms_takes_the_waveform():
    samples = call("0012", 1.0, 0)
    taken = model_input(samples, WAVEFORM)
    assert taken.shape == (1, RATE)
    np.testing.assert_array_equal(taken[0], samples)


def test_no_more_is_used_of_a_clip_than_in_training(clip, data):
    windows = ClipWindows(fold_checkpoint(data, max_seconds=1.2).recipe)
    measured = windows.measured(clip)
    assert measured.duration_seconds == pytest.approx(1.5)
    assert windows.decoded_seconds(measured) == pytest.approx(1.2)
    assert windows.spare_seconds(measured) == pytest.approx(0.2)
    assert not windows.samples(Place(clip, 0.5))[round(0.75 * RATE) : RATE].any()
    with pytest.raises(AudioError, match=r"holds no sound at 1.3 s"):
        windows.samples(Place(clip, 1.3))


def test_a_clip_shorter_than_a_window_has_nothing_to_spare(clip, data):
    windows = ClipWindows(fold_checkpoint(data).recipe)
    assert windows.spare_seconds(clip._replace(duration_seconds=0.4)) == 0.0


def test_what_cannot_be_opened_is_reported(clip, data, tmp_path):
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"no sound at all")
    listed = [clip, Clip("noise.wav", noise, "0012"), Clip("gone.wav", tmp_path / "gone.wav", "0012")]
    there, failed = measured_clips(ClipWindows(fold_checkpoint(data).recipe), listed)
    assert [(one.filename, one.duration_seconds) for one in there] == [("0012/XC1.wav", pytest.approx(1.5))]
    assert [line.split()[0] for line in failed] == ["noise.wav", "gone.wav"]
