"""Recordings of several microphones: what is predicted, how it is named, and what the table of files says."""

import csv

import numpy as np
import pytest
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer import Bundle, Predictor
from birdinfer.detections.summary import SummarySettings
from birdinfer.errors import AudioError, ConfigError, OutputError
from birdinfer.prediction.detect import DetectionSettings, detect_recordings
from birdinfer.prediction.run import PredictionSettings, predict_to_csv


@pytest.fixture
def microphones(tmp_path):
    """A mono file, and the same sound from recorders of which one microphone is dead or noise."""
    folder = tmp_path / "in"
    folder.mkdir()
    sound, noise = tone(20.0), np.random.default_rng(0).normal(0, 0.3, 20 * SAMPLE_RATE).astype(np.float32)
    write_sound(folder / "mono.wav", sound)
    write_sound(folder / "noise.wav", np.stack([sound, noise], 1).clip(-1, 1))
    write_sound(folder / "rail.wav", np.stack([np.full_like(sound, -0.99), sound], 1))
    return folder


def predict(bundle, folder, out, **settings):
    return predict_to_csv(Bundle.load(bundle), [folder], PredictionSettings(output=out, workers=2, **settings))


def table(path):
    with path.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def scores(path):
    """Recording -> its rows, without their names."""
    found = {}
    for row in table(path):
        name, _, second = row.pop("row_id").rpartition("_")
        found.setdefault(name, []).append((second, *row.values()))
    return found


def test_loudest_scores_what_the_working_microphone_recorded(bundle, microphones, tmp_path):
    outcome = predict(bundle, microphones, tmp_path / "s.csv", channel="loudest")
    assert outcome.is_complete
    found = scores(tmp_path / "s.csv")
    assert found["noise"] == found["rail"] == found["mono"]
    files = table(tmp_path / "s.files.csv")
    assert [row["channel"] for row in files] == ["1", "1", "2"]
    assert [row["status"] for row in files] == ["ok"] * 3
    assert [row["microphone"] for row in files] == [
        "", "channel 2: noise without any other sound (RMS -10 dBFS)", "channel 1: dead (all samples are -0.990021)"
    ]  # fmt: skip


def test_each_channel_is_a_recording_of_its_own(bundle, microphones, tmp_path):
    outcome = predict(bundle, microphones, tmp_path / "s.csv", channel="each")
    assert list(outcome.names.values()) == ["mono", "noise_ch1", "noise_ch2", "rail_ch1", "rail_ch2"]
    found = scores(tmp_path / "s.csv")
    assert found["noise_ch1"] == found["rail_ch2"] == found["mono"]
    assert len(found) == 5
    files = [(row["file"].rpartition("/")[2], row["channel"]) for row in table(tmp_path / "s.files.csv")]
    assert files == [("mono.wav", "mean"), ("noise.wav", "1"), ("noise.wav", "2"), ("rail.wav", "1"), ("rail.wav", "2")]


def test_a_name_that_a_file_has_already_is_given_to_no_channel(bundle, microphones, tmp_path):
    write_sound(microphones / "noise_ch2.wav", tone(5.0))
    names = list(predict(bundle, microphones, tmp_path / "s.csv", channel="each").names.values())
    assert names == ["mono", "noise__ch1", "noise__ch2", "noise_ch2", "rail__ch1", "rail__ch2"]


@pytest.mark.parametrize("channel", ["loudest", "each", "1"])
def test_a_run_that_continues_writes_the_same_tables(bundle, microphones, tmp_path, channel):
    predict(bundle, microphones, tmp_path / "whole.csv", channel=channel)
    out = tmp_path / "s.csv"
    (microphones / "zz.wav").write_bytes(b"no sound")
    assert not predict(bundle, microphones, out, channel=channel).is_complete
    with pytest.raises(OutputError, match=f"a run of another channel: {channel}, now mean"):
        predict(bundle, microphones, out, resume=True)
    (microphones / "zz.wav").unlink()
    outcome = predict(bundle, microphones, out, channel=channel, resume=True)
    assert outcome.sound_seconds == 0
    for ending in (".csv", ".files.csv"):
        assert out.with_suffix(ending).read_bytes() == (tmp_path / f"whole{ending}").read_bytes()


def test_a_channel_that_a_file_lacks_is_a_problem_of_this_file(bundle, microphones, tmp_path):
    predict(bundle, microphones, tmp_path / "s.csv", channel="2")
    files = {row["file"].rpartition("/")[2]: row for row in table(tmp_path / "s.files.csv")}
    assert files["mono.wav"]["status"] == "unreadable"
    assert files["mono.wav"]["problem"] == "has one channel, --channel 2 is not among them"
    assert [files[name]["channel"] for name in ("noise.wav", "rail.wav")] == ["2", "2"]


def test_the_command_names_bad_microphones(birdinfer, bundle, microphones, tmp_path):
    code, _, stderr = birdinfer("predict", microphones, "-o", tmp_path / "s.csv", "--bundle", bundle)
    assert code == 0
    assert f"microphones: dead in 1 file, noise in 1 file, see {tmp_path / 's.files.csv'}" in stderr.replace("\n", " ")


def test_the_command_refuses_what_is_no_channel(birdinfer, bundle, microphones, tmp_path):
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", microphones, "-o", out, "--bundle", bundle, "--channel", "left")
    assert code == 2
    assert "is 'left', allowed are mean, loudest, each, and numbers from 1" in stderr
    assert not out.exists()


def test_a_predictor_takes_one_channel(bundle, microphones):
    loaded = Bundle.load(bundle)
    mono = Predictor(loaded).predict(microphones / "mono.wav")
    np.testing.assert_array_equal(Predictor(loaded, channel="loudest").predict(microphones / "rail.wav"), mono)
    np.testing.assert_array_equal(Predictor(loaded, channel="2").predict(microphones / "rail.wav"), mono)
    with pytest.raises(AudioError, match="has 2 channels"):
        Predictor(loaded, channel="3").predict(microphones / "rail.wav")
    with pytest.raises(ConfigError, match="allowed are mean, loudest, and numbers"):
        Predictor(loaded, channel="each")


def test_a_dead_microphone_is_no_effort(bundle, microphones, tmp_path):
    for path in microphones.iterdir():
        path.rename(path.with_name(f"{path.stem}_20250601_050000.wav"))
    settings = DetectionSettings(output=tmp_path / "r", channel="1", summary=SummarySettings())
    detect_recordings(Bundle.load(bundle), [microphones], settings)
    effort = {row["site"]: row for row in table(tmp_path / "r" / "summary" / "effort_by_day.csv")}
    minutes = {site: (float(row["effort_minutes"]), float(row["left_out_minutes"])) for site, row in effort.items()}
    third = pytest.approx(20 / 60, abs=0.01)
    assert minutes == {"mono": (third, 0), "noise": (third, 0), "rail": (0, third)}
