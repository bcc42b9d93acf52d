"""Let ONNX Runtime read a graph's large weights where they lie in its file, instead of from a copy of the whole file.

In: the path of an ONNX graph. Out: the bytes of the same graph that names places of that file for its large weights, as
graphs do that keep them in other files. Loading BirdNET takes 36 MB less so: the runtime maps the file, copies what it
keeps in another order, and lets go of the rest.
"""

import mmap
import os
from pathlib import Path

import numpy as np

from birdinfer.inference.protobuf import BYTES, GRAPH, TENSOR, VARINT, Field, first, read_message, varint, write_message

LEAST_BYTES = 1 << 23
"""Of large weights in a graph: a smaller one is loaded as it is."""
LARGE_BYTES = 1 << 16
"""Of a tensor."""
FOLDER_KEY = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's setting for the folder in which the file is looked for."""
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 9, 13, 14, 1
"""Fields of a tensor in onnx.proto, and the value of the last for weights in a file."""


def name_places(path: Path) -> bytes | None:
    """Return a graph without its large weights, which it names as places of the file; None where that saves little."""
    if os.name == "nt":  # there a file that is mapped cannot be replaced
        return None
    try:
        with path.open("rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        model = read_message(whole)
        place = model.index(first(model, GRAPH))
        fields = read_message(model[place].whole)
        named = [_named(field, whole, path.name) if field.number == TENSOR else field for field in fields]
    except (OSError, ValueError, LookupError):  # no file, or no graph: whoever opens it says so
        return None
    model[place] = Field(GRAPH, BYTES, tuple(write_message(named)))
    light = b"".join(write_message(model))
    return light if len(whole) - len(light) >= LEAST_BYTES else None


def _named(tensor: Field, whole: memoryview, file: str) -> Field:
    """A tensor that names the place of its values, if it holds many of them."""
    parts = read_message(tensor.whole)
    values = next((part.whole for part in parts if part.number == _RAW_DATA), memoryview(b""))
    if len(values) < LARGE_BYTES:
        return tensor
    offset = _address(values) - _address(whole)
    entries = {"location": file, "offset": str(offset), "length": str(len(values))}
    kept = [part for part in parts if part.number not in (_RAW_DATA, _DATA_LOCATION)]
    external = [Field(_EXTERNAL_DATA, BYTES, tuple(_entry(*entry))) for entry in entries.items()]
    location = Field(_DATA_LOCATION, VARINT, (varint(_EXTERNAL),))
    return Field(TENSOR, BYTES, tuple(write_message([*kept, *external, location])))


def _entry(key: str, value: str) -> list[bytes]:
    return [
        bytes(piece) for piece in write_message([Field(1, BYTES, (key.encode(),)), Field(2, BYTES, (value.encode(),))])
    ]


def _address(view: memoryview) -> int:
    return np.frombuffer(view, np.uint8).ctypes.data
