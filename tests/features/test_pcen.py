import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import tone

from birdinfer.config import FrontEndConfig, MelConfig, WindowConfig
from birdinfer.features import log_mel as mel
from birdinfer.features import pcen

RATE = 32_000
WANG = MelConfig(compression="pcen", normalisation="none")
OUTDOORS = MelConfig(
    compression="pcen", normalisation="none", pcen_gain=0.8, pcen_bias=10.0, pcen_power=0.25, pcen_time_seconds=0.06
)


def power_of(seed=0, n_frames=200, n_mels=12):
    """Mel power over 80 dB, with bursts."""
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(-9, -1, (2, n_mels, 1)) * rng.exponential(1, (2, n_mels, n_frames))


def compress(power, config):
    """PCEN from mel power in double, as the front end hands it over."""
    return pcen.compress((10 * np.log10(power + pcen.MIN_POWER)).astype(np.float32), config)


def by_recursion(power, config):
    """The module's two equations, written down once more frame by frame in double."""
    energy, s = power * 2.0**30, pcen.smoothing(config)
    loudness, settings = energy[..., 0].copy(), config.mel
    found = np.empty_like(energy)
    for t in range(energy.shape[-1]):
        loudness = (1 - s) * loudness + s * energy[..., t]
        ratio = energy[..., t] / (settings.pcen_epsilon + loudness) ** settings.pcen_gain
        found[..., t] = (ratio + settings.pcen_bias) ** settings.pcen_power - settings.pcen_bias**settings.pcen_power
    return found


@pytest.mark.parametrize("settings", [WANG, OUTDOORS])
@pytest.mark.parametrize("hop_length", [320, 1_252])
def test_equals_librosas_pcen_that_begins_with_the_first_frame(settings, hop_length):
    librosa = pytest.importorskip("librosa")
    signal = pytest.importorskip("scipy.signal")
    settings = MelConfig(**dict(_fields(settings), hop_length=hop_length))
    power, config = power_of(), FrontEndConfig(mel=settings)
    energy, s = power * 2.0**30, pcen.smoothing(config)
    wanted = librosa.pcen(
        energy, sr=RATE, hop_length=hop_length, gain=settings.pcen_gain, bias=settings.pcen_bias,
        power=settings.pcen_power, time_constant=settings.pcen_time_seconds, eps=settings.pcen_epsilon,
        zi=signal.lfilter_zi([s], [1, s - 1]) * energy[..., :1],
    )  # fmt: skip
    np.testing.assert_allclose(compress(power, config), wanted, atol=1e-5, rtol=1e-5)


@given(
    n_frames=st.integers(1, 300),
    gain=st.floats(0, 1),
    bias=st.floats(0.01, 100),
    power=st.floats(0.05, 1),
    seconds=st.floats(0.001, 60),
    epsilon=st.floats(1e-6, 1e3),
)
def test_blocks_equal_the_recursion_whatever_the_settings(n_frames, gain, bias, power, seconds, epsilon):
    config = FrontEndConfig(
        mel=MelConfig(
            compression="pcen", pcen_gain=gain, pcen_bias=bias, pcen_power=power, pcen_time_seconds=seconds,
            pcen_epsilon=epsilon,
        )
    )  # fmt: skip
    sound = power_of(n_frames, n_frames)
    np.testing.assert_allclose(compress(sound, config), by_recursion(sound, config), rtol=2e-4, atol=2e-4)


def test_a_steady_hiss_fades_and_a_call_stands_out():
    power = np.full((1, 2, 400), 1e-6)
    power[0, 1, 200:204] *= 100
    found = compress(power, FrontEndConfig(mel=WANG))
    assert np.ptp(found[0, 0]) < 1e-4
    assert found[0, 1, 200] > 5 * found[0, 1, 199]


def test_loudness_hardly_matters():
    """20 dB more gain of a recorder: decibels move by 20, PCEN by a few hundredths."""
    power, config = power_of(3) + 1e-7, FrontEndConfig(mel=WANG)
    quiet, loud = compress(power, config), compress(100 * power, config)
    assert np.abs(loud - quiet).max() < 0.15 * quiet.max()


def test_silence_is_zero_and_what_lies_far_under_the_epsilon_nearly():
    config = FrontEndConfig(mel=WANG)
    assert np.abs(compress(np.zeros((1, 4, 50)), config)).max() < 1e-6
    assert np.abs(compress(np.full((1, 4, 50), 1e-14), config)).max() < 1e-3


@pytest.mark.parametrize("seconds", [0.001, 0.4, 60])
def test_the_newest_frames_weight_is_a_share(seconds):
    config = FrontEndConfig(mel=MelConfig(compression="pcen", pcen_time_seconds=seconds))
    assert 0 < pcen.smoothing(config) <= 1
    assert np.isfinite(pcen.smoother(config).within).all()
    # A steady power stays what it is over any number of blocks.
    total = pcen.smoother(config).within.sum(axis=0) + pcen.smoother(config).after
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("frames", ["compiled", "numpy"])
@pytest.mark.parametrize("n_fft", [1_024, 1_500])
def test_the_front_ends_decibels_give_power_back_to_1e_5(frames, n_fft, monkeypatch):
    """So PCEN may take the compiled front end's decibels: bounded here against the formula in double."""
    if frames == "numpy":
        monkeypatch.setattr(mel.kernels, "library", lambda: None)
    elif mel.front_end_name() != "compiled":
        pytest.skip("the kernel was not built")
    settings = MelConfig(n_fft=n_fft, n_mels=40)
    # 60 dB between bands at most, so that it is the way through decibels that is bounded, not float32's FFT.
    wave = np.random.default_rng(0).normal(0, 0.1, 100 * 500 + n_fft).astype(np.float32)
    decibels = np.empty((1, 40, 100), np.float32)
    mel._write_decibels(wave, 0, mel._Scale(settings, RATE, pcen.MIN_POWER), decibels)
    hann = mel.hann_window(settings).astype(np.float64)
    chunks = np.lib.stride_tricks.sliding_window_view(wave, n_fft)[::500][:100] * hann
    power = np.abs(np.fft.rfft(chunks)) ** 2 @ mel.filterbank(settings, RATE).astype(np.float64)
    np.testing.assert_allclose(10 ** (decibels[0].T.astype(np.float64) / 10), power, rtol=3e-5, atol=1e-24)


def test_the_way_through_decibels_costs_1e_5_of_the_power():
    power = 10 ** np.random.default_rng(0).uniform(-20, 2, 100_000)
    decibels = (10 * np.log10(power)).astype(np.float32)
    assert np.abs(10 ** (decibels.astype(np.float64) / 10) / power - 1).max() < 1e-5


@pytest.mark.parametrize("stride", [31_000, 31_001])
def test_a_window_depends_on_nothing_before_itself(stride):
    """A thunderclap just before it, of which a running loudness over the whole file would know for seconds."""
    config = FrontEndConfig(window=WindowConfig(1.0), mel=WANG)
    thunder = tone(4.0)
    alone = mel.windows_to_input(
        thunder[stride : stride + config.window_samples + 2 * config.margin_samples], 1, config
    )
    thunder[:stride] *= 30
    assert np.array_equal(mel.windows_to_input(thunder, 2, config, stride)[1:], alone)


def _fields(config):
    return ((name, getattr(config, name)) for name in config.__struct_fields__)
