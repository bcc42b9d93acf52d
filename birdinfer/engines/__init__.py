"""Engines run a graph: one Protocol (``protocol.py``), one small file an engine, and here what loads them by plan."""

from collections.abc import Sequence
from pathlib import Path

from birdinfer.engines.protocol import SUPPORTED, Engine, EnginePlan, EngineSpec, GraphFacts, parse_spec, run_in_batches

__all__ = [
    "SUPPORTED",
    "Engine",
    "EnginePlan",
    "EngineSpec",
    "GraphFacts",
    "load_engine",
    "parse_spec",
    "run_in_batches",
]


def load_engine(plan: EnginePlan, path: Path, outputs: Sequence[str], sample_shape: tuple[int, ...]) -> Engine:
    """Load a graph.

    Args:
        plan: engine, precision, lanes and batch size.
        path: the ONNX file; for ``int8`` and ``fp16`` a graph of that precision, else one of fp32.
        outputs: the outputs wanted; those of the graph that are not named are not computed where the engine can
            leave them out.
        sample_shape: shape of one window: (1, n_mels, frames), (samples,) or (1, samples).

    Raises:
        MissingExtraError: the engine's package is not installed.
        ConfigError: this machine cannot run it: no GPU, or no bf16.
        BundleError: the graph cannot be loaded, or lacks an output.
    """
    if plan.spec.engine == "openvino":
        from birdinfer.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(path, outputs, sample_shape, plan)
    if plan.spec.engine == "cuda":
        from birdinfer.engines.cuda import CudaEngine
        from birdinfer.engines.sharing import SharedBatches

        return SharedBatches(CudaEngine(path, outputs, sample_shape, plan.batch_size), plan.batch_size)
    from birdinfer.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, outputs, plan.batch_size)
