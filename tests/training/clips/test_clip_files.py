import pytest

from birdinfer.training.clips.clip_files import audio_folder, clip_file


def found(data_dir, filename, label):
    return clip_file(audio_folder(data_dir), filename, label)


@pytest.mark.parametrize("audio", ["train_audio", "train_short_audio"])
@pytest.mark.parametrize("listed", ["0012/XC1.ogg", "XC1.ogg"])
def test_in_the_layouts_of_all_years(tmp_path, audio, listed):
    path = tmp_path / audio / "0012" / "XC1.ogg"
    path.parent.mkdir(parents=True)
    path.touch()
    assert found(tmp_path, listed, "0012") == path


def test_what_is_listed_goes_before_what_can_be_guessed(tmp_path):
    for path in (tmp_path / "train_audio" / "XC1.ogg", tmp_path / "train_audio" / "0012" / "XC1.ogg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert found(tmp_path, "XC1.ogg", "0012") == tmp_path / "train_audio" / "XC1.ogg"


def test_no_folder_of_clips(tmp_path):
    assert audio_folder(tmp_path) is None
