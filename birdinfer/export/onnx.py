"""Model -> ONNX graph: log-mel [batch, 1, n_mels, frames] in, logits [batch, species] out, any batch size.

The dynamo exporter is taken: the older one gives graphs of equal speed and leaves PyTorch soon.
"""

import logging
import warnings
from pathlib import Path

import torch

import onnx
from birdinfer.errors import ParityError

OPSET = 18
"""Read by every ONNX Runtime since 1.14 and OpenVINO since 2023.0."""

INPUT_NAME = "log_mel"
OUTPUT_NAME = "logits"


def export_graph(model: torch.nn.Module, shape: tuple[int, int], path: Path, metadata: dict[str, str]) -> None:
    """Write a model's graph, simplified and checked.

    Args:
        model: in evaluation mode, on the CPU.
        shape: (n_mels, frames) of one window.
        path: where to.
        metadata: stored in the graph under ``metadata_props``.

    Raises:
        ParityError: the graph would normalise with the statistics of a batch, as in training.
    """
    # Two windows: a batch of one is taken for a constant by exporters.
    example = torch.zeros(2, 1, *shape)
    # no_grad, not inference_mode: tensors born in inference mode cannot be traced by every exporter.
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None
    graph = _simplified(program.model_proto)
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph, full_check=True)
    refuse_training_mode(graph, path)
    onnx.save(graph, path)


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
