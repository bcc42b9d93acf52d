import contextlib
import dataclasses

import numpy as np
import pytest
from made_data import noise, write_sound

from birdinfer.errors import OutputError
from birdinfer.report.progress import sound_progress
from birdinfer.report.sound import examine_file


@pytest.fixture
def facts(tmp_path):
    return examine_file(write_sound(tmp_path / "a.wav", noise(2)), None)


def kept(tmp_path, facts, settings="x"):
    """What is known of the file after a run that was stopped."""
    with sound_progress(tmp_path / "p", settings) as progress:
        return progress.get(facts.path)


def stop(tmp_path, facts):
    with contextlib.suppress(KeyboardInterrupt), sound_progress(tmp_path / "p", "x") as progress:
        progress.put(facts)
        raise KeyboardInterrupt
    assert (tmp_path / "p").exists()


def test_sound_progress_gives_back_what_it_was_given(tmp_path, facts):
    stop(tmp_path, facts)
    found = kept(tmp_path, facts)
    for part, other in zip(found.fingerprint, facts.fingerprint, strict=True):
        assert np.array_equal(part, other)
        assert part.dtype == other.dtype
    assert dataclasses.replace(found, fingerprint=None) == dataclasses.replace(facts, fingerprint=None)
    assert not (tmp_path / "p").exists()


def test_sound_progress_forgets_a_file_that_has_changed_and_other_settings(tmp_path, facts):
    stop(tmp_path, facts)
    assert kept(tmp_path, facts, "y") is None
    stop(tmp_path, facts)
    write_sound(facts.path, noise(3))
    assert kept(tmp_path, facts) is None


def test_sound_progress_replaces_no_other_file(tmp_path, facts):
    (tmp_path / "p").write_text("something else, long enough to be no empty database" * 9)
    with pytest.raises(OutputError, match="holds other things"), sound_progress(tmp_path / "p", "x"):
        pass
    assert (tmp_path / "p").read_text().startswith("something else")
