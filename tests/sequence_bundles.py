"""A head over windows that can be computed by hand: the mean over a sequence beside each window, site and hour."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from birdinfer.inference.activation import sigmoid
from birdinfer.inference.bundle import Bundle, file_sha256, save_manifest
from birdinfer.inference.manifest import Graph, Outputs, SequenceHead
from birdinfer.inference.sequence import spans

N_WINDOWS, SITE = 6, "plot7"


def weights(n_labels: int, n_numbers: int = 32) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.3, (n_numbers + 2, n_labels)).astype(np.float32)


def add_sequence_head(folder: Path, n_numbers: int = 32) -> Path:
    """Let a bundle of one linear member score by a head: (window + mean of its sequence) @ weights."""
    loaded = Bundle.load(folder)
    n_labels = len(loaded.labels)
    nodes = [
        helper.make_node("ReduceMean", ["windows", "axes"], ["mean"], keepdims=1),
        helper.make_node("Add", ["windows", "mean"], ["both"]),
        helper.make_node("MatMul", ["both", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "sequence",
        [helper.make_tensor_value_info("windows", TensorProto.FLOAT, [1, N_WINDOWS, n_numbers + 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, N_WINDOWS, n_labels])],
        [numpy_helper.from_array(np.array([1]), "axes"), numpy_helper.from_array(weights(n_labels), "weights")],
    )  # fmt: skip
    path = folder / "sequence.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    encoder = onnx.load(folder / "fold0.onnx")
    encoder.graph.output.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["batch", n_numbers]))
    onnx.save(encoder, folder / "fold0.onnx")
    head = SequenceHead(
        graph=Graph(path.name, file_sha256(path)), n_windows=N_WINDOWS, n_numbers=n_numbers, sites=(SITE,)
    )
    (member,) = loaded.manifest.members
    member = msgspec.structs.replace(
        member, graphs={"fp32": Graph("fold0.onnx", file_sha256(folder / "fold0.onnx"))},
        outputs=Outputs(clip=None, embedding="scaled"), sequence=head,
    )  # fmt: skip
    save_manifest(folder, msgspec.structs.replace(loaded.manifest, members=(member,)))
    return folder


def neighbours_of(embeddings: np.ndarray, site: float, hours: list[int], n_labels: int = 4) -> np.ndarray:
    """What the head gives for the windows of a file that has a sequence at least."""
    rows = np.column_stack([embeddings, np.full(len(embeddings), site), hours]).astype(np.float32)
    found = np.zeros((len(rows), n_labels), np.float32)
    for span in spans(len(rows), N_WINDOWS):
        sequence = rows[span.start : span.start + N_WINDOWS]
        found[span.begin : span.end] = (rows[span.begin : span.end] + sequence.mean(axis=0)) @ weights(n_labels)
    return sigmoid(found)
