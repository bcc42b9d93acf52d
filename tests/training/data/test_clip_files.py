import pytest

from birdinfer.training.data.clip_files import ClipFiles, Stretch, audio_folder, stretch_of


def found(data_dir, filename, label):
    return ClipFiles(audio_folder(data_dir)).find(filename, label).path


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


NFC, NFD = "caf\xe9", "cafe\u0301"


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("dog\\a.ogg", "dog/a.ogg"),
        ("train_audio/dog/a.ogg", "dog/a.ogg"),
        ("/kaggle/input/birdclef/train_audio/dog/a.ogg", "dog/a.ogg"),
        ("C:\\data\\train_audio\\dog\\a.ogg", "dog/a.ogg"),
        ("./dog//a.ogg", "dog/a.ogg"),
        ("dog/a.OGG", "dog/a.ogg"),
        ("dog/a.ogg", "dog/A.OGG"),
        ("Dog/a.ogg", "dog/a.ogg"),
        ("dog/a", "dog/a.ogg"),
        ("a", "dog/a.ogg"),
        (" dog/a.ogg ", "dog/a.ogg"),
        (f"dog/{NFC}.ogg", f"dog/{NFD}.ogg"),
        (f"dog/{NFD}.ogg", f"dog/{NFC}.ogg"),
        ("train_audio\\dog\\a", "dog/a.FLAC"),
    ],
)
def test_find_takes_spellings_of_people(tmp_path, listed, there):
    for name in (there, "dog/b.ogg", "rain/a.wav"):
        path = tmp_path / "train_audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    file = ClipFiles(tmp_path / "train_audio").find(listed, "dog")
    assert (file.name, file.path) == (there, tmp_path / "train_audio" / there)


def test_find_leaves_what_fits_two_files_and_hint_names_them(tmp_path):
    folder = tmp_path / "train_audio"
    folder.mkdir()
    for name in ("a.ogg", "A.OGG", "c.flac"):
        (folder / name).touch()
    files = ClipFiles(folder)
    assert not files.find("A.ogg", "dog").path.exists()
    assert files.hint("A.ogg", "dog") == "train_audio/A.OGG and train_audio/a.ogg may be meant"
    assert not files.find("c.mp3", "dog").path.exists()
    assert files.hint("c.mp3", "dog") == "train_audio/c.flac may be meant"
    assert files.hint("d.ogg", "dog") == ""


def test_find_of_a_name_that_no_file_can_have(tmp_path):
    assert ClipFiles(tmp_path).find("x" * 5_000, "dog").name == "x" * 5_000


@pytest.mark.parametrize("part", [Stretch("a.ogg"), Stretch("a.ogg", 5, 10.5), Stretch("a#t=1,2.ogg", 3600)])
def test_stretch_of_the_name_of_a_part(part):
    assert stretch_of(part.name) == part


@pytest.mark.parametrize("name", ["a.ogg", "a.ogg#t=x", "a.ogg#t=1,e", "#t=1,2"])
def test_stretch_of_another_name(name):
    assert stretch_of(name) == Stretch(name)
