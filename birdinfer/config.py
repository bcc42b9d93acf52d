"""What training and inference share: the frozen settings that travel recipe -> checkpoint -> manifest.

Each struct reads TOML and JSON, refuses unknown fields and says where a value is wrong. Derived sizes
(samples, frames) are properties here, so that no number is typed twice.
"""

import math
from typing import Literal

import msgspec


class AudioConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The waveform every model of a bundle hears: mono float32 at one rate."""

    sample_rate: int = 32_000
    """Hz. 32 kHz is what BirdCLEF records in and what BirdNET 3.0 and Perch v2 hear."""

    def __post_init__(self) -> None:
        if not 1_000 <= self.sample_rate <= 384_000:
            raise ValueError(f"sample_rate is {self.sample_rate}, allowed are 1000 to 384000 Hz")


class WindowConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a soundscape is cut: windows side by side, a score for each."""

    window_seconds: float = 5.0
    """Seconds of sound behind each row of a submission."""

    min_tail_seconds: float = 0.5
    """A shorter rest at a file's end makes no window of its own: 60.001 s gives 12 rows, as 59.999 s does."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.window_seconds <= 60:
            raise ValueError(f"window_seconds is {self.window_seconds}, allowed are 0.1 to 60")
        if not 0 < self.min_tail_seconds <= self.window_seconds:
            raise ValueError(
                f"min_tail_seconds is {self.min_tail_seconds}, allowed is 0 < min_tail_seconds <= {self.window_seconds}"
            )


class MelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log-mel spectrogram. ``mel.py`` is its definition."""

    n_fft: int = 2048
    """Samples in one frame and its periodic Hann window."""

    hop_length: int = 500
    """Samples between frames. 500 divides 5 s at 32 kHz into exactly 320 frames, so that one spectrogram of the whole
    soundscape can be sliced."""

    n_mels: int = 128
    f_min_hz: float = 50.0
    f_max_hz: float = 14_000.0

    scale: Literal["slaney", "htk"] = "slaney"
    """Mel formula: Slaney's Auditory Toolbox (librosa's default) or HTK (torchaudio's). They differ by many bands."""

    filter_norm: Literal["slaney", "none"] = "slaney"
    """"slaney" gives every triangle the same area, "none" the same height of 1."""

    floor_db: float = -100.0
    """dB of a full-scale sine, added as power before the logarithm: what is quieter fades to the floor instead of to
    minus infinity."""

    normalisation: Literal["zscore", "minmax", "none"] = "zscore"
    """Per window, never per batch or file, so that no score depends on its neighbours."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("n_fft", self.n_fft, 64, 16_384),
            ("hop_length", self.hop_length, 16, 8_192),
            ("n_mels", self.n_mels, 8, 512),
            ("floor_db", self.floor_db, -140, -20),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, allowed are {low} to {high}")
        if self.n_fft % 2:
            raise ValueError(f"n_fft is {self.n_fft}, it must be even")
        if not 0 <= self.f_min_hz < self.f_max_hz:
            raise ValueError(
                f"f_min_hz is {self.f_min_hz} and f_max_hz {self.f_max_hz}, needed is 0 <= f_min_hz < f_max_hz"
            )


class PostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done to one soundscape's probabilities after the ensemble."""

    smoothing_kernel: tuple[float, ...] = (0.2, 0.6, 0.2)
    """Weights of the neighbouring windows, centred, odd in number, summing to 1. ``(1.0,)`` smooths nothing."""

    def __post_init__(self) -> None:
        if len(self.smoothing_kernel) % 2 == 0:
            raise ValueError(f"smoothing_kernel has {len(self.smoothing_kernel)} weights, an odd number is needed")
        if not all(weight >= 0 for weight in self.smoothing_kernel) or not math.isclose(
            sum(self.smoothing_kernel), 1, abs_tol=1e-6
        ):
            raise ValueError(f"smoothing_kernel is {list(self.smoothing_kernel)}, weights must be >= 0 and sum to 1")


class FrontEndConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Waveform -> windows -> log-mel, as one value: members with equal front ends share their spectrogram."""

    audio: AudioConfig = AudioConfig()
    window: WindowConfig = WindowConfig()
    mel: MelConfig = MelConfig()

    def __post_init__(self) -> None:
        nyquist_hz = self.audio.sample_rate / 2
        if self.mel.f_max_hz > nyquist_hz:
            raise ValueError(
                f"mel.f_max_hz is {self.mel.f_max_hz}, at {self.audio.sample_rate} Hz at most {nyquist_hz:g} exist"
            )
        if self.mel.n_fft > self.window_samples:
            raise ValueError(f"mel.n_fft is {self.mel.n_fft}, a window holds {self.window_samples} samples")

    @property
    def window_samples(self) -> int:
        """Samples in a window: 5 s x 32,000 Hz = 160,000."""
        return round(self.window.window_seconds * self.audio.sample_rate)

    @property
    def min_tail_samples(self) -> int:
        """Samples that a file's rest needs to become a window of its own."""
        return max(1, round(self.window.min_tail_seconds * self.audio.sample_rate))

    @property
    def frames_per_window(self) -> int:
        """Frames whose centre lies within a window: ceil(160,000 / 500) = 320."""
        return -(-self.window_samples // self.mel.hop_length)

    @property
    def margin_samples(self) -> int:
        """Samples of true neighbouring sound that a window's first and last frames reach into, on either side."""
        return self.mel.n_fft // 2
