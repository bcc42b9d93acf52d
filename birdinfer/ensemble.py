"""Members -> one opinion: probabilities of several models [windows, species] each become one such array."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def weighted_mean(opinions: Sequence[Float32], weights: Sequence[float]) -> Float32:
    """Weighted arithmetic mean of probabilities: sum(w_i p_i) / sum(w_i).

    Args:
        opinions: one [windows, species] array per member, at least one.
        weights: one weight >= 0 per member, with a sum above 0.

    Returns:
        [windows, species]; between the members' least and greatest value in every cell.
    """
    total = sum(weights)
    if len(weights) != len(opinions) or not total > 0:
        raise ValueError(
            f"{len(opinions)} opinions and weights {list(weights)}: needed is one each, with a sum above 0"
        )
    blend = np.zeros_like(opinions[0])
    for opinion, weight in zip(opinions, weights, strict=True):
        blend += np.float32(weight / total) * opinion
    return blend
