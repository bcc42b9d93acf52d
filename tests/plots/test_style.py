import pytest

picture = pytest.importorskip("birdinfer.plots.style")
from matplotlib.figure import Figure  # noqa: E402


@pytest.mark.parametrize("n_colours", [1, 7, 8, 40])
def test_colours_differ(n_colours):
    assert len(set(picture.palette(n_colours))) == n_colours


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a", "a"), ("_a", " _a"), ("$a$", r"\$a\$"), ("a" * 36, "a" * 36), ("", "")],
)
def test_names_are_shown_as_they_are(name, shown):
    assert picture.shown(name) == shown


def test_a_long_name_keeps_its_ends():
    assert picture.shown("b" + "a" * 40 + "c") == "b" + "a" * 11 + "…" + "a" * 22 + "c"


def test_a_name_that_the_font_lacks_or_that_looks_like_a_formula_is_no_failure(tmp_path):
    figure = Figure()
    figure.suptitle(picture.shown("カッコウ $\\frac{"))
    picture.save(figure, tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
