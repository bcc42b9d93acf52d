"""Family ``vit``: log-mel [windows, 1, rows, columns] -> one opinion a window, by a vision transformer of timm.

The transformer is built for the picture that the recipe's front end makes. Where its patches do not divide the
picture, zeros (the mean of a normalised spectrogram) are added above its highest frequency and after its end, so that
no sound is cut off.
"""

from typing import Any

import torch
from torch.nn import functional

from birdinfer.errors import ConfigError
from birdinfer.training.logits import Logits
from birdinfer.training.models.backbone import coloured, create_backbone, dropouts
from birdinfer.training.models.blueprint import Blueprint


def build_vit(blueprint: Blueprint) -> torch.nn.Module:
    """The transformer of a blueprint.

    Raises:
        ConfigError: timm knows none of this name, or it does not take pictures of any size.
    """
    return Transformer(blueprint)


class Transformer(torch.nn.Module):
    """A vision transformer, its classifier made for our labels."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it.

        Raises:
            ConfigError: it cannot be built.
        """
        super().__init__()
        config, (rows, columns) = blueprint.config, blueprint.input_shape()
        patch_rows, patch_columns = _patch_size(blueprint)
        self._n_channels = config.in_channels
        self._more_rows, self._more_columns = -rows % patch_rows, -columns % patch_columns
        self.backbone = create_backbone(
            blueprint,
            num_classes=blueprint.n_labels,
            img_size=(rows + self._more_rows, columns + self._more_columns),
            **dropouts(config, "drop_rate", "drop_path_rate"),
        )

    def forward(self, log_mel: torch.Tensor) -> Logits:
        """[windows, 1, rows, columns] -> clip logits [windows, labels]."""
        whole = functional.pad(log_mel, (0, self._more_columns, 0, self._more_rows))
        return Logits(self.backbone(coloured(whole, self._n_channels)))


def _patch_size(blueprint: Blueprint) -> tuple[int, int]:
    """Rows and columns of a patch, which only the network itself knows."""
    with torch.device("meta"):  # its layers without their memory
        sketch = create_backbone(blueprint._replace(pretrained=False))
    embedding: Any = getattr(sketch, "patch_embed", None)
    if not hasattr(embedding, "patch_size") or not hasattr(embedding, "grid_size"):
        what = f"{blueprint.config.backbone} is no vision transformer"
        raise ConfigError("model.backbone", what, 'choose one like vit_tiny_patch16_224, or family = "cnn"')
    rows, columns = embedding.patch_size
    return int(rows), int(columns)
