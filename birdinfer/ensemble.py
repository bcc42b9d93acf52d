"""Members -> one opinion: probabilities of several models, each [rows, labels it knows], become [rows, species]."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Columns = npt.NDArray[np.intp] | None
"""Columns of the whole that a member knows; None: all of them."""


class WeightedMean:
    """Weighted arithmetic mean of probabilities, per species over the members that know it: sum(w_i p_i) / sum(w_i)."""

    def __init__(self, weights: Sequence[float], columns: Sequence[Columns], fallback: Sequence[float]) -> None:
        """Work out each member's share.

        Args:
            weights: one >= 0 for each member, with a sum above 0.
            columns: what each member knows.
            fallback: per species, what is said of one that no member knows (or only members of weight 0).
        """
        if len(weights) != len(columns) or not sum(weights) > 0:
            raise ValueError(
                f"{len(columns)} opinions and weights {list(weights)}: needed is one each, with a sum above 0"
            )
        total = np.zeros(len(fallback))
        self._columns = [slice(None) if known is None else known for known in columns]
        for weight, known in zip(weights, self._columns, strict=True):
            total[known] += weight
        self._shares = [
            (weight / np.where(total[known] > 0, total[known], 1)).astype(np.float32)
            for weight, known in zip(weights, self._columns, strict=True)
        ]
        self._start = np.where(total > 0, 0, fallback).astype(np.float32)

    def __call__(self, opinions: Sequence[Float32]) -> Float32:
        """Blend.

        Args:
            opinions: one [rows, labels it knows] for each member.

        Returns:
            [rows, species]; between the members' least and greatest value in every cell.
        """
        blend = np.tile(self._start, (len(opinions[0]), 1))
        for opinion, share, known in zip(opinions, self._shares, self._columns, strict=True):
            blend[:, known] += share * opinion
        return blend
