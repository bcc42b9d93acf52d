"""ONNX Runtime on the CPU, one thread a call: fp32 and INT8 graphs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.engines.protocol import GraphFacts, run_in_batches
from birdinfer.errors import BundleError, MissingExtraError

Float32 = npt.NDArray[np.float32]


class OnnxRuntimeEngine:
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path, outputs: Sequence[str], batch_size: int) -> None:
        """Load a graph; see :func:`birdinfer.engines.load_engine`."""
        self._session = open_session(path, ["CPUExecutionProvider"])
        self.facts = read_facts(self._session)
        check_outputs(path, self.facts, outputs)
        self._outputs = list(outputs)
        fixed = self.facts.input_shape[0]
        self._is_fixed, self._batch_size = fixed is not None, fixed or batch_size

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Outputs by name, each [windows, ...], of a batch [windows, ...]."""
        return run_in_batches(self._run, batch, self._batch_size, fixed=self._is_fixed)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        found = self._session.run(self._outputs, {self.facts.input_name: batch})
        return {name: np.asarray(output, np.float32) for name, output in zip(self._outputs, found, strict=True)}


def open_session(path: Path, providers: Sequence[object]) -> Any:
    """A session of one thread on these providers.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        BundleError: the graph cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu") from error
    options = onnxruntime.SessionOptions()
    # Parallelism comes from the lanes: a pool of threads per session would fight over the same cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own exception classes share no base but Exception
        raise BundleError(path, f"cannot be loaded by ONNX Runtime ({error})", "export it again") from error


def read_facts(session: Any) -> GraphFacts:
    """What a session's graph says of itself."""
    (first, *_) = session.get_inputs()
    return GraphFacts(
        first.name,
        _sizes(first.shape),
        {output.name: _sizes(output.shape) for output in session.get_outputs()},
        dict(session.get_modelmeta().custom_metadata_map),
    )


def check_outputs(path: Path, facts: GraphFacts, wanted: Sequence[str]) -> None:
    """Refuse a graph that lacks an output.

    Raises:
        BundleError: it does.
    """
    for name in wanted:
        if name not in facts.outputs:
            raise BundleError(path, f"has no output {name!r}, it has {', '.join(facts.outputs)}", "export it again")


def _sizes(shape: Sequence[object]) -> tuple[int | None, ...]:
    """Names of free axes become None."""
    return tuple(size if isinstance(size, int) else None for size in shape)
