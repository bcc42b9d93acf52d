"""Model -> the faster of the graphs that PyTorch's two exporters make of it, each held against the model first.

Neither exporter is always the faster one, and each has networks that it cannot trace or traces wrongly: one that fails
costs the export nothing while the other works. Recurrent networks are traced by the older exporter alone: the newer one
takes 10 to 30 s to unroll their shapes, the older one less than one, for a graph of the same recurrent nodes.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.config import Hearing
from birdinfer.engines import EnginePlan
from birdinfer.errors import MissingExtraError, ParityError
from birdinfer.export.graphs.onnx import Exporter, export_graph
from birdinfer.export.graphs.parity import check_parity
from birdinfer.throughput import compare_speed

Float32 = npt.NDArray[np.float32]

DEFAULT: Exporter = "dynamo"
"""The one that PyTorch keeps: a graph of the other has to earn its place."""

GAIN_TO_CHANGE = 1.03
"""How much faster that is; less than this, two measurements of one graph may lie apart."""

BATCH_SIZE = 3
"""Windows a call; fp32 graphs are fastest with 1 to 4."""

N_ROUNDS = 7
TURN_SECONDS = 0.3
"""How often and how long each graph is measured: 4 s in all."""

_TOGETHER: tuple[tuple[Exporter, ...], ...] = (("dynamo", "torchscript"),)
_IN_TURN: tuple[tuple[Exporter, ...], ...] = (("torchscript",), ("dynamo",))


@dataclass(frozen=True)
class Exported:
    """The graph that was kept, and what became of the other."""

    outputs: tuple[str, ...]
    """Names of the graph's outputs."""
    exporter: Exporter
    """Which made it."""
    max_probability_difference: float
    """Largest |p_onnx - p_torch|, as :func:`~birdinfer.export.graphs.parity.check_parity` found it."""
    windows_per_second: Mapping[Exporter, float]
    """Of each graph that was measured, ONNX Runtime, one thread; empty where there was no choice."""
    failures: Mapping[Exporter, str]
    """Exporters that made no graph, or one that answers otherwise, and what went wrong."""

    def summary(self) -> str:
        """One line: which exporter, by what, and which failed."""
        speeds = ", ".join(f"{name} {speed:.1f} windows/s" for name, speed in self.windows_per_second.items())
        failed = "; ".join(f"{name} failed: {why}" for name, why in self.failures.items())
        return "; ".join(part for part in (f"exported by {self.exporter}", speeds, failed) if part)


@dataclass(frozen=True)
class _Candidate:
    path: Path
    outputs: tuple[str, ...]
    difference: float


def export_faster(
    model: torch.nn.Module,
    hearing: Hearing,
    path: Path,
    metadata: dict[str, str],
    heard: Float32,
    engines: Sequence[str] = ("onnxruntime",),
    activation: str = "sigmoid",
) -> Exported:
    """Export with both exporters, compare each graph with the model, measure them, keep the faster one.

    Args:
        model: answers with :class:`~birdinfer.training.logits.Logits`; in evaluation mode, on the CPU.
        hearing: what it takes.
        path: where to; its folder exists.
        metadata: stored in the graph.
        heard: real windows [windows, ...], from :func:`~birdinfer.export.graphs.parity.real_windows`.
        engines: each graph is compared with the model in these.
        activation: what makes the logits into probabilities, ``sigmoid`` or ``softmax``.

    Raises:
        ParityError: no exporter makes a graph that answers as the model does; nothing is written.
        MissingExtraError: an engine is not installed.
    """
    failures: dict[Exporter, str] = {}
    with tempfile.TemporaryDirectory(prefix=".exporters.", dir=path.parent) as folder:
        for exporters in _IN_TURN if is_recurrent(model) else _TOGETHER:
            candidates: dict[Exporter, _Candidate] = {}
            for exporter in exporters:
                try:
                    graph = Path(folder) / f"{exporter}.onnx"
                    outputs = export_graph(model, hearing, graph, metadata, exporter)
                    difference = check_parity(model, graph, heard, engines, activation)
                    candidates[exporter] = _Candidate(graph, outputs, difference)
                except (OSError, MissingExtraError):  # no exporter's fault
                    raise
                except Exception as error:  # what exporters raise has no base of its own
                    failures[exporter] = _in_short(error)
            if candidates:
                return _keep_faster(candidates, path, heard, failures)
    what = "; ".join(f"{name}: {why}" for name, why in failures.items())
    raise ParityError(path, f"no exporter makes a graph that answers as the model does ({what})", "nothing was written")


def is_recurrent(model: torch.nn.Module) -> bool:
    """Whether it has GRU, LSTM or plain recurrent layers."""
    return any(isinstance(module, torch.nn.RNNBase) for module in model.modules())


def faster(windows_per_second: Mapping[Exporter, float]) -> Exporter:
    """The exporter whose graph is kept: the default one, unless another's is more than 3 % faster."""
    best = max(windows_per_second, key=lambda exporter: windows_per_second[exporter])
    default = windows_per_second.get(DEFAULT)
    return best if default is None or windows_per_second[best] > GAIN_TO_CHANGE * default else DEFAULT


def _keep_faster(
    candidates: dict[Exporter, _Candidate], path: Path, heard: Float32, failures: dict[Exporter, str]
) -> Exported:
    speeds: dict[Exporter, float] = {}
    if len(candidates) > 1:
        plan = EnginePlan(batch_size=BATCH_SIZE)
        graphs = [(candidate.path, plan) for candidate in candidates.values()]
        outputs = next(iter(candidates.values())).outputs
        speeds = dict(zip(candidates, compare_speed(graphs, outputs, heard, N_ROUNDS, TURN_SECONDS), strict=True))
    chosen = faster(speeds) if speeds else next(iter(candidates))
    kept = candidates[chosen]
    kept.path.replace(path)
    return Exported(kept.outputs, chosen, kept.difference, speeds, failures)


def _in_short(error: Exception) -> str:
    """The first line of what can be pages."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
