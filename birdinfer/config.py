"""Settings that training and inference share: frozen, from the recipe into the checkpoint and the manifest.

Each struct reads TOML and JSON, refuses unknown fields and reports where a value is wrong. Derived sizes (samples,
frames) are properties here, so that no number is typed twice.
"""

import math
from typing import Literal

import msgspec


class AudioConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The waveform that every model of a bundle takes: mono float32 at one rate."""

    sample_rate: int = 32_000
    """Hz. 32 kHz is the rate of BirdCLEF's recordings and the input rate of BirdNET 3.0 and Perch v2."""

    def __post_init__(self) -> None:
        if not 1_000 <= self.sample_rate <= 384_000:
            raise ValueError(f"sample_rate is {self.sample_rate}, allowed are 1000 to 384000 Hz")


class WindowConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a soundscape is cut: windows side by side, a score for each."""

    window_seconds: float = 5.0
    """Seconds of sound behind each row of a submission."""

    min_tail_seconds: float = 0.5
    """A shorter rest at a file's end makes no window: both 60.001 s and 59.999 s give 12 rows."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.window_seconds <= 60:
            raise ValueError(f"window_seconds is {self.window_seconds}, allowed are 0.1 to 60")
        if not 0 < self.min_tail_seconds <= self.window_seconds:
            raise ValueError(
                f"min_tail_seconds is {self.min_tail_seconds}, allowed is 0 < min_tail_seconds <= {self.window_seconds}"
            )


class AggregationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a model's windows lie on a soundscape, and how their scores become rows."""

    stride_seconds: float | None = None
    """From one window's beginning to the next one's. None: a row, or the largest equal part of a row that is not longer
    than the window."""

    overlap: Literal["mean", "max"] = "mean"
    """How scores of overlapping windows are combined: clip-wise ones in rows, frame-wise ones in frames."""

    scored_seconds: float | None = msgspec.field(default=None, name="head_seconds")
    """The centred part of a window whose scores count; ``head_seconds`` in the manifest. None: the whole window, or as
    much of it as lies within its row or stride when windows have context around them."""

    frame_share: float = 0.0
    """Share of the frame-wise score in a row, 0 to 1; the rest is the clip-wise."""

    frame_pool: Literal["max", "mean"] = "max"
    """How the frames of a row become its score."""

    frame_shifts_seconds: tuple[float, ...] = (0.0,)
    """The row's frames are pooled over the row shifted by each of these, too: test-time shifts without another forward
    pass. The second place of BirdCLEF 2023 gave the row itself 0.5 and two shifted ones 0.25 each."""

    frame_shift_weights: tuple[float, ...] = (1.0,)
    """A weight for each shift; they sum to 1."""

    def __post_init__(self) -> None:
        for name, value in (("stride_seconds", self.stride_seconds), ("head_seconds", self.scored_seconds)):
            if value is not None and not 0.1 <= value <= 60:
                raise ValueError(f"{name} is {value}, allowed are 0.1 to 60")
        if not 0 <= self.frame_share <= 1:
            raise ValueError(f"frame_share is {self.frame_share}, allowed are 0 to 1")
        if not all(abs(shift) <= 60 for shift in self.frame_shifts_seconds):
            raise ValueError(f"frame_shifts_seconds is {list(self.frame_shifts_seconds)}, allowed are -60 to 60")
        if len(self.frame_shift_weights) != len(self.frame_shifts_seconds):
            raise ValueError(
                f"frame_shift_weights has {len(self.frame_shift_weights)} values, "
                f"frame_shifts_seconds {len(self.frame_shifts_seconds)}"
            )
        if not all(weight >= 0 for weight in self.frame_shift_weights) or not math.isclose(
            sum(self.frame_shift_weights), 1, abs_tol=1e-6
        ):
            raise ValueError(
                f"frame_shift_weights is {list(self.frame_shift_weights)}, weights must be >= 0 and sum to 1"
            )


class MelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mel spectrogram (``features/log_mel.py``) and what is made of it (``features/normalize.py``)."""

    n_fft: int = 2048
    """Samples in one frame and its periodic Hann window."""

    hop_length: int = 500
    """Samples between frames. 500 divides 5 s at 32 kHz into exactly 320 frames, so that one spectrogram of the whole
    soundscape can be sliced."""

    n_mels: int = 128
    """Mel bands: rows of the spectrogram."""
    f_min_hz: float = 50.0
    """Lower end of the lowest band."""
    f_max_hz: float = 14_000.0
    """Upper end of the highest band; at most half the sample rate."""

    scale: Literal["slaney", "htk"] = "slaney"
    """Mel formula: Slaney's Auditory Toolbox (librosa's default) or HTK (torchaudio's). They differ by many bands."""

    filter_norm: Literal["slaney", "none"] = "slaney"
    """"slaney" gives every triangle the same area, "none" the same height of 1."""

    floor_db: float = -100.0
    """dB of a full-scale sine, added as power before the logarithm: what is quieter fades to the floor instead of to
    minus infinity. Of no effect on PCEN, which has an epsilon of its own."""

    normalisation: Literal["zscore", "minmax", "frequency", "none"] = "zscore"
    """Per window, never per batch or file, so that no score depends on its neighbours: to mean 0 and standard deviation
    1; to 0 .. 1; each mel band by itself to mean 0 and standard deviation 1 over time; or left as it is."""

    compression: Literal["log", "pcen", "log_pcen"] = "log"
    """Power becomes decibels, or per-channel energy normalisation (PCEN, Wang et al. 2017, "Trainable frontend for
    robust and far-field keyword spotting"): each band by its own running loudness, then a root. ``log_pcen`` gives the
    network both as two channels, each normalised by itself. Gain, bias, power and time are Wang's; Lostanlen et al.
    2019 recommend 0.8, 10, 0.25 and 0.06 s for birds outdoors."""

    pcen_gain: float = 0.98
    """Power of the running loudness that a band is divided by: 0 not at all, 1 wholly."""
    pcen_bias: float = 2.0
    """Added before the root: larger ones flatten what is quiet."""
    pcen_power: float = 0.5
    """The root: 0.5 is the square root."""
    pcen_time_seconds: float = 0.4
    """Time constant of the running loudness, which starts at the window's first frame."""
    pcen_epsilon: float = 0.1
    """Added to the running loudness, in the unit of 16-bit samples squared (a full-scale sine has 2^30, so 0.1 is -100
    dB, as ``floor_db``): what is quieter fades to 0. Wang's 1e-6 makes the rounding of an FFT as loud as a bird."""

    resize: tuple[int, int] = (0, 0)
    """Rows and columns of the picture that the normalised spectrogram is stretched to, bilinearly, e.g. (256, 256);
    (0, 0) keeps its n_mels x frames."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("n_fft", self.n_fft, 64, 16_384),
            ("hop_length", self.hop_length, 16, 8_192),
            ("n_mels", self.n_mels, 8, 512),
            ("floor_db", self.floor_db, -140, -20),
            ("pcen_gain", self.pcen_gain, 0, 1),
            ("pcen_bias", self.pcen_bias, 0.01, 100),
            ("pcen_power", self.pcen_power, 0.01, 1),
            ("pcen_time_seconds", self.pcen_time_seconds, 0.001, 60),
            ("pcen_epsilon", self.pcen_epsilon, 1e-9, 1e6),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, allowed are {low:g} to {high:g}")
        if self.resize != (0, 0) and not all(16 <= size <= 1_024 for size in self.resize):
            raise ValueError(f"resize is {list(self.resize)}, allowed are two of 16 to 1024, or [0, 0]")
        if self.n_fft % 2:
            raise ValueError(f"n_fft is {self.n_fft}, it must be even")
        if not 0 <= self.f_min_hz < self.f_max_hz:
            raise ValueError(
                f"f_min_hz is {self.f_min_hz} and f_max_hz {self.f_max_hz}, needed is 0 <= f_min_hz < f_max_hz"
            )

    @property
    def floor_power(self) -> float:
        """``floor_db`` as power, of which a full-scale sine has 1: -100 dB is 1e-10."""
        return float(10.0 ** (self.floor_db / 10.0))


class WindowedAudio(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Windows of one length at one rate: the first part of every kind of input."""

    audio: AudioConfig = AudioConfig()
    window: WindowConfig = WindowConfig()

    @property
    def window_samples(self) -> int:
        """Samples in a window: 5 s x 32,000 Hz = 160,000."""
        return round(self.window.window_seconds * self.audio.sample_rate)

    @property
    def min_tail_samples(self) -> int:
        """Samples that a file's rest needs to become a window of its own."""
        return max(1, round(self.window.min_tail_seconds * self.audio.sample_rate))


class FrontEndConfig(WindowedAudio, frozen=True, forbid_unknown_fields=True):
    """Waveform -> windows -> mel spectrogram; members with equal settings share their spectrogram."""

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
    def frames_per_window(self) -> int:
        """Frames whose centre lies within a window: ceil(160,000 / 500) = 320."""
        return -(-self.window_samples // self.mel.hop_length)

    @property
    def input_shape(self) -> tuple[int, int]:
        """Rows and columns of a model's input: the mel bands and frames, or what they are resized to."""
        return (self.mel.n_mels, self.frames_per_window) if self.mel.resize == (0, 0) else self.mel.resize

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a model's input."""
        return (len(self.channels), *self.input_shape)

    @property
    def channels(self) -> tuple["FrontEndConfig", ...]:
        """The front end of each channel of a model's input, in their order."""
        if self.mel.compression != "log_pcen":
            return (self,)
        kinds: tuple[Literal["log", "pcen"], ...] = ("log", "pcen")
        replace = msgspec.structs.replace
        return tuple(replace(self, mel=replace(self.mel, compression=kind)) for kind in kinds)

    @property
    def margin_samples(self) -> int:
        """Samples of true neighbouring sound that a window's first and last frames reach into, on either side."""
        return self.mel.n_fft // 2


class WaveformConfig(WindowedAudio, frozen=True, forbid_unknown_fields=True):
    """Input of a member that takes the waveform itself (Perch v2, BirdNET 3.0): its front end is inside the graph."""

    has_channel_axis: bool = False
    """Whether the graph takes [batch, 1, samples] instead of [batch, samples]."""
    peak: float | None = None
    """Each window's mean is subtracted and its loudest sample scaled to this (Perch: 0.25); None: unchanged."""

    def __post_init__(self) -> None:
        if self.peak is not None and not 0 < self.peak <= 1:
            raise ValueError(f"peak is {self.peak}, allowed is 0 < peak <= 1")

    @property
    def margin_samples(self) -> int:
        """The graph takes no sound beyond the window."""
        return 0


class SpectrogramConfig(WindowedAudio, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Input of an external member that takes a spectrogram in a form of librosa or torchaudio; each window by itself.

    :mod:`birdinfer.features.spectrogram` computes it. Defaults are librosa's.
    """

    n_fft: int = 2048
    win_length: int = 0
    """Samples of the periodic Hann window, in the middle of a frame; 0: n_fft."""
    hop_length: int = 512
    n_mels: int = 128
    f_min_hz: float = 0.0
    f_max_hz: float = 0.0
    """0: half the sample rate."""
    scale: Literal["slaney", "htk"] = "slaney"
    """librosa's and torchaudio's default."""
    filter_norm: Literal["slaney", "none"] = "slaney"
    """librosa's and torchaudio's default."""
    power: Literal[1, 2] = 2
    """Magnitudes or their squares are weighted by the filters."""
    padding: Literal["reflect", "constant", "none"] = "constant"
    """A window's frames are centred on it, its ends mirrored or silent; none: the first frame begins with the window
    (``center=False``). torchaudio and librosa before 0.10 mirror."""
    frames: int = 0
    """Frames that are kept, or added as silence; 0: all there are."""

    compression: Literal["db", "ln", "log1p", "pcen", "none"] = "db"
    """db: ``10 log10`` of power, ``20 log10`` of magnitude; ln, log1p; pcen: ``librosa.pcen`` of values times 2^31."""
    floor: float = 1e-10
    """The least value before a logarithm (``amin``)."""
    is_floor_added: bool = False
    """Add the floor, as in ``log(x + 1e-6)``, instead of raising to it what is less."""
    reference: Literal["one", "max"] = "one"
    """0 dB: a value of 1, or the window's largest (``ref=np.max``)."""
    top_db: float = 0.0
    """dB below the window's largest value to which the rest is raised; 0: none (librosa's default is 80)."""
    pcen_gain: float = 0.98
    pcen_bias: float = 2.0
    pcen_power: float = 0.5
    pcen_time_seconds: float = 0.4
    pcen_epsilon: float = 1e-6

    normalisation: Literal["none", "minmax", "zscore"] = "none"
    """Each window to 0 .. 1, or to mean 0 and standard deviation 1."""
    epsilon: float = 1e-6
    """Added to what the normalisation divides by."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted at the end; one number, or one for each channel (ImageNet: 0.485, 0.456, 0.406)."""
    std: tuple[float, ...] = (1.0,)
    """What is divided by at the end, likewise (ImageNet: 0.229, 0.224, 0.225)."""
    resize: tuple[int, int] = (0, 0)
    """Rows and columns that the picture is stretched to, bilinearly, before mean and std; (0, 0): as it is."""
    is_flipped: bool = False
    """High frequencies first."""
    channels: int = 1
    """Times that the picture is repeated; 0: the graph has no axis for it."""
    is_frames_first: bool = False
    """[frames, bands] instead of [bands, frames]."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("n_fft", self.n_fft, 64, 16_384),
            ("win_length", self.win_length or self.n_fft, 16, self.n_fft),
            ("hop_length", self.hop_length, 8, 8_192),
            ("n_mels", self.n_mels, 8, 512),
            ("frames", self.n_frames, 1, 100_000),
            ("floor", self.floor, 1e-20, 1.0),
            ("top_db", self.top_db, 0, 200),
            ("pcen_gain", self.pcen_gain, 0, 1),
            ("pcen_bias", self.pcen_bias, 0, 100),
            ("pcen_power", self.pcen_power, 0.01, 1),
            ("pcen_time_seconds", self.pcen_time_seconds, 0.001, 60),
            ("pcen_epsilon", self.pcen_epsilon, 1e-12, 1e6),
            ("epsilon", self.epsilon, 0, 1),
            ("channels", self.channels, 0, 3),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, allowed are {low:g} to {high:g}")
        if self.n_fft % 2:
            raise ValueError(f"n_fft is {self.n_fft}, it must be even")
        if self.n_fft > self.window_samples:
            raise ValueError(f"n_fft is {self.n_fft}, a window holds {self.window_samples} samples")
        if not 0 <= self.f_min_hz < self.highest_hz <= self.audio.sample_rate / 2:
            raise ValueError(
                f"f_min_hz is {self.f_min_hz} and f_max_hz {self.highest_hz}, needed is "
                f"0 <= f_min_hz < f_max_hz <= {self.audio.sample_rate / 2:g}"
            )
        if self.resize != (0, 0) and not all(16 <= size <= 1_024 for size in self.resize):
            raise ValueError(f"resize is {list(self.resize)}, allowed are two of 16 to 1024, or [0, 0]")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, max(1, self.channels)):
                raise ValueError(f"{name} has {len(values)} numbers, needed is one, or one for each channel")
        if not all(abs(value) > 0 for value in self.std):
            raise ValueError(f"std is {list(self.std)}, what is divided by cannot be 0")

    @property
    def highest_hz(self) -> float:
        """Where the highest filter ends."""
        return self.f_max_hz or self.audio.sample_rate / 2

    @property
    def n_computed(self) -> int:
        """Frames that a window has."""
        n_samples = self.window_samples - (self.n_fft if self.padding == "none" else 0)
        return 1 + n_samples // self.hop_length

    @property
    def n_frames(self) -> int:
        """Frames that are kept."""
        return self.frames or self.n_computed

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a window of the graph's input."""
        rows, columns = (self.n_mels, self.n_frames) if self.resize == (0, 0) else self.resize
        picture = (columns, rows) if self.is_frames_first else (rows, columns)
        return (self.channels, *picture) if self.channels else picture

    @property
    def margin_samples(self) -> int:
        """It reads no sound beyond the window."""
        return 0


InputConfig = FrontEndConfig | WaveformConfig | SpectrogramConfig
"""What a member takes of a soundscape. Members with equal ones share their windows and their spectrogram."""
