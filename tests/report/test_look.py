import html

import pytest
from made_data import noise, row, write_data, write_sound
from tiny_clips import TINY_FRONTEND

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.report.look import LookSettings, look_at
from birdinfer.training.recipe.schema import Recipe


@pytest.fixture
def data(tmp_path):
    rows = [row(f"{label}/{n}.wav", rating=n, collection="XC") for label in "ab" for n in range(3)]
    rows[3] |= {"secondary_labels": "['c']"}
    return write_data(tmp_path / "data", rows, taxonomy="abc")


def test_look_at_files_shows_a_picture_and_a_player_of_each(tmp_path):
    for n in range(3):
        write_sound(tmp_path / f"{n}<i>.wav", noise(1, n))
    page = look_at(LookSettings(inputs=(tmp_path,)))
    assert (page.n, page.failed) == (3, ())
    assert page.html.count("data:image/png;base64,") == page.html.count("data:audio/") == 3
    assert "0&lt;i&gt;" in page.html
    assert "<i>" not in page.html


def test_look_at_data_shows_what_the_table_says(data):
    page = look_at(LookSettings(data=data, label="a", n=2))
    assert page.n == 2
    assert "<b>a</b> a/" in page.html
    assert "by a/" in page.html
    assert "XC" in page.html
    assert "<b>b</b>" not in page.html


@pytest.mark.parametrize("label", ["Genus b", "genus B", "b"])
def test_look_at_finds_a_species_by_any_of_its_names(data, label):
    assert look_at(LookSettings(data=data, label=label)).n == 3


def test_look_at_a_species_that_is_only_a_secondary_label(data):
    page = look_at(LookSettings(data=data, label="c"))
    assert page.n == 1
    assert "also: c" in page.html


def test_look_at_chooses_by_seed(data):
    pages = [look_at(LookSettings(data=data, n=2, seed=seed)).html for seed in (0, 0, 1, 2, 3)]
    assert pages[0] == pages[1]
    assert len(set(pages)) > 2


def test_look_at_reports_what_cannot_be_decoded(data):
    (data / "train_audio" / "a" / "0.wav").write_bytes(b"no sound")
    (data / "train_audio" / "a" / "1.wav").unlink()
    page = look_at(LookSettings(data=data, label="a"))
    assert (page.n, len(page.failed)) == (3, 2)
    assert page.html.count("data:audio/") == 1
    assert page.html.count('class="problem"') == 2


def test_look_at_in_a_notebook_is_a_frame_of_the_page(data):
    page = look_at(LookSettings(data=data, n=1))
    assert f'srcdoc="{html.escape(page.html)}"' in page._repr_html_()


def test_look_at_refuses_what_it_cannot_show(data, tmp_path):
    for settings, what in (
        (LookSettings(), "nothing is named"),
        (LookSettings(inputs=(tmp_path,), data=data), "both named"),
        (LookSettings(inputs=(data,), label="a"), "is a column of"),
        (LookSettings(data=data, label="A"), "it may be 'a' but for case"),
        (LookSettings(data=data, label="x"), "no clip of .* has the label 'x' - birdinfer data lists"),
        (LookSettings(data=data, label="Gen b"), r"did you mean b\?"),
    ):
        with pytest.raises(ConfigError, match=what):
            look_at(settings)
    with pytest.raises(InputNotFoundError):
        look_at(LookSettings(inputs=(tmp_path / "none",)))


def test_look_at_shows_what_the_network_gets(data):
    pytest.importorskip("torch")
    recipe = Recipe(name="small", frontend=TINY_FRONTEND)
    (data / "train_audio" / "a" / "2.wav").unlink()
    page = look_at(LookSettings(data=data, label="a", recipe=recipe, draws=3))
    assert "and as small gets them" in page.html
    assert page.html.count("data:image/png;base64,") == 2 * (1 + 1 + 3)
    assert "draw 3: a 1" in page.html
    assert len(page.failed) == 1
