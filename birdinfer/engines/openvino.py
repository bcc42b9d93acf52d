"""OpenVINO on the CPU, one thread a call: fp32, bf16 where the processor has it, INT8 graphs.

Every lane has a request of its own. Weights are shared but for what OpenVINO repacks: with five efficientnet_b0 in bf16
a second lane adds 40 MB to 420.
"""

import functools
import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.engines.onnxruntime import check_outputs
from birdinfer.engines.protocol import EnginePlan, GraphFacts, run_in_batches
from birdinfer.errors import BundleError, ConfigError, MissingExtraError

Float32 = npt.NDArray[np.float32]

_PRECISION_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """One graph in OpenVINO, or several that take the same input, as one."""

    def __init__(
        self, graphs: Sequence[tuple[Path, Sequence[str]]], sample_shape: tuple[int, ...], plan: EnginePlan
    ) -> None:
        """Load graphs and the outputs wanted of each; see :func:`birdinfer.engines.load_engine`.

        Of several graphs the outputs are named ``0/logits``, ``1/logits`` ...
        """
        core = _core()
        if plan.spec.precision == "bf16" and not has_bf16():
            raise ConfigError("--engine", f"{plan.spec}: this processor has no bf16", "choose openvino:fp32, or auto")
        models = [_read(core, path) for path, _ in graphs]
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
            # A fixed shape lets OpenVINO plan its memory and kernels: eca_nfnet_l0 runs 14.5 windows/s, free 11.3.
            model.reshape([self._batch_size, *sample_shape])
            # No streams: a call runs on the lane's own thread. OpenVINO's threads are pinned to cores, and the work of
            # two lanes often met on one. Such a model runs one call at a time, so each lane has its own.
            settings = {
                "NUM_STREAMS": 0,
                "INFERENCE_NUM_THREADS": 1,
                # Said outright: by default bf16 is taken wherever the processor has it.
                "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[plan.spec.precision],
            }
            self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for _ in range(plan.lanes):
                self._idle.put(core.compile_model(model, "CPU", settings).create_infer_request())
        except RuntimeError as error:
            raise _refused(graphs[0][0], error) from error

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Outputs by name, each [windows, ...], of a batch [windows, ...]."""
        return run_in_batches(self._run, batch, self._batch_size, fixed=True)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        request = self._idle.get()
        try:
            result = request.infer([batch], share_inputs=True, share_outputs=True)
            # A copy, for the request's next call writes to the same place.
            return {name: np.array(result[index], np.float32) for name, index in self._outputs.items()}
        finally:
            self._idle.put(request)


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: RuntimeError) -> BundleError:
    return BundleError(path, f"cannot be loaded by OpenVINO ({error})", "export it again")


def _as_one(models: Sequence[Any]) -> Any:
    """Models that take the same input -> one that takes it once.

    One call instead of five, and activations share their memory.
    """
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
    """Whether OpenVINO computes in bf16 on this processor without emulating it.

    Raises:
        MissingExtraError: openvino is not installed.
    """
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _facts(model: Any) -> GraphFacts:
    # OpenVINO keeps a graph's metadata_props under its run-time information.
    metadata = {}
    if model.has_rt_info(["framework"]):
        metadata = {key: str(value) for key, value in model.get_rt_info(["framework"]).value.items()}
    graph_input = model.input(0)
    return GraphFacts(
        graph_input.any_name,
        _sizes(graph_input),
        {output.any_name: _sizes(output) for output in model.outputs},
        metadata,
    )


def _sizes(port: Any) -> tuple[int | None, ...]:
    return tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())


@functools.cache
def _core() -> Any:
    """One for the whole process, never let go: a Core that dies unloads its plugins under whoever still uses them."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    # The binding looks up numpy when it meets its first array, with two locks of which two lanes may each take one and
    # wait for ever: so it meets it here, before there are lanes.
    assert openvino.Tensor(np.zeros(1, np.float32)).data.size == 1
    return openvino.Core()
