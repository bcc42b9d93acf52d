"""``birdinfer similar`` on the screen, and from a search over reviews to a head."""

import csv

import pytest

from birdinfer.tables.reviews import ANSWER


@pytest.fixture
def similar(birdinfer, embedded, tmp_path):
    """Runs the command on the embeddings of three files; exit code, what was printed, and the folder."""

    def run(*options):
        out = tmp_path / "results"
        code, printed, shown = birdinfer("similar", "--in", embedded, "-o", out, *options)
        return code, printed + shown, out

    return run


def test_similar_prints_the_nearest_and_what_comes_next(similar, soundscapes, monkeypatch):
    monkeypatch.setattr("birdinfer.cli.similar._SHOWN", 2)
    code, shown, out = similar(soundscapes / "site_0.ogg", "--at", "20", "-k", "3")
    assert code == 0
    assert "1       1.000" in shown
    assert "and 1 more" in shown
    assert f"{out / 'similar.csv'}: 3 windows of 1 recordings" in shown
    assert f"next: open {out / 'index.html'}, mark what is right" in shown
    assert {path.name for path in out.iterdir()} == {"similar.csv", "similar.json", "index.html", "page"}


def test_similar_prints_nothing_when_quiet(similar):
    code, shown, out = similar("--row-id", "site_0_5", "--no-page", "-q")
    assert (code, shown) == (0, "")
    assert {path.name for path in out.iterdir()} == {"similar.csv", "similar.json"}


def test_similar_names_each_query_of_several(similar, soundscapes):
    code, shown, _ = similar(soundscapes / "site_1.ogg", "--row-id", "site_0_5", "-k", "2", "--no-page")
    assert code == 0
    assert "site_1 1" in shown
    assert "site_0_5 2" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to search for"),
        (("--row-id", "site_9_5"), "holds no recording site_9"),
        (("no.wav",), "no such f"),
    ],
)
def test_similar_refuses_in_one_line(similar, options, message):
    code, shown, out = similar(*options)
    assert code == 2
    assert message in shown
    assert shown.count("\n") == 1
    assert not out.exists()


def test_reviews_of_a_search_make_a_head(birdinfer, similar, embedding_bundle, embedded, tmp_path):
    code, _, out = similar("--row-id", "site_0_5", "--label", "whistle", "-k", "16", "--no-page")
    assert code == 0
    with (out / "similar.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    reviews = tmp_path / "reviews.csv"
    with reviews.open("w", newline="") as file:
        table = csv.DictWriter(file, ["recording", "file", "start", "end", "label", "confidence", ANSWER])
        table.writeheader()
        for row in found:
            answer = "right" if row["recording"] == "site_0" else "wrong"
            cells = {name: row[name] for name in ("recording", "file", "start", "end", "label")}
            table.writerow({**cells, "confidence": row["similarity"], ANSWER: answer})
    labels = ("--labels", reviews, "--folds", "2", "--bundle", embedding_bundle.folder)
    code, printed, shown = birdinfer("head", "fit", "--embeddings", embedded, *labels, "-o", tmp_path / "head")
    assert code == 0, shown
    assert "1 species" in printed
    code, printed, shown = birdinfer(
        "similar", "--in", embedded, "--queries", reviews, "-o", tmp_path / "r", "--no-page"
    )
    assert code == 0, shown
    assert "whistle" in (tmp_path / "r" / "similar.csv").read_text()
