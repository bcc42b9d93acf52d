"""Cut labels that nothing reads out of a graph's last layer; the core has no onnx.

In: the bytes of an ONNX graph, and the columns of an output [windows, labels] that are read. Out: the bytes of the same
graph whose output has these columns alone, each computed by the same products and sums. Only an output is cut that is a
product with weights of its own, followed by a bias and a sigmoid at most: any other graph stays as it is.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from birdinfer.inference.protobuf import (
    BYTES,
    GRAPH,
    TENSOR,
    VARINT,
    Field,
    first,
    integers,
    read_message,
    varint,
    write_message,
)
from birdinfer.typing import Float32

LEAST_BYTES = 1 << 22
"""Of weights to be spared: less is not worth reading the graph twice."""

_NODE, _INPUT, _OUTPUT, _VALUE_INFO = 1, 11, 12, 13
"""Fields of a graph in onnx.proto."""
_FLOAT = 1


def cut_columns(graph: bytes, output: str, columns: Sequence[int]) -> bytes | None:
    """Return a graph whose output has some of its columns, in this order; None where that cannot or need not be.

    >>> cut_columns(b"no graph", "logits", [0]) is None
    True
    """
    try:
        model = read_message(memoryview(graph))
        place = model.index(first(model, GRAPH))
        model[place] = Field(
            GRAPH, BYTES, tuple(write_message(_with_columns(read_message(model[place].whole), output, columns)))
        )
    except (ValueError, LookupError, ArithmeticError):  # all that reading another graph, or a damaged one, raises
        return None
    return b"".join(write_message(model))


def _with_columns(graph: list[Field], output: str, columns: Sequence[int]) -> list[Field]:
    """Cut the weights; ValueError or LookupError where the output is not made as it has to be."""
    places = {_named(field, 8): place for place, field in enumerate(graph) if field.number == TENSOR}
    axes = dict(_last_layer(graph, output, places.keys()))
    tensors = {name: _Tensor.read(graph[places[name]]) for name in axes}
    (n_labels,) = {tensors[name].values.shape[axis] for name, axis in axes.items()}
    spared = sum(tensor.values.nbytes for tensor in tensors.values()) * (n_labels - len(columns)) // n_labels
    if spared < LEAST_BYTES:
        raise ValueError("too few to be worth it")
    for name, axis in axes.items():
        graph[places[name]] = tensors[name].with_values(np.take(tensors[name].values, columns, axis))
    cut = []
    for field in graph:
        if field.number == _OUTPUT and _named(field, 1) == output:
            cut.append(_with_open_size(field))
        elif field.number != _VALUE_INFO:  # shapes within, which are found again
            cut.append(field)
    return cut


def _last_layer(graph: Sequence[Field], output: str, tensors: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield what makes the columns of an output, weights and bias, with the axis of the columns."""
    nodes = [_Node.read(field) for field in graph if field.number == _NODE]
    makers = {name: node for node in nodes for name in node.outputs}
    n_uses = Counter(name for node in nodes for name in node.inputs)
    n_uses.update(_named(field, 1) for field in graph if field.number in (_INPUT, _OUTPUT))
    name = output
    while True:
        node = makers[name]
        if n_uses[name] != 1 or node.domain not in ("", "ai.onnx"):
            raise ValueError("its columns have other readers, or are made in an unknown way")
        weights = [each for each in node.inputs if each in tensors]
        match node.op, weights:
            case (("Identity" | "Sigmoid"), []):
                name = node.inputs[0]
                continue
            case "Add", [bias]:
                found = [(bias, -1)]
                (name,) = (each for each in node.inputs if each != bias)
            case "MatMul", [weight] if node.inputs[1] == weight:
                found = [(weight, 1)]
            case "Gemm", [weight, *bias] if node.inputs[1:] == (weight, *bias):
                found = [(weight, 0 if node.integers.get("transB") else 1), *((each, -1) for each in bias)]
            case _:
                raise ValueError("it is not made by a product with weights")
        if any(n_uses[each] != 1 for each, _ in found):
            raise ValueError("its weights are those of another layer, too")
        yield from found
        if node.op != "Add":
            return


@dataclass(frozen=True, kw_only=True, slots=True)
class _Node:
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: dict[str, int]
    """Its attributes that are whole numbers."""

    @classmethod
    def read(cls, field: Field) -> "_Node":
        """Read a node; ValueError for one with a graph inside, which may read any value."""
        parts = read_message(field.whole)
        attributes = [read_message(part.whole) for part in parts if part.number == 5]
        if any(part.number in (6, 11) for attribute in attributes for part in attribute):
            raise ValueError("a graph within a graph")
        integers = {
            first(attribute, 1).text: part.integer for attribute in attributes for part in attribute if part.number == 3
        }
        return cls(
            op=first(parts, 4).text,
            domain="".join(part.text for part in parts if part.number == 7),
            inputs=tuple(part.text for part in parts if part.number == 1),
            outputs=tuple(part.text for part in parts if part.number == 2),
            integers=integers,
        )


@dataclass(frozen=True, slots=True)
class _Tensor:
    parts: list[Field]
    values: Float32

    @classmethod
    def read(cls, field: Field) -> "_Tensor":
        """Read a tensor of float32 that holds its own values; ValueError or LookupError for all else."""
        parts = read_message(field.whole)
        known = {part.number: part for part in parts}
        if known[2].integer != _FLOAT or 13 in known:
            raise ValueError("not float32, or kept in another file")
        sizes = [size for part in parts if part.number == 1 for size in integers(part)]
        return cls(parts, np.frombuffer(known[9].whole, "<f4").reshape(sizes))

    def with_values(self, values: Float32) -> Field:
        kept = [part for part in self.parts if part.number not in (1, 9)]
        sizes = [Field(1, VARINT, (varint(size),)) for size in values.shape]
        content = Field(9, BYTES, (np.ascontiguousarray(values).tobytes(),))
        return Field(TENSOR, BYTES, tuple(write_message([*sizes, *kept, content])))


def _with_open_size(value: Field, path: tuple[int, ...] = (2, 1, 2)) -> Field:
    """An output whose last size follows from the graph: value -> type -> tensor -> shape -> its last size."""
    parts = read_message(value.whole)
    if path:
        parts = [_with_open_size(part, path[1:]) if part.number == path[0] else part for part in parts]
    elif parts:
        parts[-1] = Field(parts[-1].number, BYTES, (b"",))
    return Field(value.number, BYTES, tuple(write_message(parts)))


def _named(field: Field, number: int) -> str:
    return first(read_message(field.whole), number).text
