import numpy as np
import pytest
import torch

from birdinfer.training.augment.level import LOUDEST_RMS, SILENCE_RMS, are_sounds, batch_rms, is_sound, rms


def test_a_full_scale_sine_lies_3_db_below_full_scale():
    sine = np.sin(2 * np.pi * np.arange(1000) / 10).astype(np.float32)
    assert rms(sine) == pytest.approx(2**-0.5, rel=1e-6)
    assert batch_rms(torch.from_numpy(np.stack([sine, 2 * sine]))).tolist() == pytest.approx([2**-0.5, 2**0.5])


def test_nothing_at_all_is_silent():
    assert rms(np.zeros(0, np.float32)) == 0.0


def test_the_loudest_floats_have_a_level():
    assert rms(np.full(9, 3e38, np.float32)) == pytest.approx(3e38, rel=1e-6)


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.0, False), (SILENCE_RMS / 2, False), (0.1, True), (LOUDEST_RMS * 2, False), (np.inf, False), (np.nan, False)],
)
def test_neither_silence_nor_damage_is_sound(level, expected):
    assert is_sound(level) is expected
    assert are_sounds(torch.tensor([level])).tolist() == [expected]
