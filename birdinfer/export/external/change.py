"""Read a graph, put its head behind it, make its inputs plain, and write it if that changed anything."""

import logging
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

import onnx
from birdinfer.export.external.chain import join_head
from birdinfer.export.external.inputs import make_plain
from birdinfer.system.files import write_atomic

# What it warns of is refused with one line where the graph is opened.
logging.getLogger("onnx_ir").setLevel(logging.ERROR)


def change_graph(graph: Path, new: Path, inputs: Mapping[str, str], head: Path | None) -> list[str]:
    """Write a changed graph, and return what was changed; nothing is written, and [] returned, if nothing had to be.

    Args:
        graph: the ONNX file, whose weights are in it.
        new: the file to write.
        inputs: values of inputs beside the sound, by name.
        head: an ONNX file that takes the embedding.

    Raises:
        InputNotFoundError: there is no such head.
        ConfigError, BundleError: see :func:`make_plain` and :func:`join_head`.
    """
    if head is not None:
        model, lines = join_head(graph, head), [f"scores of {head.name} on its embeddings"]
    else:
        try:
            model, lines = onnx.load(graph, load_external_data=False), []
        except Exception:  # of protobuf: whoever opens it says what it is
            return []
    changed = ir.from_proto(model)
    lines += make_plain(changed, graph, inputs)
    if lines:
        write_atomic(new, ir.to_proto(changed).SerializeToString())
    return lines
