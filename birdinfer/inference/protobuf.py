"""Take protobuf messages apart and write them, as far as ONNX graphs need it; the core has no onnx.

In: the bytes of a message. Out: its fields, whose bytes are not copied; and the bytes of a message of such fields.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from birdinfer.inference.onnx_files import read_varint

Piece = bytes | memoryview
VARINT, BYTES = 0, 2
"""Kinds of fields."""
_FIXED_BYTES = {1: 8, 5: 4}
GRAPH, TENSOR = 7, 5
"""Fields of onnx.proto: of a model its graph, of a graph its weights."""


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


def first(fields: Sequence[Field], number: int) -> Field:
    """Return the first field of this number; LookupError if there is none."""
    return [field for field in fields if field.number == number][0]  # noqa: RUF015  next() raises no LookupError


def integers(field: Field) -> Iterator[int]:
    """Yield the numbers of a field that is one number, or several packed into one."""
    place = 0
    while place < len(field.whole):
        value, place = read_varint(field.whole, place)
        yield value


def read_message(message: memoryview) -> list[Field]:
    """Take a message apart; ValueError or LookupError where it is none."""
    fields, place = [], 0
    while place < len(message):
        key, begin = read_varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            _, end = read_varint(message, begin)
        elif wire == BYTES:
            size, begin = read_varint(message, begin)
            end = begin + size
        else:
            end = begin + _FIXED_BYTES[wire]
        if end > len(message):
            raise ValueError("cut off")
        fields.append(Field(number, wire, (message[begin:end],)))
        place = end
    return fields


def write_message(fields: Sequence[Field]) -> Iterator[Piece]:
    """Yield the bytes of a message."""
    for number, wire, content in fields:
        yield varint(number << 3 | wire)
        if wire == BYTES:
            yield varint(sum(map(len, content)))
        yield from content


def varint(value: int) -> bytes:
    """Write a number as :func:`birdinfer.inference.onnx_files.read_varint` reads it."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
