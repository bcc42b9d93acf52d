"""OpenVINO on the CPU, one thread a call: fp32, bf16 where the processor has it, INT8 graphs.

Every lane has an infer request of its own; all share one set of weights.
"""

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.engines.onnxruntime import check_outputs
from birdinfer.engines.protocol import EnginePlan, GraphFacts, run_in_batches
from birdinfer.errors import BundleError, ConfigError, MissingExtraError

Float32 = npt.NDArray[np.float32]

_PRECISION_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """A graph in OpenVINO."""

    def __init__(self, path: Path, outputs: Sequence[str], sample_shape: tuple[int, ...], plan: EnginePlan) -> None:
        """Load a graph; see :func:`birdinfer.engines.load_engine`."""
        core = _core()
        if plan.spec.precision == "bf16" and not has_bf16():
            raise ConfigError("--engine", f"{plan.spec}: this processor has no bf16", "choose openvino:fp32, or auto")
        try:
            model = core.read_model(path)
            self.facts = _facts(model)
            check_outputs(path, self.facts, outputs)
            self._batch_size = self.facts.input_shape[0] or plan.batch_size
            # A fixed shape lets OpenVINO plan its memory and kernels: eca_nfnet_l0 runs 14.5 windows/s, free 11.3.
            model.reshape([self._batch_size, *sample_shape])
            self._compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_NUM_THREADS": plan.lanes,
                    "NUM_STREAMS": plan.lanes,
                    # Said outright: by default bf16 is taken wherever the processor has it.
                    "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[plan.spec.precision],
                },
            )
        except RuntimeError as error:
            raise BundleError(path, f"cannot be loaded by OpenVINO ({error})", "export it again") from error
        self._outputs = {name: list(self.facts.outputs).index(name) for name in outputs}
        self._lane = threading.local()

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Outputs by name, each [windows, ...], of a batch [windows, ...]."""
        return run_in_batches(self._run, batch, self._batch_size, fixed=True)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        if not hasattr(self._lane, "request"):
            self._lane.request = self._compiled.create_infer_request()
        result = self._lane.request.infer([batch], share_inputs=True, share_outputs=True)
        # A copy, for the request's next call writes to the same place.
        return {name: np.array(result[index], np.float32) for name, index in self._outputs.items()}


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor without emulating it.

    Raises:
        MissingExtraError: openvino is not installed.
    """
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _facts(model: Any) -> GraphFacts:
    # OpenVINO keeps a graph's metadata_props under its run-time information.
    metadata = {}
    if model.has_rt_info(["framework"]):
        metadata = {key: str(value) for key, value in model.get_rt_info(["framework"]).value.items()}
    graph_input = model.input(0)
    return GraphFacts(
        graph_input.any_name,
        _sizes(graph_input),
        {output.any_name: _sizes(output) for output in model.outputs},
        metadata,
    )


def _sizes(port: Any) -> tuple[int | None, ...]:
    return tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())


@functools.cache
def _core() -> Any:
    """One for the whole process, never let go: a Core that dies unloads its plugins under whoever still uses them."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino.Core()
