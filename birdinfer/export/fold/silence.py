"""Digital silence in a folded front end, where the network shifts and scales its sound: a constant that is not 0.

A windowed transform gives next to nothing for it. What is left there is rounding, and a power below 1, as BirdNET has
one, makes it loud: the frame's product with the window is rounded to single precision, and what the transform makes of
these errors is the value. So they are computed as the graph makes them, for one frame of a window, and every silent
frame has that value exactly.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from birdinfer.export.fold.measure import TOLERANCE, FrameKernel, Silence
from birdinfer.export.fold.regions import Region, partial_values, transforms_between
from birdinfer.export.onnx.fourier import NodeWriter, ints
from birdinfer.typing import Float32

_SCALINGS = {"Add", "Sub", "Mul", "Div"}
_DOUBLE, _FLOAT = ir.DataType.DOUBLE.value, ir.DataType.FLOAT.value


def measure_silence(
    model: ir.Model, region: Region, front: ir.Value, kernel: FrameKernel, shapes: dict[str, tuple[int, ...]]
) -> Silence | None:
    """Measure in double precision what a region gives for a constant waveform.

    None if frames reach beyond the waveform, where they see silence instead, or if its nodes cannot be computed so.
    """
    end = kernel.first + kernel.hop * (kernel.n_frames - 1) + kernel.taps.shape[1]
    if kernel.first < 0 or end > region.n_samples:
        return None
    values = partial_values(model, [region.source], front, [np.ones((1, *region.source_shape))])
    if values is None:
        return None
    frames = np.moveaxis(values[0], kernel.time_axis, 0).reshape(kernel.n_frames, -1)
    steady = np.asarray(frames[kernel.n_frames // 2] - kernel.offsets, np.float32)
    found = _window_of(region, front, shapes)
    if found is None:
        return Silence(steady=steady)
    windowed, window = found
    rest = _behind(model, windowed, front, kernel, len(window))
    return Silence(steady=steady, window=None if rest is None else window, rest=rest)


def _window_of(region: Region, front: ir.Value, shapes: dict[str, tuple[int, ...]]) -> tuple[ir.Value, Float32] | None:
    """The frames times a window [batch, frames, length], and the window; None if there is no such product."""
    waiting, seen = [front], {region.source}
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None:
            continue
        if node.op_type == "Mul" and not transforms_between(region.source, value):
            constants = [ir.convenience.get_const_tensor(each) for each in node.inputs if each is not None]
            for window in (each.numpy() for each in constants if each is not None):
                if window.size > 1 and shapes.get(value.name or "", ())[2:] == (window.size,):
                    return value, np.asarray(window, np.float32).reshape(-1)
        new = [each for each in node.inputs if each is not None and each not in seen]
        seen.update(new)
        waiting += new
    return None


def _behind(
    model: ir.Model, windowed: ir.Value, front: ir.Value, kernel: FrameKernel, length: int
) -> NDArray[np.float64] | None:
    """What becomes of each place of a frame behind its window [length, channels]: a frame with a 1 for each."""
    parts = []
    for begin in range(0, length, kernel.n_frames):
        frames = np.eye(kernel.n_frames, length, begin)[np.newaxis]
        values = partial_values(model, [windowed], front, [frames])
        if values is None:
            return None
        parts.append(np.moveaxis(values[0], kernel.time_axis, 0).reshape(kernel.n_frames, -1) - kernel.offsets)
    return np.concatenate(parts)[:length]


def exact_taps(kernel: FrameKernel) -> Float32:
    """Return a kernel's weights as window and transform state them, if they are the measured ones but for rounding.

    A transform in single precision has errors in them 20 times as large as rounding: as loud as what BirdNET's highest
    bands hold of a recording that ends below.
    """
    silence, length = kernel.silence, kernel.taps.shape[1]
    if silence is None or silence.window is None or silence.rest is None:
        return kernel.taps
    stated = (silence.window[:, np.newaxis].astype(np.float64) * silence.rest).T
    for lead in range(len(silence.window) - length + 1):
        taps = stated[:, lead : lead + length]
        if np.abs(taps - kernel.taps).max() <= TOLERANCE * np.abs(kernel.taps).max():
            return taps.astype(np.float32)
    return kernel.taps


def _as_double(value: ir.Value) -> ir.Value:
    value.dtype = ir.DataType.DOUBLE
    return value


def silent_frame(write: NodeWriter, level: ir.Value, silence: Silence) -> ir.Value:
    """Write what a frame at the level of silence [batch, 1] gives: [batch, channels, 1]."""
    steady = write("Mul", write("Reshape", level, ints(-1, 1, 1)), silence.steady[:, None])
    if silence.window is None or silence.rest is None:
        return steady
    flat = write("Reshape", level, ints(-1, 1))
    product = _as_double(write("Cast", write("Mul", flat, silence.window), to=_DOUBLE))
    factors = (flat, write("Reshape", silence.window, ints(1, -1)))
    exact = _as_double(write("Mul", *(_as_double(write("Cast", each, to=_DOUBLE)) for each in factors)))
    errors = write("Cast", _as_double(write("Sub", product, exact)), to=_FLOAT)
    return write(
        "Add",
        steady,
        write("Reshape", write("MatMul", errors, silence.rest.astype(np.float32)), ints(-1, len(silence.steady), 1)),
    )


def silence_level(
    write: NodeWriter, sound: ir.Value, source: ir.Value, shapes: dict[str, tuple[int, ...]]
) -> ir.Value | None:
    """Write what digital silence is in a waveform that is a window's sound shifted and scaled, one number a window.

    None if it is made of the sound in another way.
    """
    chain = []
    while source is not sound:
        node = source.producer()
        if node is not None and node.op_type in ("Identity", "Slice"):
            source = _input(node, 0)
            continue
        if node is None or node.op_type not in _SCALINGS or shapes.get(source.name or "") != shapes[sound.name or ""]:
            return None
        places = [at for at, each in enumerate(node.inputs) if each is not None and _is_sound(each, shapes, sound)]
        if len(places) != 1:
            return None
        chain.append((node, places[0]))
        source = _input(node, places[0])
    if not {node.op_type for node, _ in chain} & {"Add", "Sub"}:
        return None  # silence stays 0
    level: ir.Value = write("Identity", np.zeros((1,) * len(shapes[sound.name or ""]), np.float32))
    for node, place in reversed(chain):
        operands = [level if at == place else _input(node, at) for at in range(2)]
        level = write(node.op_type, *operands)
    return level


def _input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None  # one that is needed
    return value


def _is_sound(value: ir.Value, shapes: dict[str, tuple[int, ...]], sound: ir.Value) -> bool:
    return shapes.get(value.name or "") == shapes[sound.name or ""]
