"""Read ONNX files, and raise them to a common opset: what is needed before two graphs can be one."""

from pathlib import Path

import onnx.inliner
import onnx.version_converter

import onnx
from birdinfer.errors import BundleError


def read_graph(path: Path) -> onnx.ModelProto:
    """Read a graph and inline its local functions, whose names would have to differ as well; raises BundleError."""
    try:
        return onnx.inliner.inline_local_functions(onnx.load(path))
    except Exception as error:  # protobuf's and onnx's own kinds share no base
        raise BundleError(path, f"cannot be read as an ONNX graph ({error})", "export it again") from error


def opset_of(proto: onnx.ModelProto) -> int:
    """Return a graph's version of ONNX's own operators."""
    return max((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), default=1)


def raised_to(proto: onnx.ModelProto, opset: int, path: Path, hint: str = "") -> onnx.ModelProto:
    """Convert a graph to an opset; BundleError where that is not possible. ``hint``: what to do then."""
    if opset_of(proto) == opset:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, opset)
    except RuntimeError as error:
        raise BundleError(path, f"cannot be raised from opset {opset_of(proto)} to {opset} ({error})", hint) from error
