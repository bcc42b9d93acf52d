"""Outputs of a graph -> probabilities [windows, (frames,) species], float32 in [0, 1]."""

import numpy as np

from birdinfer.typing import Float32, Float64, Index

_MAX_EXPONENT = 700.0
"""exp of more overflows; 1 / exp of this is far below what float32 can hold."""


def activate(
    outputs: Float32, activation: str, columns: Index | None = None, *, slope: float = 1.0, intercept: float = 0.0
) -> Float32:
    """Turn a graph's outputs [..., labels] into probabilities of the labels at ``columns``, or of all.

    ``slope``, ``intercept``: a logit x becomes ``slope * x + intercept`` before a sigmoid.

    >>> activate(np.array([[0.0, 2.0]], np.float32), "sigmoid", np.array([0])).tolist()
    [[0.5]]
    """
    if activation == "softmax":  # over all labels, including those not returned
        outputs = softmax(outputs)
    if columns is not None:
        outputs = outputs[..., columns]
    if activation != "sigmoid":
        return outputs
    is_neutral = (slope, intercept) == (1, 0)
    return sigmoid(outputs if is_neutral else outputs.astype(np.float64) * slope + intercept)


def softmax(logits: Float32) -> Float32:
    """Probabilities that sum to 1 over the last axis: exp(x - max) / sum(exp(x - max)), any shape."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    total: Float32 = powers / powers.sum(axis=-1, keepdims=True)
    return total


def sigmoid(logits: Float32 | Float64) -> Float32:
    """Independent probability per species: 1 / (1 + exp(-x)), any shape; NaN stays NaN.

    Computed in double precision and rounded once, so that small values keep all digits and a greater logit never has a
    smaller probability. In float32, (1 + tanh(x / 2)) / 2 has steps of 2^-25, so that rare species tie below a logit of
    -12, and exp(x) / (1 + exp(x)) sometimes decreases by a bit.
    """
    powers = np.minimum(-logits.astype(np.float64), _MAX_EXPONENT)
    np.exp(powers, out=powers)
    powers += 1
    probabilities: Float32 = (1 / powers).astype(np.float32)
    return probabilities
