import numpy as np
import pytest
from made_data import RATE, noise, write_sound

from birdinfer.report.sound import examine, examine_file
from birdinfer.training.data.duplicates import fingerprint, overlaps


class Speaking:
    """Stands in for the detector: speech from 0.5 s to 1.5 s of any file."""

    def stream(self):
        return self

    n_chunks = 0

    def push(self, samples):
        self.n_chunks, before = self.n_chunks + len(samples) // 512, self.n_chunks
        return np.array([15 <= chunk < 47 for chunk in range(before, self.n_chunks)], np.float32)

    def finish(self):
        return np.zeros(0, np.float32)


def test_examine_file_measures_a_file_in_one_pass(tmp_path):
    path = write_sound(tmp_path / "a.wav", noise(3))
    facts = examine_file(path, Speaking())
    assert facts.seconds == pytest.approx(3.0, abs=0.01)
    assert facts.speech_seconds == pytest.approx(1.2, abs=0.1)
    assert facts.rms_dbfs == pytest.approx(-20, abs=0.5)
    assert (facts.is_silent, facts.is_clipped, facts.is_damaged, facts.problem) == (False, False, False, "")
    assert np.array_equal(facts.fingerprint.words, fingerprint(path).words)
    assert examine_file(path, None).speech_seconds is None


def test_examine_reports_what_cannot_be_decoded(tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound at all")
    cut = write_sound(tmp_path / "cut.wav", noise(2))
    cut.write_bytes(cut.read_bytes()[: -RATE // 2])
    found = examine([bad, cut, tmp_path / "gone.wav"], None, lambda done, total: None)
    assert [facts.is_damaged for facts in found.values()] == [True, True, True]
    assert found[cut].problem == "truncated: 1.8 of 2.0 s"


def test_overlaps_gives_where_two_clips_lie_to_one_another(tmp_path):
    long = noise(8)
    parts = (long[: 5 * RATE], long[2 * RATE :], noise(5, seed=1))
    prints = [fingerprint(write_sound(tmp_path / f"{n}.wav", part)) for n, part in enumerate(parts)]
    (pair,) = overlaps([*prints, None])
    assert (pair.one, pair.other) == (0, 1)
    assert pair.shift_seconds == pytest.approx(2.0, abs=0.05)
    assert pair.seconds == pytest.approx(3.0, abs=0.4)
    (other,) = overlaps([prints[1], prints[0]])
    assert other.shift_seconds == pytest.approx(-2.0, abs=0.05)
