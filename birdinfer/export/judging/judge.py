"""A member's variants beside its fp32 graph: speed, size, agreement on labelled windows, verdict of the gate.

In: graphs of one member. Out: :class:`~birdinfer.manifest.Variant`. Speeds are measured in turns with fp32 on all
lanes, so that a ratio is of one run; answers come from the engine that would run the variant.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.engines import EnginePlan, EngineSpec, load_engine
from birdinfer.errors import ParityError
from birdinfer.export.judging.agreement import Agreement, compare
from birdinfer.export.judging.gate import Limits, judge
from birdinfer.export.windows.labelled import LabelledWindows
from birdinfer.manifest import Figures, Outputs, Variant
from birdinfer.predictor import make_plan
from birdinfer.scores import activate
from birdinfer.throughput import compare_speed

Float32 = npt.NDArray[np.float32]

FP32 = EngineSpec("onnxruntime", "fp32")
_BATCH = 8


class Judge:
    """Holds variants of one member against its fp32 graph."""

    def __init__(self, fp32: Path, outputs: Outputs, labels: Sequence[str], labelled: LabelledWindows) -> None:
        """Let fp32 answer.

        Args:
            fp32: the member's graph.
            outputs: what its outputs mean.
            labels: of the bundle, in the order of its columns.
            labelled: the windows to judge on.
        """
        self._fp32, self._outputs, self._labels, self._labelled = fp32, outputs, labels, labelled
        self._names = tuple(name for name in (outputs.clip, outputs.frames) if name is not None)
        self._wanted = self._answers(fp32, FP32)

    def fp32(self) -> Variant:
        """The fp32 graph's own figures."""
        speed, _ = self._speeds(self._fp32, FP32)
        agreement = self._agreement(self._wanted)
        return Variant("fp32", "", self._figures(self._fp32, speed, 1.0, self._wanted, agreement))

    def variant(self, name: str, made_by: str, graph: Path, spec: EngineSpec, limits: Limits) -> Variant:
        """Measure a graph, and say whether it may be taken.

        Args:
            name: what it is called.
            made_by: what was done, in a few words.
            graph: the file.
            spec: which engine runs it; that it is loaded from this file is seen to here.
            limits: what it must keep.

        Raises:
            BundleError: it cannot be loaded.
            ParityError: it answers with what is no number.
        """
        found = self._answers(graph, spec)
        agreement = self._agreement(found)
        speed, fp32_speed = self._speeds(graph, spec)
        figures = self._figures(graph, speed, speed / fp32_speed, found, agreement)
        index = agreement.least_spearman_label_index
        refused = judge(figures, limits, "" if index is None else self._labels[index])
        return Variant(name, made_by, figures, refused)

    def _answers(self, graph: Path, spec: EngineSpec) -> dict[str, Float32]:
        engine = load_engine(EnginePlan(spec, 1, _BATCH), graph, self._names, self._labelled.heard.shape[1:])
        answers = engine.run(self._labelled.heard)
        for name in self._names:
            if not np.isfinite(answers[name]).all():
                raise ParityError(graph, f"{name} holds what is no number", "leave this variant out")
        return answers

    def _agreement(self, found: Mapping[str, Float32]) -> Agreement:
        clip, activation = self._names[0], self._outputs.activation
        wanted, answered = (_by_window(answers[clip]) for answers in (self._wanted, found))
        return compare(wanted, answered, self._labelled, activation)

    def _speeds(self, graph: Path, spec: EngineSpec) -> tuple[float, float]:
        """Windows per second of a graph and of fp32."""
        plans = [(graph, make_plan(spec)), (self._fp32, make_plan(FP32))]
        first, second = compare_speed(plans, self._names, self._labelled.heard)
        return first, second

    def _figures(
        self, graph: Path, speed: float, times: float, found: Mapping[str, Float32], agreement: Agreement
    ) -> Figures:
        activation = self._outputs.activation
        differences = [
            np.abs(activate(found[name], activation) - activate(self._wanted[name], activation)) for name in self._names
        ]
        return Figures(
            size_mb=graph.stat().st_size / 1e6,
            windows_per_second=speed,
            times_fp32=times,
            max_probability_difference=float(max(difference.max() for difference in differences)),
            mean_probability_difference=float(max(difference.mean() for difference in differences)),
            n_windows=len(self._labelled.heard),
            n_recordings=len(np.unique(self._labelled.recordings)),
            macro_auc=agreement.macro_auc,
            auc_fall=agreement.auc_fall,
            auc_fall_interval=agreement.auc_fall_interval,
            least_spearman=agreement.least_spearman,
            mean_spearman=agreement.mean_spearman,
        )


def _by_window(answers: Float32) -> Float32:
    """[windows, labels]; of frames [windows, frames, labels] the loudest, where a member has no other opinion."""
    return answers if answers.ndim == 2 else answers.max(axis=1)
