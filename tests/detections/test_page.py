import json
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import soundfile
from cut_detections import RATE, SPECIES, climbing, found_of, make_detection, make_recording
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.detections.page import PageSettings, _fair_limit, check_page, write_page
from birdinfer.errors import OutputError


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "in" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, climbing(60), RATE)
    return make_recording(path, site="forest")


def data(folder):
    text = (folder / "page" / "events.js").read_text()
    return json.loads(re.fullmatch(r"const DETECTIONS = (.*);\n", text)[1])


def test_write_page_writes_sound_and_picture_of_each_event(tmp_path, recording):
    detections = [make_detection(recording, start, 0.123456789) for start in (0, 30)]
    assert write_page(found_of(detections), tmp_path, PageSettings(title="Spring", bundle="demo")) == 2
    page = data(tmp_path)
    assert (page["title"], page["bundle"], page["totals"]) == (
        "Spring",
        "demo",
        {"events": 2, "recordings": 1, "seconds": 60},
    )
    assert page["events"] == {
        "species": [0, 0],
        "recording": [0, 0],
        "start": [0.0, 30.0],
        "end": [5.0, 35.0],
        "confidence": [0.123457, 0.123457],
        "clock": ["2025-06-01T05:59:30.000", "2025-06-01T06:00:00.000"],
        "clip": [[0.0, 6.0], [29.0, 36.0]],
    }
    assert page["recordings"] == [{"name": "a", "file": "a.wav", "site": "forest"}]
    samples, rate = soundfile.read(tmp_path / "page" / "sound" / f"1.{page['sound']}")
    assert (rate, len(samples) / rate) == (32_000, pytest.approx(7, abs=0.1))
    assert (tmp_path / "page" / "picture" / "1.png").read_bytes().startswith(b"\x89PNG")
    assert "page/events.js" in (tmp_path / "index.html").read_text()


def test_write_page_counts_the_hours_of_the_clock(tmp_path, recording):
    """The recording reaches from 05:59:30 to 06:00:30: half a minute in each hour."""
    detections = [make_detection(recording, start) for start in (0, 20, 40)]
    write_page(found_of(detections), tmp_path, PageSettings())
    page = data(tmp_path)
    assert page["dates"] == ["2025-06-01"]
    assert page["species"][0]["cells"] == [5, 2, 6, 1]
    assert page["effort"] == [5, 1, 6, 1]


def test_write_page_counts_both_hours_when_the_clocks_go_back(tmp_path, recording):
    zone = ZoneInfo("Europe/Berlin")
    long = replace(recording, seconds=3 * 3600.0, start=datetime(2025, 10, 26, 1, 30, tzinfo=zone))
    write_page(found_of([make_detection(long, 0)]), tmp_path, PageSettings())
    assert data(tmp_path)["effort"] == [1, 30, 2, 120, 3, 30]


def test_write_page_without_clock_times_has_no_map(tmp_path, recording):
    write_page(found_of([make_detection(replace(recording, start=None), 0)]), tmp_path, PageSettings())
    page = data(tmp_path)
    assert (page["dates"], page["effort"], page["events"]["clock"]) == ([], [], [""])


def test_write_page_distinguishes_channels_of_a_file(tmp_path, recording):
    channels = [replace(recording, name=f"a__ch{number}", channel=number) for number in (1, 2)]
    write_page(found_of(*[[make_detection(each, 10)] for each in channels]), tmp_path, PageSettings())
    page = data(tmp_path)
    assert [page["recordings"][number]["name"] for number in page["events"]["recording"]] == ["a__ch1", "a__ch2"]


def test_write_page_of_no_detections(tmp_path, recording):
    assert write_page(lambda: iter([(recording, [])]), tmp_path, PageSettings()) == 0
    page = data(tmp_path)
    assert (page["species"], page["totals"]["recordings"], page["effort"]) == ([], 1, [5, 1, 6, 1])


def test_write_page_cuts_no_speech_and_reports_recordings_that_are_gone(tmp_path, recording):
    gone = make_recording(tmp_path / "gone.wav")
    detections = [[make_detection(recording, 10), make_detection(recording, 30)], [make_detection(gone, 10)]]
    speech = {"a.wav": [(12, 13), (29.5, 30.0)], "gone.wav": []}
    write_page(found_of(*detections), tmp_path, PageSettings(), speech=lambda each: speech[each.file])
    assert data(tmp_path)["events"]["clip"] == ["speech", [30.0, 36.0], "unreadable"]
    assert [path.name for path in (tmp_path / "page" / "picture").iterdir()] == ["1.png"]


def test_write_page_takes_a_fair_sample_and_counts_all(tmp_path, recording):
    starts = range(0, 55)
    many = [make_detection(recording, start, 0.15 + start % 9 / 10) for start in starts]
    few = [make_detection(recording, start, species=SPECIES[1]) for start in (1, 2)]
    settings = PageSettings(most_events=20)
    assert write_page(found_of([*many, *few]), tmp_path, settings) == 20
    page = data(tmp_path)
    labels = Counter(page["species"][each]["label"] for each in page["events"]["species"])
    assert labels == {"eurbla": 18, "comcuc": 2}
    assert set(Counter(page["events"]["confidence"]).values()) == {2}
    assert [each["count"] for each in page["species"]] == [55, 2]
    assert page["totals"]["events"] == 57


@given(st.lists(st.integers(1, 300), max_size=30), st.integers(30, 1_000))
def test_fair_limit_is_the_highest_that_keeps_within_the_most(counts, most):
    limit = _fair_limit(counts, most)
    assert sum(min(limit, count) for count in counts) <= most
    assert not counts or sum(counts) <= most or sum(min(limit + 1, count) for count in counts) > most


def test_write_page_replaces_its_own_and_nothing_else(tmp_path, recording):
    found = found_of([make_detection(recording, 10)])
    for _ in range(2):
        write_page(found, tmp_path / "out", PageSettings())
    (tmp_path / "other" / "page").mkdir(parents=True)
    (tmp_path / "other" / "page" / "thesis.txt").write_text("mine")
    check_page(tmp_path / "out")
    with pytest.raises(OutputError, match="holds other things than a page of detections"):
        check_page(tmp_path / "other")
    with pytest.raises(OutputError, match="holds other things than a page of detections"):
        write_page(found, tmp_path / "other", PageSettings())


def test_write_page_gives_the_same_bytes_again(tmp_path, recording):
    found = found_of([make_detection(recording, start) for start in range(0, 50, 5)])
    for name in ("1", "2"):
        write_page(found, tmp_path / name, PageSettings())
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("1", "2")
    )
    assert first == second


def test_write_page_spells_names_that_are_no_text(tmp_path, recording):
    odd = replace(recording, name="H\udcf6hle", file="H\udcf6hle.wav", site="</script>")
    write_page(found_of([make_detection(odd, 10)]), tmp_path, PageSettings())
    assert data(tmp_path)["recordings"][0] == {"name": "H\\xf6hle", "file": "H\\xf6hle.wav", "site": "</script>"}
