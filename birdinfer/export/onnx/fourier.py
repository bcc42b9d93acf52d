"""A windowed Fourier transform as two small matrix products, and the writer of a graph's nodes.

In: frames [batch, frames, n_fft] of a graph, and a window. Out: nodes that compute its bins, in an order of their own
(:func:`bin_places`), a fourth of the time that ONNX Runtime's STFT takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from birdinfer.typing import Bool, Float32, Float64, Index, Int64

Operand = ir.Value | Float32 | Int64  # what a node reads: another's output, or an array, which becomes a constant


class NodeWriter:
    """Collects nodes in the order in which they compute, each with one output."""

    def __init__(self, prefix: str = "front_end") -> None:
        """Start without nodes; ``prefix``: of the names that they get."""
        self._prefix = prefix
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def __call__(self, op_type: str, *operands: Operand, **attributes: int | str | Sequence[int]) -> ir.Value:
        """Add a node and return its float32 output; ``op_type`` as ONNX spells it."""
        name = f"{self._prefix}/{len(self.nodes)}_{op_type}"
        inputs = [
            one if isinstance(one, ir.Value) else self._constant(f"{name}/constant_{index}", one)
            for index, one in enumerate(operands)
        ]
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].dtype = name, ir.DataType.FLOAT
        self.nodes.append(node)
        return node.outputs[0]

    def _constant(self, name: str, array: Float32 | Int64) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.constants.append(value)
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class FourierTables:
    """``|rfft(x window)|^2 @ filterbank`` of frames x as four matrix products; all float32."""

    strided: Float32
    """[n_steps, n_strided, 2 * (n_strided // 2 + 1)]: the first sum, for each c its real and its imaginary part. Frames
    are cut into [n_strided, n_steps], whose columns it multiplies. It includes the window."""
    real: Float32  # [2 * n_steps, n_steps]: the second sum's real part over d, of real and then imaginary parts over b
    imaginary: Float32  # [2 * n_steps, n_steps]: likewise the imaginary part
    bank: Float32  # [(n_strided // 2 + 1) * n_steps, bands]: the filters on the resulting power, c by c


def fourier_tables(window: Float32, filterbank: Float32) -> FourierTables:
    """Compute tables for frames as long as the window [n], n even, and for a filterbank [n / 2 + 1, bands]."""
    n_samples = len(window)
    n_strided = strided_length(n_samples)
    n_steps, n_kept = n_samples // n_strided, n_strided // 2 + 1
    time = n_steps * np.arange(n_strided) + np.arange(n_steps)[:, None]
    strided = _rotations(time[..., None] * np.arange(n_kept), n_samples) * window[time][..., None, None]
    turned = _rotations(np.outer(np.arange(n_steps), np.arange(n_steps)), n_steps)
    cos, sin = turned[..., 0], turned[..., 1]
    return FourierTables(
        strided=strided.reshape(n_steps, n_strided, 2 * n_kept).astype(np.float32),
        real=np.concatenate([cos, -sin]).astype(np.float32),
        imaginary=np.concatenate([sin, cos]).astype(np.float32),
        bank=_reordered(filterbank, n_strided, n_steps),
    )


def strided_length(n_samples: int) -> int:
    """Find the divisor of n_samples, above 1, with the fewest products per frame."""
    divisors = [length for length in range(2, n_samples + 1) if n_samples % length == 0]
    return min(divisors, key=lambda length: _products(length, n_samples // length))


def _products(n_strided: int, n_steps: int) -> int:
    n_kept = n_strided // 2 + 1
    return n_steps * n_strided * 2 * n_kept + n_kept * (2 * n_steps) ** 2


def _rotations(turns: Index, length: int) -> Float64:
    """exp(-2 pi i turns / length) as real and imaginary parts on a new last axis, computed in double."""
    angle = -2.0 * np.pi * (turns % length) / length
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _reordered(filterbank: Float32, n_strided: int, n_steps: int) -> Float32:
    """The filterbank's rows in the order in which the second sum returns bins, each once; the others are 0."""
    weights = np.zeros(((n_strided // 2 + 1) * n_steps, filterbank.shape[1]), np.float32)
    weights[bin_places(n_strided * n_steps)[0]] = filterbank
    return weights


def bin_places(n_samples: int) -> tuple[Index, Bool]:
    """Find where the second sum returns the bins 0 to n_samples / 2, and which of them are mirrored: conjugated."""
    n_strided = strided_length(n_samples)
    bins = np.arange(n_strided // 2 + 1)[:, None] + n_strided * np.arange(n_samples // n_strided)
    # A bin above n / 2 is the mirror image of one below.
    _, first = np.unique(np.minimum(bins, n_samples - bins), return_index=True)
    return first, bins.ravel()[first] > n_samples // 2


def fourier(write: NodeWriter, framed: ir.Value, tables: FourierTables, n_frames: int) -> tuple[ir.Value, ir.Value]:
    """Transform frames [batch, frames, n_fft]: real and imaginary parts [batch, frames * (n_strided / 2 + 1), n_steps].

    Behind each other they are the places of :func:`bin_places`.
    """
    n_steps, n_strided, width = tables.strided.shape
    n_kept = width // 2
    rows = write("Reshape", framed, ints(-1, n_frames, n_strided, n_steps))
    strided = write("MatMul", write("Transpose", rows, perm=[0, 3, 1, 2]), tables.strided)
    flat = write("Reshape", strided, ints(-1, n_steps, n_frames * width))
    regrouped = write("Reshape", write("Transpose", flat, perm=[0, 2, 1]), ints(-1, n_frames * n_kept, 2 * n_steps))
    return write("MatMul", regrouped, tables.real), write("MatMul", regrouped, tables.imaginary)


def ints(*values: int) -> Int64:
    """Return whole numbers as an operand."""
    return np.array(values, np.int64)
