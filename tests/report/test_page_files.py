"""The pages in a real Chromium: they show, fit a phone, sort, and ask for nothing."""

import pytest
from chromium import PROGRAM, Tab, chromium
from made_data import row, write_data
from tiny_clips import TINY_FRONTEND

from birdinfer.report.look import LookSettings, look_at
from birdinfer.report.run import DataReportSettings, report_data
from birdinfer.training.recipe.schema import DataConfig, Recipe

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report and a page of clips of a folder with a fault of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    rows = [
        row(f"{label}/{n}.wav", author=f"author {n} of a very long name that no column holds", latitude=n, longitude=-n)
        | {"date": "2020-05-01", "time": f"{n}:00", "rating": n % 5}
        for n in range(12)
        for label in ("comcuc", "47158son16")[: 1 + n % 2]
    ]
    data = write_data(folder / "data", [*rows, row("x/1.wav")], taxonomy=("comcuc", "47158son16"))
    recipe = Recipe(data=DataConfig(n_folds=3), frontend=TINY_FRONTEND)
    report_data(DataReportSettings(data=data, output=folder / "report", recipe=recipe))
    (folder / "look.html").write_text(look_at(LookSettings(data=data, n=6)).html)
    return folder


@pytest.mark.parametrize("is_phone", [False, True])
@pytest.mark.parametrize("page", ["report/index.html", "look.html"])
def test_a_page_fits_its_screen_and_asks_for_nothing(browser, folder, page, is_phone):
    width = 390 if is_phone else 1280
    tab = Tab(browser, width, 844, is_phone=is_phone)
    tab.open(folder / page)
    assert tab.problems() == []
    assert {url.partition(":")[0] for url in tab.requests()[1:]} <= {"data"}
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.querySelector('h1').getBoundingClientRect().height") > 0
    tab.close()


def test_the_report_sorts_a_table_and_opens_what_a_link_names(browser, folder):
    tab = Tab(browser)
    tab.open(folder / "report" / "index.html")
    tab.click("#table-species summary")
    first = "#table-species tbody td"
    assert tab.text(first) == "comcuc"
    tab.click("#table-species th:nth-child(1) button")
    assert tab.text(first) == "47158son16"
    assert tab.run("document.querySelector('#table-species th').ariaSort") == "ascending"
    tab.click("#table-species th:nth-child(2) button")
    assert tab.text(first) == "comcuc"
    tab.run("location.hash = '#table-authors'")
    tab.wait("document.querySelector('#table-authors').open")
    tab.close()


def test_a_sound_plays_and_ends_another(browser, folder):
    tab = Tab(browser)
    tab.open(folder / "look.html")
    tab.run("window.players = [...document.querySelectorAll('audio')]; players[0].loop = true; players[0].play()")
    tab.wait("players[0].currentTime > 0")
    tab.run("players[1].play()")
    tab.wait("players[0].paused")
    tab.close()
