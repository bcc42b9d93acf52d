"""A recipe: all that decides a training run, as one frozen value; read from TOML, travelling inside each checkpoint.

Its sections stand in ``data.py`` (data, labels), ``augment.py``, ``learning.py`` (model, loss, optim, loop) and
``tracking.py``; front end and post-processing are those of :mod:`birdinfer.config`. ``file.py`` reads and writes it,
and refuses what is wrong with the file, the key, the value and what is allowed.
"""

from typing import Annotated

import msgspec

from birdinfer.config import FrontEndConfig, Hearing, PostConfig, WaveformConfig
from birdinfer.training.recipe.augment import AugmentConfig
from birdinfer.training.recipe.data import DataConfig, LabelConfig
from birdinfer.training.recipe.learning import LoopConfig, LossConfig, ModelConfig, OptimConfig
from birdinfer.training.recipe.tracking import TrackingConfig

HEARS_WAVEFORMS = frozenset({"raw"})
"""Model families that take the waveform itself."""
FEATURE_MAPS = frozenset({"cnn", "sed"})
"""Model families whose convolutions INT8 makes faster."""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides a run."""

    name: str = "default"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    data: DataConfig = DataConfig()
    labels: LabelConfig = LabelConfig()
    frontend: FrontEndConfig = FrontEndConfig()
    """Of a model that hears waveforms, only ``audio`` and ``window`` count."""
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    post: PostConfig = PostConfig()
    """Not of the training: what the exported bundle does to its scores."""
    tracking: TrackingConfig = TrackingConfig()
    """Not of the training: who else keeps a record of it."""

    def __post_init__(self) -> None:
        if not self.name or any(sign in self.name for sign in "/\\\0") or self.name in {".", ".."}:
            raise ValueError(f"name is {self.name!r}, needed is one that a folder can have")
        if self.loss.teacher_share and not self.model.weights:
            raise ValueError(f"loss.teacher_share is {self.loss.teacher_share:g}, it needs a teacher, model.weights")
        if self.loop.fake_quantise and self.model.family not in FEATURE_MAPS:
            raise ValueError(f"loop.fake_quantise is true, {self.model.family} has no convolutions to round")
        self._check_frozen_norms()

    @property
    def hearing(self) -> Hearing:
        """What the model hears, in training as in the exported bundle."""
        if self.model.family in HEARS_WAVEFORMS:
            return WaveformConfig(self.frontend.audio, self.frontend.window)
        return self.frontend

    @property
    def first_frozen_epoch(self) -> int:
        """From which epoch on, counted from 1, norms hold still; one beyond the last where they never do."""
        return self.loop.epochs - self.optim.frozen_norm_epochs + 1

    def _check_frozen_norms(self) -> None:
        n_frozen, epochs = self.optim.frozen_norm_epochs, self.loop.epochs
        if n_frozen > epochs:
            raise ValueError(f"optim.frozen_norm_epochs is {n_frozen}, more than loop.epochs = {epochs}")
        if n_frozen == epochs and not (self.model.weights or self.model.pretrained):
            what = f"optim.frozen_norm_epochs is {n_frozen}, all of loop.epochs: norms would never measure anything"
            raise ValueError(f"{what}, make it less or start from model.weights")
        if 0 < n_frozen < epochs and self.loop.patience:
            raise ValueError(
                "loop.patience may end the run before optim.frozen_norm_epochs begin, set one of them to 0"
            )


NOT_DECISIVE = frozenset(
    {"name", "loop.num_workers", "loop.checkpoint_every_steps", "post.smoothing_kernel", "post.steps"}
    | {f"tracking.{field}" for field in TrackingConfig.__struct_fields__}
)
"""Keys that change no result: a run may be resumed with other values."""


def flatten(recipe: Recipe) -> dict[str, object]:
    """A recipe as ``{"optim.lr": 0.001, ...}``."""

    def walk(prefix: str, table: dict[str, object]) -> dict[str, object]:
        flat: dict[str, object] = {}
        for key, value in table.items():
            flat |= walk(f"{prefix}{key}.", value) if isinstance(value, dict) else {prefix + key: value}
        return flat

    return walk("", msgspec.to_builtins(recipe))
