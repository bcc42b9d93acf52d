"""How a graph becomes INT8 with the least loss: which ranges, and which few activations stay fp32.

In: a calibrated graph and windows of the training clips that calibration has not seen. Out: settings to be tried, the
fastest that promises to keep the ranks first. Held-out windows are not looked at: they judge what is found here.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.engines import EngineSpec
from birdinfer.export.int8.nodes import int8_values, is_int8
from birdinfer.export.int8.number_format import Int8Format
from birdinfer.export.int8.quantize import METHODS, Calibrated, Int8Settings, Method, int8_model, write_int8
from birdinfer.export.int8.sensitivity import Sensitivity, logits_together, sensitivities
from birdinfer.export.judging.agreement import spearman_per_label
from birdinfer.predictor import make_plan
from birdinfer.throughput import compare_speed

Float32 = npt.NDArray[np.float32]

_DOUBT = 0.01
"""By how much the rank correlation on tuning windows may miss what is needed, for settings to be tried all the same."""
_MOST_WORK = 0.4
"""Share of the work that may go back to fp32: with more of it INT8 is hardly faster."""
_N_KEPT = (1, 2, 3, 4, 6, 8, 12, 16, 24)
_N_LAST_CONVOLUTIONS = (1, 2, 3, 4, 6, 8)
_N_SENSITIVITY_WINDOWS = 16
_MOST_TRIED = 6
_N_METHODS_TRIED = 2
"""Ways to choose ranges that are tried with everything in INT8: the two best often lie within chance of each other."""
_ROUNDS, _SECONDS = 3, 0.2

Steps = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and of how much."""


class Attempt(NamedTuple):
    """Settings, and what they promise."""

    settings: Int8Settings
    least_spearman: float
    """Rank correlation with fp32 on the tuning windows, of the label where it is least."""
    mean_spearman: float


class Int8Search:
    """Looks for settings of one graph."""

    def __init__(
        self, calibrated: Calibrated, tuning: Float32, numbers: Int8Format, needed_spearman: float, steps: Steps
    ) -> None:
        """Nothing is tried yet.

        Args:
            calibrated: the graph.
            tuning: windows [windows, ...] of training clips that calibration has not seen.
            numbers: what 8-bit numbers are.
            needed_spearman: rank correlation with fp32 that every label has to keep.
            steps: is told of each step.
        """
        self._calibrated, self._tuning, self._numbers = calibrated, tuning, numbers
        self._needed, self._steps = needed_spearman, steps
        self._wanted = logits_together(calibrated.model(), tuning)
        self.methods: dict[Method, Attempt] = {}
        """Each way to choose ranges that was tried, with nothing kept in fp32."""
        self.tried: list[Int8Settings] = []
        """All settings that were tried on the tuning windows."""

    def attempts(self) -> Iterator[Attempt]:
        """Settings worth a trial on held-out windows: with everything in INT8, then with more and more in fp32.

        Nothing is looked for before it is asked for: where the first is good enough, the search ends there.
        """
        for index, method in enumerate(METHODS):
            self.methods[method] = self._attempt(Int8Settings(method, (), self._numbers))
            self._steps("ways to choose ranges", index + 1, len(METHODS))
        plain, *others = sorted(self.methods.values(), key=lambda one: -one.mean_spearman)[:_N_METHODS_TRIED]
        yield from (one for one in (plain, *others) if one.least_spearman >= self._needed - _DOUBT)
        found = [self._attempt(settings) for settings in self._with_some_kept(plain.settings)]
        promising = [one for one in found if one.least_spearman >= self._needed - _DOUBT]
        if promising:
            yield from self._fastest_first(promising)[:_MOST_TRIED]
        else:
            yield max([plain, *found], key=lambda one: one.mean_spearman)

    def _attempt(self, settings: Int8Settings) -> Attempt:
        self.tried.append(settings)
        found = logits_together(int8_model(self._calibrated, settings), self._tuning)
        correlations = spearman_per_label(self._wanted, found)
        told = correlations[~np.isnan(correlations)]  # of none, where all windows are answered alike
        return Attempt(settings, float(told.min(initial=1.0)), float(told.mean()) if len(told) else 1.0)

    def _with_some_kept(self, plain: Int8Settings) -> list[Int8Settings]:
        """The activations that do most harm in fp32, or all from one of the last convolutions on.

        The first are the fewest; the second lie together, so that nothing is converted between them.
        """
        ranked = sensitivities(
            self._calibrated,
            self._tuning[:_N_SENSITIVITY_WINDOWS],
            plain,
            lambda done, of: self._steps("activations, each in 8 bits alone", done, of),
        )
        sets = [ranked[:n_kept] for n_kept in _N_KEPT if n_kept <= len(ranked)]
        sets += _tails(self._calibrated, ranked)
        affordable = [kept for kept in sets if sum(one.work for one in kept) <= _MOST_WORK]
        names = dict.fromkeys(tuple(sorted(one.name for one in kept)) for kept in affordable)
        return [plain._replace(kept=kept) for kept in names]

    def _fastest_first(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Measured: what is left in fp32 costs as much by the conversions around it as by itself."""
        plan = make_plan(EngineSpec("onnxruntime", "int8"))
        with tempfile.TemporaryDirectory(prefix="birdinfer.") as folder:
            paths = [Path(folder) / f"{index}.onnx" for index in range(len(attempts))]
            for path, attempt in zip(paths, attempts, strict=True):
                write_int8(self._calibrated, path, attempt.settings)
            output = str(self._calibrated.model().graph.outputs[0].name)
            graphs = [(path, plan) for path in paths]
            speeds = compare_speed(graphs, [output], self._tuning, _ROUNDS, _SECONDS)
        order = sorted(range(len(attempts)), key=lambda index: -speeds[index])
        return [attempts[index] for index in order]


def _tails(calibrated: Calibrated, ranked: Sequence[Sensitivity]) -> list[list[Sensitivity]]:
    """All activations from one of the last convolutions on."""
    nodes = [node for node in calibrated.model().graph if is_int8(node)]
    convolutions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    by_name = {one.name: one for one in ranked}
    tails = []
    for n_last in _N_LAST_CONVOLUTIONS:
        if n_last < len(convolutions):
            written = [str(int8_values(node)[-1].name) for node in nodes[convolutions[-n_last] :]]
            tails.append([by_name[name] for name in dict.fromkeys(written) if name in by_name])
    return tails
