import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WaveformConfig, WindowConfig
from birdinfer.postprocess.config import PostConfig


def test_default_sizes_are_those_of_the_field():
    config = FrontEndConfig()
    assert config.window_samples == 160_000
    assert config.frames_per_window == 320
    assert config.margin_samples == 1024
    assert config.min_tail_samples == 16_000


def test_a_hop_that_does_not_divide_the_window_counts_the_frame_that_is_cut():
    assert FrontEndConfig(mel=MelConfig(hop_length=512)).frames_per_window == 313


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[audio]\nsample_rate = 10", "sample_rate is 10.*1000 to 384000"),
        ("[window]\nwindow_seconds = 0.01", "window_seconds is 0.01"),
        ("[window]\nmin_tail_seconds = 6.0", "min_tail_seconds is 6.0"),
        ("[mel]\nn_mels = 4", r"n_mels is 4, allowed are 8 to 512 - at `\$.mel`"),
        ("[mel]\nn_fft = 1025", "n_fft is 1025, it must be even"),
        ("[mel]\nf_min_hz = 900.0\nf_max_hz = 800.0", "f_min_hz is 900.0"),
        ("[mel]\nf_max_hz = 20000.0", "at 32000 Hz at most 16000 exist"),
        ("[window]\nwindow_seconds = 0.1\nmin_tail_seconds = 0.1\n[mel]\nn_fft = 4096", "a window holds 3200 samples"),
        ("[mel]\nresize = [256, 0]", r"resize is \[256, 0\], allowed are two of 16 to 1024, or \[0, 0\]"),
        ("[mel]\nresize = [15, 256]", r"resize is \[15, 256\]"),
        ("[mel]\nresize = [256, 1025]", r"resize is \[256, 1025\]"),
        ("[mel]\nresize = [256]", r"resize"),
        ("[mel]\nresize = 256", r"resize"),
        ("[mel]\ncompression = 'cube'", "Invalid enum value 'cube'"),
        ("[mel]\npcen_gain = 1.1", r"pcen_gain is 1.1, allowed are 0 to 1 - at `\$.mel`"),
        ("[mel]\npcen_bias = 0.0", "pcen_bias is 0.0, allowed are 0.01 to 100"),
        ("[mel]\npcen_power = 0.0", "pcen_power is 0.0, allowed are 0.01 to 1"),
        ("[mel]\npcen_time_seconds = 0.0", "pcen_time_seconds is 0.0, allowed are 0.001 to 60"),
        ("[mel]\npcen_epsilon = nan", "pcen_epsilon is nan, allowed are 1e-09 to 1e\\+06"),
        ("[mel]\nbands = 64", "unknown field `bands`"),
        ("[mel]\nscale = 'bark'", "Invalid enum value 'bark'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(toml, problem):
    import tomllib

    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.convert(tomllib.loads(toml), FrontEndConfig)


def test_a_models_input_is_as_large_as_the_mels_or_what_they_are_resized_to():
    assert FrontEndConfig().input_shape == (128, 320)
    assert FrontEndConfig(mel=MelConfig(resize=(256, 224))).input_shape == (256, 224)
    toml = msgspec.toml.decode("[mel]\nresize = [256, 224]\ncompression = 'pcen'", type=FrontEndConfig)
    assert toml.mel == MelConfig(compression="pcen", resize=(256, 224))


def test_the_order_of_settings_is_what_manifests_and_callers_know():
    front, waveform = FrontEndConfig(AudioConfig(), WindowConfig(), MelConfig()), WaveformConfig()
    assert front.__struct_fields__ == ("audio", "window", "mel")
    assert waveform.__struct_fields__ == ("audio", "window", "has_channel_axis", "peak")
    assert MelConfig.__struct_fields__[:9] == (
        "n_fft", "hop_length", "n_mels", "f_min_hz", "f_max_hz", "scale", "filter_norm", "floor_db", "normalisation",
    )  # fmt: skip


def test_a_waveform_has_as_many_samples_as_a_front_end_of_the_same_window():
    parts = AudioConfig(48_000), WindowConfig(3.0, 0.25)
    for config in (FrontEndConfig(*parts), WaveformConfig(*parts)):
        assert (config.window_samples, config.min_tail_samples) == (144_000, 12_000)
    assert FrontEndConfig(*parts) != WaveformConfig(*parts)
    with pytest.raises(msgspec.ValidationError, match="unknown field `mel`"):
        msgspec.convert({"mel": {}}, WaveformConfig)


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
