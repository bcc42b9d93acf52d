import pytest
from made_data import row, write_data

ROWS = [row(f"{label}/{n}.wav", rating=n) for label in "ab" for n in range(6)]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_data(tmp_path / "data", [*ROWS, row("x/1.wav")], taxonomy="ab", seconds=5.5)


def test_data_ends_with_the_gravest_findings_and_the_page(data, birdinfer):
    code, out, err = birdinfer("data", data, "--set", "data.n_folds=2")
    assert (code, out.splitlines()) == (
        0,
        [
            "stops training: 1 primary label is not in taxonomy.csv",
            "costs quality: 13 clips have a lower rate than the recipe's 32000 Hz",
            "report/index.html",
        ],
    )
    assert err.startswith("reading the tables of ")


def test_data_is_quiet_where_it_is_asked_to(data, birdinfer):
    assert birdinfer("data", data, "-q", "-o", "r")[2] == ""


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("none",), "no such folder"),
        ((".",), "holds neither train.csv nor train_metadata.csv"),
        (("data", "--recipe", "none.toml"), "none.toml"),
        (("data", "--set", "data.fold=2"), "data.fold"),
        (("data", "--set", "data.fold_column=part"), "has no column part"),
        (("data", "-o", "data/train.csv"), "is a file"),
    ],
)
def test_data_refuses_in_one_line(data, birdinfer, words, what):
    code, _, err = birdinfer("data", *words)
    assert code == 2
    assert what in err
    assert len([line for line in err.splitlines() if not line.startswith("reading")]) == 1


def test_look_writes_one_page_and_replaces_its_own_alone(data, birdinfer):
    code, out, _ = birdinfer("look", "--data", data, "--label", "a", "--n", "2")
    assert code == 0
    assert out.startswith("look.html: 2 clips, 0.")
    assert birdinfer("look", "--data", data, "--n", "1")[0] == 0
    (data / "mine.html").write_text("<html>")
    code, _, err = birdinfer("look", "--data", data, "-o", data / "mine.html")
    assert code == 2
    assert "is there and no page of birdinfer" in err


def test_look_leaves_with_3_where_a_clip_cannot_be_decoded(data, birdinfer):
    (data / "train_audio" / "a" / "0.wav").write_bytes(b"none")
    code, out, err = birdinfer("look", data / "train_audio" / "a", "--n", "9")
    assert (code, out.partition(",")[0]) == (3, "look.html: 6 clips")
    assert "without sound: 0 (" in err
