"""TensorFlow Lite operators -> an ONNX graph for any batch, channels first, with the embedding as a second output.

What depends on shapes alone is computed here; what is linear in the waveform is collected (:class:`Frames`) and becomes
one convolution. Shapes are those of one window: the first axis of each tensor that is computed is the batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import onnx
from birdinfer.errors import BundleError
from birdinfer.export.tflite.fold import FOLDED
from birdinfer.export.tflite.graph import Computed, GraphWriter, Value
from birdinfer.export.tflite.model import Operator, TFLiteModel, read_tflite
from birdinfer.export.tflite.operators import Operators
from birdinfer.export.tflite.spectrogram import Frames
from birdinfer.system.files import write_atomic
from onnx import helper

SCORES, EMBEDDING = "scores", "embedding"
"""Names of the outputs; the second is what the last product takes."""
_MIN_WAVEFORM = 4_000
"""Samples from which on an input [1, samples] is sound, whose slices may be frames."""


def convert_tflite(path: Path, output: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a TensorFlow Lite model as an ONNX graph: ``waveform`` -> ``scores`` and, if it ends so, ``embedding``.

    Args:
        path: the ``.tflite`` file, in float32 or with weights in float16.
        output: the graph to write.
        metadata: entries for the graph, as ``sample_rate``.

    Raises:
        InputNotFoundError: there is no such file.
        BundleError: it is no such model, is quantised, or holds an operator that is not known.
        MissingExtraError: tflite is not installed.
    """
    converter = _Converter(read_tflite(path))
    model = converter.convert()
    helper.set_model_props(model, dict(metadata or {}))
    write_atomic(output, model.SerializeToString())


class _Converter:
    def __init__(self, model: TFLiteModel) -> None:
        self._model = model
        self._values: dict[int, Value] = dict(model.constants)
        self._graph = GraphWriter()
        self._operators = Operators(self._graph)

    def convert(self) -> onnx.ModelProto:
        """Convert all operators, in their order."""
        model = self._model
        source = Computed("waveform", model.input_shape)
        self._values[model.input] = source
        for operator in model.operators:
            for number, result in zip(operator.outputs, self._results(operator), strict=True):
                self._values[number] = result
        outputs = {SCORES: self._graph.computed(self._values[model.output])}
        if self._operators.embedding is not None:
            outputs[EMBEDDING] = self._operators.embedding
        return self._graph.model(source, outputs)

    def _results(self, operator: Operator) -> Sequence[Value]:
        values = [self._values[number] if number >= 0 else None for number in operator.inputs]
        if operator.kind == "SHAPE":
            (value,) = values
            assert value is not None
            return [np.array(value.shape, np.int32)]
        try:
            given = [value for value in values if isinstance(value, np.ndarray)]
            if len(given) == len(values) and operator.kind in FOLDED:
                return [
                    np.asarray(each) for each in FOLDED[operator.kind](operator.options, *given)
                ]  # not numpy's scalars
            if isinstance(values[0], Frames) or self._begins_frames(operator, values):
                collected = self._collect(operator, values)
                if collected is not None:
                    return [collected]
            handler = self._operators.find(operator.kind)
            if handler is not None:
                return [handler(operator.options, *values)]
        except BundleError:
            raise
        except (ValueError, TypeError, IndexError, AssertionError) as error:
            raise BundleError(
                self._model.path, f"has an operator {operator.kind} of a form that is not known ({error})"
            ) from error
        raise BundleError(
            self._model.path, f"has an operator {operator.kind}, which is not known", "convert it with tf2onnx"
        )

    def _begins_frames(self, operator: Operator, values: Sequence[Value | None]) -> bool:
        value = values[0]
        is_sound = isinstance(value, Computed) and len(value.shape) == 2 and value.shape[1] >= _MIN_WAVEFORM
        return is_sound and operator.kind == "STRIDED_SLICE"

    def _collect(self, operator: Operator, values: Sequence[Value | None]) -> Frames | None:
        """What an operator makes of frames as frames again; None if it must be a node of the graph."""
        value, *others = values
        if isinstance(value, Computed):
            value = Frames(source=value.name, index=np.arange(value.shape[1])[None])
        assert isinstance(value, Frames)
        other = others[0] if others else None
        if other is not None and not isinstance(other, np.ndarray):
            return None
        match operator.kind:
            case "RESHAPE" | "EXPAND_DIMS" | "SQUEEZE":
                empty = np.broadcast_to(np.float32(0), value.shape)  # its shape alone is needed
                (shaped,) = FOLDED[operator.kind](operator.options, empty, *([] if other is None else [other]))
                return value.reshape(shaped.shape)
            case "STRIDED_SLICE" | "GATHER" if value.weights is None:
                (index,) = FOLDED[operator.kind](operator.options, value.index, *others)
                return Frames(source=value.source, index=index)
            case "MUL" if other is not None and other.ndim < 2:
                return value.times(other.astype(np.float64))
            case "FULLY_CONNECTED" if other is not None and (len(others) == 1 or others[1] is None):
                return value.times(other.T.astype(np.float64))
            case "RFFT2D" if other is not None and list(other) == [1, value.shape[-1]]:
                return value.fourier()
            case "CAST":
                return value.real()
        return None
