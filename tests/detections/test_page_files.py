"""The page in a real Chromium: it shows, plays, filters, reviews and exports."""

import csv
from datetime import datetime, timedelta

import numpy as np
import pytest
import soundfile
from chromium import PROGRAM, Tab, chromium
from cut_detections import RATE, SPECIES, found_of, make_detection, make_recording

from birdinfer.detections.page import PageSettings, write_page
from birdinfer.tables.reviews import read_reviews

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)")

ODD_SITE = '<b>oak</b>, "north"'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two recordings of two sites and days, 12 events of three species, one of them with speech."""
    folder = tmp_path_factory.mktemp("results")
    groups = []
    for number, site in enumerate(["forest", ODD_SITE]):
        path = folder / f"{number}.wav"
        noise = np.random.default_rng(number).normal(0, 0.1, 60 * RATE)
        soundfile.write(path, noise.astype(np.float32), RATE)
        start = datetime(2025, 6, 1, 5, 59, 30) + timedelta(days=number)
        recording = make_recording(path, site=site, start=start)
        groups.append(
            [
                make_detection(recording, 10.0 * index, round(0.3 + 0.1 * index, 2), species=SPECIES[index % 3])
                for index in range(6)
            ]
        )
    speech = {"0.wav": [], "1.wav": [(52.0, 53.0)]}
    write_page(
        found_of(*groups), folder / "out", PageSettings(title="Spring"), speech=lambda each: speech[each.file]
    )  # fmt: skip
    return folder / "out"


@pytest.fixture
def tab(browser, folder):
    opened = Tab(browser)
    opened.open(folder / "index.html")
    opened.run("localStorage.clear()")
    opened.open(folder / "index.html")
    yield opened
    opened.close()


def cards(tab):
    return tab.run("[...document.querySelectorAll('#list .event')].map((card) => Number(card.dataset.event))")


def choose(tab, selector, value):
    tab.run(
        f"(() => {{ const field = document.querySelector('{selector}'); field.value = {value!r};"
        "field.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def test_page_opens_without_problems_and_asks_for_its_own_files_alone(tab, folder):
    tab.wait("document.querySelector('#list img').naturalWidth > 0")
    assert tab.text("#title") == "Spring"
    assert tab.text("#totals") == "12 events · 3 species · 2 recordings · 2 min · 1 Jun 2025 to 2 Jun 2025"
    assert len(cards(tab)) == 12
    assert tab.problems() == []
    own = folder.as_uri() + "/"
    assert all(url.startswith((own, "data:,")) for url in tab.requests())
    assert any(url.endswith("page/picture/5.png") for url in tab.requests())


def test_page_shows_text_of_the_data_as_text(tab):
    assert ODD_SITE in tab.text("#list")
    assert tab.run("document.querySelectorAll('#list b:not(.confidence b)').length") == 0


def test_page_plays_an_event_and_stops(tab):
    tab.click("#list .play")
    tab.wait("player.currentTime > 0.05")
    assert tab.run("player.src").endswith(".mp3")
    assert tab.run("player.duration") == pytest.approx(7, abs=0.2)
    tab.wait("parseFloat(document.querySelector('#list .playhead').style.left) > 0")
    tab.click("#list .play")
    assert tab.run("player.paused")
    assert tab.problems() == []


def test_page_has_no_sound_where_there_is_speech(tab):
    assert "not cut: there is speech" in tab.text('[data-event="11"]')
    assert tab.run("document.querySelector('[data-event=\"11\"] .play')") is None


def test_page_filters_and_sorts(tab):
    assert cards(tab) == [5, 11, 4, 10, 3, 9, 2, 8, 1, 7, 0, 6]
    choose(tab, "#least", "0.65")
    assert cards(tab) == [5, 11, 4, 10]
    choose(tab, "#site", "forest")
    assert cards(tab) == [5, 4]
    assert tab.text("#count") == "2 events of 12, 0 reviewed"
    choose(tab, "#least", "0")
    choose(tab, "#sort", "time")
    assert cards(tab) == [0, 1, 2, 3, 4, 5]
    tab.run("[...document.querySelectorAll('#species button')].find((each) => each.species.label === 'comcuc').click()")
    assert cards(tab) == [1, 4]
    assert tab.text("#name") == "Common Cuckoo Cuculus canorus"


def test_page_maps_hours_and_dates(tab):
    assert tab.run("document.querySelectorAll('#map rect.count').length") == 4
    tab.run("document.querySelector('#map svg').focus()")
    for _ in range(5):
        tab.press("ArrowRight")
    assert tab.text("#map-reading") == "1 Jun 2025, 5 to 6 h: 3 events in 1 min"
    tab.press("Enter")
    assert cards(tab) == [2, 1, 0]
    tab.click("#cell")
    assert len(cards(tab)) == 12


def test_page_takes_answers_by_key_and_keeps_them(tab, folder):
    tab.press("j")
    tab.press("r")
    tab.press("j")
    tab.press("w")
    tab.press("j")
    tab.press("u")
    tab.press("j")
    tab.press("r")
    tab.press("Backspace")
    by_event = tab.run("[...answers].map(([event, given]) => [event.id, given.answer]).sort()")
    assert by_event == [[11, "wrong"], [4, "unsure"], [5, "right"]]
    tab.open(folder / "index.html")
    assert tab.run("answers.size") == 3
    assert tab.text("#count") == "12 events, 3 reviewed"
    choose(tab, "#state", "wrong")
    assert cards(tab) == [11]
    assert tab.run("document.querySelector('#list [data-answer=wrong]').getAttribute('aria-pressed')") == "true"


def test_page_reviews_a_queue_and_exports_it(tab, tmp_path, browser):
    tab.press("v")
    choose(tab, "#queue-size", "4")
    tab.run("document.querySelector('#queue').requestSubmit()")
    tab.wait("player.currentTime > 0")
    drawn = tab.run("queue.events.map((event) => event.id)")
    for key in "rwu":
        tab.press(key)
    assert tab.text("#review-title") == "Review: 4 of 4"
    tab.press("ArrowLeft")
    tab.press("w")
    tab.press("ArrowRight")
    assert tab.text("#review-summary") == "4 events: 1 right, 2 wrong, 0 unsure, 1 without an answer."
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
    tab.click("#export-reviewed")
    browser.wait_for("Browser.downloadProgress", state="completed")
    with (tmp_path / "reviews.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:8] == ["recording", "file", "start", "end", "label", "confidence", "verdict", "reviewed"]
    events = tab.run("events.map((event) => [event.recording.file, String(event.start), event.species.label])")
    given = {events.index([row["file"], row["start"], row["label"]]): row["verdict"] for row in rows}
    assert given == dict(zip(drawn[:3], ["right", "wrong", "wrong"], strict=True))
    assert {row["site"] for row in rows} <= {"forest", ODD_SITE}
    assert all(datetime.fromisoformat(row["reviewed"]).tzinfo for row in rows)
    read = read_reviews([tmp_path / "reviews.csv"], SPECIES)
    assert (len(read.right), int(read.right.sum())) == (3, 1)


@pytest.mark.parametrize("strategy", ["top", "random", "bands", "days"])
def test_sample_is_the_same_by_seed_and_begins_with_the_smaller_one(tab, strategy):
    def sample(size, seed):
        return tab.run(f"sample(events, '{strategy}', {size}, {seed}).map((event) => event.id)")

    assert sample(8, 1) == sample(8, 1)
    assert sample(8, 1)[:3] == sample(3, 1)
    assert sorted(sample(12, 1)) == list(range(12)) == sorted(sample(99, 2))
    assert sample(12, 1) != sample(12, 2)


def test_sample_takes_groups_in_turn(tab):
    def sample(strategy, size, what):
        return tab.run(f"sample(events, '{strategy}', {size}, 7).map((event) => {what})")

    assert sorted(sample("top", 3, "event.confidence")) == [0.6, 0.7, 0.8]
    assert len(set(sample("days", 6, "event.species.label + event.recording.site"))) == 6
    assert sorted(sample("random", 3, "event.species.label")) == ["47158son16", "comcuc", "eurbla"]


def test_page_imports_what_it_has_exported(tab, folder):
    tab.run("setAnswer(events[3], 'right'); setAnswer(events[7], 'unsure')")
    table = tab.run("reviewsTable()")
    tab.run("localStorage.clear()")
    tab.open(folder / "index.html")
    for text in (table, "\ufeff" + table.replace("\n", "\r\n")):
        tab.run("answers.clear()")
        tab.run(
            "(() => { const moved = new DataTransfer(); moved.items.add(new File([" + repr(text) + "], 'reviews.csv'));"
            "document.querySelector('#import').files = moved.files; return importReviews(); })()"
        )
        assert tab.text("#warning") == "2 reviews of reviews.csv taken."
        assert tab.run("reviewsTable()") == table


def test_page_fits_a_phone(browser, folder):
    phone = Tab(browser, 390, 844, is_phone=True)
    phone.open(folder / "index.html")
    assert phone.run("document.documentElement.scrollWidth") <= 390
    assert not phone.run("document.querySelector('#species-panel').open")
    phone.click("#start-review")
    wide = "[...document.querySelectorAll('#queue *')].map((each) => each.getBoundingClientRect().right)"
    assert max(phone.run(wide)) <= 390
    phone.run("document.querySelector('#queue').requestSubmit()")
    assert phone.run("document.querySelector('#review').scrollWidth") <= 390
    low = phone.run("document.querySelector('#review .answers').getBoundingClientRect().bottom")
    assert low <= 844
    heights = phone.run("[...document.querySelectorAll('#review button')].map((each) => each.offsetHeight)")
    assert min(filter(None, heights)) >= 36
    phone.close()


def test_page_names_all_its_controls(tab):
    """What a screen reader says of each control is not empty."""
    tree = tab.send("Accessibility.getFullAXTree")["nodes"]
    controls = [
        node
        for node in tree
        if node.get("role", {}).get("value") in ("button", "combobox", "slider", "searchbox", "image")
    ]
    assert len(controls) > 50
    assert [node for node in controls if not node.get("name", {}).get("value")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_has_enough_contrast(tab, scheme):
    """Of text on what it lies on at least 4.5, as WCAG 2 asks for."""
    tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    pairs = tab.run(
        """(() => {
        const style = getComputedStyle(document.documentElement);
        const canvas = document.createElement("canvas").getContext("2d");
        const rgb = (name) => {
            canvas.fillStyle = style.getPropertyValue(name);
            canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
        };
        const pairs = [["--on-strong", "--strong"]];
        for (const text of ["--ink", "--quiet", "--right", "--wrong", "--unsure"]) {
            pairs.push([text, "--card"], [text, "--paper"]);
        }
        return pairs.map(([text, behind]) => [text, behind, rgb(text), rgb(behind)]);
        })()"""
    )

    def luminance(rgb):
        share = np.array(rgb) / 255
        return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for text, behind, *colours in pairs:
        low, high = sorted(luminance(colour) for colour in colours)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, behind, scheme)
