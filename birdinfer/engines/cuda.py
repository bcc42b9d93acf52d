"""ONNX Runtime on an NVIDIA GPU: fp32 and fp16 graphs, inputs and outputs bound to the device.

Copies go through I/O binding into one buffer that stays on the device. Calls come one at a time
(:class:`birdinfer.engines.sharing.SharedBatches` sees to it and forms the batches).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.engines.onnxruntime import check_outputs, open_session, read_facts
from birdinfer.engines.protocol import run_in_batches
from birdinfer.errors import ConfigError, MissingExtraError

Float32 = npt.NDArray[np.float32]

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class CudaEngine:
    """A graph on a device. Not for several threads at once."""

    def __init__(
        self, path: Path, outputs: Sequence[str], sample_shape: tuple[int, ...], batch_size: int, device: str = "cuda"
    ) -> None:
        """Load a graph; see :func:`birdinfer.engines.load_engine`.

        Args:
            path: the ONNX file.
            outputs: the outputs wanted.
            sample_shape: shape of one window.
            batch_size: windows in a call.
            device: ``cuda``; ``cpu`` goes the same way through binding, which tests use.
        """
        import onnxruntime

        provider = _PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise MissingExtraError("onnxruntime with CUDA", "gpu")
        self._session = open_session(path, [provider])
        if provider not in self._session.get_providers():
            # ONNX Runtime itself goes on with the CPU, a hundred times slower, and only warns.
            raise ConfigError(
                "--engine", "cuda: no usable NVIDIA GPU, driver or CUDA library", "birdinfer doctor shows what is there"
            )
        self.facts = read_facts(self._session)
        check_outputs(path, self.facts, outputs)
        self._outputs, self._device = list(outputs), device
        self._batch_size = self.facts.input_shape[0] or batch_size
        kind = self._session.get_inputs()[0].type
        self._dtype = np.dtype(np.float16) if kind == "tensor(float16)" else np.dtype(np.float32)
        # Full batches of one shape only: cuDNN searches its fastest algorithm anew for every other.
        self._buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [self._batch_size, *sample_shape], self._dtype, device, 0
        )
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self.facts.input_name, self._buffer)

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Outputs by name, each [windows, ...], of a batch [windows, ...]."""
        return run_in_batches(self._run, batch, self._batch_size, fixed=True)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        self._buffer.update_inplace(np.ascontiguousarray(batch, self._dtype))
        for name in self._outputs:
            self._binding.bind_output(name, self._device)
        self._session.run_with_iobinding(self._binding)
        found = self._binding.copy_outputs_to_cpu()
        return {name: np.asarray(output, np.float32) for name, output in zip(self._outputs, found, strict=True)}


def has_cuda() -> bool:
    """Whether the onnxruntime that is installed was built for CUDA; whether it finds a GPU shows when it is used."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return _PROVIDERS["cuda"] in onnxruntime.get_available_providers()


def find_gpu() -> str:
    """Why no GPU can be used by the CUDA build that is installed, "" if one can: the driver is asked, by name."""
    import ctypes
    import sys

    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "the NVIDIA driver is not installed"
    n_devices = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(n_devices)) != 0 or n_devices.value == 0:
        return "the NVIDIA driver finds no device"
    return ""
