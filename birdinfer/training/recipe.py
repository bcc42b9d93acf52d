"""A recipe: all that decides a training run, as one frozen value; read from TOML, travelling inside each checkpoint.

In: a TOML file and ``key=value`` overrides. Out: :class:`Recipe`, every value checked; what is wrong is refused with
the file, the key, the value and what is allowed.
"""

from typing import Annotated, Literal

import msgspec

from birdinfer.config import FrontEndConfig, PostConfig

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A probability or a share of something, 0 to 1."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Some = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which clips, and how they are laid into folds."""

    n_folds: Annotated[int, msgspec.Meta(ge=2, le=50)] = 5
    fold_column: str = ""
    """Column of train.csv that gives the folds; "" lays them by label, group and author."""

    sampling_power: Annotated[float, msgspec.Meta(ge=-1, le=0)] = 0.0
    """A clip is drawn with weight (clips of its species)^power: 0 takes each clip once per epoch, -0.5 is what winners
    of BirdCLEF use for the long tail, -1 makes all species equally frequent."""

    max_clips: Count = 0
    """Train and validate on a random choice of this many clips; 0 takes all."""


class AugmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done to training windows only; each with a probability per window."""

    gain_probability: Share = 0.5
    gain_db: Annotated[float, msgspec.Meta(ge=0, le=40)] = 6.0
    """Louder or quieter by at most this."""

    roll_probability: Share = 0.0
    """Shift a window in time, in a circle: for clips that hardly exceed a window."""

    background_dir: str = ""
    """Folder of sound files to mix in, relative to the working folder or to the data folder; "" mixes nothing."""
    background_probability: Share = 0.5
    background_snr_db: tuple[float, float] = (3.0, 30.0)
    """Signal over background, from and to."""

    mixup_probability: Share = 0.5
    mixup_alpha: Annotated[float, msgspec.Meta(gt=0, le=20)] = 0.4
    """Beta(alpha, alpha) gives the share of the second waveform."""
    mixup_labels: Literal["max", "mixed"] = "max"
    """``max``: both species are there, whatever their share; ``mixed``: as much as their share."""

    mask_probability: Share = 0.5
    time_masks: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    time_mask_share: Share = 0.1
    """Widest time mask, as a share of the frames."""
    frequency_masks: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    frequency_mask_share: Share = 0.1
    """Widest frequency mask, as a share of the mel bands."""

    def __post_init__(self) -> None:
        low, high = self.background_snr_db
        if not -30 <= low <= high <= 80:
            raise ValueError(f"background_snr_db is {[low, high]}, needed is -30 <= from <= to <= 80")


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network that turns a log-mel into logits."""

    family: str = "cnn"
    backbone: str = "efficientnet_b0"
    """A model of timm."""
    pretrained: bool = False
    """Start from timm's weights, fetched from its hub."""
    weights: str = ""
    """Start from this local .safetensors file instead; "" for none."""
    drop_rate: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.2
    drop_path_rate: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0


class LossConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is minimised."""

    name: str = "bce"
    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    secondary_weight: Share = 0.5
    """Target of a species that a clip names in secondary_labels; a primary label's target is 1."""


class OptimConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """AdamW and its schedule."""

    lr: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-3
    weight_decay: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    warmup_epochs: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    final_lr_share: Share = 0.01
    """The cosine ends at this share of lr."""
    clip_norm: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 5.0
    """Gradients are scaled down to this norm."""
    ema_decay: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Decay per step of the averaged weights that are validated and kept; 0 keeps the weights themselves."""


class LoopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long, how many at once, how often saved."""

    epochs: Some = 20
    batch_size: Some = 32
    val_windows: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    """Windows of a validation clip, evenly spaced; its probability is their mean."""
    num_workers: Annotated[int, msgspec.Meta(ge=0, le=128)] = 0
    """Processes that decode; 0 decodes between the steps. Changes no result."""
    amp: bool = True
    """Mixed precision on a GPU: bf16, or fp16 with a scaler where bf16 is missing. A CPU computes in float32."""
    checkpoint_every_steps: Count = 500
    """Save within an epoch, too; 0 saves at its end only. Changes no result."""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides a run."""

    name: str = "default"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    data: DataConfig = DataConfig()
    frontend: FrontEndConfig = FrontEndConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    post: PostConfig = PostConfig()
    """Not of the training: what the exported bundle does to its scores."""

    def __post_init__(self) -> None:
        if not self.name or any(sign in self.name for sign in "/\\\0") or self.name in {".", ".."}:
            raise ValueError(f"name is {self.name!r}, needed is one that a folder can have")


NOT_DECISIVE = frozenset({"name", "loop.num_workers", "loop.checkpoint_every_steps", "post.smoothing_kernel"})
"""Keys that change no result: a run may be resumed with other values."""


def flatten(recipe: Recipe) -> dict[str, object]:
    """A recipe as ``{"optim.lr": 0.001, ...}``."""

    def walk(prefix: str, table: dict[str, object]) -> dict[str, object]:
        flat: dict[str, object] = {}
        for key, value in table.items():
            flat |= walk(f"{prefix}{key}.", value) if isinstance(value, dict) else {prefix + key: value}
        return flat

    return walk("", msgspec.to_builtins(recipe))
