"""The engine protocol: a batch of log-mel or waveform windows in, named outputs out; and the plan that selects one.

An :class:`EngineSpec` names an engine and its precision, an :class:`EnginePlan` adds the number of workers and the
batch size. The fastest plan depends on machine and network: :mod:`birdinfer.inference.autotune` measures it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, get_args

import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.inference.manifest import Precision
from birdinfer.typing import Float32

SUPPORTED: dict[str, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "cuda": ("fp32", "fp16"),
}
"""Engine -> precisions, the default first. ``cuda`` is ONNX Runtime on an NVIDIA GPU (extra ``gpu``)."""

FROM_FP32_GRAPHS: tuple[Precision, ...] = ("fp32", "bf16")
"""Precisions that an engine computes from an fp32 graph; each of the others needs a graph of its own."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine and the precision it computes in."""

    engine: str = "onnxruntime"
    precision: Precision = "fp32"

    def __str__(self) -> str:
        return f"{self.engine}:{self.precision}"


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """How graphs are run on this machine."""

    spec: EngineSpec = EngineSpec()
    workers: int = 1
    """Threads that call :meth:`Engine.run`, each call on one core."""
    batch_size: int = 1
    """Windows in one call of a graph."""

    def __str__(self) -> str:
        workers = f"{self.workers} worker" + ("s" if self.workers > 1 else "")
        return f"{self.spec}, {workers}, batch {self.batch_size}"


class GraphFacts(NamedTuple):
    """A graph's input, outputs and metadata; None stands for a size that the graph leaves open."""

    input_name: str
    input_shape: tuple[int | None, ...]
    outputs: dict[str, tuple[int | None, ...]]
    """By name, in the graph's order."""
    metadata: dict[str, str]


class Engine(Protocol):
    """A loaded graph, shared by threads: a worker per core calls :meth:`run`, and each call uses one thread."""

    facts: GraphFacts

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Compute the outputs by name, each [windows, ...], of a batch [windows, ...] of any length."""
        ...


def parse_spec(text: str) -> EngineSpec:
    """Parse ``"openvino:bf16"`` (without a precision: fp32); ConfigError for an unknown engine or precision.

    >>> parse_spec("openvino")
    EngineSpec(engine='openvino', precision='fp32')
    """
    engine, _, wanted = text.partition(":")
    if engine not in SUPPORTED:
        raise ConfigError("--engine", f"{engine!r} is not an engine", f"choose one of {', '.join(SUPPORTED)}")
    known = SUPPORTED[engine]
    for precision in get_args(Precision):
        if precision == (wanted or known[0]) and precision in known:
            return EngineSpec(engine, precision)
    raise ConfigError("--engine", f"{engine} does not compute in {wanted!r}", f"choose one of {', '.join(known)}")


def run_in_batches(
    run: Callable[[Float32], dict[str, Float32]], windows: Float32, batch_size: int, *, fixed: bool
) -> dict[str, Float32]:
    """Run windows batch by batch and concatenate the outputs.

    ``run``: one batch [at most batch_size, ...] -> outputs by name.
    ``fixed``: every call must have exactly that many: the last is filled with zeros, whose outputs are dropped.
    Returns outputs by name [windows, ...].
    """
    parts = []
    for begin in range(0, len(windows), batch_size):
        batch = windows[begin : begin + batch_size]
        n_real = len(batch)
        if fixed and n_real < batch_size:
            batch = np.concatenate([batch, np.zeros((batch_size - n_real, *batch.shape[1:]), np.float32)])
        parts.append({name: output[:n_real] for name, output in run(batch).items()})
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
