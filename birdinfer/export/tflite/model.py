"""Read a TensorFlow Lite file: its operators in order, and its constants as arrays. No TensorFlow is needed.

In: a ``.tflite`` file of one subgraph in float32 or float16. Out: :class:`TFLiteModel`. The schema is the package
``tflite`` (flatbuffers). Nothing is run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdinfer.errors import BundleError, InputNotFoundError, MissingExtraError

Array = NDArray[Any]

_IDENTIFIER = b"TFL3"
_TYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}
"""Types of constants that are read; the others belong to quantised models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """One step of the model."""

    kind: str
    """Its name in the schema, as ``CONV_2D``."""
    inputs: tuple[int, ...]
    """Numbers of tensors; -1: left out."""
    outputs: tuple[int, ...]
    options: Any
    """The schema's object, as ``Conv2DOptions``; None if it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TFLiteModel:
    """A model of one input and one output."""

    path: Path
    operators: tuple[Operator, ...]
    constants: dict[int, Array]
    """By number of the tensor."""
    input: int
    input_shape: tuple[int, ...]
    output: int


def is_tflite(path: Path) -> bool:
    """Whether a file begins as a TensorFlow Lite model; OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(8)[4:] == _IDENTIFIER


def read_tflite(path: Path) -> TFLiteModel:
    """Read a TensorFlow Lite model; raises InputNotFoundError, MissingExtraError, or BundleError for another file."""
    try:
        import tflite
    except ImportError as error:
        raise MissingExtraError("tflite", "tflite") from error
    if not path.is_file():
        raise InputNotFoundError(path, "no such file", "name a TensorFlow Lite model")
    content = path.read_bytes()
    if content[4:8] != _IDENTIFIER:
        raise BundleError(path, "is no TensorFlow Lite model", "name a .tflite file")
    try:
        return _read(path, tflite, content)
    except BundleError:
        raise
    except Exception as error:  # offsets that point anywhere: struct.error, IndexError, MemoryError, TypeError ...
        raise BundleError(path, f"is damaged ({type(error).__name__})", "copy or download it again") from error


def _read(path: Path, tflite: Any, content: bytes) -> TFLiteModel:
    model = tflite.Model.GetRootAsModel(content, 0)
    if model.SubgraphsLength() != 1:
        raise BundleError(path, f"has {model.SubgraphsLength()} subgraphs", "a model of one can be converted")
    graph = model.Subgraphs(0)
    if (graph.InputsLength(), graph.OutputsLength()) != (1, 1):
        counts = f"{graph.InputsLength()} inputs and {graph.OutputsLength()} outputs"
        raise BundleError(path, f"has {counts}", "a model of one each can be converted")
    kinds, options, types = (
        _names(getattr(tflite, each)) for each in ("BuiltinOperator", "BuiltinOptions", "TensorType")
    )
    constants = {}
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        if array := _constant(path, model, tensor, types[tensor.Type()]):
            constants[number] = array[0]
    operators = []
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if code.CustomCode():
            kind = code.CustomCode().decode(errors="replace")
        operators.append(
            Operator(
                kind=kind,
                inputs=tuple(map(int, operator.InputsAsNumpy())),
                outputs=tuple(map(int, operator.OutputsAsNumpy())),
                options=_options(tflite, operator, options),
            )
        )
    first = graph.Inputs(0)
    if types[graph.Tensors(first).Type()] != "FLOAT32":
        raise BundleError(path, "takes no float32", "a quantised model cannot be converted, take the one in float32")
    shape = tuple(map(int, graph.Tensors(first).ShapeAsNumpy()))
    return TFLiteModel(
        path=path,
        operators=tuple(operators),
        constants=constants,
        input=first,
        input_shape=shape,
        output=graph.Outputs(0),
    )


def _constant(path: Path, model: Any, tensor: Any, kind: str) -> tuple[Array] | None:
    """A tensor's values, in a tuple; None for one that is computed."""
    buffer = model.Buffers(tensor.Buffer())
    shape = [int(size) for size in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []
    if not buffer.DataLength():
        # An empty list is a constant, too, without a byte.
        return (np.zeros(shape, _TYPES[kind]),) if 0 in shape and kind in _TYPES else None
    if kind not in _TYPES:
        raise BundleError(
            path, f"holds weights in {kind}", "a quantised model cannot be converted, take the one in float32"
        )
    return (np.frombuffer(buffer.DataAsNumpy().tobytes(), _TYPES[kind]).reshape(shape),)


def _options(tflite: Any, operator: Any, names: dict[int, str]) -> Any:
    table = operator.BuiltinOptions()
    if table is None:
        return None
    options = getattr(tflite, names[operator.BuiltinOptionsType()])()
    options.Init(table.Bytes, table.Pos)
    return options


def _names(enumeration: Any) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if not name.startswith("_")}
