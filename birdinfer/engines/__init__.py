"""Engines run a graph: log-mel in, logits out. One Protocol, one small file an engine."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError

Float32 = npt.NDArray[np.float32]

ENGINES = ("onnxruntime", "openvino")


class Engine(Protocol):
    """A loaded graph. Threads may share it: a lane per core calls :meth:`run`, and each call uses one thread."""

    labels_sha256: str
    """Digest of the labels that the graph was exported with ("" in a graph that does not say)."""
    n_labels: int | None
    """Width of the output; None where the graph leaves it open."""

    def run(self, log_mel: Float32) -> Float32:
        """Logits [batch, species] of a batch [batch, 1, n_mels, frames]."""
        ...


def load_engine(name: str, path: Path) -> Engine:
    """Load a graph with an engine by name.

    Raises:
        ConfigError: no engine has that name.
        MissingExtraError: the engine's package is not installed.
        BundleError: the graph cannot be loaded.
    """
    if name == "onnxruntime":
        from birdinfer.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path)
    if name == "openvino":
        from birdinfer.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(path)
    raise ConfigError("--engine", f"{name!r} is not an engine", f"choose one of {', '.join(ENGINES)}")
