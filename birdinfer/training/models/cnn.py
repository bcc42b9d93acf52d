"""Family ``cnn``: log-mel [windows, 1, rows, columns] -> one opinion a window, by a timm network.

With ``pooling = "native"`` pooling and classifier are timm's; any other pools the feature map here.
"""

import torch

from birdinfer.training.logits import Logits
from birdinfer.training.models.backbone import coloured, create_backbone, create_features, dropouts
from birdinfer.training.models.blueprint import Blueprint
from birdinfer.training.models.pooling import POOLINGS


def build_cnn(blueprint: Blueprint) -> torch.nn.Module:
    """The network that ``model.pooling`` asks for.

    Raises:
        ConfigError: the backbone cannot be built, or has no feature map to pool.
    """
    blueprint.input_shape()  # refuses waveforms
    return Native(blueprint) if blueprint.config.pooling == "native" else Pooled(blueprint)


class Native(torch.nn.Module):
    """A network as timm has it, its classifier made for our labels."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it.

        Raises:
            ConfigError: the backbone cannot be built.
        """
        super().__init__()
        config = blueprint.config
        self._n_channels = config.in_channels
        self.backbone = create_backbone(
            blueprint, num_classes=blueprint.n_labels, **dropouts(config, "drop_rate", "drop_path_rate")
        )

    def forward(self, log_mel: torch.Tensor) -> Logits:
        """[windows, 1, rows, columns] -> clip logits [windows, labels]."""
        return Logits(self.backbone(coloured(log_mel, self._n_channels)))


class Pooled(torch.nn.Module):
    """Feature map -> pooling -> dropout -> one linear layer."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it.

        Raises:
            ConfigError: the backbone cannot be built, or has no feature map.
        """
        super().__init__()
        self._n_channels = blueprint.config.in_channels
        self.backbone, n_features = create_features(blueprint)
        self.pooling = POOLINGS[blueprint.config.pooling]()
        self.dropout = torch.nn.Dropout(blueprint.config.drop_rate)
        self.head = torch.nn.Linear(n_features, blueprint.n_labels)

    def forward(self, log_mel: torch.Tensor) -> Logits:
        """[windows, 1, rows, columns] -> clip logits [windows, labels]."""
        features = self.backbone(coloured(log_mel, self._n_channels))
        return Logits(self.head(self.dropout(self.pooling(features))))
