"""TensorFlow Lite operators on constants, computed here: shapes, ranges and weights in float16 leave no node behind.

In: an operator's options and its inputs as arrays. Out: its outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from birdinfer.export.tflite.model import Array


def slice_of(options: Any, begin: Array, end: Array, strides: Array) -> tuple[slice | int, ...]:
    """Return what a STRIDED_SLICE takes of each axis: a bit of its masks for each."""
    parts: list[slice | int] = []
    for axis, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = 1 << axis
        if options.ShrinkAxisMask() & bit:
            parts.append(int(first))
        else:
            parts.append(
                slice(
                    None if options.BeginMask() & bit else int(first),
                    None if options.EndMask() & bit else int(last),
                    int(step),
                )
            )
    return tuple(parts)


def _gather(options: Any, values: Array, index: Array) -> Sequence[Array]:
    if options is not None and options.BatchDims():
        raise ValueError("batch_dims")
    return [np.take(values, index, axis=options.Axis() if options is not None else 0)]


def _squeeze(options: Any, value: Array) -> Sequence[Array]:
    axes = (
        tuple(int(axis) % value.ndim for axis in options.SqueezeDimsAsNumpy()) if options.SqueezeDimsLength() else None
    )
    return [value.squeeze(axes)]


COMPUTED: dict[str, Callable[..., Sequence[Array]]] = {
    "ADD": lambda options, one, other: [one + other],
    "SUB": lambda options, one, other: [one - other],
    "MUL": lambda options, one, other: [one * other],
    "FLOOR_DIV": lambda options, one, other: [one // other],
    "MAXIMUM": lambda options, one, other: [np.maximum(one, other)],
    "MINIMUM": lambda options, one, other: [np.minimum(one, other)],
    "RANGE": lambda options, first, last, step: [np.arange(first, last, step, dtype=first.dtype)],
    "RESHAPE": lambda options, value, shape: [value.reshape([int(size) for size in shape])],
    "EXPAND_DIMS": lambda options, value, axis: [np.expand_dims(value, int(axis))],
    "SQUEEZE": _squeeze,
    "PACK": lambda options, *values: [np.stack(values, axis=options.Axis())],
    "CONCATENATION": lambda options, *values: [np.concatenate(values, axis=options.Axis())],
    "SPLIT_V": lambda options, value, sizes, axis: np.split(value, np.cumsum(sizes)[:-1], axis=int(axis)),
    "GATHER": _gather,
    "REDUCE_PROD": lambda options, value, axes: [
        np.prod(value, axis=tuple(map(int, np.atleast_1d(axes))), keepdims=options.KeepDims(), dtype=value.dtype)
    ],
    "STRIDED_SLICE": lambda options, value, *ranges: [value[slice_of(options, *ranges)]],
    "DEQUANTIZE": lambda options, value: [value.astype(np.float32)],
}
