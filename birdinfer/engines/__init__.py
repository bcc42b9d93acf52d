"""Engines run a graph: one Protocol (``protocol.py``), one small file an engine, and here what loads them by plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from birdinfer.engines.protocol import (
    FROM_FP32_GRAPHS,
    SUPPORTED,
    Engine,
    EnginePlan,
    EngineSpec,
    GraphFacts,
    parse_spec,
    run_in_batches,
)

__all__ = [
    "FROM_FP32_GRAPHS",
    "SUPPORTED",
    "Engine",
    "EnginePlan",
    "EngineSpec",
    "GraphFacts",
    "GraphWanted",
    "LoadedGraph",
    "load_engine",
    "load_together",
    "parse_spec",
    "run_in_batches",
]


class GraphWanted(NamedTuple):
    """A graph to load."""

    path: Path
    outputs: tuple[str, ...]
    """Those wanted of it."""
    sample_shape: tuple[int, ...]
    """Shape of one window: (1, n_mels, frames), (samples,) or (1, samples)."""


class LoadedGraph(NamedTuple):
    """A graph, and the engine that runs it, perhaps with others."""

    engine: Engine
    facts: GraphFacts
    output_names: dict[str, str]
    """Name of an output in the graph -> its name in what the engine returns."""


def load_engine(plan: EnginePlan, path: Path, outputs: Sequence[str], sample_shape: tuple[int, ...]) -> Engine:
    """Load a graph.

    Args:
        plan: engine, precision, lanes and batch size.
        path: the ONNX file; for ``int8`` and ``fp16`` one of that precision, else of fp32.
        outputs: those wanted of it.
        sample_shape: shape of one window, as in :class:`GraphWanted`.

    Raises:
        MissingExtraError: the engine's package is not installed.
        ConfigError: this machine cannot run it: no GPU, or no bf16.
        BundleError: the graph cannot be loaded, or lacks an output.
    """
    if plan.spec.engine == "openvino":
        from birdinfer.engines.openvino import OpenVinoEngine

        return OpenVinoEngine([(path, outputs)], sample_shape, plan)
    if plan.spec.engine == "cuda":
        from birdinfer.engines.cuda import CudaEngine
        from birdinfer.engines.sharing import SharedBatches

        return SharedBatches(CudaEngine(path, outputs, sample_shape, plan.batch_size), plan.batch_size)
    from birdinfer.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, outputs, plan.batch_size)


def load_together(plan: EnginePlan, wanted: Sequence[GraphWanted]) -> list[LoadedGraph]:
    """Load graphs that take the same input: OpenVINO runs them as one, the others one by one.

    A file that is wanted several times (all folds of an ensemble in one graph) is loaded once and runs once.

    Raises:
        BirdinferError: as :func:`load_engine`.
    """
    files = _by_file(wanted)
    if plan.spec.engine == "openvino" and len(files) > 1:
        from birdinfer.engines.openvino import OpenVinoEngine

        engine = OpenVinoEngine(list(files.items()), wanted[0].sample_shape, plan)
        if len({facts.input_shape[0] for facts in engine.facts_of_each}) == 1:
            index_of = {path: index for index, path in enumerate(files)}
            return [
                LoadedGraph(
                    engine,
                    engine.facts_of_each[index_of[graph.path]],
                    {name: f"{index_of[graph.path]}/{name}" for name in graph.outputs},
                )
                for graph in wanted
            ]
    engines = {path: load_engine(plan, path, outputs, wanted[0].sample_shape) for path, outputs in files.items()}
    return [
        LoadedGraph(engines[graph.path], engines[graph.path].facts, {name: name for name in graph.outputs})
        for graph in wanted
    ]


def _by_file(wanted: Sequence[GraphWanted]) -> dict[Path, tuple[str, ...]]:
    """Each file once, in the order in which they are wanted, and all that is wanted of it."""
    files: dict[Path, tuple[str, ...]] = {}
    for path, outputs, _ in wanted:
        # dict.fromkeys: two members may read one output, each with its own columns.
        files[path] = tuple(dict.fromkeys((*files.get(path, ()), *outputs)))
    return files
