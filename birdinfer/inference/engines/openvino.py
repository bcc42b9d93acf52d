"""OpenVINO on the CPU, one thread a call: fp32, bf16 where the processor has it, INT8 graphs.

Every worker has an inference request of its own. Weights are shared, except for what OpenVINO repacks: with five
efficientnet_b0 in bf16 a second worker adds 40 MB to 420.
"""

import functools
import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from birdinfer.errors import BundleError, ConfigError, MissingExtraError
from birdinfer.inference.engines.base import EnginePlan, GraphFacts, run_in_batches
from birdinfer.inference.engines.onnxruntime import check_outputs
from birdinfer.inference.engines.openvino_graph import silus_as_quotients, unite_activations
from birdinfer.inference.engines.waveform_fp32 import split
from birdinfer.typing import Float32

_PRECISION_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """One graph in OpenVINO, or several that take the same input, as one."""

    def __init__(
        self, graphs: Sequence[tuple[Path, Sequence[str]]], sample_shape: tuple[int, ...], plan: EnginePlan
    ) -> None:
        """Load graphs and the outputs to compute; see :func:`birdinfer.inference.engines.load_engine`.

        The outputs of several graphs are named ``0/logits``, ``1/logits`` ...
        """
        core = _core()
        if plan.spec.precision == "bf16" and not has_bf16():
            raise ConfigError("--engine", f"{plan.spec}: this processor has no bf16", "choose openvino:fp32, or auto")
        models = [_read(core, path) for path, _ in graphs]
        for model in models:
            if plan.spec.precision == "int8":
                unite_activations(model)
            elif plan.spec.precision == "bf16":
                silus_as_quotients(model)
        self.facts_of_each = [_facts(model) for model in models]
        self.facts = self.facts_of_each[0]
        self._outputs: dict[str, int] = {}
        n_before = 0
        for index, ((path, outputs), facts) in enumerate(zip(graphs, self.facts_of_each, strict=True)):
            check_outputs(path, facts, outputs)
            for name in outputs:
                key = name if len(graphs) == 1 else f"{index}/{name}"
                self._outputs[key] = n_before + list(facts.outputs).index(name)
            n_before += len(facts.outputs)
        self._batch_size = self.facts.input_shape[0] or plan.batch_size
        try:
            model = _as_one(models)
            # A fixed shape lets OpenVINO plan memory and kernels: eca_nfnet_l0 runs 14.5 windows/s instead of 11.3.
            model.reshape([self._batch_size, *sample_shape])
            parts = [model]
            if plan.spec.precision == "bf16" and len(graphs) == 1:
                names = graphs[0][1]
                if (front_and_network := split(model, names)) is not None:
                    parts, self._outputs = list(front_and_network), {name: index for index, name in enumerate(names)}
            # No streams: a call runs on the worker's own thread. OpenVINO's threads are pinned to cores, and often two
            # workers' calls ran on the same one. Such a model runs one call at a time, so each worker has its own.
            settings = {
                "NUM_STREAMS": 0,
                "INFERENCE_NUM_THREADS": 1,
            }
            # Explicit: by default OpenVINO takes bf16 wherever the processor has it.
            hints = ["f32"] * (len(parts) - 1) + [_PRECISION_HINTS[plan.spec.precision]]
            self._idle: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
            for _ in range(plan.workers):
                compiled = [
                    core.compile_model(part, "CPU", settings | {"INFERENCE_PRECISION_HINT": hint})
                    for part, hint in zip(parts, hints, strict=True)
                ]
                self._idle.put([each.create_infer_request() for each in compiled])
        except RuntimeError as error:
            raise _refused(graphs[0][0], error) from error

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Compute the outputs by name, each [windows, ...], of a batch [windows, ...]."""
        return run_in_batches(self._run, batch, self._batch_size, fixed=True)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        requests = self._idle.get()
        try:
            *front_end, network = requests
            for request in front_end:
                batch = request.infer([batch], share_inputs=True, share_outputs=True)[0]
            result = network.infer([batch], share_inputs=True, share_outputs=True)
            # A copy: the request's next call writes to the same memory.
            return {name: np.array(result[index], np.float32) for name, index in self._outputs.items()}
        finally:
            self._idle.put(requests)


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: RuntimeError) -> BundleError:
    return BundleError(path, f"cannot be loaded by OpenVINO ({error})", "export it again")


def _as_one(models: Sequence[Any]) -> Any:
    """Join models that take the same input: one call instead of five, and activations share their memory."""
    import openvino

    first, *others = models
    if not others:
        return first
    (shared,) = first.get_parameters()
    results = first.get_results()
    for model in others:
        (own,) = model.get_parameters()
        own.output(0).replace(shared.output(0))
        results += model.get_results()
    return openvino.Model(results, [shared], "ensemble")


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor without emulating it."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _facts(model: Any) -> GraphFacts:
    # OpenVINO keeps a graph's metadata_props under its run-time information.
    metadata = {}
    if model.has_rt_info(["framework"]):
        metadata = {key: str(value) for key, value in model.get_rt_info(["framework"]).value.items()}
    name, shape = next(((each.any_name, _sizes(each)) for each in model.inputs), ("", ()))
    return GraphFacts(
        name,
        shape,
        {output.any_name: _sizes(output) for output in model.outputs},
        metadata,
    )


def _sizes(port: Any) -> tuple[int | None, ...]:
    return tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())


@functools.cache
def _core() -> Any:
    """One for the whole process, never freed: a Core that dies unloads its plugins while others still use them."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    # The binding imports numpy at its first array, under two locks: two workers that each hold one would wait for ever.
    # So the first array is made here, before there are workers.
    assert openvino.Tensor(np.zeros(1, np.float32)).data.size == 1
    return openvino.Core()
