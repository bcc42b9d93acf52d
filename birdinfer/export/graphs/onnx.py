"""Model -> ONNX graph: log-mel [batch, 1, rows, columns] or waveforms [batch, samples] in, logits out, any batch size.

A graph has the output ``logits`` [batch, labels] and, of a sound event detector, ``frame_logits`` [batch, frames,
labels]. PyTorch has two exporters. ``dynamo`` is the one that it keeps; ``torchscript``, the older one, exports in a
tenth of the time. Which makes the faster graph is measured in :mod:`birdinfer.export.graphs.faster_export`.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import onnx
import torch

from birdinfer.config import FrontEndConfig, Hearing
from birdinfer.errors import ParityError
from birdinfer.training.logits import Logits

OPSET = 18
"""Read by every ONNX Runtime since 1.14 and OpenVINO since 2023.0."""

INPUT_NAME = "log_mel"
WAVEFORM_NAME = "waveform"
OUTPUT_NAME = "logits"
FRAMES_NAME = "frame_logits"
BATCH_AXIS = "batch"

Exporter = Literal["dynamo", "torchscript"]


def export_graph(
    model: torch.nn.Module, hearing: Hearing, path: Path, metadata: dict[str, str], exporter: Exporter = "dynamo"
) -> tuple[str, ...]:
    """Write a model's graph, simplified and checked.

    Args:
        model: answers with :class:`~birdinfer.training.logits.Logits`; in evaluation mode, on the CPU.
        hearing: what it takes.
        path: where to.
        metadata: stored in the graph under ``metadata_props``, beside ``opset`` and ``exporter``.
        exporter: which of PyTorch's makes the graph.

    Returns:
        The names of the graph's outputs.

    Raises:
        ParityError: the graph would normalise with the statistics of a batch, as in training.
    """
    # Two windows: a batch of one is taken for a constant by exporters.
    example = torch.zeros(2, *sample_shape(hearing))
    flat = _Flat(model).eval()
    given = INPUT_NAME if isinstance(hearing, FrontEndConfig) else WAVEFORM_NAME
    # no_grad, not inference_mode: tensors born in inference mode cannot be traced by every exporter.
    with torch.no_grad(), _quiet_exporter():
        outputs = tuple(named_outputs(model(example)))
        traced = EXPORTERS[exporter](flat, example, given, outputs)
    graph = _simplified(traced)
    opset = max(imported.version for imported in graph.opset_import if imported.domain in ("", "ai.onnx"))
    onnx.helper.set_model_props(graph, metadata | {"opset": str(opset), "exporter": exporter})
    onnx.checker.check_model(graph, full_check=True)
    refuse_training_mode(graph, path)
    onnx.save(graph, path)
    return outputs


def _by_dynamo(model: torch.nn.Module, example: torch.Tensor, given: str, outputs: tuple[str, ...]) -> onnx.ModelProto:
    """torch.export, then onnxscript's translation."""
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[given],
        output_names=outputs,
        dynamic_shapes=({0: torch.export.Dim(BATCH_AXIS, min=1)},),
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _by_torchscript(
    model: torch.nn.Module, example: torch.Tensor, given: str, outputs: tuple[str, ...]
) -> onnx.ModelProto:
    """torch.jit.trace, then a translation in C++.

    A weight that several nodes read is stored for each of them (NFNets twice); simplifying the graph ends that.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traced.onnx"
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[given],
            output_names=list(outputs),
            dynamic_axes={name: {0: BATCH_AXIS} for name in (given, *outputs)},
        )
        return onnx.load(path)


EXPORTERS: dict[Exporter, Callable[[torch.nn.Module, torch.Tensor, str, tuple[str, ...]], onnx.ModelProto]] = {
    "dynamo": _by_dynamo,
    "torchscript": _by_torchscript,
}


def sample_shape(hearing: Hearing) -> tuple[int, ...]:
    """What a model takes of one window: (1, rows, columns) of log-mel, or (samples,)."""
    if isinstance(hearing, FrontEndConfig):
        return (1, *hearing.input_shape)
    return (hearing.window_samples,)


def named_outputs(logits: Logits) -> dict[str, torch.Tensor]:
    """A model's answer, by the names that it has in a graph."""
    clip = {OUTPUT_NAME: logits.clip}
    return clip if logits.frames is None else clip | {FRAMES_NAME: logits.frames}


class _Flat(torch.nn.Module):
    """A model whose answer is a plain tuple: graphs know nothing else."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, heard: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(named_outputs(self._model(heard)).values())


def refuse_training_mode(graph: onnx.ModelProto, path: Path) -> None:
    """Refuse a graph whose answer depends on the batch or on chance.

    Raises:
        ParityError: a BatchNormalization or Dropout node is in training mode.
    """
    for node in graph.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "BatchNormalization" and attributes.get("training_mode", 0):
            raise ParityError(
                path, f"BatchNorm {node.name!r} is in training mode", "call model.eval() before exporting"
            )
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            raise ParityError(path, f"Dropout {node.name!r} is in training mode", "call model.eval() before exporting")


def _simplified(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded and shape arithmetic taken out, which also gives every tensor its name and shape."""
    import onnxslim

    slim: onnx.ModelProto = onnxslim.slim(graph)
    return slim


class _quiet_exporter(warnings.catch_warnings):
    """The exporter warns about its own insides; none of it is for the user to mend."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
