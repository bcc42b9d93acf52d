"""ONNX Runtime on an NVIDIA GPU: fp32 and fp16 graphs, inputs and outputs bound to the device.

:class:`CudaEngine` takes one call at a time and copies its batch into one buffer that stays on the device.
:class:`SharedBatches` lets many worker threads share it: windows that workers bring while the device is busy become its
next batch.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from birdinfer.errors import ConfigError, MissingExtraError
from birdinfer.inference.engines.base import Engine, run_in_batches
from birdinfer.inference.engines.onnxruntime import check_outputs, open_session, read_facts
from birdinfer.typing import Float32

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class CudaEngine:
    """A graph on a device. Not for several threads at once."""

    def __init__(
        self, path: Path, outputs: Sequence[str], sample_shape: tuple[int, ...], batch_size: int, device: str = "cuda"
    ) -> None:
        """Load a graph, see :func:`birdinfer.inference.engines.load_engine`; the device ``cpu`` is for tests."""
        import onnxruntime

        provider = _PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise MissingExtraError("onnxruntime with CUDA", "gpu")
        self._session = open_session(path, [provider])
        if provider not in self._session.get_providers():
            # ONNX Runtime itself continues on the CPU, a hundred times slower, and only warns.
            raise ConfigError(
                "--engine", "cuda: no usable NVIDIA GPU, driver or CUDA library", "birdinfer doctor shows what is there"
            )
        self.facts = read_facts(self._session)
        check_outputs(path, self.facts, outputs)
        self._outputs, self._device = list(outputs), device
        self._batch_size = self.facts.input_shape[0] or batch_size
        kind = self._session.get_inputs()[0].type
        self._dtype = np.dtype(np.float16) if kind == "tensor(float16)" else np.dtype(np.float32)
        # Full batches of one shape only: cuDNN searches its fastest algorithm again for every other.
        self._buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [self._batch_size, *sample_shape], self._dtype, device, 0
        )
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self.facts.input_name, self._buffer)

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Compute the outputs by name, each [windows, ...], of a batch [windows, ...]."""
        return run_in_batches(self._run, batch, self._batch_size, fixed=True)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        self._buffer.update_inplace(np.ascontiguousarray(batch, self._dtype))
        for name in self._outputs:
            self._binding.bind_output(name, self._device)
        self._session.run_with_iobinding(self._binding)
        outputs = self._binding.copy_outputs_to_cpu()
        return {name: np.asarray(output, np.float32) for name, output in zip(self._outputs, outputs, strict=True)}


def has_cuda() -> bool:
    """Whether the installed onnxruntime was built for CUDA; whether it finds a GPU shows when it is used."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return _PROVIDERS["cuda"] in onnxruntime.get_available_providers()


def find_gpu() -> str:
    """Ask the NVIDIA driver for a GPU; return why there is none, "" if there is one."""
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


@dataclass(slots=True, eq=False)
class _Request:
    windows: Float32
    is_done: bool = False
    outputs: dict[str, Float32] = field(default_factory=dict)
    error: BaseException | None = None


class SharedBatches:
    """An engine that collects the calls of many threads into batches."""

    def __init__(self, engine: Engine, batch_size: int) -> None:
        """Wrap an engine that takes one call at a time; a call larger than ``batch_size`` is passed on as it is."""
        self.facts = engine.facts
        self._engine, self._batch_size = engine, batch_size
        self._waiting: list[_Request] = []
        self._changed = threading.Condition()
        self._is_busy = False

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Compute the outputs by name, each [windows, ...], of a batch [windows, ...]; waits for the device."""
        request = _Request(batch)
        with self._changed:
            self._waiting.append(request)
        while (taken := self._wait(request)) is not None:
            self._serve(taken)
        if request.error is not None:
            raise request.error
        return request.outputs

    def _wait(self, request: _Request) -> list[_Request] | None:
        """None once the request is done; else, when the device is free, the requests that this thread is to run."""
        with self._changed:
            while self._is_busy and not request.is_done:
                self._changed.wait()
            if request.is_done:
                return None
            self._is_busy = True
            return self._take()

    def _take(self) -> list[_Request]:
        """The requests that waited longest, up to a batch; this thread's own may have to wait for the next one."""
        n_taken, n_windows = 0, 0
        for request in self._waiting:
            if n_taken and n_windows + len(request.windows) > self._batch_size:
                break
            n_taken, n_windows = n_taken + 1, n_windows + len(request.windows)
        taken, self._waiting = self._waiting[:n_taken], self._waiting[n_taken:]
        return taken

    def _serve(self, requests: list[_Request]) -> None:
        try:
            outputs = self._engine.run(np.concatenate([request.windows for request in requests]))
            begin = 0
            for request in requests:
                end = begin + len(request.windows)
                request.outputs = {name: output[begin:end] for name, output in outputs.items()}
                begin = end
        except BaseException as error:  # raised in the threads that wait
            if len(requests) > 1:  # one file's windows must not cost the others that share the batch
                for request in requests:
                    self._serve_alone(request)
            else:
                requests[0].error = error
        with self._changed:
            for request in requests:
                request.is_done = True
            self._is_busy = False
            self._changed.notify_all()

    def _serve_alone(self, request: _Request) -> None:
        try:
            request.outputs = self._engine.run(request.windows)
        except BaseException as error:
            request.error = error
