"""Split a long convolution into two short ones that give the same: what its kernels share is computed once for a hop.

In: weights that move over a waveform (:mod:`birdinfer.export.fold.measure`). Cut into pieces as long as the hop, those
of a narrow band are sums of few vectors: of 50 with 278 samples for the 3 kHz of BirdNET's low spectrogram. Each hop is
multiplied with these once, and not again in every frame that overlaps it. Out: :class:`TwoStages`.
"""

from dataclasses import dataclass

import numpy as np

from birdinfer.export.fold.measure import FrameKernel
from birdinfer.typing import Float32

TOLERANCE = 1e-6
"""Singular values below this share of the largest are left out: what float32 rounds away."""
MOST_PRODUCTS = 0.7
"""Of those of one convolution; above, the second stage's own cost is not won back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoStages:
    """Two convolutions in the place of one, whose weights are ``sum(mix[:, :, piece] @ basis)`` over the pieces."""

    basis: Float32
    """[rank, hop]: moves by a hop."""
    mix: Float32
    """[channels, rank, pieces]: moves by one of the first stage's values."""


def split_kernel(kernel: FrameKernel) -> TwoStages | None:
    """Split weights into two stages; None if that takes hardly fewer products."""
    n_channels, length = kernel.taps.shape
    n_pieces = -(-length // kernel.hop)
    padded = np.pad(kernel.taps, ((0, 0), (0, n_pieces * kernel.hop - length)))
    left, values, right = np.linalg.svd(padded.reshape(-1, kernel.hop).astype(np.float64), full_matrices=False)
    rank = int((values > TOLERANCE * values[0]).sum())
    if rank * (kernel.hop + n_channels * n_pieces) > MOST_PRODUCTS * n_channels * length:
        return None
    mix = (left[:, :rank] * values[:rank]).reshape(n_channels, n_pieces, rank)
    return TwoStages(basis=right[:rank].astype(np.float32), mix=mix.transpose(0, 2, 1).astype(np.float32))
