"""Engines run ONNX graphs: a batch of log-mel or waveform windows in, named outputs out.

:mod:`~birdinfer.inference.engines.base` defines the :class:`Engine` protocol and the :class:`EnginePlan` (engine,
precision, workers, batch size); each engine is one small module, imported only when a plan names it; the functions here
load graphs by plan. A new engine is a module with a class that has ``facts`` and ``run``, an entry in
:data:`SUPPORTED`, and a branch in :func:`load_engine`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from birdinfer.inference.engines.base import (
    FROM_FP32_GRAPHS,
    SUPPORTED,
    Engine,
    EnginePlan,
    EngineSpec,
    GraphFacts,
    parse_spec,
    run_in_batches,
)
from birdinfer.inference.engines.batch_check import BatchCheckedEngine

__all__ = [
    "FROM_FP32_GRAPHS",
    "SUPPORTED",
    "Engine",
    "EnginePlan",
    "EngineSpec",
    "GraphFacts",
    "GraphRequest",
    "LoadedGraph",
    "load_engine",
    "load_engines",
    "parse_spec",
    "run_in_batches",
]


LABELS_KEY = "labels_sha256"
"""In the metadata of each graph that birdinfer exports."""


class GraphRequest(NamedTuple):
    """A graph to load."""

    path: Path
    outputs: tuple[str, ...]
    sample_shape: tuple[int, ...]
    """Shape of one window: (1, n_mels, frames), (samples,) or (1, samples)."""
    batch: Literal["any", "one"] | None = None
    """How many windows a call may have; None: not known, so it is tried."""
    content: bytes | None = None
    """The graph, if it is not that of the file as it is; for ONNX Runtime alone."""


class LoadedGraph(NamedTuple):
    """A graph, and the engine that runs it, perhaps together with others."""

    engine: Engine
    facts: GraphFacts
    output_names: dict[str, str]
    """Name of an output in the graph -> its name in what the engine returns."""


def load_engine(
    plan: EnginePlan,
    path: Path,
    outputs: Sequence[str],
    sample_shape: tuple[int, ...],
    *,
    content: bytes | None = None,
) -> Engine:
    """Load a graph.

    ``path``: the ONNX file; for ``int8`` and ``fp16`` one of that precision, else of fp32.
    ``content``: see :class:`GraphRequest`.

    Raises:
        MissingExtraError: the engine's package is not installed.
        ConfigError: this machine cannot run it: no GPU, or no bf16.
        BundleError: the graph cannot be loaded, or lacks an output.
    """
    if plan.spec.engine == "openvino":
        from birdinfer.inference.engines.openvino import OpenVinoEngine

        return OpenVinoEngine([(path, outputs)], sample_shape, plan)
    if plan.spec.engine == "cuda":
        from birdinfer.inference.engines.cuda import CudaEngine, SharedBatches

        return SharedBatches(CudaEngine(path, outputs, sample_shape, plan.batch_size), plan.batch_size)
    if plan.spec.engine == "onnxruntime":
        from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, outputs, plan.batch_size, content)
    raise NotImplementedError(f"no class for the engine {plan.spec.engine}")


def load_engines(plan: EnginePlan, requests: Sequence[GraphRequest]) -> list[LoadedGraph]:
    """Load graphs that take the same input: OpenVINO runs them as one, the others one by one.

    A file that is requested several times (all folds of an ensemble in one graph) is loaded once and runs once.
    """
    files = _by_file(requests)
    batches = {request.path: request.batch for request in requests}
    if plan.spec.engine == "openvino" and len(files) > 1 and "one" not in batches.values():
        from birdinfer.inference.engines.openvino import OpenVinoEngine

        engine = OpenVinoEngine(list(files.items()), requests[0].sample_shape, plan)
        if len({facts.input_shape[0] for facts in engine.facts_of_each}) == 1:
            index_of = {path: index for index, path in enumerate(files)}
            known = zip(batches.values(), engine.facts_of_each, strict=True)
            is_known = all(batch or LABELS_KEY in facts.metadata for batch, facts in known)
            checked = engine if is_known else BatchCheckedEngine(engine, requests[0].path)
            return [
                LoadedGraph(
                    checked,
                    engine.facts_of_each[index_of[graph.path]],
                    {name: f"{index_of[graph.path]}/{name}" for name in graph.outputs},
                )
                for graph in requests
            ]
    first = {request.path: request for request in reversed(requests)}
    engines = {path: _load_checked(plan, first[path], outputs) for path, outputs in files.items()}
    return [
        LoadedGraph(engines[graph.path], engines[graph.path].facts, {name: name for name in graph.outputs})
        for graph in requests
    ]


def _load_checked(plan: EnginePlan, request: GraphRequest, outputs: Sequence[str]) -> Engine:
    """Load a graph with one window in each call, or with a check whether it may be more, where that is needed."""
    if request.batch == "one":
        plan = replace(plan, batch_size=1)
    engine = load_engine(plan, request.path, outputs, request.sample_shape, content=request.content)
    is_known = request.batch is not None or LABELS_KEY in engine.facts.metadata or engine.facts.input_shape[0] == 1
    return engine if is_known else BatchCheckedEngine(engine, request.path)


def _by_file(requests: Sequence[GraphRequest]) -> dict[Path, tuple[str, ...]]:
    files: dict[Path, tuple[str, ...]] = {}
    for path, outputs, *_ in requests:
        # dict.fromkeys: two members may read one output, each with its own columns.
        files[path] = tuple(dict.fromkeys((*files.get(path, ()), *outputs)))
    return files
