"""TensorFlow Lite models made for the tests, operator by operator, with the builder of flatbuffers."""

from pathlib import Path

import flatbuffers
import numpy as np
import tflite


class TinyModel:
    """Collects tensors and operators, and writes them as a file."""

    def __init__(self) -> None:
        self._tensors: list[tuple[tuple[int, ...], int, bytes]] = []
        self._operators: list[tuple[str, list[int], list[int], str | None, dict[str, int]]] = []

    def tensor(self, *shape: int, kind: str = "FLOAT32") -> int:
        """A tensor that is computed; returns its number."""
        self._tensors.append((shape, getattr(tflite.TensorType, kind), b""))
        return len(self._tensors) - 1

    def constant(self, values: object, dtype: str = "float32") -> int:
        array = np.asarray(values, dtype)
        kind = getattr(tflite.TensorType, dtype.upper())
        self._tensors.append((array.shape, kind, array.tobytes()))
        return len(self._tensors) - 1

    def add(self, kind: str, *inputs: int, options: str | None = None, **fields: int) -> int:
        """Add an operator, whose output's shape is left open; returns the number of the output."""
        output = self.tensor(1)
        self._operators.append((kind, list(inputs), [output], options, fields))
        return output

    def write(self, path: Path, source: int, output: int) -> Path:
        builder = flatbuffers.Builder(1024)
        buffers = [self._buffer(builder, b"")] + [self._buffer(builder, content) for *_, content in self._tensors]
        tensors = [self._tensor(builder, place, *facts) for place, facts in enumerate(self._tensors, 1)]
        kinds = list(dict.fromkeys(kind for kind, *_ in self._operators))
        codes = [self._code(builder, kind) for kind in kinds]
        operators = [self._operator(builder, kinds, *facts) for facts in self._operators]
        ends = [self._numbers(builder, [number]) for number in (source, output)]
        tensors, operators = self._offsets(builder, tensors), self._offsets(builder, operators)
        tflite.SubGraphStart(builder)
        tflite.SubGraphAddTensors(builder, tensors)
        tflite.SubGraphAddInputs(builder, ends[0])
        tflite.SubGraphAddOutputs(builder, ends[1])
        tflite.SubGraphAddOperators(builder, operators)
        graphs = self._offsets(builder, [tflite.SubGraphEnd(builder)])
        buffers, codes = self._offsets(builder, buffers), self._offsets(builder, codes)
        tflite.ModelStart(builder)
        tflite.ModelAddVersion(builder, 3)
        tflite.ModelAddOperatorCodes(builder, codes)
        tflite.ModelAddSubgraphs(builder, graphs)
        tflite.ModelAddBuffers(builder, buffers)
        builder.Finish(tflite.ModelEnd(builder), b"TFL3")
        path.write_bytes(builder.Output())
        return path

    def _buffer(self, builder, content):
        data = builder.CreateByteVector(content) if content else None
        tflite.BufferStart(builder)
        if data is not None:
            tflite.BufferAddData(builder, data)
        return tflite.BufferEnd(builder)

    def _tensor(self, builder, place, shape, kind, content):
        sizes = self._numbers(builder, shape)
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, sizes)
        tflite.TensorAddType(builder, kind)
        tflite.TensorAddBuffer(builder, place if content else 0)
        return tflite.TensorEnd(builder)

    def _code(self, builder, kind):
        number = getattr(tflite.BuiltinOperator, kind)
        tflite.OperatorCodeStart(builder)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, min(number, 127))
        tflite.OperatorCodeAddBuiltinCode(builder, number)
        return tflite.OperatorCodeEnd(builder)

    def _operator(self, builder, kinds, kind, inputs, outputs, options, fields):
        table = None
        if options:
            getattr(tflite, f"{options}Start")(builder)
            for name, value in fields.items():
                getattr(tflite, f"{options}Add{name}")(builder, value)
            table = getattr(tflite, f"{options}End")(builder)
        inputs, outputs = self._numbers(builder, inputs), self._numbers(builder, outputs)
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, kinds.index(kind))
        tflite.OperatorAddInputs(builder, inputs)
        tflite.OperatorAddOutputs(builder, outputs)
        if table is not None:
            tflite.OperatorAddBuiltinOptionsType(builder, getattr(tflite.BuiltinOptions, options))
            tflite.OperatorAddBuiltinOptions(builder, table)
        return tflite.OperatorEnd(builder)

    def _numbers(self, builder, numbers):
        return builder.CreateNumpyVector(np.asarray(numbers, np.int32))

    def _offsets(self, builder, offsets):
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
