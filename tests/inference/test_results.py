from pathlib import Path

import pytest

from birdinfer.audio.levels import ChannelLevel, Finding
from birdinfer.audio.status import Status
from birdinfer.inference.results import SoundscapeResult


def level(*findings):
    return ChannelLevel(
        peak=0.1, rms_dbfs=-30.0, zeros=0.0, clipped=0.0, dc=0.0, bandwidth_hz=16_000, usual_dbfs=-30.0,
        findings=tuple((each, "") for each in findings),
    )  # fmt: skip


FINE, DEAD, SHIFTED = level(), level(Finding.dead), level(Finding.offset)


@pytest.mark.parametrize(
    ("channel", "levels", "is_dead"),
    [
        ("mean", (FINE,), False),
        ("mean", (DEAD,), True),
        ("mean", (FINE, DEAD), False),
        ("mean", (DEAD, DEAD), True),
        ("mean", (SHIFTED,), False),
        ("1", (FINE, DEAD), False),
        ("2", (FINE, DEAD), True),
        ("", (), False),
    ],
)
def test_a_recording_is_dead_if_all_that_was_processed_is(channel, levels, is_dead):
    assert SoundscapeResult(Path("a"), Status.ok, channel=channel, levels=levels).is_dead is is_dead


def test_a_silent_recording_is_dead():
    assert SoundscapeResult(Path("a"), Status.silent).is_dead


def test_microphone_numbers_the_channels_of_files_with_several():
    result = SoundscapeResult(Path("a"), Status.ok, channel="mean", levels=(SHIFTED, FINE, DEAD))
    assert result.microphone == "channel 1: DC-shifted; channel 3: dead"
    assert result.findings == {Finding.offset, Finding.dead}
    assert SoundscapeResult(Path("a"), Status.ok, channel="mean", levels=(DEAD,)).microphone == "dead"
