"""ONNX Runtime: on the GPU where onnxruntime-gpu finds one, else on the CPU, one thread a call."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.errors import BundleError, MissingExtraError

Float32 = npt.NDArray[np.float32]


class OnnxRuntimeEngine:
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        """Load a graph.

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
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's own exception classes share no base but Exception
            raise BundleError(path, f"cannot be loaded by ONNX Runtime ({error})", "export it again") from error
        self._input = self._session.get_inputs()[0].name
        output = self._session.get_outputs()[0]
        self._output = output.name
        self.n_labels = output.shape[-1] if isinstance(output.shape[-1], int) else None
        self.labels_sha256 = self._session.get_modelmeta().custom_metadata_map.get("labels_sha256", "")

    def run(self, log_mel: Float32) -> Float32:
        """Logits [batch, species] of a batch [batch, 1, n_mels, frames]."""
        (logits,) = self._session.run([self._output], {self._input: log_mel})
        return np.asarray(logits, np.float32)
