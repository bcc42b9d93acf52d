"""TensorFlow Lite operators -> an ONNX graph for any batch, channels first, with the embedding as a second output.

What depends on shapes alone is computed here; what is linear in the waveform is folded (:mod:`birdinfer.export.fold`):
TensorFlow cuts frames with index arithmetic, and BirdNET 2.4 takes 2.7 times as long without. Shapes are those of one
window: the first axis of each tensor that is computed is the batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

import onnx
from birdinfer.errors import BundleError
from birdinfer.export.fold.rewrite import fold_model
from birdinfer.export.tflite.constants import COMPUTED
from birdinfer.export.tflite.graph import Computed, GraphWriter, Value
from birdinfer.export.tflite.model import Operator, TFLiteModel, read_tflite
from birdinfer.export.tflite.operators import Operators
from birdinfer.system.files import write_atomic
from onnx import helper

SCORES, EMBEDDING = "scores", "embedding"
"""Names of the outputs; the second is what the last product takes."""
_KEEP_COMPLEX = {"RESHAPE", "EXPAND_DIMS", "SQUEEZE"}
"""Operators that complex values may pass before their real part is taken."""


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
    source = read_tflite(path)
    model = _Converter(source).convert()
    if len(source.input_shape) == 2:
        folded = fold_model(ir.from_proto(model), source.input_shape[1])
        model = model if folded is None else ir.to_proto(folded.model)
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
            if len(given) == len(values) and operator.kind in COMPUTED:
                return [
                    np.asarray(each) for each in COMPUTED[operator.kind](operator.options, *given)
                ]  # not numpy's scalars
            if operator.kind not in (*_KEEP_COMPLEX, "CAST") and any(
                isinstance(each, Computed) and each.is_complex for each in values
            ):
                raise ValueError("its values are complex")
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
