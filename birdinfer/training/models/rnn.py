"""Family ``rnn``: log-mel [windows, 1, mels, frames] -> one opinion a window, by a recurrent network.

Frames are read two at a time: a convolution over five frames, every second one, so that 320 frames are 160 steps.
Then ``model.layers`` bidirectional GRU or LSTM layers of width ``model.hidden`` in each direction, the mean and maximum
over time, and one linear layer.
"""

import torch

from birdinfer.errors import ConfigError
from birdinfer.training.logits import Logits
from birdinfer.training.models.blueprint import Blueprint
from birdinfer.training.models.pooling import mean_and_maximum

_CELLS: dict[str, type[torch.nn.GRU] | type[torch.nn.LSTM]] = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
_KERNEL, _STRIDE = 5, 2


def build_rnn(blueprint: Blueprint) -> torch.nn.Module:
    """The recurrent network of a blueprint.

    Raises:
        ConfigError: the backbone is neither gru nor lstm.
    """
    if blueprint.config.backbone not in _CELLS:
        what = f"{blueprint.config.backbone!r} is no recurrent network"
        raise ConfigError("model.backbone", what, f"choose {' or '.join(_CELLS)}")
    return Recurrent(blueprint)


class Recurrent(torch.nn.Module):
    """Strided convolution -> recurrent layers in both directions -> mean and maximum -> linear layer."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it."""
        super().__init__()
        config = blueprint.config
        n_mels, _ = blueprint.input_shape()
        self.stem = torch.nn.Conv1d(n_mels, config.hidden, _KERNEL, _STRIDE, _KERNEL // 2)
        self.norm = torch.nn.LayerNorm(config.hidden)
        self.recurrent = _CELLS[config.backbone](
            config.hidden,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=True,
            # Between layers; torch warns of a dropout that has nothing behind it.
            dropout=config.drop_rate if config.layers > 1 else 0.0,
        )
        self.dropout = torch.nn.Dropout(config.drop_rate)
        self.head = torch.nn.Linear(4 * config.hidden, blueprint.n_labels)

    def forward(self, log_mel: torch.Tensor) -> Logits:
        """[windows, 1, mels, frames] -> clip logits [windows, labels]."""
        steps = torch.nn.functional.gelu(self.norm(self.stem(log_mel.squeeze(1)).transpose(1, 2)))
        # No initial state is handed in: zeros of the batch's size are then the graph's own, whatever that size.
        steps, _ = self.recurrent(steps)
        return Logits(self.head(self.dropout(mean_and_maximum(steps))))
