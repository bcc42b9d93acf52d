"""Which nodes of a graph may compute in fp16.

In: an fp32 graph of :mod:`onnx_ir`. Out: those of its nodes for which 11 bits and a range of 6e-8 to 65,504 are enough.
The convolutions and matrix products between spectrogram and classifier are: they are all of the work.

What stays fp32, and why:

* Kinds of nodes that are not in ``IN_FP16``. log(1 + exp(x)) overflows above x = 11, the powers of a generalised mean
  above 40, a sum over a map of 6,400 places above a mean of 10; softmax and normalisations divide by such sums;
  recurrent layers add up their rounding over hundreds of steps.
* The classifier and what follows it: a thousandth of the work, and its rounding would be the logits' error.
* A front end within the graph: its powers reach 1e-10. It is told by the names of its nodes, and by a logarithm with
  convolutions or matrix products to come.
* Nodes with a constant that fp16 cannot hold: a weight beyond its range, or a lone number that it would change.
* Light nodes between fp32 nodes: on the way through fp16 the sum would be lost that its neighbours compute in fp32.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from birdinfer.export.graphs.graph_edit import array_of

HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"})
"""Almost all of the work; they add up in fp32 whatever they read (cuDNN, cuBLAS, OpenVINO)."""

_CURVES = frozenset(
    {"Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Selu", "Sigmoid", "Tanh"}
)
_ARITHMETIC = frozenset({"Abs", "Add", "Clip", "Div", "Max", "Min", "Mul", "Neg", "Sub", "Sum", "Where"})
_POOLS = frozenset({"AveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin"})
"""Of few values, or a choice among many."""
_MOVERS = frozenset({"Concat", "Expand", "Gather", "Identity", "Pad", "Shape", "Slice", "Split", "Tile"})
_SHAPERS = frozenset({"DepthToSpace", "Flatten", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"})
IN_FP16 = HEAVY | _CURVES | _ARITHMETIC | _POOLS | _MOVERS | _SHAPERS
"""Kinds of nodes that neither overflow nor add up much."""

FRONT_END = "front_end/"
"""Begins the names of the nodes that compute a log-mel within a graph."""

LARGEST = float(np.finfo(np.float16).max)
_LARGEST_CHANGE = float(np.finfo(np.float16).eps)
"""Of a lone number, relative to it: what fp16 changes at most of a number that is not too small for it."""


def half_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that compute in fp16.

    Args:
        graph: fp32, with the type of every value; not changed.

    Returns:
        Nodes of the graph itself; those of a loop or branch within it stay fp32.
    """
    fp32 = (
        _tail(graph)
        | front_end_nodes(graph)
        | {node for node in graph if not (node.op_type in IN_FP16 and _is_safe(node))}
    )
    return set(graph) - fp32 - _between(graph, fp32)


def front_end_nodes(graph: ir.Graph) -> set[ir.Node]:
    """What computes a log-mel: nodes of its name, logarithms before the tail, and all that leads to these."""
    found: set[ir.Node] = set()
    tail = _tail(graph)
    waiting = [node for node in graph if (node.name or "").startswith(FRONT_END)]
    waiting += [node for node in graph if node.op_type == "Log" and node not in tail]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [before for value in node.inputs if value is not None and (before := value.producer())]
    return found


def _tail(graph: ir.Graph) -> set[ir.Node]:
    """The classifier, and all after it: no convolution is to come, nor a matrix product."""
    is_before_heavy: set[ir.Node] = set()
    for node in reversed(graph):
        if any(reader.op_type in HEAVY or reader in is_before_heavy for reader in _readers(node)):
            is_before_heavy.add(node)
    return {node for node in graph if node not in is_before_heavy and node.op_type not in ("Conv", "ConvTranspose")}


def _between(graph: ir.Graph, fp32: set[ir.Node]) -> set[ir.Node]:
    """Light nodes that read floats from fp32 nodes alone and are read by fp32 nodes alone, singly or in groups."""
    found = {node for node in graph if node.op_type in IN_FP16 - HEAVY and node not in fp32 and _computed_floats(node)}
    waiting = list(found)
    while waiting:
        node = waiting.pop()
        before = [value.producer() for value in _computed_floats(node)]
        after = list(_readers(node))
        if node in found and not all(one in fp32 or one in found for one in (*before, *after)):
            found.remove(node)
            waiting += [one for one in (*before, *after) if one in found]  # they have lost a neighbour
    return found


def _is_safe(node: ir.Node) -> bool:
    """Whether fp16 holds what a node is given as constants, and its kind is what it seems."""
    if node.domain not in ("", "ai.onnx") or not any(is_float(value) for value in node.inputs if value is not None):
        return False
    if node.op_type == "Div" and (node.inputs[1] is None or node.inputs[1].const_value is None):
        return False  # by what is computed, perhaps next to 0
    floats = [value for value in node.inputs if value is not None and is_float(value)]
    return all(_holds(array_of(value)) for value in floats if value.const_value is not None)


def _holds(array: npt.NDArray[np.float32]) -> bool:
    """Whether fp16 holds these constants: none out of range, a lone one unchanged but for rounding."""
    if not np.all(np.abs(array) <= LARGEST):
        return False
    return array.size != 1 or bool(np.all(np.abs(array.astype(np.float16) - array) <= _LARGEST_CHANGE * np.abs(array)))


def is_float(value: ir.Value) -> bool:
    """Whether it holds float32."""
    return value.dtype == ir.DataType.FLOAT


def _computed_floats(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and is_float(value) and value.const_value is None]


def _readers(node: ir.Node) -> Iterator[ir.Node]:
    for output in node.outputs:
        yield from output.consumers()
