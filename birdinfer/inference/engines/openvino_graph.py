"""Graphs rewritten for OpenVINO, in place, as it reads them: activations in the form that it computes fastest."""

from typing import Any

import numpy as np

_CLAMP = 11.0
_ABOVE = (0.24970209791600484, 0.006095940929375888, 8.758617797643794e-06)
_BELOW = (1.0, 0.10720372290733014, 0.0007219697251704397)
"""sigmoid(x) - 0.5 as x (a + b x^2 + c x^4) / (1 + d x^2 + e x^4) within the clamp: by linear programming, with least
largest error of x sigmoid(x), which is 1.9e-4, and 0.5 at its end."""


def silus_as_quotients(model: Any) -> None:
    """Write x sigmoid(x) of whole activations as x (0.5 + a quotient of polynomials); for bf16.

    Within a convolution OpenVINO computes it by an exponential, which takes longer than the convolution itself where
    that is a depthwise one. Products and sums become one pass of their own: an efficientnet_b0 takes 9.5 instead of
    11.3 ms a window. Its error is lost in bf16's rounding.
    """
    for product in model.get_ordered_ops():
        value = _silu_input(product)
        if value is not None and _is_map(value.get_partial_shape()):
            product.output(0).replace(_quotient(value).output(0))
    model.validate_nodes_and_infer_types()


def _is_map(shape: Any) -> bool:
    """Whether these are whole activations, not one number a channel."""
    return (
        shape.rank.is_static and len(shape) == 4 and any(shape[axis].is_dynamic or shape[axis] != 1 for axis in (2, 3))
    )


def _silu_input(node: Any) -> Any | None:
    """The value x of which a node computes x sigmoid(x); None if it does not."""
    if node.get_type_name() != "Multiply":
        return None
    first, second = node.input_value(0), node.input_value(1)
    for value, gate in ((first, second), (second, first)):
        sigmoid = gate.get_node()
        if sigmoid.get_type_name() == "Sigmoid" and _place(sigmoid.input_value(0)) == _place(value):
            return value
    return None


def _quotient(value: Any) -> Any:
    from openvino import opset13

    near = opset13.clamp(value, -_CLAMP, _CLAMP)
    square = opset13.multiply(near, near)

    def polynomial(factors: tuple[float, ...]) -> Any:
        *lower, total = (np.float32(each) for each in factors)
        for factor in lower[::-1]:
            total = opset13.add(opset13.multiply(square, total), factor)
        return total

    gate = opset13.divide(opset13.multiply(near, polynomial(_ABOVE)), polynomial(_BELOW))
    return opset13.multiply(value, opset13.add(gate, np.float32(0.5)))


def unite_activations(model: Any) -> None:
    """Join SiLU and hard-swish, in place, where an INT8 graph rounds between their two operators.

    ONNX Runtime has 8-bit kernels for each operator alone, so birdinfer's graphs round before the gate, behind it, and
    behind the product. OpenVINO computes the whole activation in fp32 within the convolution before it, and rounds
    once: efficientnet_b0 runs 1.5 times as fast, and nearer to fp32.
    """
    from openvino import opset13

    joined = {"Sigmoid": opset13.swish, "PRelu": opset13.hswish}
    for product in model.get_ordered_ops():
        if product.get_type_name() != "Multiply":
            continue
        both = [_unrounded(product.input_value(index)) for index in range(2)]
        for value, gate in (both, both[::-1]):
            if value is None or gate is None or gate.get_node().get_type_name() not in joined:
                continue
            read = _unrounded(gate.get_node().input_value(0))
            if read is not None and _place(read) == _place(value):
                join = joined[gate.get_node().get_type_name()]
                product.output(0).replace(join(value).output(0))
                break
    model.validate_nodes_and_infer_types()


def _unrounded(value: Any) -> Any | None:
    """The value before it was rounded to 8 bits, seen through what restores it; None if it was not."""
    node = value.get_node()
    while node.get_type_name() in ("Multiply", "Subtract", "Convert"):
        node = node.input_value(0).get_node()
    return node.input_value(0) if node.get_type_name() == "FakeQuantize" else None


def _place(value: Any) -> tuple[str, int]:
    return value.get_node().get_name(), value.get_index()
