"""Replace the linear parts of a graph: by a windowed Fourier transform in small products, or by one convolution.

In: an ONNX file that takes sound. Out: the same graph for one window length, whose linear parts were measured
(:mod:`birdinfer.export.fold.measure`) and replaced; what they were made of is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from birdinfer.errors import BundleError
from birdinfer.export.fold.low_rank import split_kernel
from birdinfer.export.fold.measure import FrameKernel, measure_kernel
from birdinfer.export.fold.regions import (
    Region,
    find_regions,
    partial_run,
    tensor_shapes,
    transforms_between,
)
from birdinfer.export.fold.silence import exact_taps, measure_silence, silence_level, silent_frame
from birdinfer.export.fold.spectrum import Spectrum, match_spectrum
from birdinfer.export.onnx.edit import drop_unused, replace_value
from birdinfer.export.onnx.fourier import NodeWriter, Operand, bin_places, fourier, fourier_tables, ints
from birdinfer.typing import Float32

_LEAST_OPSET = 11
"""From which on the nodes that are written take their numbers as inputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """What was replaced in a graph."""

    model: ir.Model
    n_transforms: int
    n_convolutions: int

    def __str__(self) -> str:
        kinds = ((self.n_transforms, "fast Fourier transform"), (self.n_convolutions, "convolution"))
        return " and ".join(f"{count} {kind}{'s' * (count > 1)}" for count, kind in kinds if count)


def fold_graph(path: Path, n_samples: int) -> Folded | None:
    """Replace the linear parts of a graph; None if it has none that can be replaced.

    ``n_samples``: of its window.

    Raises:
        BundleError: the graph cannot be read.
    """
    try:
        model = ir.load(path)
    except Exception as error:  # of protobuf and of onnx_ir, which share no base but Exception
        raise BundleError(path, f"cannot be read ({error})") from error
    return fold_model(model, n_samples)


def fold_model(model: ir.Model, n_samples: int) -> Folded | None:
    """Replace the linear parts of a graph in memory, which is changed; None, and no change, if it has none."""
    graph = model.graph
    if len(graph.inputs) != 1 or graph.inputs[0].shape is None or model.opset_imports.get("", 0) < _LEAST_OPSET:
        return None
    sizes = [size if isinstance(size, int) else None for size in graph.inputs[0].shape]
    batch = sizes[0] or 2
    windows = np.zeros((batch, *(size or n_samples for size in sizes[1:-1]), n_samples), np.float32)
    try:
        shapes = tensor_shapes(model, windows)
    except Exception:  # ONNX Runtime's own: a part of a graph that does not run alone is left as it is
        return None
    n_transforms = n_convolutions = 0
    for region in find_regions(graph, shapes, n_samples):
        measured = _measure(model, region, shapes, batch)
        if measured is None:
            continue
        write = NodeWriter(f"folded/{n_transforms + n_convolutions}")
        spectrum = _spectrum(measured)
        if spectrum is None and _is_convolution(region, measured):
            continue
        replaced = _write(write, region, measured, spectrum, graph.inputs[0], shapes)
        if spectrum is None:
            n_convolutions += len(measured)
        else:
            n_transforms += 1
        _insert(graph, region, write, replaced)
    if not n_transforms + n_convolutions:
        return None
    graph.inputs[0].shape = ir.Shape([*graph.inputs[0].shape[:-1], n_samples])
    drop_unused(graph)
    graph.sort()
    return Folded(model=model, n_transforms=n_transforms, n_convolutions=n_convolutions)


def _is_convolution(region: Region, kernels: Sequence[FrameKernel]) -> bool:
    """Whether every front is already what would be written: one convolution, or two where that is less work."""
    kinds = [transforms_between(region.source, front) for front in region.fronts]
    return all(
        kind == ["Conv"] * 2 or (kind == ["Conv"] and split_kernel(kernel) is None)
        for kind, kernel in zip(kinds, kernels, strict=True)
    )


def _measure(
    model: ir.Model, region: Region, shapes: dict[str, tuple[int, ...]], batch: int
) -> list[FrameKernel] | None:
    """The kernels of a region's fronts; None if one of them is no kernel that moves over the waveform."""
    if any(shapes[front.name or ""][0] != batch for front in region.fronts):
        return None
    source, first = model.graph.inputs[0], shapes[model.graph.inputs[0].name or ""]
    # Shapes of the network's input may be read behind the source, too.
    inputs = [region.source] if region.source is source else [region.source, source]
    kernels = []
    for front in region.fronts:
        try:
            run = partial_run(model, inputs, [front])
        except (BundleError, ValueError):
            return None

        def values(waveforms: Float32, run: object = run) -> Float32:
            given = np.repeat(waveforms.reshape(len(waveforms), *region.source_shape), batch, axis=0)
            assert callable(run)
            found: Float32 = run([given, np.zeros(first, np.float32)][: len(inputs)])[0]
            return found[::batch]

        kernel = measure_kernel(values, region.n_samples)
        if kernel is None:
            return None
        if region.source is not source:
            kernel = replace(kernel, silence=measure_silence(model, region, front, kernel, shapes))
            kernel = replace(kernel, taps=exact_taps(kernel))
        kernels.append(kernel)
    return kernels


def _spectrum(kernels: Sequence[FrameKernel]) -> Spectrum | None:
    """The transform that kernels are together; None if they are none."""
    together = _aligned(kernels)
    sizes = [size for kernel in kernels for size in (*kernel.channel_shape, len(kernel.taps))]
    return match_spectrum(together, sizes) if together is not None else None


def _write(
    write: NodeWriter,
    region: Region,
    kernels: Sequence[FrameKernel],
    spectrum: Spectrum | None,
    sound: ir.Value,
    shapes: dict[str, tuple[int, ...]],
) -> list[ir.Value]:
    """Write nodes that compute the fronts, and return these; ``sound``: the graph's input."""
    if spectrum is None:
        is_steady = all(kernel.silence is not None for kernel in kernels)
        level = silence_level(write, sound, region.source, shapes) if is_steady else None
        source = region.source if level is None else write("Sub", region.source, level)
        waveform = write("Reshape", source, ints(-1, region.n_samples))
        return [_convolution(write, waveform, region.n_samples, kernel, level) for kernel in kernels]
    waveform = write("Reshape", region.source, ints(-1, region.n_samples))
    first = min(kernel.first for kernel in kernels) - spectrum.lead
    parts = _transform(write, waveform, region.n_samples, kernels[0], spectrum, first)
    ends = np.cumsum([len(kernel.taps) for kernel in kernels])
    fronts = []
    for kernel, end in zip(kernels, ends, strict=True):
        own = slice(end - len(kernel.taps), end)
        values = _chosen(write, parts, spectrum, own)
        fronts.append(_placed(write, values, kernel))
    return fronts


def _aligned(kernels: Sequence[FrameKernel]) -> Float32 | None:
    """The weights of several kernels of the same frames below each other; None if their frames differ."""
    if len({(kernel.hop, kernel.n_frames) for kernel in kernels}) > 1:
        return None
    first = min(kernel.first for kernel in kernels)
    end = max(kernel.first + kernel.taps.shape[1] for kernel in kernels)
    rows = []
    for kernel in kernels:
        before = kernel.first - first
        rows.append(np.pad(kernel.taps, ((0, 0), (before, end - first - before - kernel.taps.shape[1]))))
    return np.concatenate(rows)


def _cut(write: NodeWriter, waveform: ir.Value, n_samples: int, first: int, end: int) -> ir.Value:
    """Samples ``first`` to ``end`` of waveforms [batch, n_samples]; silence beyond."""
    low, high = max(0, first), min(n_samples, end)
    if (low, high) != (0, n_samples):
        waveform = write("Slice", waveform, ints(low), ints(high), ints(1))
    if low - first or end - high:
        waveform = write("Pad", waveform, ints(0, low - first, 0, end - high))
    return waveform


def _transform(
    write: NodeWriter, waveform: ir.Value, n_samples: int, kernel: FrameKernel, spectrum: Spectrum, first: int
) -> ir.Value:
    """The bins' real parts and then their imaginary parts [batch, frames, 2 * places]."""
    n_fft, hop, n_frames = len(spectrum.window), kernel.hop, kernel.n_frames
    n_pieces = -(-n_fft // hop)
    n_hops = n_frames + n_pieces - 1
    cut = _cut(write, waveform, n_samples, first, first + n_hops * hop)
    hops = write("Reshape", cut, ints(-1, n_hops, hop))
    pieces = [write("Slice", hops, ints(at), ints(at + n_frames), ints(1)) for at in range(n_pieces)]
    framed = write("Slice", write("Concat", *pieces, axis=2), ints(0), ints(n_fft), ints(2))
    tables = fourier_tables(spectrum.window, np.zeros((n_fft // 2 + 1, 0), np.float32))
    parts = [write("Reshape", part, ints(-1, n_frames, len(tables.bank)))
             for part in fourier(write, framed, tables, n_frames)]  # fmt: skip
    return write("Concat", *parts, axis=2)


def _chosen(write: NodeWriter, parts: ir.Value, spectrum: Spectrum, own: slice) -> ir.Value:
    """A front's channels [batch, frames, channels] of the transform's values."""
    places, is_mirrored = bin_places(len(spectrum.window))
    bins, is_imaginary, signs = spectrum.bins[own], spectrum.is_imaginary[own], spectrum.signs[own]
    n_places = len(fourier_tables(spectrum.window, np.zeros((len(places), 0), np.float32)).bank)
    values = write("Gather", parts, (places[bins] + n_places * is_imaginary).astype(np.int64), axis=2)
    signs = np.where(is_imaginary & is_mirrored[bins], -signs, signs).astype(np.float32)
    return write("Mul", values, signs) if (signs < 0).any() else values


def _convolution(
    write: NodeWriter, waveform: ir.Value, n_samples: int, kernel: FrameKernel, level: ir.Value | None
) -> ir.Value:
    stages = split_kernel(kernel)
    length = kernel.taps.shape[1] if stages is None else stages.mix.shape[2] * kernel.hop
    end = kernel.first + (kernel.n_frames - 1) * kernel.hop + length
    source = write("Reshape", _cut(write, waveform, n_samples, kernel.first, end), ints(-1, 1, end - kernel.first))
    offsets: list[Operand] = [kernel.offsets] if kernel.offsets.any() else []
    if stages is None:
        values = write("Conv", source, np.ascontiguousarray(kernel.taps[:, None]), *offsets, strides=[kernel.hop])
    else:
        hops = write("Conv", source, np.ascontiguousarray(stages.basis[:, None]), strides=[kernel.hop])
        values = write("Conv", hops, np.ascontiguousarray(stages.mix), *offsets)
    if level is not None and kernel.silence is not None:
        # As a sum over every frame, silence would leave its rounding, which a power below 1 makes loud.
        values = write("Add", values, silent_frame(write, level, kernel.silence))
    if kernel.time_axis == len(kernel.channel_shape):
        return write("Reshape", values, ints(-1, *kernel.channel_shape, kernel.n_frames))
    return _placed(write, write("Transpose", values, perm=[0, 2, 1]), kernel, with_offsets=False)


def _placed(write: NodeWriter, values: ir.Value, kernel: FrameKernel, *, with_offsets: bool = True) -> ir.Value:
    """Values [batch, frames, channels] as the graph has them."""
    if with_offsets and kernel.offsets.any():
        values = write("Add", values, kernel.offsets)
    shaped = write("Reshape", values, ints(-1, kernel.n_frames, *kernel.channel_shape))
    axes = list(range(2 + len(kernel.channel_shape)))
    axes.insert(1 + kernel.time_axis, axes.pop(1))
    return shaped if axes == sorted(axes) else write("Transpose", shaped, perm=axes)


def _insert(graph: ir.Graph, region: Region, write: NodeWriter, replaced: Sequence[ir.Value]) -> None:
    """Put the new nodes behind the waveform, and let the readers of the fronts read them."""
    for value in write.constants:
        graph.register_initializer(value)
    producer = region.source.producer()
    if producer is None:
        graph.insert_before(graph[0], write.nodes)
    else:
        graph.insert_after(producer, write.nodes)
    for front, new in zip(region.fronts, replaced, strict=True):
        replace_value(front, new)
