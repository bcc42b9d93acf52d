"""Outputs of a graph -> probabilities [windows, (frames,) species], float32 in [0, 1]."""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

_MOST_EXPONENT = 700.0
"""exp of more overflows; of this it is far below what float32 can hold."""


def activate(outputs: Float32, activation: str, columns: npt.NDArray[np.intp] | None = None) -> Float32:
    """Outputs of a graph -> probabilities of the species wanted.

    Args:
        outputs: [..., columns], logits; or probabilities where the activation is ``none``.
        activation: ``sigmoid``, ``softmax`` or ``none``.
        columns: those wanted, in this order; None for all as they are.

    Returns:
        [..., species], in [0, 1].
    """
    if activation == "softmax":  # over all columns, also those that nobody asked for
        outputs = softmax(outputs)
    if columns is not None:
        outputs = outputs[..., columns]
    return sigmoid(outputs) if activation == "sigmoid" else outputs


def softmax(logits: Float32) -> Float32:
    """Probabilities that sum to 1 over the last axis: exp(x - max) / sum(exp(x - max)), any shape."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    total: Float32 = powers / powers.sum(axis=-1, keepdims=True)
    return total


def sigmoid(logits: Float32) -> Float32:
    """Independent probability per species: 1 / (1 + exp(-x)).

    Computed in double precision and rounded once: what is small keeps all its digits, and a greater logit never has a
    smaller probability. In float32, (1 + tanh(x / 2)) / 2 counts in steps of 2^-25, so that rare species tie from a
    logit of -12 on, and exp(x) / (1 + exp(x)) goes down by a bit now and then.

    Args:
        logits: any shape, finite or not; NaN stays NaN.

    Returns:
        The same shape, in [0, 1].
    """
    powers = np.minimum(-logits.astype(np.float64), _MOST_EXPONENT)
    np.exp(powers, out=powers)
    powers += 1
    probabilities: Float32 = (1 / powers).astype(np.float32)
    return probabilities
