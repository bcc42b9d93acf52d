"""The recipe's sections ``data`` and ``labels``: which clips, laid into which folds, heard where, meaning what."""

from typing import Annotated, Literal

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A probability or a share of something, 0 to 1."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]

GroupedBy = Literal["author", "recording", "site"]


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which clips, how they are laid into folds, how often each is drawn, and which windows of it are heard."""

    n_folds: Annotated[int, msgspec.Meta(ge=2, le=50)] = 5
    fold_column: str = ""
    """Column of train.csv that gives the folds; "" lays them by label and group."""
    folds_file: str = ""
    """A folds.csv of an earlier run, to validate on the same clips again; "" lays folds anew."""
    val_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    """Instead of folds one split: fold 0 validates on this share of the clips, the others train; 0 lays folds."""
    test_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    """A share of the clips that no fold sees; each fold's best model is scored on it once, at its end."""
    all_data: bool = False
    """Train on every clip and validate on none: the last model, once everything is decided."""

    group_by: tuple[GroupedBy, ...] = ("author", "recording")
    """What is never on both sides of a fold: one author's clips, one recording's (columns group, url), or one site's
    (latitude and longitude to 0.01 degrees)."""
    duplicates: Literal["keep", "group", "remove"] = "keep"
    """Recordings that sound alike under two names or collections: unsearched, kept on one side, or only the first
    kept. Searching decodes every clip once."""
    complete_fold0: bool = False
    """Every species that has two independent recordings is validated in fold 0, too."""
    min_clips_per_species: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    """Species with fewer clips are left out, with their column; 1 keeps all, also those without any clip."""
    max_clips: Count = 0
    """Train and validate on a random choice of this many clips; 0 takes all."""

    sampling_power: Annotated[float, msgspec.Meta(ge=-1, le=0)] = 0.0
    """A clip is drawn with weight (clips of its species)^power: 0 takes each clip once per epoch, -0.5 is what winners
    of BirdCLEF use for the long tail, -1 makes all species equally frequent."""
    upsample_to: Count = 0
    """Species with fewer clips are repeated until each epoch hears this many of them; 0 repeats none."""
    cap_at: Count = 0
    """Of a species at most this many clips are drawn in an epoch, others in the next one; 0 caps none."""

    windows: Literal["random", "centre", "first", "all"] = "random"
    """Which window of a training clip is heard: another one each time, its middle, its beginning; or each of its
    windows side by side, as clips of their own."""
    max_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    """Only this much of a clip, from its beginning, is heard; 0 hears all of it."""
    cache: bool = False
    """Decode every clip once into a memory-mapped file of 16-bit samples (1 GB for 4.6 hours at 32 kHz), instead of
    each window anew."""
    remove_voice: bool = False
    """Cut people's speech out of clips (Silero VAD); needs the cache."""

    def __post_init__(self) -> None:
        if self.remove_voice and not self.cache:
            raise ValueError("remove_voice is true, it needs cache = true")
        if bool(self.fold_column) + bool(self.folds_file) + bool(self.val_share) > 1:
            raise ValueError("fold_column, folds_file and val_share each say how clips are split, only one can")
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share + test_share is {self.val_share + self.test_share:g}, nothing is left to train on"
            )
        if 0 < self.cap_at < self.upsample_to:
            raise ValueError(f"cap_at is {self.cap_at}, less than upsample_to, {self.upsample_to}")


class LabelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a clip's labels ask of the model. A primary label's target is 1."""

    secondary: Literal["target", "masked", "ignored"] = "target"
    """Species that a clip names in secondary_labels: wanted as ``secondary_target``; left out of the loss, for the
    recordist heard them somewhere in the clip, perhaps not in this window; or taken for absent."""
    secondary_target: Share = 0.5
    secondary_loss_weight: Share = 1.0
    """Weight of these species' cells in the loss."""
    kind: Literal["hard", "soft"] = "hard"
    """``soft``: a clip's targets are divided by their sum, so that they are a distribution."""
    smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Targets are moved by this share towards an even guess, 1 / labels."""
    rating_weight: Share = 0.0
    """How much a clip's rating (0 to 5 stars) counts in the loss: 0 not at all, 1 in proportion. Unrated clips (0 or
    empty) count as the mean of the rated ones."""
