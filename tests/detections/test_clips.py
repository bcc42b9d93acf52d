import csv
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cut_detections import RATE, SPECIES, climbing, found_of, make_detection, make_recording
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.callbacks import Callback
from birdinfer.detections.clips import (
    ClipSettings,
    Stretch,
    check_clips,
    choose,
    clip_stretch,
    read_stretches,
    write_clips,
)
from birdinfer.errors import OutputError
from birdinfer.species import Species

RECORDING = make_recording(Path("a.wav"))


def chosen(found, quota, choice, seed=0):
    groups = choose(found, lambda label: quota, choice, seed, is_usable=lambda each: True)
    return [each for group in groups for each in group]


def table(folder):
    with (folder / "clips.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "in" / "siteA" / "20250601_055930.flac"
    path.parent.mkdir(parents=True)
    soundfile.write(path, climbing(60), RATE)
    return make_recording(path, name="siteA/20250601_055930", file="siteA/20250601_055930.flac", site="siteA")


class Warnings(Callback):
    def __init__(self):
        self.lines = []

    def on_warning(self, line):
        self.lines.append(line)


confidences = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60)


@given(confidences, st.integers(1, 12), st.sampled_from(["highest", "random", "stratified"]), st.randoms())
def test_choose_depends_on_no_order(values, quota, choice, random):
    detections = [make_detection(RECORDING, 5.0 * index, value) for index, value in enumerate(values)]
    shuffled = list(detections)
    random.shuffle(shuffled)
    first, second = chosen(found_of(detections), quota, choice), chosen(found_of(shuffled), quota, choice)
    assert len(first) == min(quota, len(values))
    assert sorted(each.start_seconds for each in first) == sorted(each.start_seconds for each in second)


@given(confidences, st.integers(1, 12))
def test_choose_highest_takes_the_highest(values, quota):
    detections = [make_detection(RECORDING, 5.0 * index, value) for index, value in enumerate(values)]
    highest = [each.confidence for each in chosen(found_of(detections), quota, "highest")]
    assert sorted(highest, reverse=True) == sorted(values, reverse=True)[:quota]


def test_choose_stratified_takes_of_each_confidence():
    values = [0.95] * 50 + [0.55] * 50 + [0.15] * 2
    detections = [make_detection(RECORDING, 5.0 * index, value) for index, value in enumerate(values)]
    taken = [each.confidence for each in chosen(found_of(detections), 12, "stratified")]
    assert {value: taken.count(value) for value in set(values)} == {0.95: 5, 0.55: 5, 0.15: 2}


def test_choose_random_differs_by_seed_and_is_even():
    detections = [make_detection(RECORDING, 5.0 * index) for index in range(200)]
    draws = [[each.start_seconds for each in chosen(found_of(detections), 20, "random", seed)] for seed in range(50)]
    assert len({tuple(draw) for draw in draws}) == 50
    counts = np.bincount(np.concatenate(draws).astype(int) // 5, minlength=200)
    assert counts.max() < 20  # 5 on average


def test_choose_counts_each_species_by_itself_and_keeps_recordings_in_order():
    others = [make_recording(Path(name)) for name in ("b.wav", "a.wav", "c.wav")]
    detections = [[make_detection(one, start, species=kind) for start in (0, 10) for kind in SPECIES] for one in others]
    groups = choose(found_of(*detections), {"eurbla": 6, "comcuc": 1}.get, "random", 0, is_usable=lambda each: True)
    assert [group[0].recording.file for group in groups] == ["b.wav", "a.wav", "c.wav"]
    assert sum(each.species.label == "comcuc" for group in groups for each in group) == 1
    assert all(
        [each.start_seconds for each in group] == sorted(each.start_seconds for each in group) for group in groups
    )


@pytest.mark.parametrize(
    ("start", "end", "peak", "speech", "expected"),
    [
        (10, 15, 10, [], (9, 16)),
        (0, 5, 0, [], (0, 6)),
        (55, 60, 55, [], (54, 60)),
        (10, 15, 10, [(0, 9.5), (15.5, 20)], (9.5, 15.5)),
        (10, 15, 10, [(14.9, 20)], None),
        (10, 15, 10, [(11, 12)], None),
        (10, 15, 10, [(15, 20)], (9, 15)),
        (0, 60, 30, [], (30, 42)),
        (0, 60, 30, [(0, 28), (42, 60)], (30, 42)),
        (0, 60, 55, [], (48, 60)),
    ],
)
def test_clip_stretch_lies_in_the_recording_and_beside_speech(start, end, peak, speech, expected):
    event = make_detection(RECORDING, start, end_seconds=end, peak_seconds=peak)
    assert clip_stretch(event, 1.0, 12.0, speech) == expected


@given(
    st.floats(0, 50), st.floats(0.5, 30), st.floats(0, 1), st.floats(0, 5), st.floats(3, 40),
    st.lists(st.tuples(st.floats(0, 60), st.floats(0.1, 10)), max_size=4),
)  # fmt: skip
def test_clip_stretch_never_touches_speech(start, length, share, padding, longest, spoken):
    end = min(60.0, start + length)
    event = make_detection(RECORDING, start, end_seconds=end, peak_seconds=start + share * (end - start))
    speech = [(begin, begin + seconds) for begin, seconds in spoken]
    stretch = clip_stretch(event, padding, longest, speech)
    if stretch is not None:
        assert 0 <= stretch.begin < stretch.end <= 60
        assert stretch.end - stretch.begin <= longest + 1e-9
        assert all(end <= stretch.begin or begin >= stretch.end for begin, end in speech)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_read_stretches_gives_the_sound_of_their_seconds(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, climbing(20), RATE)
    parts = list(read_stretches(make_recording(path), [Stretch(2, 4), Stretch(3, 3.5), Stretch(18, 21)], RATE))
    assert [len(part) for part in parts] == [32_000, 8_000, 32_000]
    assert [part.mean() for part in parts] == pytest.approx([0.03, 0.0325, 0.19], abs=2e-3)


def test_read_stretches_resamples(tmp_path):
    soundfile.write(tmp_path / "a.wav", climbing(20), RATE)
    (part,) = read_stretches(make_recording(tmp_path / "a.wav"), [Stretch(2, 4)], 32_000)
    assert len(part) == 64_000
    assert part.mean() == pytest.approx(0.03, abs=1e-3)


@pytest.mark.parametrize(("channel", "expected"), [(None, 0.15), (1, 0.1), (2, 0.2)])
def test_read_stretches_takes_the_channel_that_was_predicted(tmp_path, channel, expected):
    tone = np.sin(np.arange(20 * RATE) * 0.8)
    soundfile.write(tmp_path / "a.wav", np.stack([0.1 * tone, 0.2 * tone], axis=1), RATE)
    (part,) = read_stretches(make_recording(tmp_path / "a.wav", channel=channel), [Stretch(2, 4)], RATE)
    assert part.max() == pytest.approx(expected, abs=1e-3)


def test_read_stretches_keeps_time_in_a_chained_ogg(tmp_path):
    """A decoder cannot go beyond the first stream of the chain; the sound is decoded forward as a prediction does."""
    for name, part in (("1", climbing(20)[: 8 * RATE]), ("2", climbing(20)[8 * RATE :])):
        soundfile.write(tmp_path / f"{name}.ogg", part, RATE)
    chain = tmp_path / "chain.ogg"
    chain.write_bytes((tmp_path / "1.ogg").read_bytes() + (tmp_path / "2.ogg").read_bytes())
    parts = list(
        read_stretches(make_recording(chain), [Stretch(2, 4), Stretch(7, 9), Stretch(8.5, 10), Stretch(15, 17)], RATE)
    )
    assert [part.mean() for part in parts] == pytest.approx([0.03, 0.08, 0.0925, 0.16], abs=2e-3)


def test_read_stretches_yields_nothing_of_what_cannot_be_read(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    for path in (tmp_path / "text.wav", tmp_path / "missing.wav"):
        assert [len(part) for part in read_stretches(make_recording(path), [Stretch(0, 1), Stretch(2, 3)], RATE)] == [
            0,
            0,
        ]


@pytest.mark.parametrize("ending", ["flac", "wav"])
def test_write_clips_cuts_sound_names_it_and_describes_it(tmp_path, recording, ending):
    zoned = replace(recording, start=datetime(2025, 6, 1, 5, 59, 30, tzinfo=timezone(timedelta(hours=1))))
    detections = [make_detection(zoned, 40, 0.9123), make_detection(zoned, 10, 0.5, species=SPECIES[1])]
    detections.sort(key=lambda each: each.start_seconds)
    assert write_clips(found_of(detections), tmp_path / "clips", ClipSettings(format=ending)) == 2
    path = tmp_path / "clips" / "eurbla" / f"0.912_20250601_060010_siteA_20250601_055930_40.0s.{ending}"
    with soundfile.SoundFile(path) as clip:
        samples = clip.read()
        assert (clip.samplerate, clip.title) == (RATE, "Turdus merula (Eurasian Blackbird)")
        assert clip.date == "2025-06-01T06:00:09+01:00"
        assert clip.comment == (
            "label: eurbla; confidence: 0.912300; recording: siteA/20250601_055930.flac; seconds: 39.000 to 46.000; "
            "site: siteA; clock: 2025-06-01T06:00:09.000+01:00"
        )
    assert len(samples) == 7 * RATE
    assert samples.mean() == pytest.approx(0.425, abs=1e-3)
    rows = table(tmp_path / "clips")
    assert [row["label"] for row in rows] == ["comcuc", "eurbla"]
    assert rows[1]["clip"] == path.relative_to(tmp_path / "clips").as_posix()
    assert (rows[1]["start"], rows[1]["clip_start"]) == ("40.0", "39.0")
    assert rows[1]["clock"] == "2025-06-01T06:00:10+01:00"


def test_write_clips_takes_a_number_of_each_species_and_replaces_an_older_folder(tmp_path, recording):
    detections = [make_detection(recording, 5 * index, 0.05 * index) for index in range(1, 10)]
    assert write_clips(found_of(detections), tmp_path / "clips", ClipSettings(per_species=5)) == 5
    assert write_clips(found_of(detections), tmp_path / "clips", ClipSettings(per_species=2)) == 2
    assert [row["start"] for row in table(tmp_path / "clips")] == ["40.0", "45.0"]
    assert len(list((tmp_path / "clips").rglob("*.flac"))) == 2


def test_write_clips_passes_over_events_with_speech(tmp_path, recording):
    detections = [make_detection(recording, start, 0.9 - start / 100) for start in (10, 20, 30)]
    speech = [(9.0, 11.0), (25.5, 26.0)]
    write_clips(
        found_of(detections), tmp_path / "clips", ClipSettings(per_species=2), speech=lambda each: speech
    )  # fmt: skip
    rows = table(tmp_path / "clips")
    assert [(row["start"], row["clip_end"]) for row in rows] == [("20.0", "25.5"), ("30.0", "36.0")]


def test_write_clips_keeps_the_names_of_odd_recordings_and_labels_apart(tmp_path, recording):
    others = [replace(recording, name=name, file=f"{name}.flac", start=None) for name in ("a/b", "a_b", "a\n\udcfcb")]
    odd = Species("../Turdus: merula?")
    detections = [[make_detection(one, 10, species=odd)] for one in others]
    assert write_clips(found_of(*detections), tmp_path / "clips", ClipSettings()) == 3
    names = [row["clip"] for row in table(tmp_path / "clips")]
    assert names == [
        f"_.._Turdus_ merula_/0.500_{each}.flac" for each in ("a_b_10.0s", "a_b_10.0s~2", "a_x0a_xfcb_10.0s")
    ]
    assert all((tmp_path / "clips" / name).is_file() for name in names)


def test_write_clips_reports_a_recording_that_is_gone(tmp_path, recording):
    gone = make_recording(tmp_path / "gone.wav")
    warned = Warnings()
    detections = [[make_detection(gone, 10)], [make_detection(recording, 10)]]
    assert write_clips(found_of(*detections), tmp_path / "clips", ClipSettings(), callback=warned) == 1
    assert warned.lines == ["gone.wav: 9.0 s cannot be read again, it has no clip"]


def test_write_clips_replaces_no_folder_of_others(tmp_path, recording):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other things than clips"):
        check_clips(tmp_path / "clips")
    with pytest.raises(OutputError, match="holds other things than clips"):
        write_clips(found_of([make_detection(recording, 10)]), tmp_path / "clips", ClipSettings())


def test_write_clips_gives_the_same_bytes_again(tmp_path, recording):
    detections = [make_detection(recording, 10, species=each) for each in SPECIES]
    for name in ("1", "2"):
        write_clips(found_of(detections), tmp_path / name, ClipSettings())
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("1", "2")
    )
    assert first == second
