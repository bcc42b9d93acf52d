"""What every network answers."""

from typing import NamedTuple

import torch


class Logits(NamedTuple):
    """A network's answer to a batch of windows, before sigmoid or softmax."""

    clip: torch.Tensor
    """[windows, labels]: one opinion a window."""
    frames: torch.Tensor | None = None
    """[windows, frames, labels] of a sound event detector: an opinion for each stretch of time; None of others."""
