"""What a file that is named as an ONNX graph is, found in its bytes: the core has no onnx.

In: its path. Out: the files that it keeps its weights in, or what else it is: a Git LFS pointer, a web page, a model of
another kind.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

_EXTERNAL_KEY = b"location"
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
"""Messages of onnx.proto and their fields that lead to a tensor's ``external_data``."""

_PICKLE_HINT = "do not open it; export the model to ONNX"
_OTHER_KINDS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the graph itself", "git lfs pull"),
    (b"<", "is a web page, not a graph", "download the file itself"),
    (b"{", "is JSON text, not a graph", "name the ONNX file"),
    (b"PK", "is a zip archive or a PyTorch file, not an ONNX graph", "unpack it, or export the model to ONNX"),
    (b"\x1f\x8b", "is compressed, not a graph", "unpack it with gunzip"),
    *((b"\x80" + bytes([protocol]), "is a Python pickle, not a graph", _PICKLE_HINT) for protocol in range(2, 6)),
    (b"\x89HDF", "is a Keras model, not an ONNX graph", "convert it to ONNX"),
)
_TFLITE = b"TFL3"


def other_kind(path: Path) -> tuple[str, str] | None:
    """Name a file that is no graph, and what to do; None if nothing speaks against one."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None
    if not start:
        return "is empty", "copy or download it again"
    if start[4:8] == _TFLITE:
        return "is a TensorFlow Lite model, not an ONNX graph", "birdinfer bundle adopt converts it"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next(((what, hint) for begin, what, hint in _OTHER_KINDS if text.startswith(begin)), None)


def external_files(path: Path) -> tuple[str, ...]:
    """List the files beside a graph that hold its weights (external data), as it names them; () where it is whole."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(_EXTERNAL_KEY) < 0:  # nearly always: the walk through thousands of nodes is spared
                return ()
    return tuple(dict.fromkeys(_locations(memoryview(path.read_bytes()))))


def _locations(model: memoryview) -> Iterator[str]:
    waiting = [("model", model)]
    while waiting:
        kind, message = waiting.pop()
        for number, content in _fields(message):
            part = _PARTS[kind].get(number)
            if part == "external":
                entry = dict(_fields(content))
                if bytes(entry.get(1, b"")) == _EXTERNAL_KEY:
                    yield bytes(entry.get(2, b"")).decode(errors="replace")
            elif part is not None:
                waiting.append((part, content))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """A message's texts and messages by field number, as protobuf writes them; ends where it is damaged."""
    place = 0
    try:
        while place < len(message):
            key, place = read_varint(message, place)
            match key & 7:
                case 0:
                    _, place = read_varint(message, place)
                case 1:
                    place += 8
                case 2:
                    size, place = read_varint(message, place)
                    yield key >> 3, message[place : place + size]
                    place += size
                case 5:
                    place += 4
                case _:
                    return
    except IndexError:
        return


def read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """Read a number of protobuf, and where the next thing begins; IndexError where the message ends before."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
