"""The page of detections: what an event costs, and how quick 8,000 events of a day are in Chromium."""

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


@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (apt-get install chromium)")
def test_page_of_a_day(soundscapes, table, tmp_path, monkeypatch):
    found = a_day(soundscapes[0], WRITTEN)
    # All events share a sound and a picture: opening the page reads few of them.
    (samples,) = read_stretches(next(found())[0], [Stretch(0, 7)], 32_000)
    picture = draw_spectrogram(samples, 32_000)
    monkeypatch.setattr(page, "draw_spectrogram", lambda samples, rate: picture)
    monkeypatch.setattr(page, "_encode", lambda samples, rate: b"")
    monkeypatch.setattr(page, "read_stretches", lambda recording, parts, rate: [samples] * len(parts))
    page.write_page(a_day(soundscapes[0], EVENTS), tmp_path / "page", page.PageSettings(most_events=EVENTS))
    opened, worked = [], {name: [] for name in WORK}
    with chromium(tmp_path / "chromium") as browser:
        for _ in range(ROUNDS):
            tab = Tab(browser)
            began = time.perf_counter()
            tab.open(tmp_path / "page" / "index.html")
            tab.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
            opened.append(time.perf_counter() - began)
            assert tab.run("events.length") == EVENTS
            for name, code in WORK.items():
                timed = f"(() => {{ const began = performance.now(); {code}; document.body.offsetHeight;"
                worked[name].append(tab.run(f"{timed} return performance.now() - began; }})()"))
            assert tab.problems() == []
            tab.close()
    slowest = ", ".join(f"{name} {statistics.median(times):.0f} ms" for name, times in worked.items())
    table.append(
        {
            "what": f"page of {EVENTS} detections of {SPECIES} species in Chromium: opens, its first events on screen",
            "measured": f"{statistics.median(opened):.2f} s",
            "bound": "<= 2 s",
            "detail": slowest,
        }
    )
    assert statistics.median(opened) <= 2
