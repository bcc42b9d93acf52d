"""A spectrogram up to its first non-linear step is linear in the waveform: one convolution replaces all of it.

TensorFlow cuts frames with index arithmetic, multiplies by a window function, transforms (RFFT2D), takes the real
part and multiplies by a filterbank. Each of these is a choice of samples or a product with a matrix, so they are
collected in :class:`Frames` instead of being written as nodes.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """Values that are linear in a waveform: ``waveform[index] @ weights``."""

    source: str
    """Name of the waveform [batch, samples]."""
    index: NDArray[np.int64]
    """Of samples [..., length]: of one window of the batch, whose leading axis is 1."""
    weights: NDArray[Any] | None = None
    """[length, values], complex behind a Fourier transform; None: the samples themselves."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values of one window."""
        last = self.index.shape[-1] if self.weights is None else self.weights.shape[1]
        return (*self.index.shape[:-1], last)

    def reshape(self, shape: tuple[int, ...]) -> "Frames | None":
        """Return them in another shape; None if their last axis is cut, which is no choice of samples."""
        if self.weights is None:
            return replace(self, index=self.index.reshape(shape))
        if shape[-1] not in (-1, self.shape[-1]):
            return None
        return replace(self, index=self.index.reshape(*shape[:-1], self.index.shape[-1]))

    def times(self, matrix: NDArray[Any]) -> "Frames":
        """Multiply the values by a matrix [values, new values], or each by its own factor [values]."""
        weights = np.eye(self.index.shape[-1]) if self.weights is None else self.weights
        return replace(self, weights=weights * matrix if matrix.ndim < 2 else weights @ matrix)

    def fourier(self) -> "Frames":
        """Return their Fourier transform over the last axis: complex values for frequencies from 0 on."""
        weights = np.eye(self.index.shape[-1]) if self.weights is None else self.weights
        return replace(self, weights=np.fft.rfft(weights, axis=1))

    def real(self) -> "Frames":
        """Return the real part of the values."""
        return self if self.weights is None else replace(self, weights=self.weights.real)

    def kernel(self) -> tuple[NDArray[np.float32], int, int] | None:
        """Return the convolution that computes them: its kernel [values, 1, length], first sample and stride.

        None if the frames do not follow each other at one distance, or the values are complex.
        """
        if self.weights is None or np.iscomplexobj(self.weights):
            return None
        frames = self.index.reshape(-1, self.index.shape[-1])
        hop = int(frames[1, 0] - frames[0, 0]) if len(frames) > 1 else 1
        steps = np.arange(len(frames))[:, None] * hop + np.arange(frames.shape[1])
        if hop < 1 or not (frames == frames[0, 0] + steps).all():
            return None
        return np.ascontiguousarray(self.weights.T[:, None], np.float32), int(frames[0, 0]), hop
