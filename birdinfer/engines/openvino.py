"""OpenVINO: fp32 on the CPU, one thread a call; every lane has an infer request of its own."""

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.cores import available_cores
from birdinfer.errors import BundleError, MissingExtraError

Float32 = npt.NDArray[np.float32]


class OpenVinoEngine:
    """A graph in OpenVINO."""

    def __init__(self, path: Path) -> None:
        """Load a graph.

        Raises:
            MissingExtraError: openvino is not installed.
            BundleError: the graph cannot be loaded.
        """
        core, cores = _core(), available_cores()
        try:
            model = core.read_model(path)
            # bf16 would be taken by default where the processor has it; scores must not depend on the machine.
            self._compiled = core.compile_model(
                model,
                "CPU",
                {"INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": cores, "INFERENCE_PRECISION_HINT": "f32"},
            )
        except RuntimeError as error:
            raise BundleError(path, f"cannot be loaded by OpenVINO ({error})", "export it again") from error
        self._lane = threading.local()
        width = model.output(0).get_partial_shape()[-1]
        self.n_labels = width.get_length() if width.is_static else None
        # OpenVINO keeps a graph's metadata_props under its run-time information.
        place = ["framework", "labels_sha256"]
        self.labels_sha256 = str(model.get_rt_info(place).value) if model.has_rt_info(place) else ""

    def run(self, log_mel: Float32) -> Float32:
        """Logits [batch, species] of a batch [batch, 1, n_mels, frames]."""
        if not hasattr(self._lane, "request"):
            self._lane.request = self._compiled.create_infer_request()
        result = self._lane.request.infer([log_mel], share_inputs=True)
        return np.array(result[0], np.float32)


@functools.cache
def _core() -> Any:
    """One for the whole process, never let go: a Core that dies unloads its plugins under whoever still uses them."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino.Core()
