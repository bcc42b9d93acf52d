"""The recipe's section ``augment``: what is done to training windows, and to nothing else; each with a probability."""

from typing import Annotated, Literal

import msgspec

from birdinfer.training.recipe.data import Share

Masks = Annotated[int, msgspec.Meta(ge=0, le=10)]
Alpha = Annotated[float, msgspec.Meta(gt=0, le=20)]
Range = tuple[float, float]
"""From and to; drawn evenly between."""


class AugmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Waveforms first, one by one, then mixed with one another, then as spectrograms. A probability is per window."""

    gain_probability: Share = 0.5
    gain_db: Annotated[float, msgspec.Meta(ge=0, le=40)] = 6.0
    """Louder or quieter by at most this."""

    roll_probability: Share = 0.0
    """Shift a window in time, in a circle: for clips that hardly exceed a window."""

    pitch_probability: Share = 0.0
    pitch_semitones: Annotated[float, msgspec.Meta(ge=0, le=12)] = 1.0
    """Higher or lower by at most this, as long as before."""

    stretch_probability: Share = 0.0
    stretch_rate: Range = (0.9, 1.1)
    """Faster (above 1) or slower, as high as before."""

    reverb_probability: Share = 0.0
    reverb_seconds: Range = (0.1, 0.8)
    """Time in which the echo falls by 60 dB."""
    reverb_wet: Range = (0.1, 0.5)
    """Share of the echo in the result's power."""

    white_noise_probability: Share = 0.0
    pink_noise_probability: Share = 0.0
    noise_snr_db: Range = (5.0, 30.0)
    """Signal over white or pink noise."""

    background_dir: str = ""
    """Folder of sound files to mix in, relative to the working folder or to the data folder; "" mixes nothing."""
    background_probability: Share = 0.5
    background_snr_db: Range = (3.0, 30.0)
    """Signal over background."""

    overlay_probability: Share = 0.0
    """Lay a window over a quieter one of another clip, which so becomes its background."""
    overlay_snr_db: Range = (3.0, 20.0)
    overlay_target: Share = 0.5
    """The quieter clip's targets count by this share."""

    mixup_probability: Share = 0.5
    mixup_on: Literal["waveform", "spectrogram"] = "waveform"
    mixup_alpha: Alpha = 0.4
    """Beta(alpha, alpha) gives the share of the second window."""
    mixup_lambda: Share = 0.0
    """A fixed share of the second window instead; 0 draws it from Beta."""
    mixup_labels: Literal["max", "mixed"] = "max"
    """``max``: both species are there, whatever their share; ``mixed``: as much as their share. Cutmix goes by it,
    too."""

    cutmix_probability: Share = 0.0
    """Replace a stretch of time of the spectrogram by another window's."""
    cutmix_alpha: Alpha = 1.0

    mask_probability: Share = 0.5
    time_masks: Masks = 2
    time_mask_share: Share = 0.1
    """Widest time mask, as a share of the frames."""
    frequency_masks: Masks = 2
    frequency_mask_share: Share = 0.1
    """Widest frequency mask, as a share of the mel bands."""

    brightness_probability: Share = 0.0
    """Brightness and contrast of the spectrogram, taken as a picture."""
    brightness: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.2
    """Added, at most, in standard deviations of the window."""
    contrast: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.2
    """The spread about the mean is scaled by 1 - contrast to 1 + contrast."""

    power_probability: Share = 0.0
    power_exponent: Range = (0.5, 3.0)
    """The spectrogram, as a picture from 0 to 1, raised to this: quiet sound is drowned or lifted."""

    filter_probability: Share = 0.0
    """FilterAugment (Nam 2022): bands of frequency louder or quieter."""
    filter_bands: tuple[int, int] = (3, 6)
    filter_db: Annotated[float, msgspec.Meta(ge=0, le=40)] = 6.0

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("background_snr_db", -30, 80),
            ("noise_snr_db", -30, 80),
            ("overlay_snr_db", -30, 80),
            ("stretch_rate", 0.5, 2),
            ("reverb_seconds", 0.01, 5),
            ("reverb_wet", 0, 1),
            ("power_exponent", 0.1, 10),
            ("filter_bands", 1, 32),
        ):
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(f"{name} is {[low, high]}, needed is {lowest} <= from <= to <= {highest}")
