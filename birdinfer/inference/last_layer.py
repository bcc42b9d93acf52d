"""Cut labels that nothing reads out of a graph's last layer; the core has no onnx.

In: the bytes of an ONNX graph, and the columns of an output [windows, labels] that are read. Out: the bytes of the same
graph whose output has these columns alone, each computed by the same products and sums. Only an output is cut that is a
product with weights of its own, followed by a bias and a sigmoid at most: any other graph stays as it is.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from birdinfer.inference.onnx_files import read_varint
from birdinfer.typing import Float32

LEAST_BYTES = 1 << 22
"""Of weights to be spared: less is not worth reading the graph twice."""

Piece = bytes | memoryview
_VARINT, _BYTES = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
_GRAPH, _NODE, _TENSOR, _INPUT, _OUTPUT, _VALUE_INFO = 7, 1, 5, 11, 12, 13
"""Fields of onnx.proto: of a model, and of a graph."""
_FLOAT = 1


class Field(NamedTuple):
    """A field of a protobuf message."""

    number: int
    wire: int
    content: tuple[Piece, ...]
    """Without key and length, in pieces that follow each other."""

    @property
    def whole(self) -> memoryview:
        """Its bytes; those that were read are not copied."""
        return memoryview(self.content[0] if len(self.content) == 1 else b"".join(self.content))

    @property
    def text(self) -> str:
        """It as text."""
        return bytes(self.whole).decode()

    @property
    def integer(self) -> int:
        """It as a whole number."""
        return read_varint(self.whole, 0)[0]


def cut_columns(graph: bytes, output: str, columns: Sequence[int]) -> bytes | None:
    """Return a graph whose output has some of its columns, in this order; None where that cannot or need not be.

    >>> cut_columns(b"no graph", "logits", [0]) is None
    True
    """
    try:
        model = _read(memoryview(graph))
        place = model.index(_one(model, _GRAPH))
        model[place] = Field(_GRAPH, _BYTES, tuple(_written(_with_columns(_read(model[place].whole), output, columns))))
    except (ValueError, LookupError, ArithmeticError):  # all that reading another graph, or a damaged one, raises
        return None
    return b"".join(_written(model))


def _with_columns(graph: list[Field], output: str, columns: Sequence[int]) -> list[Field]:
    """Cut the weights; ValueError or LookupError where the output is not made as it has to be."""
    places = {_named(field, 8): place for place, field in enumerate(graph) if field.number == _TENSOR}
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
        parts = _read(field.whole)
        attributes = [_read(part.whole) for part in parts if part.number == 5]
        if any(part.number in (6, 11) for attribute in attributes for part in attribute):
            raise ValueError("a graph within a graph")
        integers = {
            _one(attribute, 1).text: part.integer for attribute in attributes for part in attribute if part.number == 3
        }
        return cls(
            op=_one(parts, 4).text,
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
        parts = _read(field.whole)
        known = {part.number: part for part in parts}
        if known[2].integer != _FLOAT or 13 in known:
            raise ValueError("not float32, or kept in another file")
        sizes = [size for part in parts if part.number == 1 for size in _integers(part)]
        return cls(parts, np.frombuffer(known[9].whole, "<f4").reshape(sizes))

    def with_values(self, values: Float32) -> Field:
        kept = [part for part in self.parts if part.number not in (1, 9)]
        sizes = [Field(1, _VARINT, (_varint(size),)) for size in values.shape]
        content = Field(9, _BYTES, (np.ascontiguousarray(values).tobytes(),))
        return Field(_TENSOR, _BYTES, tuple(_written([*sizes, *kept, content])))


def _with_open_size(value: Field, path: tuple[int, ...] = (2, 1, 2)) -> Field:
    """An output whose last size follows from the graph: value -> type -> tensor -> shape -> its last size."""
    parts = _read(value.whole)
    if path:
        parts = [_with_open_size(part, path[1:]) if part.number == path[0] else part for part in parts]
    elif parts:
        parts[-1] = Field(parts[-1].number, _BYTES, (b"",))
    return Field(value.number, _BYTES, tuple(_written(parts)))


def _named(field: Field, number: int) -> str:
    return _one(_read(field.whole), number).text


def _one(fields: Sequence[Field], number: int) -> Field:
    """The first field of this number; LookupError if there is none."""
    return [field for field in fields if field.number == number][0]  # noqa: RUF015  next() raises no LookupError


def _integers(field: Field) -> Iterator[int]:
    """The numbers of a field that is one number, or several packed into one."""
    place = 0
    while place < len(field.whole):
        value, place = read_varint(field.whole, place)
        yield value


def _read(message: memoryview) -> list[Field]:
    """Take a message apart; ValueError or LookupError where it is none."""
    fields, place = [], 0
    while place < len(message):
        key, begin = read_varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, end = read_varint(message, begin)
        elif wire == _BYTES:
            size, begin = read_varint(message, begin)
            end = begin + size
        else:
            end = begin + _FIXED_BYTES[wire]
        if end > len(message):
            raise ValueError("cut off")
        fields.append(Field(number, wire, (message[begin:end],)))
        place = end
    return fields


def _written(fields: Sequence[Field]) -> Iterator[Piece]:
    for number, wire, content in fields:
        yield _varint(number << 3 | wire)
        if wire == _BYTES:
            yield _varint(sum(map(len, content)))
        yield from content


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
