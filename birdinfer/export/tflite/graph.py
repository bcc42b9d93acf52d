"""The ONNX graph in the making: nodes, constants, and the order of the axes of each tensor.

Shapes are those of one window, with channels last as TensorFlow has them; ONNX convolves with channels first, so a
tensor is transposed where an operator needs the other order, once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import onnx
from birdinfer.export.tflite.model import Array
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Axes of a tensor with channels last, in the order of one with channels first; and back."""
_ACTIVATIONS = {0: None, 1: "Relu", 3: "Relu6"}


@dataclass(frozen=True, slots=True)
class Computed:
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    """Of one window, channels last as TensorFlow has them."""
    is_first: bool = False
    """Whether the graph has its channels first."""
    is_complex: bool = False
    """Whether TensorFlow has complex values here, of which the graph has the real part."""


Value = Computed | Array


class GraphWriter:
    """Collects the nodes and constants of a graph."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._moved: dict[tuple[str, bool], Computed] = {}

    def model(self, source: Computed, outputs: Mapping[str, Computed]) -> onnx.ModelProto:
        """Return the graph that computes the outputs, by name, from its input."""
        for name, value in outputs.items():
            self._nodes.append(helper.make_node("Identity", [self.last(value).name], [name]))
        graph = helper.make_graph(
            self._nodes,
            "tflite",
            [_tensor(source.name, source.shape)],
            [_tensor(name, value.shape) for name, value in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(made)
        return made

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, array: Array | np.generic) -> str:
        """Add a constant; returns its name."""
        name = f"constant_{len(self._constants)}"
        self._constants[name] = np.ascontiguousarray(array)
        return name

    def moved_to(self, value: Value, is_first: bool) -> Computed:
        """Return a value with its channels first or last; one of other than four axes has none."""
        value = self.computed(value)
        if value.is_first == is_first or len(value.shape) != 4:
            return value
        key = value.name, is_first
        if key not in self._moved:
            name = self.node("Transpose", [value.name], perm=FIRST if is_first else LAST)
            self._moved[key] = Computed(name, value.shape, is_first)
        return self._moved[key]

    def first(self, value: Value) -> Computed:
        """Return a value with its channels first."""
        return self.moved_to(value, True)

    def last(self, value: Value) -> Computed:
        """Return a value with its channels last."""
        return self.moved_to(value, False)

    def activated(self, name: str, options: Any) -> str:
        """Add the activation that an operator of TensorFlow Lite holds inside."""
        activation = _ACTIVATIONS[options.FusedActivationFunction() if options is not None else 0]
        if activation == "Relu6":
            bounds = [self.constant(np.float32(bound)) for bound in (0, 6)]
            return self.node("Clip", [name, *map(str, bounds)])
        return self.node(activation, [name]) if activation else name

    def computed(self, value: Value) -> Computed:
        """A value as a tensor of the graph; ValueError for a constant."""
        if isinstance(value, np.ndarray):
            raise ValueError("a constant where a computed value is expected")
        return value


def _tensor(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape[1:]])
