"""The page of detections: what an event costs, and how quick 8,000 events of a day are in Chromium.

Beside it a page as one would write it: the same text, picture and sound of each event as elements of one file.
"""

import base64
import statistics
import time
from datetime import datetime

import pytest
from chromium import PROGRAM, Tab, chromium

from birdinfer.detections import page
from birdinfer.detections.clips import Stretch, read_stretches
from birdinfer.detections.events import Detection
from birdinfer.detections.recordings import Recording
from birdinfer.detections.spectrogram import draw_spectrogram
from birdinfer.species import Species

EVENTS, WRITTEN, SPECIES = 8_000, 200, 60
ROUNDS = 5
MOST_TIMES = 1.0
SMOKE = {"EVENTS": 500, "WRITTEN": 10}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A picture of one pixel."""
WORK = {
    "filter": "$('least').value = 0.5; render()",
    "sort": "$('sort').value = 'time'; render()",
    "another species": "showSpecies(species[1])",
    "draw 1,000 events for review": "sample(events, 'bands', 1000, 1)",
}


def a_day(sound, n_events):
    """Events spread over a recording that claims to be a day long, and has the sound of a minute."""
    species = [Species(f"code{index:02}", f"Genus species{index}", f"Bird {index}") for index in range(SPECIES)]
    day = Recording(
        path=sound, name="day", file="day.ogg", seconds=86_400.0, sample_rate=32_000, site="wood",
        start=datetime(2025, 6, 1),
    )  # fmt: skip
    starts = [float(index * 86_400 // n_events // 5 * 5) for index in range(n_events)]
    events = [
        Detection(
            recording=day, species=species[index * 31 % SPECIES], start_seconds=start, end_seconds=start + 5,
            confidence=0.1 + 0.9 * (index * 7919 % 1000) / 1000, peak_seconds=start,
        )
        for index, start in enumerate(starts)
    ]  # fmt: skip
    return lambda: iter([(day, events)])


def test_cost_of_an_event(soundscapes, table, tmp_path, monkeypatch):
    def within_the_minute(event, *_):
        begin = event.start_seconds % 50
        return Stretch(begin, begin + 7)

    monkeypatch.setattr(page, "clip_stretch", within_the_minute)
    began, used = time.perf_counter(), time.process_time()
    page.write_page(a_day(soundscapes[0], WRITTEN), tmp_path, page.PageSettings())
    seconds, used = time.perf_counter() - began, time.process_time() - used
    n_bytes = sum(each.stat().st_size for each in (tmp_path / "page").rglob("*.*"))
    table.append(
        {
            "what": "an event of 7 s on the page of detections: sound and spectrogram",
            "measured": f"{1000 * used / WRITTEN:.0f} ms of a core",
            "bound": "",
            "detail": f"{1000 * seconds / WRITTEN:.0f} ms, {n_bytes / WRITTEN / 1000:.0f} KB",
        }
    )


def write_plainly(found, folder):
    """All events in one file of HTML; pictures and sound are loaded when they are in sight, or played."""
    cards = (
        f'<div class="event"><h3>{event.species.common_name}</h3><p>{event.confidence:.2f} {event.start_seconds} to '
        f'{event.end_seconds} s, {event.recording.file}, {event.recording.site}</p><img loading="lazy" '
        'width="320" height="160" src="picture.png"><audio controls preload="none" src="sound.mp3"></audio>'
        f'<button>right</button><button>wrong</button><button>unsure</button><input name="note{number}"></div>'
        for number, event in enumerate(event for _, events in found() for event in events)
    )
    folder.mkdir()
    (folder / "picture.png").write_bytes(PIXEL)
    (folder / "index.html").write_text("<!doctype html><meta charset=utf-8>" + "\n".join(cards))
    return folder / "index.html"


def seconds_to_open(browser, path):
    """A new tab, and the seconds until its first picture is on the screen."""
    tab = Tab(browser)
    began = time.perf_counter()
    tab.open(path)
    tab.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    return tab, time.perf_counter() - began


@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)")
def test_page_of_a_day(soundscapes, table, tmp_path, monkeypatch):
    found = a_day(soundscapes[0], WRITTEN)
    # All events share a sound and a picture: opening the page reads few of them.
    (samples,) = read_stretches(next(found())[0], [Stretch(0, 7)], 32_000)
    picture = draw_spectrogram(samples, 32_000)
    monkeypatch.setattr(page, "draw_spectrogram", lambda samples, rate: picture)
    monkeypatch.setattr(page, "encode_sound", lambda samples, rate: (b"", "mp3"))
    monkeypatch.setattr(page, "read_stretches", lambda recording, parts, rate: [samples] * len(parts))
    page.write_page(a_day(soundscapes[0], EVENTS), tmp_path / "page", page.PageSettings(most_events=EVENTS))
    plain = write_plainly(a_day(soundscapes[0], EVENTS), tmp_path / "plain")
    opened, opened_plain, worked = [], [], {name: [] for name in WORK}
    with chromium(tmp_path / "chromium") as browser:
        for _ in range(ROUNDS):
            tab, seconds = seconds_to_open(browser, plain)
            opened_plain.append(seconds)
            tab.close()
            tab, seconds = seconds_to_open(browser, tmp_path / "page" / "index.html")
            opened.append(seconds)
            assert tab.run("events.length") == EVENTS
            for name, code in WORK.items():
                timed = f"(() => {{ const began = performance.now(); {code}; document.body.offsetHeight;"
                worked[name].append(tab.run(f"{timed} return performance.now() - began; }})()"))
            assert tab.problems() == []
            tab.close()
    slowest = ", ".join(f"{name} {statistics.median(times):.0f} ms" for name, times in worked.items())
    ours, theirs = statistics.median(opened), statistics.median(opened_plain)
    table.append(
        {
            "what": f"page of {EVENTS} detections of {SPECIES} species in Chromium: on screen, against plain elements",
            "measured": f"{ours / theirs:.2f} times the seconds",
            "bound": f"<= {MOST_TIMES:g} times",
            "detail": f"{ours:.2f} against {theirs:.2f} s; {slowest}",
        }
    )
    assert ours <= MOST_TIMES * theirs
