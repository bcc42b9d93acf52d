"""A member's fp32 graph -> its other precisions: made, compared with fp32, kept where the acceptance test passes.

In: the fp32 graph, windows of the clips that its network was trained on, [1, ...] each, and the acceptance test. Out:
:class:`Variants`. Accepted graphs lie beside the fp32 one, ``fold0.int8.onnx`` beside ``fold0.onnx``; others are
removed. Folds of one network are alike: the settings with which static INT8 was accepted for one are tried first on
the next.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from birdinfer.errors import ConfigError, ParityError
from birdinfer.export.acceptance.decision import reasons_to_reject
from birdinfer.export.acceptance.measure import FP32, AcceptanceTest
from birdinfer.export.callbacks import ExportCallback
from birdinfer.export.int8.alternatives import quantize_dynamic, quantize_nncf
from birdinfer.export.int8.qdq import find_format
from birdinfer.export.int8.quantize import Calibrated, Int8Settings, calibrate_graph, write_int8
from birdinfer.export.int8.search import Int8Search
from birdinfer.export.onnx.half import write_bf16, write_fp16
from birdinfer.export.settings import ExportSettings, Half, Quantizer
from birdinfer.inference.bundle import file_sha256
from birdinfer.inference.engines import EngineSpec
from birdinfer.inference.manifest import Graph, Precision, Variant
from birdinfer.typing import Float32

STATIC = "int8 static"
ORT_INT8 = EngineSpec("onnxruntime", "int8")


class Variants(NamedTuple):
    """What became of a member's graph."""

    graphs: dict[Precision, Graph]  # the accepted ones, without fp32
    tried: tuple[Variant, ...]  # all, fp32 first
    int8_settings: Int8Settings | None  # with which static INT8 was accepted, if it was: for the next fold


@dataclass(frozen=True, slots=True)
class _Made:
    precision: Precision
    path: Path
    variant: Variant
    settings: Int8Settings | None = None  # of an accepted static INT8 graph


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantMaker:
    """Make all variants of one member that an export asks for."""

    fp32: Path  # the member's graph
    windows: Sequence[Float32]  # [1, ...] each, of training clips: the first calibrate, the others choose settings
    acceptance: AcceptanceTest
    settings: ExportSettings
    callback: ExportCallback
    first_try: Int8Settings | None = None  # settings with which another fold of this network was accepted

    def make(self) -> Variants:
        """Make and test the variants; keep the first accepted graph of each precision."""
        tried = [self.acceptance.fp32()]
        graphs: dict[Precision, Graph] = {}
        int8_settings = None
        for made in self._attempts():
            if made is None:
                continue
            tried.append(made.variant)
            int8_settings = made.settings or int8_settings
            refused = made.variant.refused
            outcome = f"refused: {refused}" if refused else f"taken: {summary(made.variant)}"
            self.callback.on_message(f"{self.fp32.stem}: {made.variant.name} {outcome}")
            if refused or made.precision in graphs:
                made.path.unlink()
            else:
                difference = made.variant.figures.max_probability_difference
                graphs[made.precision] = Graph(made.path.name, file_sha256(made.path), difference)
        return Variants(graphs, tuple(tried), int8_settings)

    def _attempts(self) -> Iterator[_Made | None]:
        for half in self.settings.halves:
            yield self._half(half)
        for quantizer in self.settings.quantize:
            yield self._static() if quantizer == "static" else self._other_int8(quantizer)

    def _half(self, half: Half) -> _Made | None:
        """16 bits are smaller everywhere, but faster only on other machines, so that speed here decides nothing."""
        limits = replace(self.settings.limits, min_times_fp32=0.0)
        write, engine, made_by = _half_writer(half)
        path = self.fp32.with_suffix(f".{half}.onnx")
        try:
            write(self.fp32, path)
            return _Made(half, path, self.acceptance.variant(half, made_by, path, engine, limits))
        except (ConfigError, ParityError) as error:
            path.unlink(missing_ok=True)
            self._not_made(half, error.what)
            return None

    def _other_int8(self, quantizer: Quantizer) -> _Made | None:
        path, name, task = self.fp32.with_suffix(f".{quantizer}.onnx"), f"int8 {quantizer}", f"{quantizer} INT8"
        self.callback.on_progress(task, 0, 1)
        try:
            if quantizer == "dynamic":
                made_by, engine = quantize_dynamic(self.fp32, path), ORT_INT8
            else:
                made_by = quantize_nncf(self.fp32, path, self.windows[: self.settings.n_calibration_windows])
                engine = EngineSpec("openvino", "int8")
        except ConfigError as error:
            self._not_made(name, error.what)
            return None
        self.callback.on_progress(task, 1, 1)
        made_by = f"{made_by}; run by {engine.engine}"
        return _Made("int8", path, self.acceptance.variant(name, made_by, path, engine, self.settings.limits))

    def _static(self) -> _Made | None:
        windows, settings = self.windows, self.settings
        n_calibration = min(settings.n_calibration_windows, max(1, 2 * len(windows) // 3))
        try:
            progress = partial(self.callback.on_progress, "calibrating")
            calibrated = calibrate_graph(self.fp32, windows[:n_calibration], progress)
        except ConfigError as error:  # a network without convolutions is not the user's mistake
            self._not_made(STATIC, error.what)
            return None
        if self.first_try is not None:
            made = self._tried(calibrated, self.first_try)
            if not made.variant.refused:
                return made
        unseen = range(n_calibration, len(windows))
        # One window alone has no ranks: then all windows choose, including those that calibrated.
        tuning = np.concatenate([windows[index] for index in (unseen if len(unseen) > 1 else range(len(windows)))])
        search = Int8Search(
            calibrated,
            tuning,
            number_format=find_format(settings.target),
            needed_spearman=settings.limits.min_spearman,
            on_progress=self.callback.on_progress,
        )
        return self._searched(calibrated, search)

    def _searched(self, calibrated: Calibrated, search: Int8Search) -> _Made:
        nearest: Variant | None = None
        for attempt in search.attempts():
            made = self._tried(calibrated, attempt.settings)
            if not made.variant.refused:
                return made
            # The rank correlation is the hardest to keep.
            if nearest is None or _least_spearman(made.variant) > _least_spearman(nearest):
                nearest = made.variant
        assert nearest is not None  # there is always one attempt
        methods = ", ".join(name.replace("_", " ") for name in search.methods)
        sets = [settings.fp32_activations for settings in search.tried if settings.fp32_activations]
        largest = max(map(len, sets), default=0)
        in_fp32 = f"; sets of activations left in fp32: {len(sets)}, the largest of {largest}" if sets else ""
        refused = f"{nearest.refused}; tried: ranges by {methods}{in_fp32}"
        return _Made("int8", self._int8_path, msgspec.structs.replace(nearest, refused=refused))

    def _tried(self, calibrated: Calibrated, settings: Int8Settings) -> _Made:
        path = self._int8_path
        write_int8(calibrated, path, settings)
        try:
            variant = self._tested(path, str(settings))
        except ParityError as error:
            raise ParityError(path.name, error.what, "leave --quantize out") from error
        return _Made("int8", path, variant, None if variant.refused else settings)

    def _tested(self, path: Path, made_by: str) -> Variant:
        """In ONNX Runtime; where it is too slow there and all else is kept, in OpenVINO as well."""
        limits = self.settings.limits
        variant = self.acceptance.variant(STATIC, made_by, path, ORT_INT8, limits)
        figures, engine = variant.figures, EngineSpec("openvino", "int8")
        is_slow_alone = not reasons_to_reject(figures, replace(limits, min_times_fp32=0.0))
        if figures.times_fp32 >= limits.min_times_fp32 or not is_slow_alone or find_spec(engine.engine) is None:
            return variant
        other = self.acceptance.variant(STATIC, f"{made_by}; run by {engine.engine}", path, engine, limits)
        return variant if other.refused else other

    @property
    def _int8_path(self) -> Path:
        return self.fp32.with_suffix(".int8.onnx")

    def _not_made(self, name: str, reason: str) -> None:
        self.callback.on_message(f"{self.fp32.stem}: {name} not made: {reason}")


def _half_writer(half: Half) -> tuple[Callable[[Path, Path], None], EngineSpec, str]:
    """What writes the graph, the engine that the acceptance test runs, and a few words on what was done."""
    if half == "fp16":
        return write_fp16, FP32, "weights and most sums in fp16, for a GPU"
    engine = _bf16_engine()
    return write_bf16, engine, f"weights in bf16; run by {engine}"


def _bf16_engine() -> EngineSpec:
    """OpenVINO computes in bf16 where the processor does; elsewhere only the rounded weights are tested."""
    if find_spec("openvino") is not None:
        from birdinfer.inference.engines.openvino import has_bf16

        if has_bf16():
            return EngineSpec("openvino", "bf16")
    return FP32


def _least_spearman(variant: Variant) -> float:
    return variant.figures.least_spearman or -1.0


def summary(variant: Variant) -> str:
    """Describe a variant's figures in one line."""
    figures = variant.figures
    drop, interval = figures.auc_fall, figures.auc_fall_interval
    within = f" ({interval[0]:+.4f} to {interval[1]:+.4f})" if interval else ""
    auc = "" if drop is None else f"macro AUC falls by {drop:+.4f}{within}, "
    ranks = "" if figures.least_spearman is None else f"least Spearman {figures.least_spearman:.4f}, "
    return (
        f"{figures.times_fp32:.2f} times as fast as fp32, {figures.size_mb:.1f} MB, {auc}{ranks}"
        f"largest |dp| {figures.max_probability_difference:.3f}; {variant.made_by}"
    )
