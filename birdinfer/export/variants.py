"""A member's fp32 graph -> its other precisions: made, held against fp32, kept where the gate lets them.

In: the fp32 graph in the bundle's folder, windows to calibrate and to judge on. Out: graphs by precision, and figures
of all that was tried, whether taken or not. A file that was not taken is removed.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.bundle import file_sha256
from birdinfer.engines import EngineSpec
from birdinfer.errors import ConfigError, ParityError
from birdinfer.export.graphs.half import write_bf16, write_fp16
from birdinfer.export.int8.dynamic import quantize_dynamic
from birdinfer.export.int8.nncf import quantize_nncf
from birdinfer.export.int8.quantize import Int8Settings
from birdinfer.export.int8.static import NAME as STATIC
from birdinfer.export.int8.static import SPEC as ORT_INT8
from birdinfer.export.int8.static import make_static_int8
from birdinfer.export.judging.judge import Judge
from birdinfer.export.options import ExportOptions, Half, Quantizer, Reporter
from birdinfer.manifest import Graph, Precision, Variant

Float32 = npt.NDArray[np.float32]


class Variants(NamedTuple):
    """What became of a member's graph."""

    graphs: dict[Precision, Graph]
    """Those that were taken, without fp32."""
    tried: tuple[Variant, ...]
    """All, fp32 first."""
    settings: Int8Settings | None
    """With which static INT8 was taken, if it was: for the next fold."""


class _Tried(NamedTuple):
    """One more variant."""

    precision: Precision
    path: Path
    variant: Variant


def make_variants(
    fp32: Path,
    windows: Sequence[Float32],
    judge: Judge,
    options: ExportOptions,
    reporter: Reporter,
    first_try: Int8Settings | None = None,
) -> Variants:
    """Make all variants that are wanted of a member.

    Args:
        fp32: its graph; the others lie beside it, ``fold0.int8.onnx`` for ``fold0.onnx``.
        windows: [1, ...] each, of training clips.
        judge: holds each against fp32.
        options: which are wanted.
        reporter: is told of each.
        first_try: settings that static INT8 of another fold of this network was taken with.
    """
    tried = [judge.fp32()]
    graphs: dict[Precision, Graph] = {}
    for one in _halves(fp32, judge, options, reporter):
        tried.append(one.variant)
        _keep_or_remove(one, graphs, reporter)
    settings = None
    for quantizer in options.quantize:
        if quantizer == "static":
            path = fp32.with_suffix(".int8.onnx")
            static = make_static_int8(fp32, path, windows, judge, options, reporter, first_try)
            settings = static.settings
            if static.variant is None:
                reporter.line(f"{fp32.stem}: {STATIC} not made: {static.why_not}")
                continue
            one = _Tried("int8", path, static.variant)
        else:
            made = _other_int8(quantizer, fp32, windows, judge, options, reporter)
            if made is None:
                continue
            one = made
        tried.append(one.variant)
        _keep_or_remove(one, graphs, reporter)
    return Variants(graphs, tuple(tried), settings)


def _halves(fp32: Path, judge: Judge, options: ExportOptions, reporter: Reporter) -> Iterator[_Tried]:
    """16-bit graphs: smaller everywhere, faster only elsewhere, so that their speed here decides nothing.

    One that cannot be made, or that overflows, is left out, which is said.
    """
    limits = msgspec.structs.replace(options.limits, min_times_fp32=0.0)
    for half in options.halves:
        write, spec, made_by = _maker_of(half)
        path = fp32.with_suffix(f".{half}.onnx")
        try:
            write(fp32, path)
            variant = judge.variant(half, made_by, path, spec, limits)
        except (ConfigError, ParityError) as error:
            path.unlink(missing_ok=True)
            reporter.line(f"{fp32.stem}: {half} not made: {error.what}")
            continue
        yield _Tried(half, path, variant)


def _maker_of(half: Half) -> tuple[Callable[[Path, Path], None], EngineSpec, str]:
    """What writes it, what runs it to be judged, and what was done in a few words."""
    if half == "fp16":
        return write_fp16, EngineSpec("onnxruntime", "fp32"), "weights and most sums in fp16, for a GPU"
    engine = _bf16_engine()
    return write_bf16, engine, f"weights in bf16; run by {engine}"


def _bf16_engine() -> EngineSpec:
    """OpenVINO computes in bf16 where the processor does; elsewhere the rounded weights alone are judged."""
    if find_spec("openvino") is not None:
        from birdinfer.engines.openvino import has_bf16

        if has_bf16():
            return EngineSpec("openvino", "bf16")
    return EngineSpec("onnxruntime", "fp32")


def _other_int8(
    quantizer: Quantizer, fp32: Path, windows: Sequence[Float32], judge: Judge, options: ExportOptions, report: Reporter
) -> _Tried | None:
    """INT8 by other means than ours; None where it cannot be made, which is said."""
    path, name = fp32.with_suffix(f".{quantizer}.onnx"), f"int8 {quantizer}"
    report.step(f"{quantizer} INT8", 0, 1)
    try:
        if quantizer == "dynamic":
            made_by, spec = quantize_dynamic(fp32, path), ORT_INT8
        else:
            made_by = quantize_nncf(fp32, path, windows[: options.n_calibration_windows])
            spec = EngineSpec("openvino", "int8")
    except ConfigError as error:
        report.line(f"{fp32.stem}: {name} not made: {error.what}")
        return None
    report.step(f"{quantizer} INT8", 1, 1)
    return _Tried("int8", path, judge.variant(name, f"{made_by}; run by {spec.engine}", path, spec, options.limits))


def _keep_or_remove(one: _Tried, graphs: dict[Precision, Graph], reporter: Reporter) -> None:
    """Keep the first graph of a precision that was taken; say what became of it."""
    variant = one.variant
    member = one.path.name.split(".")[0]
    if variant.refused:
        reporter.line(f"{member}: {variant.name} refused: {variant.refused}")
    else:
        reporter.line(f"{member}: {variant.name} taken: {in_short(variant)}")
    if variant.refused or one.precision in graphs:
        one.path.unlink()
        return
    graphs[one.precision] = Graph(one.path.name, file_sha256(one.path), variant.figures.max_probability_difference)


def in_short(variant: Variant) -> str:
    """A variant's figures in one line."""
    figures = variant.figures
    fall, interval = figures.auc_fall, figures.auc_fall_interval
    within = f" ({interval[0]:+.4f} to {interval[1]:+.4f})" if interval else ""
    auc = "" if fall is None else f"macro AUC falls by {fall:+.4f}{within}, "
    ranks = "" if figures.least_spearman is None else f"least Spearman {figures.least_spearman:.4f}, "
    return (
        f"{figures.times_fp32:.2f} times as fast as fp32, {figures.size_mb:.1f} MB, {auc}{ranks}"
        f"largest |dp| {figures.max_probability_difference:.3f}; {variant.made_by}"
    )
