"""Search for INT8 settings with the least loss: which ranges, and which few activations stay fp32.

In: a calibrated graph and windows of training clips that calibration has not seen. Out: settings to try, the fastest
that is likely to keep the ranks first. Held-out windows are not used: the acceptance test needs them.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from birdinfer.export.acceptance.measure import spearman_per_label
from birdinfer.export.int8.calibration import Progress, open_session
from birdinfer.export.int8.prepare import int8_values, is_int8
from birdinfer.export.int8.qdq import Int8Format, insert_qdq
from birdinfer.export.int8.quantize import METHODS, Calibrated, Int8Settings, Method, int8_model, write_int8
from birdinfer.export.onnx.edit import array_of, input_of
from birdinfer.inference.engines import EngineSpec
from birdinfer.inference.engines.benchmark import compare_speed
from birdinfer.inference.predictor import make_plan
from birdinfer.typing import Float32

# ---- Sensitivity: how much each activation loses in 8 bits, and what it costs to leave it in fp32

_N_GROUPS, _N_OPENED = 32, 6  # groups of neighbours tried together, and how many of them then one by one

_WORK_PER_VALUE = 16.0  # multiplications that take as long as one more pass over an fp32 value


class Sensitivity(NamedTuple):
    """How sensitive the logits are to one activation in 8 bits."""

    name: str
    error: float  # by how much the logits move: see :func:`logit_error`
    work: float  # share of the network's work that is done in fp32 if the activation is, 0 to 1


def sensitivities(
    calibrated: Calibrated, windows: Float32, settings: Int8Settings, progress: Progress = lambda done, of: None
) -> list[Sensitivity]:
    """Put each activation into 8 bits alone, or with its neighbours if those do little harm, and compare the logits.

    Returns every activation that can become 8-bit, the most harm for the least work first.
    """
    fp32 = calibrated.model()
    reference = logits_together(fp32, windows)
    ranges = calibrated.ranges(settings.method)
    work = _work_of_values(fp32.graph)

    def error_of(names: Sequence[str]) -> float:
        model = calibrated.model()
        others = [other for other in ranges if other not in names]
        insert_qdq(
            model.graph,
            ranges,
            calibrated.observed.channel_means,
            fp32_activations=others,
            number_format=settings.number_format,
        )
        return logit_error(reference, logits_together(model, windows))

    errors = _errors(list(ranges), error_of, progress)
    found = [Sensitivity(name, error, work.get(name, 0.0)) for name, error in errors.items()]
    # A hundredth of all work does not matter: below it only the harm counts.
    return sorted(found, key=lambda one: one.error / (one.work + 0.01), reverse=True)


def _errors(names: Sequence[str], error_of: Callable[[Sequence[str]], float], progress: Progress) -> dict[str, float]:
    """Error of each activation: neighbours are tried together first, then one by one where they do much harm.

    Loading a graph takes longer than running it, and nine of ten activations do next to no harm.
    """
    size = -(-len(names) // _N_GROUPS)
    groups = [names[at : at + size] for at in range(0, len(names), size)]
    n_opened = _N_OPENED if size > 1 else 0
    n_trials = len(groups) + n_opened * size
    together = []
    for index, group in enumerate(groups):
        together.append(error_of(group))
        progress(index + 1, n_trials)
    # Independent errors add up as squares.
    errors = {name: error / size**0.5 for group, error in zip(groups, together, strict=True) for name in group}
    worst = sorted(range(len(groups)), key=lambda index: -together[index])[:n_opened]
    for index, name in enumerate([name for group in worst for name in groups[group]]):
        errors[name] = error_of([name])
        progress(len(groups) + index + 1, n_trials)
    return errors


def logits_together(model: ir.Model, windows: Float32) -> Float32:
    """Compute the first output's logits [windows, labels], eight windows at a time."""
    session = open_session(ir.to_proto(model))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: windows[at : at + 8]})[0] for at in range(0, len(windows), 8)])


def logit_error(reference: Float32, candidate: Float32) -> float:
    """Compute the median window's |change of logit| over the label's interquartile range, mean over labels.

    Medians and quartiles, because a window of silence, whose logits may lie a hundred times as far out, says nothing
    about the ranks of the others. Fewer windows are needed than for a rank correlation. Both are [windows, labels].
    """
    high, low = np.percentile(reference, [75, 25], axis=0)
    return float(np.mean(np.median(np.abs(candidate - reference), axis=0) / np.maximum(high - low, 1e-6)))


def _work_of_values(graph: ir.Graph) -> dict[str, float]:
    work: dict[str, float] = {}
    total = 0.0
    for node in graph:
        own = _work(node) if is_int8(node) else 0.0
        total += own
        for value in int8_values(node) if own else ():
            work[str(value.name)] = work.get(str(value.name), 0.0) + own
    return {name: own / total for name, own in work.items()}


def _work(node: ir.Node) -> float:
    """Multiplications of a node for one window, or what takes as long."""
    written = node.outputs[0]
    size = math.prod(_sizes(written))
    if node.op_type != "Conv":
        return _WORK_PER_VALUE * max(size, math.prod(_sizes(input_of(node))))
    return float(size * math.prod(array_of(input_of(node, 1)).shape[1:])) + _WORK_PER_VALUE * size


def _sizes(value: ir.Value) -> Iterator[int]:
    yield from (size if isinstance(size, int) else 1 for size in list(value.shape or ())[1:])


# ---- The search

_DOUBT = 0.01  # how far below the required rank correlation on tuning windows settings are still tried
_MOST_WORK = 0.4  # share of the work that may go back to fp32: with more of it INT8 is hardly faster
_N_FP32 = (1, 2, 3, 4, 6, 8, 12, 16, 24)
_N_LAST_CONVOLUTIONS = (1, 2, 3, 4, 6, 8)
_N_SENSITIVITY_WINDOWS = 16
_MOST_TRIED = 6
_N_METHODS_TRIED = 2  # ways to choose ranges tried all in INT8: the two best often differ by chance only
_ROUNDS, _SECONDS = 3, 0.2
OnProgress = Callable[[str, int, int], None]  # is called with a task, how much of it is done, and of how much


class Attempt(NamedTuple):
    """Settings and their rank correlations on the tuning windows."""

    settings: Int8Settings
    least_spearman: float  # rank correlation with fp32 of the label where it is lowest
    mean_spearman: float


class Int8Search:
    """Searches for settings of one graph.

    ``tuning`` are windows [windows, ...] of training clips that were not used for calibration. Every label has to keep
    the rank correlation ``needed_spearman`` with fp32.
    """

    def __init__(
        self,
        calibrated: Calibrated,
        tuning: Float32,
        *,
        number_format: Int8Format,
        needed_spearman: float,
        on_progress: OnProgress,
    ) -> None:
        self._calibrated, self._tuning, self._number_format = calibrated, tuning, number_format
        self._needed, self._on_progress = needed_spearman, on_progress
        self._reference = logits_together(calibrated.model(), tuning)
        self.methods: dict[Method, Attempt] = {}  # each way to choose ranges that was tried, with everything in INT8
        self.tried: list[Int8Settings] = []  # all settings that were tried on the tuning windows

    def attempts(self) -> Iterator[Attempt]:
        """Yield settings worth a trial on held-out windows: with everything in INT8, then with more and more in fp32.

        Nothing is searched for before it is asked for: if the first is good enough, the search ends there.
        """
        for index, method in enumerate(METHODS):
            self.methods[method] = self._attempt(Int8Settings(method, (), self._number_format))
            self._on_progress("ways to choose ranges", index + 1, len(METHODS))
        plain, *others = sorted(self.methods.values(), key=lambda one: -one.mean_spearman)[:_N_METHODS_TRIED]
        yield from (one for one in (plain, *others) if one.least_spearman >= self._needed - _DOUBT)
        mixed = [self._attempt(settings) for settings in self._with_some_fp32(plain.settings)]
        promising = [one for one in mixed if one.least_spearman >= self._needed - _DOUBT]
        if promising:
            yield from self._fastest_first(promising)[:_MOST_TRIED]
        else:
            yield max([plain, *mixed], key=lambda one: one.mean_spearman)

    def _attempt(self, settings: Int8Settings) -> Attempt:
        self.tried.append(settings)
        candidate = logits_together(int8_model(self._calibrated, settings), self._tuning)
        correlations = spearman_per_label(self._reference, candidate)
        known = correlations[~np.isnan(correlations)]  # empty if all windows have the same logits
        return Attempt(settings, float(known.min(initial=1.0)), float(known.mean()) if len(known) else 1.0)

    def _with_some_fp32(self, plain: Int8Settings) -> list[Int8Settings]:
        """Leave the activations that do most harm in fp32, or all from one of the last convolutions on.

        The first sets are the smallest; the second lie together, so that nothing is converted between them.
        """
        ranked = sensitivities(
            self._calibrated,
            self._tuning[:_N_SENSITIVITY_WINDOWS],
            plain,
            lambda done, of: self._on_progress("activations, each in 8 bits alone", done, of),
        )
        sets = [ranked[:n_fp32] for n_fp32 in _N_FP32 if n_fp32 <= len(ranked)]
        sets += _tails(self._calibrated, ranked)
        affordable = [each for each in sets if sum(one.work for one in each) <= _MOST_WORK]
        names = dict.fromkeys(tuple(sorted(one.name for one in each)) for each in affordable)
        return [plain._replace(fp32_activations=each) for each in names]

    def _fastest_first(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Sort by measured speed: conversions around fp32 activations cost as much as these themselves."""
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
