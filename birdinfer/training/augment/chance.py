"""Chance for a batch: drawn by numpy on the CPU, laid beside the batch on its device.

A GPU's own generator draws other numbers than a CPU's, and could not be saved beside the others: numpy's generators
make a resumed run, and a run on another device, draw alike. A batch needs a few numbers a window: that costs nothing.
"""

import numpy as np
import numpy.typing as npt
import torch

Rng = np.random.Generator


def chosen(n_windows: int, probability: float, rng: Rng) -> npt.NDArray[np.bool_]:
    """Which windows it happens to, bool [windows]."""
    return rng.random(n_windows) < probability


def beside(values: npt.NDArray[np.floating] | npt.NDArray[np.bool_], batch: torch.Tensor) -> torch.Tensor:
    """``values`` [windows, ...] on the device of ``batch``, with ones added behind to as many dimensions as it has.

    Numbers become float32, whatever they were; truth stays truth.
    """
    kept = values if values.dtype == np.bool_ else values.astype(np.float32)
    shape = kept.shape + (1,) * (batch.dim() - kept.ndim)
    return torch.from_numpy(np.ascontiguousarray(kept).reshape(shape)).to(batch.device, non_blocking=True)
