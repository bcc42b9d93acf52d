"""Detections -> a page on which people listen to them and say which are right: ``index.html`` and the folder ``page/``.

In: a function that yields each recording with its detections, called once for each look at them. Out: a folder that
works from a disk, without server and network: sounds and pictures are files of their own, ``page/events.js`` is the
data. The page's own code stands in ``page_files/``; its answers stay in the browser until they are exported as CSV.

Of more than ``most_events`` detections a sample is on the page: as many of each species, and of these as many from each
tenth of the confidences, so that a calibration can be learned from it. Counts and the map of the day are of all.
"""

import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile

from birdinfer.callbacks import Callback
from birdinfer.detections.clips import Speech, Stretch, choose, clip_stretch, no_speech, read_stretches
from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import Found, plain_text
from birdinfer.detections.recordings import Recording
from birdinfer.detections.spectrogram import draw_spectrogram, khz_marks
from birdinfer.species import Species
from birdinfer.system.cpu import available_cores
from birdinfer.system.files import atomic_folder, check_replaceable, write_atomic
from birdinfer.typing import Float32

DATA, _FOLDER = "events.js", "page"
_KIND = ("a page of detections", "name another folder for the results, or remove it", DATA)
"""What a folder may hold that is replaced, what to do if it holds another thing, and the file that it has."""
_OWN_FILES = ("page.css", "page.js", "map.js", "review.js")
_PER_TASK = 50
"""Events that a thread cuts out of a recording that it has opened."""
_PEAK = 0.7
_MOST_GAIN = 100.0
_LEAST_SECONDS = 0.05
_SOUND = "mp3" if "MP3" in soundfile.available_formats() else "flac"
"""All browsers play both; of 7 s MP3 takes 40 KB, FLAC 240."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSettings:
    """What is on the page."""

    title: str = "Detections"
    bundle: str = ""
    """Name of the bundle, which the page shows."""
    measure: str = "confidence"
    """What the page calls the confidences."""
    most_events: int = 2_000
    seed: int = 0
    """Of the sample where there are more."""
    padding_seconds: float = 1.0
    """Of sound and spectrogram, before and after an event."""
    longest_seconds: float = 12.0
    """Of sound and spectrogram: of a longer event the part with the highest confidence."""
    sample_rate: int = 32_000
    """Of sound and spectrogram, in Hz; 8,000 to 48,000."""


def check_page(folder: Path) -> None:
    """Check before hours of work that a page can be written into a folder; OutputError as of :func:`write_page`."""
    check_replaceable(folder / _FOLDER, *_KIND)


def write_page(
    found: Found, folder: Path, settings: PageSettings, *, speech: Speech = no_speech, callback: Callback | None = None
) -> int:
    """Write ``index.html`` and the folder ``page`` into a folder; return how many detections are on the page.

    An event has neither sound nor picture where there is speech, or where its recording cannot be read again.

    Raises:
        OutputError: they cannot be written, or ``page`` holds other things than such a page.
    """
    overview = _Overview()
    for recording, detections in found():
        overview.add(recording, detections)
    limit = _fair_limit(overview.counts.values(), settings.most_events)
    chosen = choose(found, lambda label: limit, "stratified", settings.seed, is_usable=lambda each: True)
    with atomic_folder(folder / _FOLDER, *_KIND) as new:
        for name in _OWN_FILES:
            (new / name).write_bytes(_own_file(name))
        clips = _write_sounds(chosen, new, settings, speech, callback or Callback())
        data = msgspec.json.encode(_data(overview, chosen, clips, settings))
        (new / DATA).write_bytes(b"const DETECTIONS = " + data + b";\n")
    write_atomic(folder / "index.html", _own_file("index.html"))
    return len(clips)


def _own_file(name: str) -> bytes:
    return (resources.files("birdinfer.detections") / "page_files" / name).read_bytes()


def _fair_limit(counts: Iterable[int], most: int) -> int:
    """Find the most events of a species with which all together are at most ``most``, and at least one."""
    left, ordered = most, sorted(counts)
    for index, count in enumerate(ordered):
        share = left // (len(ordered) - index)
        if count > share:
            return max(1, share)
        left -= count
    return max(1, most)


@dataclass(slots=True)
class _Overview:
    """What the page shows of all detections, also of those that are not on it."""

    species: dict[str, Species] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    cells: dict[str, Counter[tuple[str, int]]] = field(default_factory=lambda: defaultdict(Counter))
    """Of each label: events of a date and hour."""
    effort: dict[tuple[str, int], float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of sound of a date and hour."""
    n_recordings: int = 0
    seconds: float = 0.0

    def add(self, recording: Recording, detections: Sequence[Detection]) -> None:
        self.n_recordings += 1
        self.seconds += recording.seconds
        for cell, seconds in _hours(recording):
            self.effort[cell] += seconds
        for detection in detections:
            label = detection.species.label
            self.species[label] = detection.species
            self.counts[label] += 1
            if clock := recording.clock(detection.start_seconds):
                self.cells[label][_cell(clock)] += 1


def _cell(clock: datetime) -> tuple[str, int]:
    return clock.date().isoformat(), clock.hour


def _hours(recording: Recording) -> Iterator[tuple[tuple[str, int], float]]:
    """Yield the date and hour of each clock hour that a recording is in, and its seconds of sound in it."""
    begin = 0.0
    while begin < recording.seconds and (clock := recording.clock(begin)):
        until_next = 3600 - (clock.minute * 60 + clock.second + clock.microsecond / 1e6)
        end = min(begin + max(until_next, 1e-3), recording.seconds)
        yield _cell(clock), end - begin
        begin = end


_Clip = Stretch | str
"""Where in the recording the sound of an event is from, or why it has none: ``speech`` or ``unreadable``."""


def _write_sounds(
    chosen: Sequence[Sequence[Detection]], folder: Path, settings: PageSettings, speech: Speech, callback: Callback
) -> list[_Clip]:
    """Write sound and picture of each event, named after its number; return where they are from, in order."""
    for name in ("sound", "picture"):
        (folder / name).mkdir()
    first = itertools.accumulate((len(detections) for detections in chosen), initial=0)
    tasks = [
        list(enumerate(detections[begin : begin + _PER_TASK], number + begin))
        for number, detections in zip(first, chosen, strict=False)
        for begin in range(0, len(detections), _PER_TASK)
    ]
    clips: dict[int, _Clip] = {}
    pool = ThreadPoolExecutor(available_cores())
    try:
        for written in pool.map(lambda task: _write_some(task, folder, settings, speech), tasks):
            clips |= written
            callback.on_progress("page", len(clips), sum(map(len, chosen)))
    finally:
        pool.shutdown(cancel_futures=True)
    return [clips[number] for number in range(len(clips))]


def _write_some(
    events: Sequence[tuple[int, Detection]], folder: Path, settings: PageSettings, speech: Speech
) -> dict[int, _Clip]:
    """Write sound and picture of some events of one recording, each with its number."""
    recording, rate = events[0][1].recording, settings.sample_rate
    clips: dict[int, _Clip] = {}
    for number, event in events:
        stretch = clip_stretch(event, settings.padding_seconds, settings.longest_seconds, speech(recording))
        clips[number] = stretch or "speech"
    stretches = sorted((clip, number) for number, clip in clips.items() if isinstance(clip, Stretch))
    sounds = read_stretches(recording, [stretch for stretch, _ in stretches], rate)
    for (stretch, number), samples in zip(stretches, sounds, strict=True):
        if len(samples) < _LEAST_SECONDS * rate:
            clips[number] = "unreadable"
            continue
        clips[number] = Stretch(stretch.begin, stretch.begin + len(samples) / rate)
        (folder / "sound" / f"{number}.{_SOUND}").write_bytes(encode_sound(samples, rate)[0])
        (folder / "picture" / f"{number}.png").write_bytes(draw_spectrogram(samples, rate))
    return clips


def encode_sound(samples: Float32, sample_rate: int) -> tuple[bytes, str]:
    """Encode mono sound [samples] for a browser, as loud as can be: a distant bird shall be audible.

    Returns:
        The sound, and its format: ``mp3``, or ``flac`` where libsndfile writes none.
    """
    centred = samples - samples.mean()  # some microphones are far from zero
    peak = float(np.abs(centred).max())
    louder = centred * np.float32(min(_PEAK / peak, _MOST_GAIN) if peak else 1)
    buffer = io.BytesIO()
    soundfile.write(buffer, louder, sample_rate, format=_SOUND.upper())
    return buffer.getvalue(), _SOUND


def _data(
    overview: _Overview, chosen: Sequence[Sequence[Detection]], clips: Sequence[_Clip], settings: PageSettings
) -> dict[str, Any]:
    """Gather what ``page_files/page.js`` reads: tables by columns, names of files as text."""
    events = [each for detections in chosen for each in detections]
    species = {label: number for number, label in enumerate(overview.counts)}
    recordings = {detections[0].recording.name: number for number, detections in enumerate(chosen)}
    cells = {*overview.effort, *(cell for counts in overview.cells.values() for cell in counts)}
    dates = {date: number for number, date in enumerate(sorted({date for date, _ in cells}))}

    def flat(counts: Mapping[tuple[str, int], int]) -> list[int]:
        return [value for (date, hour), count in sorted(counts.items()) for value in (24 * dates[date] + hour, count)]

    return {
        "title": plain_text(settings.title),
        "bundle": plain_text(settings.bundle),
        "measure": settings.measure,
        "sound": _SOUND,
        "totals": {
            "events": overview.counts.total(),
            "recordings": overview.n_recordings,
            "seconds": round(overview.seconds),
        },
        "species": [
            {
                "label": label,
                "scientific": overview.species[label].scientific_name,
                "common": overview.species[label].common_name,
                "count": overview.counts[label],
                "cells": flat(overview.cells[label]),
            }
            for label in species
        ],
        "recordings": [
            {name: plain_text(getattr(detections[0].recording, name)) for name in ("name", "file", "site")}
            for detections in chosen
        ],
        "dates": list(dates),
        "effort": flat({cell: max(1, round(seconds / 60)) for cell, seconds in overview.effort.items()}),
        "khz": khz_marks(settings.sample_rate),
        "events": {
            "species": [species[each.species.label] for each in events],
            "recording": [recordings[each.recording.name] for each in events],
            "start": [round(each.start_seconds, 3) for each in events],
            "end": [round(each.end_seconds, 3) for each in events],
            "confidence": [round(each.confidence, 6) for each in events],
            "clock": [_clock_text(each) for each in events],
            "clip": [clip if isinstance(clip, str) else [round(each, 3) for each in clip] for clip in clips],
        },
    }


def _clock_text(event: Detection) -> str:
    clock = event.recording.clock(event.start_seconds)
    return clock.isoformat(timespec="milliseconds") if clock else ""
