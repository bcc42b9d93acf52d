import struct

import numpy as np
import pytest

from birdinfer.config import FrontEndConfig, MelConfig

plots = pytest.importorskip("birdinfer.plots.soundscape")


def size_of(path):
    """Width and height that a PNG states."""
    raw = path.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", raw[16:24])


@pytest.mark.parametrize("n_species", [1, 8, 60])
@pytest.mark.parametrize("with_truth", [True, False])
def test_a_soundscape_is_drawn(tmp_path, n_species, with_truth):
    rng = np.random.default_rng(0)
    scores = rng.random((3, n_species), np.float32)
    samples = rng.normal(0, 0.1, 14 * 32_000).astype(np.float32)
    labels = [f"species{index}" for index in range(n_species)]
    truth = scores > 0.7 if with_truth else None
    plots.draw_soundscape(tmp_path / "a.png", "a", samples, scores, labels, frontend=FrontEndConfig(), truth=truth)
    width, height = size_of(tmp_path / "a.png")
    assert width == 1320
    assert height == pytest.approx((3.2 + 0.28 * min(20, n_species)) * 110, abs=2)


def test_a_clip_shorter_than_a_frame_is_drawn(tmp_path):
    frontend = FrontEndConfig(mel=MelConfig(scale="htk"))
    plots.draw_soundscape(
        tmp_path / "a.png", "a", np.zeros(10, np.float32), np.zeros((1, 2), np.float32), "ab", frontend=frontend
    )
    assert size_of(tmp_path / "a.png")[0] == 1320
