"""Which species and which windows a run of detections leaves out: lists, places and human speech."""

import csv
from functools import partial

import numpy as np
import pytest
import soundfile
from location_models import write_model
from make_bundles import LABELS, SAMPLE_RATE, tone, write_bundle, write_sound

from birdinfer import Bundle
from birdinfer.audio.find import find_recordings
from birdinfer.audio.speech import VOICE_CHUNK, VOICE_RATE, SpeechFinder, SpeechMuter
from birdinfer.detections.clips import ClipSettings
from birdinfer.detections.species_filter import FilterSettings
from birdinfer.detections.summary import SummarySettings
from birdinfer.prediction import run as prediction_run
from birdinfer.prediction.detect import DetectionSettings, DetectionTables, detect_recordings
from birdinfer.prediction.run import PredictionCallback, PredictionSettings, predict_to_csv

SPOKEN = 12.0, 14.0
"""Seconds of every recording."""


class SpeechAtKnownTime:
    """Instead of the network."""

    def __init__(self):
        self.n_samples = 0

    def push(self, samples):
        self.n_samples += len(samples)
        return np.zeros(0, np.float32)

    def finish(self):
        begin = np.arange(-(-self.n_samples // VOICE_CHUNK)) * VOICE_CHUNK / VOICE_RATE
        return ((begin >= SPOKEN[0]) & (begin < SPOKEN[1])).astype(np.float32)


@pytest.fixture
def _speech(monkeypatch):
    kinds = {"skip": SpeechFinder, "mute": SpeechMuter}
    monkeypatch.setattr(prediction_run, "speech_finders", lambda mode: lambda: kinds[mode](SpeechAtKnownTime()))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.load(write_bundle(tmp_path_factory.mktemp("bundles") / "plain", kernel=(1.0,)))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spoken")
    for month in (1, 6):
        sound = tone(30.0, seed=month, hz=700.0 * month)
        write_sound(folder / f"S_2025{month:02d}20_070000.wav", sound, SAMPLE_RATE)
    return folder


def detections(bundle, recordings, out, **options):
    """Every window is a detection of its own."""
    detect_recordings(bundle, [recordings], DetectionSettings(output=out, **({"min_confidence": 0.0} | options)))
    with (out / "detections.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def windows_of(rows):
    """(file, label, begin of a window)."""
    return {
        (row["File"], row["Label"], begin)
        for row in rows
        for begin in range(round(float(row["Start (s)"])), round(float(row["End (s)"])), 5)
    }


class _Warned(PredictionCallback):
    def __init__(self, lines):
        self.on_warning = lines.append


class TestSpecies:
    def test_the_others_are_not_scored(self, bundle, recordings, tmp_path):
        (tmp_path / "list.txt").write_text(f"{LABELS[2]}\n{LABELS[0]}\n")
        listed = FilterSettings(species_list=tmp_path / "list.txt")
        found = find_recordings([recordings])
        tables = DetectionTables(bundle, DetectionSettings(output=tmp_path / "r", species=listed), found)
        assert tables.bundle.labels == (LABELS[0], LABELS[2])
        everything = detections(bundle, recordings, tmp_path / "all")
        some = detections(bundle, recordings, tmp_path / "some", species=listed)
        assert some == [row for row in everything if row["Label"] in (LABELS[0], LABELS[2])]

    def test_place_and_date_decide(self, bundle, recordings, tmp_path):
        """The third species occurs in summer."""
        names = [f"7\t{label}\t{label}\n" for label in LABELS[:3]]
        (tmp_path / "labels.txt").write_text("".join(names))
        model = write_model(tmp_path / "m.onnx")
        place = FilterSettings(location_model=model, latitude=60, longitude=10)
        found = windows_of(detections(bundle, recordings, tmp_path / "r", species=place))
        species = {month: {label for file, label, _ in found if f"2025{month}" in file} for month in ("01", "06")}
        warned = []
        nowhere = DetectionSettings(output=tmp_path / "n", species=FilterSettings(location_model=model))
        detect_recordings(bundle, [recordings], nowhere, _Warned(warned))
        assert any("no position is known of 2 recordings" in line for line in warned)
        assert species == {"01": {LABELS[0], LABELS[3]}, "06": {LABELS[0], LABELS[2], LABELS[3]}}


class _Stop(PredictionCallback):
    def on_file(self, result):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("_speech")
class TestSpeech:
    def test_windows_with_speech_have_no_detection(self, bundle, recordings, tmp_path):
        everything = windows_of(detections(bundle, recordings, tmp_path / "all"))
        spoken = windows_of(detections(bundle, recordings, tmp_path / "skip", voice="skip"))
        assert spoken == {each for each in everything if each[2] != 10}
        with (tmp_path / "skip" / "files.csv").open(newline="") as file:
            assert [row["speech_seconds"] for row in csv.DictReader(file)] == ["2.2", "2.2"]

    @pytest.mark.parametrize(("voice", "minutes"), [("skip", ("0.417", "0.083")), ("mute", ("0.500", "0.000"))])
    def test_windows_that_are_skipped_are_no_effort(self, bundle, recordings, tmp_path, voice, minutes):
        detections(bundle, recordings, tmp_path / "r", voice=voice, summary=SummarySettings(permutations=1))
        with (tmp_path / "r" / "summary" / "effort_by_day.csv").open(newline="") as file:
            efforts = [(row["effort_minutes"], row["left_out_minutes"]) for row in csv.DictReader(file)]
        assert efforts == [minutes, minutes]

    def test_sound_without_speech_is_what_is_scored(self, bundle, recordings, tmp_path):
        silent = tmp_path / "silent"
        silent.mkdir()
        for path in recordings.iterdir():
            sound, rate = soundfile.read(path, dtype="float32")
            sound[round(11.9 * rate) : round(14.112 * rate)] = 0  # but for the fades
            soundfile.write(silent / path.name, sound, rate)
        scores = {}
        for name, folder, voice in (
            ("mute", recordings, "mute"),
            ("silent", silent, None),
            ("plain", recordings, None),
        ):
            out = tmp_path / f"{name}.csv"
            predict_to_csv(bundle, [folder], PredictionSettings(output=out, voice=voice))
            scores[name] = np.loadtxt(out, delimiter=",", skiprows=1, usecols=range(1, 5))
        assert scores["mute"].shape == (12, 4)
        np.testing.assert_allclose(scores["mute"], scores["silent"], atol=1e-3)
        changed = np.abs(scores["mute"] - scores["plain"]).max(axis=1) > 1e-3
        assert np.flatnonzero(changed).tolist() == [2, 8]

    @pytest.mark.parametrize("voice", ["skip", "mute"])
    def test_no_clip_holds_speech(self, bundle, recordings, tmp_path, voice):
        clips = ClipSettings(per_species=3, choice="random", padding_seconds=3.0, format="wav")
        detections(bundle, recordings, tmp_path / "r", voice=voice, clips=clips, min_confidence=0.2)
        sounds = {path.stem: soundfile.read(path)[0] for path in recordings.iterdir()}
        spoken = [sound[round(12.5 * SAMPLE_RATE) :][:200] for sound in sounds.values()]
        cut = [soundfile.read(path)[0] for path in (tmp_path / "r" / "clips").rglob("*.wav")]
        assert bool(cut) == (voice == "skip")  # muted, every event lasts as long as its recording
        for clip in cut:
            every = np.lib.stride_tricks.sliding_window_view(clip, 200)[:, ::50]
            assert not any(np.isclose(every, part[::50], atol=1e-6).all(axis=1).any() for part in spoken)

    @pytest.mark.parametrize("voice", ["skip", "mute"])
    def test_a_resumed_run_knows_what_was_speech(self, bundle, recordings, tmp_path, voice):
        detect = partial(detections, bundle, recordings, voice=voice, workers=1)
        whole = detect(tmp_path / "a")
        with pytest.raises(KeyboardInterrupt):
            detect_recordings(
                bundle, [recordings], DetectionSettings(output=tmp_path / "b", min_confidence=0.0, voice=voice), _Stop()
            )
        assert detect(tmp_path / "b", resume=True) == whole
        assert (tmp_path / "a" / "files.csv").read_bytes() == (tmp_path / "b" / "files.csv").read_bytes()
