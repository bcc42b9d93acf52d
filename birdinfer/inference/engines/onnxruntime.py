"""ONNX Runtime on the CPU, one thread a call: fp32 and INT8 graphs."""

import contextlib
import ctypes
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from birdinfer.errors import BundleError, MissingExtraError
from birdinfer.inference.engines.base import GraphFacts, run_in_batches
from birdinfer.inference.onnx_files import other_kind
from birdinfer.inference.weights_in_place import FOLDER_KEY, name_places
from birdinfer.system.cpu import has_vnni
from birdinfer.typing import Float32

_OTHER_DOMAIN = re.compile(r"error: (\S+?)(?:\(-?\d+\))? is not a registered function/op")
_NO_GRAPH = re.compile(r"INVALID_PROTOBUF")
_MADE_BY_A_NEWER_ONNX = re.compile(r"Unsupported model IR version|Opset \d+ is under development")


class OnnxRuntimeEngine:
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path, outputs: Sequence[str], batch_size: int, content: bytes | None = None) -> None:
        self._session = open_session(path, ["CPUExecutionProvider"], content)
        self.facts = read_facts(self._session)
        check_outputs(path, self.facts, outputs)
        self._outputs = list(outputs)
        fixed = self.facts.input_shape[0]
        self._is_fixed, self._batch_size = fixed is not None, fixed or batch_size

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Compute the outputs by name, each [windows, ...], of a batch [windows, ...]."""
        return run_in_batches(self._run, batch, self._batch_size, fixed=self._is_fixed)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        outputs = self._session.run(self._outputs, {self.facts.input_name: batch})
        return {name: np.asarray(output, np.float32) for name, output in zip(self._outputs, outputs, strict=True)}


def open_session(path: Path, providers: Sequence[object], content: bytes | None = None) -> Any:
    """Open a session of one thread on these providers; raises MissingExtraError, BundleError for a bad graph.

    ``content``: the graph, if it is not that of the file as it is.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu") from error
    options = onnxruntime.SessionOptions()
    # The worker threads already use all cores: a thread pool per session would compete with them.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if not has_vnni():
        # There an x86 adds two products of 8 bits in 16, which overflow with S8 weights beyond 64 (a graph of dynamic
        # INT8 scores half of what it should). Such weights become U8, whose kernels are exact.
        # Not with VNNI: these kernels take twice as long, and nothing overflows.
        options.add_session_config_entry("session.x64quantprecision", "1")
    # Nothing below a fatal error on the screen: it raises the same text, which becomes one line.
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)
    try:
        session = (content is None and _open_in_place(path, options, providers)) or onnxruntime.InferenceSession(
            content or str(path), options, providers=providers
        )
    except Exception as error:  # onnxruntime's own exception classes share no base but Exception
        raise BundleError(path, *_why_not(path, error)) from error
    _trim_memory()
    return session


def _open_in_place(path: Path, options: Any, providers: Sequence[object]) -> Any | None:
    """Open a session that reads large weights in the graph's file; None where the graph has few, or that fails."""
    import onnxruntime

    path = path.resolve()  # weights beyond a link are refused
    light = name_places(path)
    if light is None:
        return None
    options.add_session_config_entry(FOLDER_KEY, str(path.parent))
    with contextlib.suppress(Exception):  # of a graph that cannot be loaded at all: opened as it is, it is said why
        return onnxruntime.InferenceSession(light, options, providers=providers)
    return None


def _trim_memory() -> None:
    """Let glibc give back what loading a graph took: as much again as its weights, which it would keep for later."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another libc, or Windows
        ctypes.CDLL(None).malloc_trim(0)


def _why_not(path: Path, error: Exception) -> tuple[str, str]:
    """Why ONNX Runtime refuses a graph, and what to do."""
    import onnxruntime

    if other := other_kind(path):
        return other
    if _MADE_BY_A_NEWER_ONNX.search(str(error)):
        hint = "pip install -U onnxruntime, or export it for an older opset"
        return f"is newer than this ONNX Runtime ({onnxruntime.__version__})", hint
    if found := _OTHER_DOMAIN.search(str(error)):
        return f"has an operator that ONNX Runtime does not know ({found[1]})", "export it with ONNX's own operators"
    if _NO_GRAPH.search(str(error)):
        return "cannot be loaded by ONNX Runtime: it is damaged, or no ONNX graph", "copy or download it again"
    return f"cannot be loaded by ONNX Runtime ({error})", "export it again"


def run_for(session: Any, inputs: Mapping[str, Float32], seconds: float) -> list[Any]:
    """Run a session on inputs, by name; TimeoutError if it takes longer, and what it raises."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        outputs: list[Any] = session.run(None, dict(inputs), options)
        return outputs
    except Exception as error:  # onnxruntime's own exception classes share no base but Exception
        if timer.is_alive():
            raise
        raise TimeoutError(str(error)) from error
    finally:
        timer.cancel()


def read_facts(session: Any) -> GraphFacts:
    """Read the first input, outputs and metadata of a session's graph; a graph without input has one without name."""
    name, shape = next(((each.name, each.shape) for each in session.get_inputs()), ("", ()))
    return GraphFacts(
        name,
        _sizes(shape),
        {output.name: _sizes(output.shape) for output in session.get_outputs()},
        dict(session.get_modelmeta().custom_metadata_map),
    )


def check_outputs(path: Path, facts: GraphFacts, names: Sequence[str]) -> None:
    """Raise BundleError for a graph that takes no batch, or lacks an output."""
    if not facts.input_shape:
        raise BundleError(path, "takes no batch of windows", "export it again")
    for name in names:
        if name not in facts.outputs:
            raise BundleError(path, f"has no output {name!r}, it has {', '.join(facts.outputs)}", "export it again")


def _sizes(shape: Sequence[object]) -> tuple[int | None, ...]:
    """Sizes of the axes; the name of a free axis becomes None."""
    return tuple(size if isinstance(size, int) else None for size in shape)
