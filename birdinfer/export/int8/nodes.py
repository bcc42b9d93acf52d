"""Which nodes of a rewritten graph become INT8, and which activations that makes 8-bit.

In: nodes and values of :mod:`onnx_ir`. All that works on whole activations and has an INT8 kernel in ONNX Runtime
qualifies; what works on one number a channel (squeeze-excite, ECA), the convolution that reads the spectrogram and all
that comes after the last convolution stay fp32: together they are less than a hundredth of the work, and exact.
"""

import onnx_ir as ir

from birdinfer.export.graphs.graph_edit import has_constant_weight, input_of, is_map

MOVERS = ("MaxPool", "Pad")
"""Their output holds values of their input and nothing else."""

CLAMPS = ("Relu", "Clip")
"""They vanish into the range of the convolution before them."""


def is_int8(node: ir.Node) -> bool:
    """Whether a node works on whole activations and has an INT8 kernel that is worth it."""
    value = node.inputs[0] if node.inputs else None
    if value is None or not (is_map(value) or is_map(node.outputs[0])):
        return False
    if node.op_type == "Conv":
        # One channel in: too little to multiply for INT8 to gain anything, and the spectrogram stays exact.
        return has_constant_weight(node) and not value.is_graph_input()
    if is_past_convolutions(node.outputs[0]):
        # Nobody would multiply these 8 bits: rounding them would be the logits' error, and gain nothing.
        return False
    if node.op_type in ("Add", "Mul"):
        return all(factor is not None and factor.const_value is None for factor in node.inputs)
    if node.op_type == "Pad":
        return "mode" in node.attributes and node.attributes["mode"].as_string() == "edge"
    if node.op_type == "HardSigmoid":
        return is_read_by_hard_swish_alone(value)
    return node.op_type in ("Sigmoid", "GlobalAveragePool", "MaxPool")


def int8_values(node: ir.Node) -> list[ir.Value]:
    """The activations that an INT8 node reads and writes."""
    n_read = 2 if node.op_type in ("Add", "Mul") else 1
    written, readers = node.outputs[0], node.outputs[0].consumers()
    if len(readers) == 1 and readers[0].op_type in CLAMPS:
        written = readers[0].outputs[0]
    return [*(input_of(node, index) for index in range(n_read)), written]


def is_past_convolutions(value: ir.Value) -> bool:
    """Whether no convolution of whole activations follows: what is left is a mean over them, and the classifier."""
    return not any(
        (reader.op_type == "Conv" and is_map(input_of(reader))) or not is_past_convolutions(output)
        for reader in value.consumers()
        for output in reader.outputs
    )


def is_read_by_silu_alone(value: ir.Value) -> bool:
    """Whether a value goes into x times sigmoid(x) and nowhere else."""
    return _gate_alone(value, "Sigmoid") is not None


def is_read_by_hard_swish_alone(value: ir.Value) -> bool:
    """Whether a value goes into x times clip((x + 3) / 6, 0, 1) and nowhere else."""
    gate = _gate_alone(value, "HardSigmoid")
    if gate is None or "alpha" not in gate.attributes:
        return False  # alpha is 0.2 where it is not said
    slope, offset = (gate.attributes[name].as_float() if name in gate.attributes else 0.5 for name in ("alpha", "beta"))
    return abs(6.0 * slope - 1.0) < 1e-5 and abs(offset - 0.5) < 1e-6


def _gate_alone(value: ir.Value, op_type: str) -> ir.Node | None:
    """The node g of a kind, where x g(x) and nothing else reads a value x."""
    readers = {reader.op_type: reader for reader in value.consumers()}
    if len(value.uses()) != 2 or set(readers) != {op_type, "Mul"}:
        return None
    return readers[op_type] if readers[op_type].outputs[0] in readers["Mul"].inputs else None
