import json

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import tone

from birdinfer.audio.windows import cut_batches, make_grid
from birdinfer.config import AggregationConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.features import log_mel as mel
from birdinfer.features import normalize as mel_input

RATE = 32_000
CONFIGS = [
    MelConfig(),
    MelConfig(n_fft=1024, n_mels=64, scale="htk", filter_norm="none"),
    MelConfig(n_fft=2048, hop_length=512, n_mels=256, f_min_hz=0, f_max_hz=16_000),
    MelConfig(n_fft=4096, hop_length=1252, n_mels=224, scale="htk"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_pitfall_2_filterbank_equals_librosas(config):
    librosa = pytest.importorskip("librosa")
    wanted = librosa.filters.mel(
        sr=RATE, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.f_min_hz, fmax=config.f_max_hz,
        htk=config.scale == "htk", norm="slaney" if config.filter_norm == "slaney" else None,
    )  # fmt: skip
    np.testing.assert_allclose(
        mel.filterbank(config, RATE), wanted.T, atol=1e-7 if config.filter_norm == "slaney" else 1e-5
    )


def test_pitfall_2_slaney_and_htk_differ_so_much_that_a_mix_up_shows():
    slaney, htk = (mel.filterbank(MelConfig(scale=scale), RATE) for scale in ("slaney", "htk"))
    assert np.abs(slaney - htk).max() > 0.1 * slaney.max()
    prints = [mel.fingerprint(FrontEndConfig(mel=MelConfig(scale=scale))) for scale in ("slaney", "htk")]
    assert np.abs(np.subtract(*prints)).max() > 1


@pytest.mark.parametrize("config", CONFIGS)
def test_pitfall_2_log_mel_equals_librosas_on_the_same_frames(config, front_end):
    librosa = pytest.importorskip("librosa")
    wave = tone(3.0) + np.random.default_rng(1).normal(0, 0.05, 3 * RATE).astype(np.float32)
    n_frames = (len(wave) - config.n_fft) // config.hop_length + 1
    spectrum = librosa.stft(wave, n_fft=config.n_fft, hop_length=config.hop_length, window="hann", center=False)
    power = np.abs(spectrum) ** 2 / (config.n_fft / 4) ** 2  # half the sum of a Hann window is n_fft / 4
    wanted = 10 * np.log10(mel.filterbank(config, RATE).T @ power + config.floor_power)
    found = mel.log_mel(wave, n_frames, config, RATE)
    np.testing.assert_allclose(found.T, wanted[:, :n_frames], atol=1e-3)


def test_a_full_scale_sine_has_power_one():
    config = MelConfig(n_fft=2048, filter_norm="none", n_mels=256)
    hz = 100 * RATE / 2048
    wave = np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32)
    spectrum = np.fft.rfft(wave[:2048] * mel.hann_window(config))
    assert np.abs(spectrum[100]) ** 2 == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@given(hz=st.lists(st.floats(0, 48_000), min_size=1))
def test_mel_and_hz_are_inverse(scale, hz):
    np.testing.assert_allclose(mel.mel_to_hz(mel.hz_to_mel(np.array(hz), scale), scale), hz, rtol=1e-9, atol=1e-6)


MADE = [
    {"compression": compression, "normalisation": normalisation, "resize": resize}
    for compression in ("log", "pcen", "log_pcen")
    for normalisation in ("zscore", "minmax", "frequency", "none")
    for resize in ((0, 0), (96, 64))
]
"""All that is made of decibels."""


@pytest.fixture(params=["compiled", "numpy"])
def front_end(request, monkeypatch):
    """Both front ends, one after the other."""
    if request.param == "numpy":
        monkeypatch.setattr(mel.kernels, "library", lambda: None)
    elif mel.front_end_name() != "compiled":
        pytest.skip("the kernel was not built")
    assert mel.front_end_name() == request.param
    return request.param


@pytest.mark.parametrize("hop_length", [500, 512])
@pytest.mark.parametrize("made", MADE)
def test_slicing_one_spectrogram_equals_each_window_alone(hop_length, made, front_end):
    config = FrontEndConfig(mel=MelConfig(hop_length=hop_length, **made))
    (run,) = cut_batches([tone(20.0)], 12, make_grid(config, AggregationConfig(), config.window))
    together = mel.windows_to_input(run.samples, 4, config)
    assert together.shape == (4, *config.sample_shape)
    assert together.flags.c_contiguous
    assert together.dtype == np.float32
    for index in range(4):
        begin = index * config.window_samples
        alone = mel.windows_to_input(run.samples[begin : begin + config.window_samples + 2048], 1, config)
        assert np.array_equal(together[index], alone[0])


SMALL_WINDOW = WindowConfig(window_seconds=0.25, min_tail_seconds=0.1)
NOISE = np.random.default_rng(5).normal(0, 0.1, 12 * 8_000 + 4_096).astype(np.float32)


@given(
    n_fft=st.sampled_from([512, 1_024, 1_000, 1_006]),
    hop_length=st.sampled_from([100, 125, 128, 250]),
    n_windows=st.integers(0, 5),
    stride=st.sampled_from([None, 100, 500, 1_000, 1_001, 4_000, 8_000, 8_500]),
    first=st.integers(0, 3_000),
    made=st.sampled_from(MADE),
)
def test_pitfall_1_a_window_is_the_same_bits_wherever_it_stands(
    n_fft, hop_length, n_windows, stride, first, made, front_end
):
    """Whatever the number of windows, their stride and the position: batch, overlap and workers change no score."""
    config = FrontEndConfig(window=SMALL_WINDOW, mel=MelConfig(n_fft=n_fft, hop_length=hop_length, n_mels=20, **made))
    step = config.window_samples if stride is None else stride
    stretch = NOISE[first : first + max(0, n_windows - 1) * step + config.window_samples + n_fft]
    together = mel.windows_to_input(stretch, n_windows, config, stride)
    assert together.shape == (n_windows, *config.sample_shape)
    for index, window in enumerate(together):
        begin = first + index * step
        alone = mel.windows_to_input(NOISE[begin : begin + config.window_samples + n_fft], 1, config)
        assert np.array_equal(window, alone[0])


@given(n_fft=st.sampled_from([64, 1_024, 1_000, 1_006]), first=st.integers(0, 200), n_frames=st.integers(1, 150))
def test_a_frame_is_the_same_bits_in_every_call(n_fft, first, n_frames, front_end):
    config = MelConfig(n_fft=n_fft, hop_length=100, n_mels=40)
    whole = mel.log_mel(NOISE, 400, config, RATE)
    assert np.array_equal(mel.log_mel(NOISE[first * 100 :], n_frames, config, RATE), whole[first : first + n_frames])


@pytest.mark.parametrize("n_fft", [64, 1_000, 1_006, 2_048])
def test_log_mel_is_the_formula_in_double(n_fft, front_end):
    """The formula of the module's first lines, written down once more without blocks and bands."""
    config = MelConfig(n_fft=n_fft, hop_length=333, n_mels=64)
    frames = np.lib.stride_tricks.sliding_window_view(NOISE, n_fft)[::333][:200].astype(np.float64)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    power = np.abs(np.fft.rfft(frames * hann) / (hann.sum() / 2)) ** 2
    wanted = 10 * np.log10(power @ mel.filterbank(config, RATE).astype(np.float64) + 1e-10)
    np.testing.assert_allclose(mel.log_mel(NOISE, 200, config, RATE), wanted, atol=2e-4)


def test_samples_may_have_any_layout_and_are_not_changed(front_end):
    config = FrontEndConfig(window=SMALL_WINDOW, mel=MelConfig(n_fft=512, n_mels=16))
    wave = NOISE[: config.window_samples + 512].copy()
    wanted = mel.windows_to_input(wave, 1, config)
    spread = np.zeros(2 * len(wave), np.float32)
    spread[::2] = wave
    shifted = np.frombuffer(b"." + wave.tobytes(), np.uint8)[1:].view(np.float32)
    assert not shifted.flags.aligned
    frozen = wave.copy()
    frozen.flags.writeable = False
    for layout in (spread[::2], wave[::-1].copy()[::-1], shifted, frozen, wave.astype(np.float64), wave.astype(">f4")):
        assert np.array_equal(mel.windows_to_input(layout, 1, config), wanted)
    assert np.array_equal(wave, NOISE[: len(wave)])


@pytest.mark.parametrize("made", MADE)
def test_pitfall_6_silence_is_finite(made, front_end):
    config = FrontEndConfig(mel=MelConfig(**made))
    silence = np.zeros(config.window_samples + 2048, np.float32)
    found = mel.windows_to_input(silence, 1, config)
    assert np.isfinite(found).all()
    assert made["normalisation"] == "none" or np.abs(found).max() < 1e-2


@pytest.mark.parametrize("n_fft", [1024, 1500, 4096])
@pytest.mark.parametrize("n_mels", [64, 256])
@pytest.mark.parametrize("compression", ["log", "pcen"])
def test_bands_that_no_bin_falls_into_stay_silent(n_fft, n_mels, compression, front_end):
    """1,024 samples and 256 bands: the lowest triangles lie between bins."""
    settings = MelConfig(n_fft=n_fft, n_mels=n_mels, compression=compression, normalisation="none", f_min_hz=0.0)
    config = FrontEndConfig(window=SMALL_WINDOW, mel=settings)
    empty = ~mel.filterbank(settings, RATE).any(axis=0)
    assert empty.any() == (n_mels == 256 and n_fft == 1024)
    picture = mel.windows_to_input(NOISE[: config.window_samples + n_fft], 1, config)[0, 0]
    assert np.allclose(picture[empty], -100 if compression == "log" else 0, atol=1e-4)
    assert (picture[~empty].std(axis=1) > 0.01).all()


def test_too_few_samples_are_refused(front_end):
    with pytest.raises(ValueError, match="hold 1 frames, 2 were asked for"):
        mel.log_mel(np.zeros(2048, np.float32), 2, MelConfig(), RATE)
    with pytest.raises(ValueError, match=r"^5 samples hold 0 frames, 1 were asked for"):
        mel.log_mel(np.zeros(5, np.float32), 1, MelConfig(), RATE)
    config = FrontEndConfig()
    with pytest.raises(ValueError, match="hold 319 frames of window 1, 320 were asked for"):
        mel.windows_to_input(np.zeros(2 * 160_000 + 1_547, np.float32), 2, config)
    with pytest.raises(ValueError, match="hold 639 frames, 640 were asked for"):
        mel.windows_to_input(np.zeros(2 * 160_000 + 1_547, np.float32), 3, config, 80_000)


def test_a_stride_of_nothing_is_refused():
    with pytest.raises(ValueError, match="stride_samples is 0, at least 1 is needed"):
        mel.windows_to_input(np.zeros(2 * 160_000, np.float32), 1, FrontEndConfig(), 0)


def test_shared_tables_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        mel.filterbank(MelConfig(), RATE)[0, 0] = 1


def test_fingerprint_changes_with_every_setting():
    base = np.array(mel.fingerprint(FrontEndConfig()))
    assert len(base) == 65
    for change in (
        {"n_fft": 1024}, {"hop_length": 512}, {"n_mels": 64}, {"f_min_hz": 0.0}, {"f_max_hz": 16_000.0},
        {"scale": "htk"}, {"filter_norm": "none"}, {"floor_db": -80.0}, {"normalisation": "minmax"},
    ):  # fmt: skip
        other = np.array(mel.fingerprint(FrontEndConfig(mel=MelConfig(**change))))
        assert np.abs(base - other).max() > 0.01, change


def test_fingerprint_changes_with_every_setting_of_the_input():
    settings = MelConfig(compression="pcen", normalisation="frequency", resize=(64, 64))
    base = np.array(mel.fingerprint(FrontEndConfig(mel=settings)))
    assert len(base) == 129
    for change in (
        {"pcen_gain": 0.9}, {"pcen_bias": 3.0}, {"pcen_power": 0.4}, {"pcen_time_seconds": 0.3}, {"pcen_epsilon": 10.0},
        {"compression": "log"}, {"normalisation": "zscore"}, {"resize": (64, 63)}, {"resize": (63, 64)},
        {"resize": (0, 0)},
    ):  # fmt: skip
        other = np.array(mel.fingerprint(FrontEndConfig(mel=msgspec.structs.replace(settings, **change))))
        assert np.abs(base - other).max() > 0.01, change


@pytest.mark.parametrize("made", MADE)
def test_fingerprint_is_the_same_from_either_front_end(made, monkeypatch):
    config = FrontEndConfig(mel=MelConfig(**made))
    here = mel.fingerprint(config)
    monkeypatch.setattr(mel.kernels, "library", lambda: None)
    np.testing.assert_allclose(mel.fingerprint(config), here, atol=2e-3)


def test_fingerprint_notices_another_way_to_resize(monkeypatch):
    """Corners on corners instead of halves: a network would get a picture that is half a pixel off at its edges."""
    config = FrontEndConfig(mel=MelConfig(resize=(200, 200)))
    here = np.array(mel.fingerprint(config))

    def corners(n_from, n_to):
        centres = np.linspace(0, n_from - 1, n_to)
        return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(n_from))).astype(np.float32)

    monkeypatch.setattr(mel_input, "bilinear", corners)
    monkeypatch.setattr(mel_input, "stretch", mel_input.stretch.__wrapped__)
    assert np.abs(here - mel.fingerprint(config)).max() > 0.01


def test_real_soundscape_equals_torchaudios_mel(shared_data):
    torchaudio = pytest.importorskip("torchaudio", exc_type=(ImportError, OSError))
    functional = torchaudio.functional
    config = MelConfig(scale="htk", filter_norm="none")
    wanted = functional.melscale_fbanks(1025, 50.0, 14_000.0, 128, RATE, norm=None, mel_scale="htk").numpy()
    np.testing.assert_allclose(mel.filterbank(config, RATE), wanted, atol=1e-4)


def test_real_sound_is_well_above_the_floor(shared_data):
    wave, _ = soundfile.read(shared_data / "soundscapes" / "public" / "real" / "audio" / "urban.ogg", dtype="float32")
    decibels = mel.log_mel(wave, 3_000, MelConfig(), RATE)
    assert decibels.min() >= -100
    assert np.median(decibels) > -95


@pytest.mark.parametrize("name", ["default", "htk_512", "minmax_256", "pcen_frequency", "picture", "log_pcen"])
def test_fingerprint_equals_the_stored_one(name, front_end):
    """Against stored fingerprints: a change here would silently change the scores of every exported bundle."""
    from golden.make_golden import CONFIGS, FINGERPRINTS

    stored = json.loads(FINGERPRINTS.read_text())[name]
    np.testing.assert_allclose(mel.fingerprint(CONFIGS[name]), stored, atol=0.01)
