"""A member's variants compared with its fp32 graph: size, speed, agreement on labelled windows, acceptance.

In: graphs of one member and labelled windows. Out: :class:`~birdinfer.inference.manifest.Variant`. Speeds are measured
in turns with fp32 on all cores, so that a ratio comes from one run; outputs come from the engine that would run the
variant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from birdinfer.errors import ParityError
from birdinfer.evaluation.confidence import LabelledRows, percentile_interval, resampled_drops
from birdinfer.evaluation.metrics import roc_auc_per_class
from birdinfer.export.acceptance.decision import Limits, reasons_to_reject
from birdinfer.export.acceptance.labelled import LabelledWindows
from birdinfer.inference.activation import activate
from birdinfer.inference.engines import EnginePlan, EngineSpec, load_engine
from birdinfer.inference.engines.benchmark import compare_speed
from birdinfer.inference.manifest import Figures, Outputs, Variant
from birdinfer.inference.predictor import make_plan
from birdinfer.typing import Float32, Float64

FP32 = EngineSpec("onnxruntime", "fp32")
_BATCH = 8
_RESAMPLES = 40  # first element of the bootstrap's seed


class AcceptanceTest:
    """Compares variants of one member with its fp32 graph; ``labels`` are in the order of the bundle's columns."""

    def __init__(self, fp32: Path, outputs: Outputs, labels: Sequence[str], labelled: LabelledWindows) -> None:
        self._fp32, self._outputs, self._labels, self._labelled = fp32, outputs, labels, labelled
        self._names = tuple(name for name in (outputs.clip, outputs.frames) if name is not None)
        self._reference = self._run(fp32, FP32)

    def fp32(self) -> Variant:
        """Measure the fp32 graph itself."""
        speed, _ = self._speeds(self._fp32, FP32)
        agreement = self._agreement(self._reference)
        return Variant("fp32", "", self._figures(self._fp32, (speed, speed), self._reference, agreement))

    def variant(self, name: str, made_by: str, graph: Path, spec: EngineSpec, limits: Limits) -> Variant:
        """Measure a graph in the engine of ``spec`` and decide; BundleError or ParityError if it gives no numbers."""
        candidate = self._run(graph, spec)
        agreement = self._agreement(candidate)
        figures = self._figures(graph, self._speeds(graph, spec), candidate, agreement)
        index = agreement.least_spearman_label_index
        refused = reasons_to_reject(figures, limits, "" if index is None else self._labels[index])
        return Variant(name, made_by, figures, refused)

    def _run(self, graph: Path, spec: EngineSpec) -> dict[str, Float32]:
        inputs = self._labelled.inputs
        outputs = load_engine(EnginePlan(spec, 1, _BATCH), graph, self._names, inputs.shape[1:]).run(inputs)
        for name in self._names:
            if not np.isfinite(outputs[name]).all():
                raise ParityError(graph, f"{name} holds what is no number", "leave this variant out")
        return outputs

    def _agreement(self, candidate: Mapping[str, Float32]) -> "Agreement":
        clip, activation = self._names[0], self._outputs.activation
        reference, other = (_by_window(outputs[clip]) for outputs in (self._reference, candidate))
        return compare(reference, other, self._labelled, activation)

    def _speeds(self, graph: Path, spec: EngineSpec) -> tuple[float, float]:
        """Windows per second of a graph and of fp32."""
        plans = [(graph, make_plan(spec)), (self._fp32, make_plan(FP32))]
        first, second = compare_speed(plans, self._names, self._labelled.inputs)
        return first, second

    def _figures(
        self, graph: Path, speeds: tuple[float, float], candidate: Mapping[str, Float32], agreement: "Agreement"
    ) -> Figures:
        activation = self._outputs.activation
        differences = [
            np.abs(activate(candidate[name], activation) - activate(self._reference[name], activation))
            for name in self._names
        ]
        return Figures(
            size_mb=graph.stat().st_size / 1e6,
            windows_per_second=speeds[0],
            times_fp32=speeds[0] / speeds[1],
            max_probability_difference=float(max(difference.max() for difference in differences)),
            mean_probability_difference=float(max(difference.mean() for difference in differences)),
            n_windows=len(self._labelled.inputs),
            n_recordings=len(np.unique(self._labelled.recordings)),
            macro_auc=agreement.macro_auc,
            auc_fall=agreement.auc_drop,
            auc_fall_interval=agreement.auc_drop_interval,
            least_spearman=agreement.least_spearman,
            mean_spearman=agreement.mean_spearman,
        )


def _by_window(scores: Float32) -> Float32:
    """[windows, labels]; of frames [windows, frames, labels] the loudest, for a member without clip scores."""
    return scores if scores.ndim == 2 else scores.max(axis=1)


# ---- Agreement of two tables of logits


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far a graph agrees with fp32; None where there are too few labels, or too few windows that differ."""

    macro_auc_fp32: float | None
    macro_auc: float | None
    auc_drop: float | None  # macro ROC-AUC of fp32 minus that of the graph
    auc_drop_interval: tuple[float, float] | None  # 95 %, over resampled recordings; None for a single one
    least_spearman: float | None  # of the label where it is lowest
    least_spearman_label_index: int | None
    mean_spearman: float | None  # over labels
    max_probability_difference: float
    mean_probability_difference: float


def compare(
    reference: Float32,
    candidate: Float32,
    labelled: LabelledWindows,
    activation: str,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Compare logits of a graph with those of fp32, both [windows, labels].

    500 windows of 206 labels take a second or two. If no label is known, there is no ROC-AUC; the bootstrap resamples
    recordings. Raises ParityError if shapes disagree, or a logit is not finite.
    """
    _refuse(reference, candidate, labelled)
    fp32, other = (_rankable(logits, activation) for logits in (reference, candidate))
    auc_fp32, auc = (_macro_auc(labelled, values) for values in (fp32, other))
    correlations = spearman_per_label(reference, candidate)
    least = None if np.isnan(correlations).all() else int(np.nanargmin(correlations))
    difference = np.abs(activate(candidate, activation) - activate(reference, activation))
    return Agreement(
        macro_auc_fp32=auc_fp32,
        macro_auc=auc,
        auc_drop=None if auc_fp32 is None or auc is None else auc_fp32 - auc,
        auc_drop_interval=_drop_interval(labelled, fp32, other, np.random.default_rng((_RESAMPLES, seed)), n_resamples),
        least_spearman=None if least is None else float(correlations[least]),
        least_spearman_label_index=least,
        mean_spearman=None if least is None else float(np.nanmean(correlations)),
        max_probability_difference=float(difference.max()),
        mean_probability_difference=float(difference.mean()),
    )


def spearman_per_label(reference: Float32, candidate: Float32) -> Float64:
    """Compute Spearman's rank correlation of finite values, both [windows, labels]; equal values share their mean rank.

    >>> spearman_per_label(np.array([[1.0], [2], [3]], np.float32), np.array([[2.0], [4], [9]], np.float32)).tolist()
    [1.0]

    Returns [labels], -1 to 1; nan where ``reference`` is the same in all windows, 0 where only ``candidate`` is.
    """
    a, b = (_average_ranks(values) for values in (reference, candidate))
    a -= a.mean(axis=0)
    b -= b.mean(axis=0)
    squares_a, squares_b = (a * a).sum(axis=0), (b * b).sum(axis=0)
    # Divided by either root in turn, identical ranks would not give exactly 1.
    size = np.sqrt(squares_a * squares_b)
    correlation: Float64 = np.divide((a * b).sum(axis=0), size, out=np.zeros_like(size), where=size > 0)
    correlation = np.clip(correlation, -1.0, 1.0)
    correlation[squares_a == 0] = np.nan
    return correlation


def _drop_interval(
    labelled: LabelledWindows, reference: Float64, candidate: Float64, rng: np.random.Generator, n_resamples: int
) -> tuple[float, float] | None:
    _, recordings = np.unique(labelled.recordings, return_inverse=True)
    rows = LabelledRows(labelled.truth, labelled.known, recordings)
    if rows.n_clusters == 1:
        return None  # a resample of one recording is that recording
    return percentile_interval(resampled_drops(rows, reference, candidate, n_resamples, rng))


def _macro_auc(labelled: LabelledWindows, values: Float64) -> float | None:
    columns = zip(labelled.known.T, labelled.truth.T, values.T, strict=True)
    aucs = [float(roc_auc_per_class(truth[known, None], ranked[known, None])[0]) for known, truth, ranked in columns]
    scored = [auc for auc in aucs if not np.isnan(auc)]
    return float(np.mean(scored)) if scored else None


def _rankable(logits: Float32, activation: str) -> Float64:
    """Values that order windows as their probabilities do, without rounding to 0 or 1 [windows, labels]."""
    values = logits.astype(np.float64)
    if activation != "softmax":
        return values
    values -= values.max(axis=1, keepdims=True)
    log_share: Float64 = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return log_share


def _average_ranks(values: Float32) -> Float64:
    """Rank of each row within its column, from 1; equal values share their mean rank."""
    ranks = np.empty(values.shape, np.float64)
    for column, own in zip(ranks.T, values.T, strict=True):
        _, level, in_level = np.unique(own, return_inverse=True, return_counts=True)
        column[:] = (np.cumsum(in_level) - (in_level - 1) / 2)[level]
    return ranks


def _refuse(reference: Float32, candidate: Float32, labelled: LabelledWindows) -> None:
    if not reference.shape == candidate.shape == labelled.truth.shape == labelled.known.shape or not reference.size:
        shapes = f"{reference.shape}, {candidate.shape} and {labelled.truth.shape}"
        raise ParityError("logits", f"of fp32, of the other graph and truth have the shapes {shapes}", "one is needed")
    for name, logits in (("fp32", reference), ("the other graph", candidate)):
        n_wrong = int((~np.isfinite(logits)).any(axis=1).sum())
        if n_wrong:
            raise ParityError("logits", f"{name} answers {n_wrong} of {len(logits)} windows with what is no number")
