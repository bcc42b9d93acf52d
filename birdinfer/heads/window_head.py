"""A head for single windows, as layers: an embedding -> logits, in numpy here and as ONNX nodes in a bundle.

Every kind of head that sees one window at a time is a few of these layers, so that packing knows no kinds.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from birdinfer.inference.activation import activate
from birdinfer.typing import Float32

HeadActivation = Literal["sigmoid", "softmax"]


class Linear(NamedTuple):
    """``x @ weights + offsets``."""

    weights: Float32
    """[numbers, outputs]."""
    offsets: Float32
    """[outputs]."""

    def __call__(self, values: Float32) -> Float32:
        """Compute [windows, outputs]."""
        outputs: Float32 = values @ self.weights + self.offsets
        return outputs


class Scale(NamedTuple):
    """``x * factors + shifts``, number by number."""

    factors: Float32
    shifts: Float32

    def __call__(self, values: Float32) -> Float32:
        """Compute [windows, numbers]."""
        outputs: Float32 = values * self.factors + self.shifts
        return outputs


class Rectify(NamedTuple):
    """``max(x, 0)``."""

    def __call__(self, values: Float32) -> Float32:
        """Compute [windows, numbers]."""
        return np.maximum(values, np.float32(0))


class Normalise(NamedTuple):
    """``x / |x|``, so that a product with it is a cosine; 0 stays 0."""

    def __call__(self, values: Float32) -> Float32:
        """Compute [windows, numbers]."""
        length = np.linalg.norm(values, axis=-1, keepdims=True)
        return np.asarray(values / np.where(length > 0, length, 1), np.float32)


Layer = Linear | Scale | Rectify | Normalise


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowHead:
    """Logits are what the layers make of an embedding, one after the other."""

    layers: tuple[Layer, ...]
    activation: HeadActivation = "sigmoid"

    def predict(self, embeddings: Float32) -> Float32:
        """Predict the probabilities [windows, species] of windows [windows, numbers]."""
        values = embeddings.astype(np.float32)
        for layer in self.layers:
            values = layer(values)
        return activate(values, self.activation)
