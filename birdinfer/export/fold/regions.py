"""Find where a graph is linear in a waveform: from which tensor to which others.

In: a graph that takes sound [batch, (1,) samples]. Out: :class:`Region`, each with the tensor that holds the waveform
(the input, or what a normalisation or a padding makes of it) and the last tensors that are linear in it. Framing,
windows, STFT, DFT, products and convolutions with constants are linear, whatever nodes they are made of.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

import onnx
from birdinfer.inference.engines.onnxruntime import open_session
from birdinfer.typing import Float32
from onnx import numpy_helper

Run = Callable[[Sequence[Float32]], list[Float32]]
"""Tensors -> other tensors of a graph."""

_MOST_NODES = 400
"""Behind the input: a front end is not longer, and each tensor of it is computed once to learn its shape."""
_ONE_INPUT = {
    "Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Slice", "Gather", "GatherND",
    "GatherElements", "Split", "Pad", "Expand", "Neg", "STFT", "DFT", "Div",
}  # fmt: skip
"""Linear in their first input where the others do not depend on the sound."""
_PRODUCTS = {"Mul", "MatMul", "Gemm", "Conv", "Einsum"}
"""Linear where only one input depends on the sound."""
_SUMS = {"Add", "Sub", "Sum", "Concat"}
_SIZES = {"Shape", "Size"}
_TRANSFORMS = {"STFT", "DFT", "Conv", "MatMul", "Gemm", "Einsum"}


@dataclass(kw_only=True, slots=True)
class Region:
    """A linear part of a graph."""

    source: ir.Value
    """The waveform, every axis but the batch and the samples of size 1."""
    source_shape: tuple[int, ...]
    """Of one window."""
    fronts: list[ir.Value] = field(default_factory=list)
    """The last tensors that are linear in the source."""

    @property
    def n_samples(self) -> int:
        """Samples of the source's window."""
        return self.source_shape[-1]


def find_regions(graph: ir.Graph, shapes: dict[str, tuple[int, ...]], n_samples: int) -> list[Region]:
    """Find the linear parts of a graph that hold a transform.

    ``shapes``: of :func:`tensor_shapes`.
    ``n_samples``: of the graph's window.
    """
    depends: set[ir.Value] = {graph.inputs[0]}
    sources: dict[ir.Value, ir.Value] = {graph.inputs[0]: graph.inputs[0]}
    for node in graph:
        changing = [value for value in node.inputs if value is not None and value in depends]
        if not changing or node.op_type in _SIZES:
            continue
        source = _source(node, changing, sources)
        for output in node.outputs:
            depends.add(output)
            shape = shapes.get(output.name or "", ())
            if _is_waveform(shape[1:], n_samples):
                sources[output] = output
            elif source is not None and shape:
                sources[output] = source
    regions: dict[ir.Value, Region] = {}
    for value, source in sources.items():
        if value is not source and _is_front(value, source, sources) and transforms_between(source, value):
            shape = shapes[source.name or ""][1:]
            regions.setdefault(source, Region(source=source, source_shape=shape)).fronts.append(value)
    for region in regions.values():
        region.fronts = _bases(region)
    return list(regions.values())


def tensor_shapes(model: ir.Model, windows: Float32) -> dict[str, tuple[int, ...]]:
    """Return the shapes, with the batch, of the tensors near the input for windows [windows, ...], by name."""
    near = list(_near_input(model.graph))
    run = partial_run(model, model.graph.inputs[:1], near)
    found = {value.name or "": array.shape for value, array in zip(near, run([windows]), strict=True)}
    return {model.graph.inputs[0].name or "": windows.shape, **found}


def partial_run(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> Run:
    """Return a function that computes some tensors of a graph from others; BundleError where it cannot be loaded."""
    proto = _part(model, inputs, outputs)
    session = open_session(Path(model.graph.name or "graph"), ["CPUExecutionProvider"], proto.SerializeToString())
    names = [value.name for value in proto.graph.input]

    def run(arrays: Sequence[Float32]) -> list[Float32]:
        found: list[Float32] = session.run(None, dict(zip(names, arrays, strict=True)))
        return found

    return run


def partial_values(
    model: ir.Model, inputs: Sequence[ir.Value], output: ir.Value, arrays: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """Compute a tensor in double precision, slowly; None where the nodes on the way cannot be computed so."""
    proto = _part(model, inputs, [output])
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    names = [each.name for each in proto.graph.input]
    try:
        (values,) = ReferenceEvaluator(proto).run(None, dict(zip(names, arrays, strict=True)))
    except Exception:  # of any operator
        return None
    return values if isinstance(values, np.ndarray) and values.dtype == np.float64 else None


def _part(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> onnx.ModelProto:
    """The nodes between tensors of a graph, as a graph of its own."""
    part = ir.convenience.extract(model.graph, inputs, outputs)
    for value in part.inputs:
        value.shape, value.type = None, ir.TensorType(ir.DataType.FLOAT)
    for value in part.outputs:
        value.shape = value.type = None
    return ir.to_proto(ir.Model(part, ir_version=model.ir_version, functions=list(model.functions.values())))


def transforms_between(source: ir.Value, value: ir.Value) -> list[str]:
    """Return the kinds of the nodes that do more than choose samples, on the way from a waveform to a value."""
    waiting, seen, found = [value], {source}, []
    while waiting:
        node = waiting.pop().producer()
        if node is None:
            continue
        if node.op_type in _TRANSFORMS:
            found.append(node.op_type)
        new = [each for each in node.inputs if each is not None and each not in seen]
        seen.update(new)
        waiting += new
    return found


def _near_input(graph: ir.Graph) -> Iterator[ir.Value]:
    """The tensors behind the input, up to the network's two-dimensional convolutions."""
    depends, count = {graph.inputs[0]}, 0
    for node in graph:
        if node.op_type in _SIZES or not any(value in depends for value in node.inputs if value is not None):
            continue
        if _is_network(node) or count >= _MOST_NODES:
            continue
        for output in node.outputs:
            if output.name:
                depends.add(output)
                count += 1
                yield output


def _is_network(node: ir.Node) -> bool:
    weights = node.inputs[1] if node.op_type == "Conv" and len(node.inputs) > 1 else None
    constant = ir.convenience.get_const_tensor(weights) if weights is not None else None
    return constant is not None and constant.numpy().ndim == 4 and min(constant.numpy().shape[2:]) > 1


def _is_waveform(shape: Sequence[int], n_samples: int) -> bool:
    return bool(shape) and shape[-1] > n_samples // 2 and int(np.prod(shape)) == shape[-1]


def _source(node: ir.Node, changing: Sequence[ir.Value], sources: dict[ir.Value, ir.Value]) -> ir.Value | None:
    """The waveform that a node's outputs are linear in; None if they are not."""
    found = {sources.get(value) for value in changing}
    kind, is_first = node.op_type, changing == [node.inputs[0]]
    is_linear = (
        (kind in _ONE_INPUT and is_first)
        or (kind in _PRODUCTS and len(changing) == 1 and node.inputs.count(changing[0]) == 1)
        or kind in _SUMS
    )
    return next(iter(found)) if is_linear and len(found) == 1 else None


def _is_front(value: ir.Value, source: ir.Value, sources: dict[ir.Value, ir.Value]) -> bool:
    if value.is_graph_output():
        return True
    readers = [use.node for use in value.uses() if use.node.op_type not in _SIZES]
    return any(sources.get(reader.outputs[0]) is not source for reader in readers)


def _bases(region: Region) -> list[ir.Value]:
    """The fronts, and instead of several that are parts of one tensor (real and imaginary part) that tensor."""
    of_base: dict[ir.Value, list[ir.Value]] = {}
    for front in region.fronts:
        base = front
        while (node := base.producer()) is not None and node.op_type in _ONE_INPUT - {"STFT", "DFT", "Div", "Pad"}:
            parent = node.inputs[0]
            if parent is None or parent is region.source:
                break
            base = parent
        of_base.setdefault(base, []).append(front)
    return [base if len(fronts) > 1 else fronts[0] for base, fronts in of_base.items()]
