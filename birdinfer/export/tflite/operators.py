"""TensorFlow Lite operators -> nodes: one function each, which takes the operator's options and its inputs.

An operator that is not here is not known; one of a form that is not known raises ValueError.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from birdinfer.export.tflite.constants import COMPUTED, slice_of
from birdinfer.export.tflite.graph import FIRST, Computed, GraphWriter, Value
from birdinfer.export.tflite.model import Array

_SAME = 0
_BINARY = {
    "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "POW": "Pow", "MAXIMUM": "Max", "MINIMUM": "Min",
    "GREATER": "Greater", "LESS": "Less",
}  # fmt: skip
_UNARY = {
    "LOGISTIC": "Sigmoid", "SIN": "Sin", "COS": "Cos", "TANH": "Tanh", "RELU": "Relu", "SQRT": "Sqrt", "EXP": "Exp",
    "LOG": "Log", "ABS": "Abs", "SOFTMAX": "Softmax",
}  # fmt: skip
_REDUCTIONS = {"MEAN": "ReduceMean", "REDUCE_MIN": "ReduceMin", "REDUCE_MAX": "ReduceMax"}


class Operators:
    """The operators of one graph."""

    def __init__(self, graph: GraphWriter) -> None:
        self._graph = graph
        self.embedding: Computed | None = None
        """What the last product with weights took."""

    def find(self, kind: str) -> Callable[..., Value] | None:
        """Return the function of a kind of operator; None if it is not known."""
        if kind in _BINARY:
            return lambda options, one, other: self._binary(_BINARY[kind], options, one, other)
        if kind in _UNARY:
            return lambda options, value: self._unary(_UNARY[kind], value)
        if kind in _REDUCTIONS:
            return lambda options, value, axes: self._reduce(_REDUCTIONS[kind], options, value, axes)
        found: Callable[..., Value] | None = getattr(self, f"_do_{kind.lower()}", None)
        return found

    def _binary(self, kind: str, options: Any, one: Value, other: Value) -> Computed:
        both = [each if isinstance(each, np.ndarray) else self._graph.computed(each) for each in (one, other)]
        is_first = any(isinstance(each, Computed) and each.is_first for each in both)
        names, shapes = [], []
        for each in both:
            shapes.append(each.shape)
            if isinstance(each, Computed):
                names.append(self._graph.moved_to(each, is_first).name)
            elif each.ndim == len(both[0].shape) == len(both[1].shape) and each.shape[0] != 1:
                raise ValueError("it mixes windows")
            elif is_first and each.ndim:
                names.append(self._graph.constant(each.reshape((1,) * (4 - each.ndim) + each.shape).transpose(FIRST)))
            else:
                names.append(self._graph.constant(each))
        name = self._graph.node(kind, names)
        fused = options is not None and hasattr(options, "FusedActivationFunction")
        return Computed(self._graph.activated(name, options) if fused else name, np.broadcast_shapes(*shapes), is_first)

    def _unary(self, kind: str, value: Value) -> Computed:
        value = self._graph.last(value) if kind == "Softmax" else self._graph.computed(value)
        return Computed(self._graph.node(kind, [value.name]), value.shape, value.is_first)

    def _reduce(self, kind: str, options: Any, value: Value, axes: Array) -> Computed:
        value = self._graph.computed(value)
        keep, rank = bool(options.KeepDims()), len(value.shape)
        reduced = {int(axis) % rank for axis in np.atleast_1d(axes)}
        if 0 in reduced:
            raise ValueError("it mixes windows")
        if value.is_first and not keep and reduced != {1, 2}:
            value = self._graph.last(value)
        own = sorted(FIRST.index(axis) if value.is_first else axis for axis in reduced)
        name = self._graph.node(kind, [value.name], axes=own, keepdims=int(keep))
        shape = [1 if axis in reduced else size for axis, size in enumerate(value.shape) if keep or axis not in reduced]
        return Computed(name, tuple(shape), value.is_first and keep)

    def _shaped(self, value: Value, shape: Sequence[int]) -> Computed:
        value = self._graph.last(value)
        (full,) = COMPUTED["RESHAPE"](None, np.broadcast_to(np.float32(0), value.shape), np.array(shape))
        # Where the first axis holds frames, the graph has those of all windows there, one window after the other.
        wanted = self._graph.constant(np.array([-1, *full.shape[1:]], np.int64))
        return Computed(self._graph.node("Reshape", [value.name, wanted]), full.shape, is_complex=value.is_complex)

    def _do_cast(self, options: Any, value: Value) -> Computed:
        return replace(self._graph.computed(value), is_complex=False)

    def _do_rfft2d(self, options: Any, value: Value, sizes: Array) -> Computed:
        value = self._graph.last(value)
        if list(sizes) != [1, value.shape[-1]] or value.shape[-2] != 1:
            raise ValueError("it is not over the last axis alone")
        rank = len(value.shape)
        deep = self._graph.node("Unsqueeze", [value.name, self._graph.constant(np.array([rank], np.int64))])
        both = self._graph.node("DFT", [deep], axis=rank - 1, onesided=1)
        real = self._graph.node("Gather", [both, self._graph.constant(np.int64(0))], axis=rank)
        return Computed(real, (*value.shape[:-1], value.shape[-1] // 2 + 1), is_complex=True)

    def _do_gather(self, options: Any, value: Value, index: Array) -> Computed:
        value = self._graph.last(value)
        axis = options.Axis() % len(value.shape)
        if axis == 0:
            raise ValueError("it mixes windows")
        (taken,) = COMPUTED["GATHER"](options, np.broadcast_to(np.float32(0), value.shape), index)
        name = self._graph.node("Gather", [value.name, self._graph.constant(index.astype(np.int64))], axis=axis)
        return Computed(name, taken.shape)

    def _do_reshape(self, options: Any, value: Value, shape: Array | None = None) -> Computed:
        return self._shaped(value, list(options.NewShapeAsNumpy() if shape is None else shape))

    def _do_expand_dims(self, options: Any, value: Value, axis: Array) -> Computed:
        value = self._graph.computed(value)
        return self._shaped(value, np.expand_dims(np.broadcast_to(np.float32(0), value.shape), int(axis)).shape)

    def _do_squeeze(self, options: Any, value: Value) -> Computed:
        value = self._graph.computed(value)
        empty = np.broadcast_to(np.float32(0), value.shape)
        return self._shaped(value, COMPUTED["SQUEEZE"](options, empty)[0].shape)

    def _do_strided_slice(self, options: Any, value: Value, begin: Array, end: Array, strides: Array) -> Computed:
        value = self._graph.last(value)
        parts = slice_of(options, begin, end, strides)
        shape = np.broadcast_to(np.float32(0), value.shape)[parts].shape
        names = []
        for axis, part in enumerate(parts):
            if axis == 0:
                if part not in (slice(0, None, 1), slice(None, None, 1), slice(0, 1, 1)):
                    raise ValueError("it mixes windows")
            elif isinstance(part, slice):
                start, stop, step = part.indices(value.shape[axis])
                names.append((axis, start, stop if step > 0 else -(2**31), step))
            else:
                names.append((axis, int(part) % value.shape[axis], int(part) % value.shape[axis] + 1, 1))
        name = value.name
        if names:
            axes, starts, stops, steps = (np.array(each, np.int64) for each in zip(*names, strict=True))
            name = self._graph.node(
                "Slice", [name, *(self._graph.constant(each) for each in (starts, stops, axes, steps))]
            )
        gone = [axis for axis, part in enumerate(parts) if not isinstance(part, slice)]
        if gone:
            name = self._graph.node("Squeeze", [name, self._graph.constant(np.array(gone, np.int64))])
        return Computed(name, shape)

    def _do_select_v2(self, options: Any, condition: Value, one: Value, other: Value) -> Computed:
        values = [each if isinstance(each, np.ndarray) else self._graph.last(each) for each in (condition, one, other)]
        names = [each.name if isinstance(each, Computed) else self._graph.constant(each) for each in values]
        return Computed(self._graph.node("Where", names), np.broadcast_shapes(*(each.shape for each in values)))

    def _do_reverse_v2(self, options: Any, value: Value, axes: Array) -> Computed:
        value = self._graph.last(value)
        minus, least, own = (np.full(len(axes), number, np.int64) for number in (-1, -(2**31), 0))
        own[:] = [int(axis) % len(value.shape) for axis in axes]
        names = [self._graph.constant(each) for each in (minus, least, own, minus)]
        return Computed(self._graph.node("Slice", [value.name, *names]), value.shape)

    def _do_transpose(self, options: Any, value: Value, order: Array) -> Computed:
        value = self._graph.last(value)
        if order[0] != 0:
            raise ValueError("it mixes windows")
        name = self._graph.node("Transpose", [value.name], perm=[int(axis) for axis in order])
        return Computed(name, tuple(value.shape[int(axis)] for axis in order))

    def _do_concatenation(self, options: Any, *values: Value) -> Computed:
        computed = [self._graph.computed(value) for value in values]
        axis = options.Axis() % len(computed[0].shape)
        # Channels are joined with channels first, as what follows takes them: 0.5 ms less a window of BirdNET.
        is_first = axis == 3 or all(value.is_first for value in computed)
        computed = [self._graph.moved_to(value, is_first) for value in computed]
        name = self._graph.node("Concat", [v.name for v in computed], axis=FIRST.index(axis) if is_first else axis)
        shape = list(computed[0].shape)
        shape[axis] = sum(value.shape[axis] for value in computed)
        return Computed(self._graph.activated(name, options), tuple(shape), is_first)

    def _do_pad(self, options: Any, value: Value, pads: Array) -> Computed:
        value = self._graph.first(value)
        order = FIRST if value.is_first else range(len(value.shape))
        sides = np.array([pads[axis] for axis in order], np.int64)
        name = self._graph.node("Pad", [value.name, self._graph.constant(sides.T.reshape(-1))])
        shape = tuple(int(size + sum(side)) for size, side in zip(value.shape, pads, strict=True))
        return Computed(name, shape, value.is_first)

    def _do_conv_2d(self, options: Any, value: Value, kernel: Array, bias: Array | None = None) -> Computed:
        return self._convolve(options, value, kernel.transpose(0, 3, 1, 2), bias, groups=None)

    def _do_depthwise_conv_2d(self, options: Any, value: Value, kernel: Array, bias: Array | None = None) -> Computed:
        groups = self._graph.computed(value).shape[3]
        return self._convolve(options, value, kernel.transpose(3, 0, 1, 2), bias, groups=groups)

    def _convolve(
        self, options: Any, value: Value, kernel: Array, bias: Array | None, *, groups: int | None
    ) -> Computed:
        value = self._graph.first(value)
        groups = value.shape[3] // kernel.shape[1] if groups is None else groups
        grown = (options.DilationHFactor(), options.DilationWFactor())
        pads, sizes = _padding(options, value.shape[1:3], kernel.shape[2:], grown)
        names = [value.name, self._graph.constant(kernel), *([] if bias is None else [self._graph.constant(bias)])]
        strides = [options.StrideH(), options.StrideW()]
        name = self._graph.node("Conv", names, group=groups, strides=strides, dilations=list(grown), pads=pads)
        return Computed(self._graph.activated(name, options), (1, *sizes, len(kernel)), True)

    def _pool(self, kind: str, options: Any, value: Value) -> Computed:
        value = self._graph.first(value)
        size = (options.FilterHeight(), options.FilterWidth())
        pads, sizes = _padding(options, value.shape[1:3], size, (1, 1))
        strides = [options.StrideH(), options.StrideW()]
        name = self._graph.node(kind, [value.name], kernel_shape=list(size), strides=strides, pads=pads)
        return Computed(self._graph.activated(name, options), (1, *sizes, value.shape[3]), True)

    def _do_average_pool_2d(self, options: Any, value: Value) -> Computed:
        return self._pool("AveragePool", options, value)

    def _do_max_pool_2d(self, options: Any, value: Value) -> Computed:
        return self._pool("MaxPool", options, value)

    def _do_fully_connected(self, options: Any, value: Value, weights: Array, bias: Array | None = None) -> Computed:
        value = self._graph.last(value)
        if len(value.shape) != 2:
            raise ValueError("its input has more than one axis")
        if value.shape[0] == 1:  # not rows of frames
            self.embedding = value
        names = [value.name, self._graph.constant(weights), *([] if bias is None else [self._graph.constant(bias)])]
        name = self._graph.node("Gemm", names, transB=1)
        return Computed(self._graph.activated(name, options), (value.shape[0], len(weights)))


def _padding(
    options: Any, sizes: Sequence[int], kernel: Sequence[int], grown: Sequence[int]
) -> tuple[list[int], list[int]]:
    """TensorFlow's padding as ONNX writes it (top, left, bottom, right), and the size of the result."""
    before, after, result = [], [], []
    for size, length, stride, step in zip(sizes, kernel, (options.StrideH(), options.StrideW()), grown, strict=True):
        span = (length - 1) * step + 1
        count = -(-size // stride) if options.Padding() == _SAME else (size - span) // stride + 1
        pad = max(0, (count - 1) * stride + span - size) if options.Padding() == _SAME else 0
        before.append(pad // 2)
        after.append(pad - pad // 2)
        result.append(count)
    return before + after, result
