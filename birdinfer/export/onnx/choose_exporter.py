"""Model -> the faster of the graphs that PyTorch's two exporters make of it, each compared with the model first.

Neither exporter always makes the faster graph, and each has networks that it cannot trace or traces wrongly; if one
fails, the other is used. Recurrent networks are exported by the older exporter alone: the newer one takes 10 to 30 s to
unroll their shapes, the older one less than one, for a graph of the same recurrent nodes.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from birdinfer.config import InputConfig
from birdinfer.errors import BirdinferError, MissingExtraError, ParityError
from birdinfer.export.onnx.torch_export import Exporter, check_parity, export_graph
from birdinfer.inference.engines import EnginePlan
from birdinfer.inference.engines.benchmark import compare_speed
from birdinfer.typing import Float32

DEFAULT: Exporter = "dynamo"  # the exporter that PyTorch will keep
GAIN_TO_CHANGE = 1.03  # how much faster the other's graph must be; two measurements of one graph may differ by as much
BATCH_SIZE = 3  # windows per call; fp32 graphs are fastest with 1 to 4
N_ROUNDS, TURN_SECONDS = 7, 0.3  # rounds, and seconds for each graph in a round: 4 s in all
_TOGETHER: tuple[tuple[Exporter, ...], ...] = (("dynamo", "torchscript"),)
_IN_TURN: tuple[tuple[Exporter, ...], ...] = (("torchscript",), ("dynamo",))


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """The graph that was kept, and what became of the other."""

    outputs: tuple[str, ...]  # names of the graph's outputs
    exporter: Exporter
    max_probability_difference: float  # largest |p_onnx - p_torch| that ``check_parity`` found
    windows_per_second: Mapping[Exporter, float]  # in ONNX Runtime with one thread; empty if there was no choice
    failures: Mapping[Exporter, str]  # of exporters that made no graph, or one with other outputs than the model

    def summary(self) -> str:
        """Describe on one line which exporter was used, the speeds, and which failed."""
        speeds = ", ".join(f"{name} {speed:.1f} windows/s" for name, speed in self.windows_per_second.items())
        failed = "; ".join(f"{name} failed: {why}" for name, why in self.failures.items())
        return "; ".join(part for part in (f"exported by {self.exporter}", speeds, failed) if part)


class _Candidate(NamedTuple):
    path: Path
    outputs: tuple[str, ...]
    difference: float


def export_faster(
    model: torch.nn.Module,
    input_config: InputConfig,
    path: Path,
    metadata: dict[str, str],
    *,
    inputs: Float32,
    engines: Sequence[str] = ("onnxruntime",),
    activation: str = "sigmoid",
    measure: bool = True,
) -> Exported:
    """Export with both exporters, compare each graph with the model, measure them, keep the faster one as ``path``.

    ``model`` returns :class:`~birdinfer.training.models.base.Logits`, in evaluation mode, on the CPU; ``metadata`` is
    stored in the graph. ``inputs`` are real windows [windows, ...], from
    :func:`~birdinfer.export.onnx.torch_export.real_windows`; graphs are compared in each of ``engines``. Raises
    ParityError if no exporter makes a graph that answers as the model does; nothing is written then. Without
    ``measure`` the first exporter that makes such a graph is used, so that equal models have equal graphs.
    """
    failures: dict[Exporter, str] = {}
    with tempfile.TemporaryDirectory(prefix=".exporters.", dir=path.parent) as folder:
        for exporters in _IN_TURN if is_recurrent(model) or not measure else _TOGETHER:
            candidates: dict[Exporter, _Candidate] = {}
            for exporter in exporters:
                try:
                    graph = Path(folder) / f"{exporter}.onnx"
                    outputs = export_graph(model, input_config, graph, metadata, exporter)
                    difference = check_parity(model, graph, inputs, engines, activation=activation)
                    candidates[exporter] = _Candidate(graph, outputs, difference)
                except (OSError, MissingExtraError):  # not the exporter's fault
                    raise
                except Exception as error:  # exporters' exceptions have no common base
                    # Of ours without the path of a passing file; of others the first line of a message of pages.
                    said = error.what if isinstance(error, BirdinferError) else str(error)
                    first_line = next(iter(said.strip().splitlines()), "")
                    failures[exporter] = f"{type(error).__name__}: {first_line[:200]}"
            if candidates:
                return _keep_faster(candidates, path, inputs, failures)
    what = "; ".join(f"{name}: {why}" for name, why in failures.items())
    raise ParityError(path, f"no exporter makes a graph that answers as the model does ({what})", "nothing was written")


def is_recurrent(model: torch.nn.Module) -> bool:
    """Whether a model has GRU, LSTM or plain recurrent layers."""
    return any(isinstance(module, torch.nn.RNNBase) for module in model.modules())


def faster(windows_per_second: Mapping[Exporter, float]) -> Exporter:
    """Choose the exporter whose graph is kept: the default one, unless the other's is more than 3 % faster.

    >>> faster({"dynamo": 100.0, "torchscript": 102.0}), faster({"dynamo": 100.0, "torchscript": 104.0})
    ('dynamo', 'torchscript')
    """
    best = max(windows_per_second, key=lambda exporter: windows_per_second[exporter])
    default = windows_per_second.get(DEFAULT)
    return best if default is None or windows_per_second[best] > GAIN_TO_CHANGE * default else DEFAULT


def _keep_faster(
    candidates: dict[Exporter, _Candidate], path: Path, inputs: Float32, failures: dict[Exporter, str]
) -> Exported:
    speeds: dict[Exporter, float] = {}
    if len(candidates) > 1:
        plan = EnginePlan(batch_size=BATCH_SIZE)
        graphs = [(candidate.path, plan) for candidate in candidates.values()]
        outputs = next(iter(candidates.values())).outputs
        speeds = dict(zip(candidates, compare_speed(graphs, outputs, inputs, N_ROUNDS, TURN_SECONDS), strict=True))
    chosen = faster(speeds) if speeds else next(iter(candidates))
    kept = candidates[chosen]
    kept.path.replace(path)
    return Exported(
        outputs=kept.outputs,
        exporter=chosen,
        max_probability_difference=kept.difference,
        windows_per_second=speeds,
        failures=failures,
    )
