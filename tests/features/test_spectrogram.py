"""Spectrograms of external models, held against librosa and against torch, which torchaudio is made of."""

import librosa
import numpy as np
import pytest
import torch

from birdinfer.config import AudioConfig, SpectrogramConfig, WindowConfig
from birdinfer.features import kernels
from birdinfer.features.spectrogram import fingerprint, windows_to_input

RATE = 16_000
AUDIO = {"audio": AudioConfig(RATE), "window": WindowConfig(1.0)}


def config(**settings):
    return SpectrogramConfig(**{**AUDIO, "n_fft": 512, "hop_length": 200, "n_mels": 40, **settings})


def sounds():
    """Noise, a chirp in faint noise, silence."""
    rng = np.random.default_rng(0)
    clock = np.arange(RATE) / RATE
    chirp = 0.3 * np.sin(2 * np.pi * (500 * clock + 2_500 * clock**2)) + 0.003 * rng.normal(size=RATE)
    return np.stack([0.1 * rng.normal(size=RATE), chirp, np.zeros(RATE)]).astype(np.float32)


@pytest.fixture(params=["compiled", "numpy"])
def front_end(request, monkeypatch):
    """Both ways to compute it."""
    from birdinfer.features import spectrogram

    if request.param == "numpy":
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("the kernel is not built")
    spectrogram._tables.cache_clear()
    yield request.param
    spectrogram._tables.cache_clear()


@pytest.mark.parametrize("padding", ["reflect", "constant", "none"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_windows_to_input_equals_librosas_mels(front_end, padding, power, scale):
    settings = config(padding=padding, power=power, scale=scale, compression="none", f_min_hz=50.0, f_max_hz=7_000.0)
    found = windows_to_input(sounds(), settings)
    for window, values in zip(sounds(), found, strict=True):
        expected = librosa.feature.melspectrogram(
            y=window, sr=RATE, n_fft=512, hop_length=200, n_mels=40, fmin=50, fmax=7_000, power=power,
            htk=scale == "htk", center=padding != "none", pad_mode="constant" if padding == "none" else padding,
        )  # fmt: skip
        np.testing.assert_allclose(values[0], expected, rtol=1e-4, atol=1e-5 * max(1e-9, expected.max()))


@pytest.mark.parametrize("reference", ["one", "max"])
@pytest.mark.parametrize("top_db", [0, 60, 80])
@pytest.mark.parametrize("power", [1, 2])
def test_windows_to_input_equals_librosas_decibels(front_end, reference, top_db, power):
    """Each window by itself, as librosa is called."""
    settings = config(reference=reference, top_db=top_db, power=power, floor=1e-10 if power == 2 else 1e-5)
    found = windows_to_input(sounds(), settings)
    for window, values in zip(sounds(), found, strict=True):
        mels = librosa.feature.melspectrogram(y=window, sr=RATE, n_fft=512, hop_length=200, n_mels=40, power=power)
        make = librosa.power_to_db if power == 2 else librosa.amplitude_to_db
        expected = make(mels, ref=np.max if reference == "max" else 1.0, top_db=top_db or None)
        np.testing.assert_allclose(values[0], expected, atol=2e-3)


def torch_mels(window, *, n_fft, win_length, hop, n_mels, power, f_max):
    """As torchaudio.transforms.MelSpectrogram by default: mirrored, HTK, filters of height 1."""
    spectrum = torch.stft(
        torch.from_numpy(window), n_fft, hop, win_length, torch.hann_window(win_length), center=True,
        pad_mode="reflect", return_complex=True,
    ).abs()  # fmt: skip
    bank = librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, fmin=0, fmax=f_max, htk=True, norm=None)
    return torch.from_numpy(bank) @ spectrum**power


def test_windows_to_input_of_hawkears(front_end):
    """Magnitudes, a frame twice as long as its window, cut to its width, 0 to 1."""
    settings = config(
        n_fft=928, win_length=464, hop_length=125, n_mels=48, scale="htk", filter_norm="none", power=1,
        padding="reflect", compression="none", normalisation="minmax", epsilon=0.0, frames=128, f_max_hz=6_500.0,
    )  # fmt: skip
    found = windows_to_input(sounds(), settings)
    assert found.shape == (3, 1, 48, 128)
    for window, values in zip(sounds(), found, strict=True):
        raw = torch_mels(window, n_fft=928, win_length=464, hop=125, n_mels=48, power=1, f_max=6_500)[:, :128]
        raw = raw - raw.min()
        expected = raw / raw.max() if raw.max() > 0 else raw
        np.testing.assert_allclose(values[0], expected, atol=2e-5)


def test_windows_to_input_of_a_sed_notebook(front_end):
    """torchaudio's decibels with top_db over the window, mean and deviation, then 0 to 1 and ImageNet's numbers."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    settings = config(
        scale="htk", filter_norm="none", padding="reflect", top_db=80, normalisation="minmax", channels=3, mean=mean,
        std=std, resize=(64, 64),
    )  # fmt: skip
    found = windows_to_input(sounds()[:2], settings)
    assert found.shape == (2, 3, 64, 64)
    for window, values in zip(sounds(), found, strict=False):
        mels = torch_mels(window, n_fft=512, win_length=512, hop=200, n_mels=40, power=2, f_max=8_000)
        decibels = 10 * torch.log10(mels.clamp(min=1e-10))
        decibels = torch.maximum(decibels, decibels.max() - 80)
        scaled = (decibels - decibels.min()) / (decibels.max() - decibels.min() + 1e-6)
        picture = torch.nn.functional.interpolate(scaled[None, None], (64, 64), mode="bilinear")[0, 0]
        expected = np.stack([(picture.numpy() - m) / s for m, s in zip(mean, std, strict=True)])
        np.testing.assert_allclose(values, expected, atol=1e-3)


@pytest.mark.parametrize(("compression", "added"), [("ln", True), ("ln", False), ("log1p", False)])
def test_windows_to_input_of_other_logarithms(front_end, compression, added):
    settings = config(compression=compression, floor=1e-6, is_floor_added=added, normalisation="zscore")
    mels = librosa.feature.melspectrogram(y=sounds()[1], sr=RATE, n_fft=512, hop_length=200, n_mels=40)
    raw = np.log1p(mels) if compression == "log1p" else np.log(mels + 1e-6 if added else np.maximum(mels, 1e-6))
    expected = (raw - raw.mean()) / (raw.std() + 1e-6)
    np.testing.assert_allclose(windows_to_input(sounds()[1:2], settings)[0, 0], expected, atol=1e-3)


def test_windows_to_input_equals_librosas_pcen(front_end):
    settings = config(compression="pcen", power=1)
    mels = librosa.feature.melspectrogram(y=sounds()[1], sr=RATE, n_fft=512, hop_length=200, n_mels=40, power=1)
    expected = librosa.pcen(mels * 2**31, sr=RATE, hop_length=200)
    np.testing.assert_allclose(windows_to_input(sounds()[1:2], settings)[0, 0], expected, rtol=1e-3, atol=1e-4)


def test_windows_to_input_moves_axes():
    plain = windows_to_input(sounds(), config())
    assert plain.shape == (3, 1, 40, 81)
    np.testing.assert_array_equal(windows_to_input(sounds(), config(channels=0)), plain[:, 0])
    np.testing.assert_array_equal(windows_to_input(sounds(), config(is_frames_first=True)), plain.transpose(0, 1, 3, 2))
    np.testing.assert_array_equal(windows_to_input(sounds(), config(is_flipped=True)), plain[:, :, ::-1])
    longer = windows_to_input(sounds(), config(frames=90, compression="none"))
    np.testing.assert_array_equal(longer[..., 81:], 0)


@pytest.mark.parametrize("settings", [{}, {"power": 1}, {"reference": "max", "top_db": 80, "normalisation": "zscore"}])
def test_a_window_does_not_depend_on_its_neighbours(front_end, settings):
    alone = np.concatenate([windows_to_input(window[None], config(**settings)) for window in sounds()])
    np.testing.assert_array_equal(windows_to_input(sounds(), config(**settings)), alone)
    np.testing.assert_array_equal(windows_to_input(sounds()[::-1], config(**settings)), alone[::-1])


@pytest.mark.parametrize("normalisation", ["minmax", "zscore"])
def test_silence_is_zeros(front_end, normalisation):
    assert not windows_to_input(sounds()[2:], config(normalisation=normalisation, epsilon=0.0)).any()


def test_fingerprint_changes_with_the_settings():
    assert len(fingerprint(config())) == 64
    for settings in ({"scale": "htk"}, {"power": 1}, {"padding": "reflect"}, {"top_db": 20}, {"win_length": 400}):
        assert np.abs(np.subtract(fingerprint(config(**settings)), fingerprint(config()))).max() > 0.01, settings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"n_fft": 511}, "n_fft is 511, it must be even"),
        ({"n_fft": 16_384}, "n_fft is 16384, a window holds 16000 samples"),
        ({"win_length": 600}, "win_length is 600, allowed are 16 to 512"),
        ({"f_max_hz": 9_000.0}, "needed is 0 <= f_min_hz < f_max_hz <= 8000"),
        ({"mean": (1.0, 2.0)}, "mean has 2 numbers, needed is one, or one for each channel"),
        ({"std": (0.0,)}, "what is divided by cannot be 0"),
        ({"resize": (8, 8)}, "resize is"),
    ],
)
def test_settings_that_cannot_be(settings, problem):
    with pytest.raises(ValueError, match=problem):
        config(**settings)
