"""What a batch asks of the model: targets, and how much each of them counts."""

from typing import NamedTuple

import torch


class Targets(NamedTuple):
    """Wanted answers for a batch of windows; float32 on one device."""

    values: torch.Tensor
    """[windows, labels], 0 (absent) to 1 (present)."""
    cell_weights: torch.Tensor
    """[windows, labels], 0 to 1: what a cell counts in the loss; 0 is masked, as if the label did not exist there."""
    window_weights: torch.Tensor
    """[windows], >= 0: what a window counts in the loss; 0 for one whose clip could not be decoded."""
