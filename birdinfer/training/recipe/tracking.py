"""The recipe's section ``tracking``: who else keeps a record of the run, and where. None of it changes a result.

Credentials are no part of a recipe: online, trackers take them from the environment (WANDB_API_KEY, NEPTUNE_API_TOKEN,
MLFLOW_TRACKING_URI).
"""

from typing import Annotated, Literal

import msgspec

TrackerName = Literal["tensorboard", "wandb", "mlflow", "neptune"]


class TrackingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which trackers, and what they are given."""

    trackers: tuple[TrackerName, ...] = ()
    """Each needs the extra of its name: ``pip install "birdinfer[wandb]"``."""
    mode: Literal["offline", "online"] = "offline"
    """``offline`` writes below ``folder`` and asks no network; ``online`` sends to the service of W&B and Neptune and
    to the server that MLFLOW_TRACKING_URI names. TensorBoard always writes files."""
    project: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "birdinfer"
    """W&B's project, MLflow's experiment; Neptune's project online, as ``workspace/project``."""
    folder: str = ""
    """Where the records lie; several runs may share one. "" for ``tracking`` in the run's own folder (of a search's
    trial: in the search's)."""
    pictures: bool = True
    """Give them the pictures of a finished fold: its curves, its scores per species."""
    checkpoint: bool = True
    """Give them best.safetensors of a finished fold, which is large."""
    wait_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 120.0
    """The longest that the training waits for a tracker: at its start, after an epoch, and at its end, where a
    checkpoint may have to be sent. One that takes longer is given up."""

    def __post_init__(self) -> None:
        twice = next((name for name in self.trackers if self.trackers.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"tracking.trackers names {twice} twice")
