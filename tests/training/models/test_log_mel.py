import itertools

import numpy as np
import pytest
import torch
from make_bundles import write_sound

from birdinfer.audio.windows import read_window
from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.features import log_mel as mel
from birdinfer.training.models.log_mel import LogMel, front_end_on

MELS = [
    MelConfig(n_fft=1024, hop_length=500, n_mels=64),
    MelConfig(n_fft=2048, hop_length=512, n_mels=128),  # 160,000 / 512 is 312.5
    MelConfig(n_fft=2048, n_mels=128, scale="htk", filter_norm="none", floor_db=-80.0),
]


def random_windows(config, n_windows=3):
    """Noise, a quiet tone, and digital silence, which must not become NaN."""
    rng, length = np.random.default_rng(0), config.window_samples + 2 * config.margin_samples
    tone = 1e-3 * np.sin(2 * np.pi * 3_000 * np.arange(length) / config.audio.sample_rate)
    return np.stack([rng.normal(0, 0.2, length), tone, np.zeros(length)])[:n_windows].astype(np.float32)


def both(config, windows):
    numpy = np.concatenate([mel.windows_to_input(window, 1, config) for window in windows])
    return numpy, LogMel(config)(torch.from_numpy(windows)).numpy()


@pytest.fixture
def real_windows(shared_data):
    """A window of each of six recordings [6, samples]."""
    clips = list(itertools.islice(sorted((shared_data / "birds" / "train_audio").rglob("*.ogg")), 0, 60, 10))
    return lambda config: np.stack([read_window(clip, 2.0, config) for clip in clips])


class TestParity:
    """Pitfall 2: one front end. Torch answers as mel.py does, whatever the scale, the norm and the hop."""

    @pytest.mark.parametrize("melconfig", MELS)
    def test_decibels_on_generated_sound(self, melconfig):
        config = FrontEndConfig(mel=MelConfig(**dict(_fields(melconfig), normalisation="none")))
        numpy, torched = both(config, random_windows(config))
        assert torched.shape == (3, 1, config.mel.n_mels, config.frames_per_window)
        assert np.abs(numpy - torched).max() < 1e-3

    @pytest.mark.parametrize("melconfig", MELS)
    def test_pitfall_2_torch_front_end_equals_numpy_on_real_sound(self, melconfig, real_windows):
        config = FrontEndConfig(mel=MelConfig(**dict(_fields(melconfig), normalisation="none")))
        numpy, torched = both(config, real_windows(config))
        assert np.abs(numpy - torched).max() < 1e-3

    @pytest.mark.parametrize("resize", [(0, 0), (224, 256)])
    @pytest.mark.parametrize("compression", ["log", "pcen", "log_pcen"])
    @pytest.mark.parametrize("normalisation", ["zscore", "minmax", "frequency", "none"])
    def test_all_that_is_made_of_mels(self, normalisation, compression, resize):
        made = {"normalisation": normalisation, "compression": compression, "resize": resize}
        config = FrontEndConfig(mel=MelConfig(n_fft=1024, n_mels=32, **made))
        numpy, torched = both(config, random_windows(config))
        assert torched.shape == numpy.shape == (3, *config.sample_shape)
        assert np.isfinite(torched).all()
        # The quiet tone divides float32 rounding by a small spread in both.
        np.testing.assert_allclose(torched, numpy, atol=1e-3)

    @pytest.mark.parametrize("melconfig", MELS[:2])
    @pytest.mark.parametrize("compression", ["log", "pcen", "log_pcen"])
    @pytest.mark.parametrize(
        ("normalisation", "tolerance"), [("zscore", 1e-4), ("minmax", 1e-4), ("frequency", 3e-4), ("none", 1e-3)]
    )
    def test_pitfall_2_model_input_equals_numpys_on_real_sound(
        self, melconfig, compression, normalisation, tolerance, real_windows
    ):
        made = {"normalisation": normalisation, "compression": compression, "resize": (200, 256)}
        config = FrontEndConfig(mel=MelConfig(**{**dict(_fields(melconfig)), **made}))
        numpy, torched = both(config, real_windows(config))
        assert np.abs(numpy - torched).max() < tolerance

    @pytest.mark.parametrize("floor_db", [-77.7, -100.0, -63.3, -91.9])
    def test_pitfall_6_digital_silence_is_zeros_in_both_whatever_the_floor(self, floor_db):
        config = FrontEndConfig(mel=MelConfig(n_fft=1024, n_mels=32, floor_db=floor_db, normalisation="zscore"))
        windows = random_windows(config)
        numpy, torched = both(config, windows)
        assert not numpy[2].any()
        assert not torched[2].any()
        # Beside silence, sound is what it is alone.
        np.testing.assert_array_equal(torched[:1], LogMel(config)(torch.from_numpy(windows[:1])).numpy())
        assert numpy[0].std() == pytest.approx(1, abs=1e-4)

    def test_a_window_that_the_hop_does_not_divide_at_another_rate(self):
        config = FrontEndConfig(
            AudioConfig(8_000), WindowConfig(0.7), MelConfig(n_fft=256, hop_length=97, n_mels=16, f_max_hz=4_000.0)
        )
        numpy, torched = both(config, random_windows(config))
        assert torched.shape == numpy.shape


def _fields(config):
    return ((name, getattr(config, name)) for name in config.__struct_fields__)


@pytest.mark.parametrize("compression", ["log", "pcen", "log_pcen"])
@pytest.mark.parametrize("normalisation", ["zscore", "minmax", "frequency"])
def test_pitfall_1_no_spectrogram_depends_on_the_batch(compression, normalisation):
    """Pitfall 1: a window alone, and among louder ones."""
    made = {"compression": compression, "normalisation": normalisation, "resize": (48, 64)}
    config = FrontEndConfig(mel=MelConfig(n_fft=1024, n_mels=32, **made))
    windows, frontend = torch.from_numpy(random_windows(config)), LogMel(config)
    together = frontend(windows * torch.tensor([[100.0], [1.0], [1.0]]))
    torch.testing.assert_close(frontend(windows[1:2]), together[1:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("compression", ["log", "pcen", "log_pcen"])
def test_computes_in_float32_under_mixed_precision(compression):
    config = FrontEndConfig(mel=MelConfig(n_fft=1024, n_mels=32, compression=compression, resize=(48, 64)))
    windows, frontend = torch.from_numpy(random_windows(config)), LogMel(config)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = frontend(windows)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, frontend(windows))


def test_a_checkpoint_holds_no_second_front_end():
    assert LogMel(FrontEndConfig()).state_dict() == {}


def test_training_window_equals_prediction_window(tmp_path):
    """A window decoded alone has the frames that it has within its soundscape's spectrogram."""
    config = FrontEndConfig(AudioConfig(), WindowConfig(1.0), MelConfig(n_fft=1024, n_mels=32))
    sound = np.random.default_rng(1).normal(0, 0.1, 32_000 * 4).astype(np.float32)
    write_sound(tmp_path / "x.wav", sound, 32_000, subtype="FLOAT")
    padded = np.pad(sound, config.margin_samples, mode="reflect")
    whole = mel.windows_to_input(padded, 4, config)
    alone = LogMel(config)(torch.from_numpy(read_window(tmp_path / "x.wav", 2.0, config))[None])
    np.testing.assert_allclose(alone.numpy(), whole[2:3], atol=1e-3)


def test_on_a_cpu_training_takes_the_bits_of_prediction():
    """The compiled front end takes a batch as one stretch of windows that do not see one another."""
    config = FrontEndConfig()
    waveforms = torch.randn(3, config.window_samples + 2 * config.margin_samples) * 0.1
    output = front_end_on(torch.device("cpu"), config)(waveforms)
    alone = [mel.windows_to_input(one.numpy(), 1, config) for one in waveforms]
    assert torch.equal(output, torch.from_numpy(np.concatenate(alone)))
    torch.testing.assert_close(output, LogMel(config)(waveforms), rtol=0, atol=1e-4)
