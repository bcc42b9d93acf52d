import numpy as np
import pytest
from make_bundles import write_sound
from tiny_clips import RATE, TINY_FRONTEND

from birdinfer.config import WaveformConfig
from birdinfer.errors import ConfigError
from birdinfer.training.augment.background import find_background, random_background

LENGTH = TINY_FRONTEND.window_samples + 2 * TINY_FRONTEND.margin_samples


class TestFindBackground:
    def test_nothing_asked_for(self, tmp_path):
        assert find_background("", tmp_path) == ((), ())

    def test_relative_to_the_data(self, background_dir):
        files = find_background(background_dir.name, background_dir.parent).files
        assert [path.name for path in files] == ["noise0.wav", "noise1.wav"]

    def test_relative_to_the_working_folder(self, background_dir, tmp_path, monkeypatch):
        monkeypatch.chdir(background_dir.parent)
        assert len(find_background(background_dir.name, tmp_path).files) == 2

    def test_missing(self, tmp_path):
        with pytest.raises(ConfigError, match=r"augment\.background_dir: 'none' is no folder.*--set"):
            find_background("none", tmp_path)

    def test_without_sound(self, tmp_path):
        (tmp_path / "notes.txt").write_text("no sound")
        with pytest.raises(ConfigError, match="holds no sound files"):
            find_background(str(tmp_path), tmp_path)


class TestRandomBackground:
    def test_is_cut_from_anywhere_in_any_file(self, background_dir):
        files = find_background(str(background_dir), background_dir).files
        output = [random_background(files, TINY_FRONTEND, np.random.default_rng(seed)) for seed in range(6)]
        assert {window.shape for window in output} == {(LENGTH,)}
        assert {window.dtype for window in output} == {np.dtype(np.float32)}
        assert len({window.tobytes() for window in output}) == 6

    def test_same_generator_same_window(self, background_dir):
        files = find_background(str(background_dir), background_dir).files
        once, again = (random_background(files, TINY_FRONTEND, np.random.default_rng(3)) for _ in range(2))
        np.testing.assert_array_equal(once, again)

    def test_has_no_margins_for_models_that_take_waveforms(self, background_dir):
        input_config = WaveformConfig(TINY_FRONTEND.audio, TINY_FRONTEND.window)
        files = find_background(str(background_dir), background_dir).files
        assert len(random_background(files, input_config, np.random.default_rng(0))) == input_config.window_samples

    def test_a_file_shorter_than_a_window_ends_in_silence(self, tmp_path):
        write_sound(tmp_path / "short.wav", np.full(RATE // 4, 0.5, np.float32), RATE)
        output = random_background([tmp_path / "short.wav"], TINY_FRONTEND, np.random.default_rng(0))
        assert len(output) == LENGTH
        assert output[TINY_FRONTEND.margin_samples] == pytest.approx(0.5, abs=1e-4)
        assert not output[LENGTH // 2 : LENGTH // 2 + 100].any()

    @pytest.mark.parametrize("name", ["broken.ogg", "gone.wav"])
    def test_pitfall_13_a_file_that_cannot_be_decoded_is_silent(self, name, tmp_path):
        (tmp_path / "broken.ogg").write_text("no sound")
        output = random_background([tmp_path / name], TINY_FRONTEND, np.random.default_rng(0))
        np.testing.assert_array_equal(output, np.zeros(LENGTH, np.float32))

    def test_a_broken_file_shifts_no_later_chance(self, background_dir, tmp_path):
        (tmp_path / "broken.ogg").write_text("no sound")
        good, bad = np.random.default_rng(0), np.random.default_rng(0)
        random_background(find_background(str(background_dir), background_dir).files[:1], TINY_FRONTEND, good)
        random_background([tmp_path / "broken.ogg"], TINY_FRONTEND, bad)
        assert good.random() == bad.random()


def test_files_that_cannot_be_decoded_are_reported_and_left_out(tmp_path, background_dir):
    """Pitfall 13: not one of them turns to silence without a word."""
    for path in background_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    found = find_background(str(tmp_path), tmp_path)
    assert [path.name for path in found.files] == sorted(path.name for path in background_dir.iterdir())
    assert len(found.failed) == 1
    assert "broken.wav (" in found.failed[0]


def test_a_folder_of_broken_files_is_refused(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(ConfigError, match="holds no sound files that can be decoded"):
        find_background(str(tmp_path), tmp_path)
