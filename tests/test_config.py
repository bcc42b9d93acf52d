import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, PostConfig, WindowConfig


def test_default_sizes_are_those_of_the_field():
    config = FrontEndConfig()
    assert config.window_samples == 160_000
    assert config.frames_per_window == 320
    assert config.margin_samples == 1024
    assert config.min_tail_samples == 16_000


def test_a_hop_that_does_not_divide_the_window_counts_the_frame_that_is_cut():
    assert FrontEndConfig(mel=MelConfig(hop_length=512)).frames_per_window == 313


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("[audio]\nsample_rate = 10", "sample_rate is 10.*1000 to 384000"),
        ("[window]\nwindow_seconds = 0.01", "window_seconds is 0.01"),
        ("[window]\nmin_tail_seconds = 6.0", "min_tail_seconds is 6.0"),
        ("[mel]\nn_mels = 4", r"n_mels is 4, allowed are 8 to 512 - at `\$.mel`"),
        ("[mel]\nn_fft = 1025", "n_fft is 1025, it must be even"),
        ("[mel]\nf_min_hz = 900.0\nf_max_hz = 800.0", "f_min_hz is 900.0"),
        ("[mel]\nf_max_hz = 20000.0", "at 32000 Hz at most 16000 exist"),
        ("[window]\nwindow_seconds = 0.1\nmin_tail_seconds = 0.1\n[mel]\nn_fft = 4096", "a window holds 3200 samples"),
        ("[mel]\nbands = 64", "unknown field `bands`"),
        ("[mel]\nscale = 'bark'", "Invalid enum value 'bark'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(toml, complaint):
    import tomllib

    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(tomllib.loads(toml), FrontEndConfig)


@pytest.mark.parametrize("kernel", [(), (0.5, 0.5), (0.5, 0.6, 0.2), (-0.1, 1.2, -0.1), (float("nan"),)])
def test_a_kernel_that_is_none_is_refused(kernel):
    with pytest.raises(ValueError, match="smoothing_kernel"):
        PostConfig(kernel)


@given(
    st.integers(8_000, 96_000), st.floats(1, 20), st.sampled_from([256, 400, 500, 512]), st.sampled_from([512, 2048])
)
def test_config_survives_json(rate, seconds, hop, n_fft):
    config = FrontEndConfig(
        AudioConfig(rate), WindowConfig(seconds), MelConfig(n_fft=n_fft, hop_length=hop, f_max_hz=rate / 2)
    )
    assert msgspec.json.decode(msgspec.json.encode(config), type=FrontEndConfig) == config
