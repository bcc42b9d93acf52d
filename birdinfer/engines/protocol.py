"""What an engine is: a batch of log-mel or waveform in, named outputs out; and how one says which and how.

An :class:`EngineSpec` says which engine computes in which precision, an :class:`EnginePlan` adds how many lanes and how
large a batch. What is faster differs from machine to machine and from network to network: ``chooser.py`` measures it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError
from birdinfer.manifest import Precision

Float32 = npt.NDArray[np.float32]

SUPPORTED: dict[str, tuple[Precision, ...]] = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "cuda": ("fp32", "fp16"),
}
"""Engine -> precisions, the default first. ``cuda`` is ONNX Runtime on an NVIDIA GPU (extra ``gpu``)."""

FROM_FP32_GRAPHS: tuple[Precision, ...] = ("fp32", "bf16")
"""Precisions that an engine computes in from an fp32 graph; each of the others needs a graph of its own."""


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
    lanes: int = 1
    """Threads that call :meth:`Engine.run`, each call on one core."""
    batch_size: int = 1
    """Windows in one call of a graph."""

    def __str__(self) -> str:
        lanes = f"{self.lanes} lane" + ("s" if self.lanes > 1 else "")
        return f"{self.spec}, {lanes}, batch {self.batch_size}"


class GraphFacts(NamedTuple):
    """What a graph says of itself; None stands for a size that it leaves open."""

    input_name: str
    input_shape: tuple[int | None, ...]
    outputs: dict[str, tuple[int | None, ...]]
    """By name, in the graph's order."""
    metadata: dict[str, str]


class Engine(Protocol):
    """A loaded graph. Threads may share it: a lane per core calls :meth:`run`, and each call uses one thread."""

    facts: GraphFacts

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Outputs by name, each [windows, ...], of a batch [windows, ...] of any length."""
        ...


def parse_spec(text: str) -> EngineSpec:
    """``"openvino:bf16"`` -> its spec; without a precision, the engine's first, which is fp32.

    Raises:
        ConfigError: there is no such engine, or it does not compute in that precision.
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
    """Run windows batch by batch and put the outputs together.

    Args:
        run: one batch [at most batch_size, ...] -> outputs by name.
        windows: [windows, ...], any number of them.
        batch_size: the most in a call.
        fixed: every call must have just that many: the last is filled with zeros, whose outputs are dropped.

    Returns:
        Outputs by name [windows, ...].
    """
    pieces = []
    for begin in range(0, len(windows), batch_size):
        batch = windows[begin : begin + batch_size]
        n_real = len(batch)
        if fixed and n_real < batch_size:
            batch = np.concatenate([batch, np.zeros((batch_size - n_real, *batch.shape[1:]), np.float32)])
        pieces.append({name: output[:n_real] for name, output in run(batch).items()})
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
