"""The front end as nodes of a graph: waveform [batch, window_samples] -> model input [batch, 1, rows, columns].

The sound goes through the file from top to bottom: reflected at both ends and cut into frames, transformed, squared,
gathered into mel bands, made decibels or PCEN, normalised, stretched. It defines nothing: window, filterbank, floor,
smoother, epsilons and resizing matrices are those of :mod:`birdinfer.mel`, :mod:`birdinfer.pcen` and
:mod:`birdinfer.mel_input`. Every node works on each window by itself, in float32, and is known to every opset from 13
on: what changed since (ReduceMean, ReduceMax) is written as pools.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from birdinfer import mel, mel_input, pcen
from birdinfer.config import FrontEndConfig
from birdinfer.export.graphs.fourier import fourier_tables

Float32 = npt.NDArray[np.float32]
Operand = ir.Value | npt.NDArray[np.float32] | npt.NDArray[np.int64]
"""What a node reads: another's output, or an array, which becomes a constant of the graph."""


class NodeWriter:
    """Takes down nodes in the order in which they compute, each with one output."""

    def __init__(self) -> None:
        """Begin with none."""
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def __call__(self, op_type: str, *operands: Operand, **attributes: int | str | Sequence[int]) -> ir.Value:
        """The output of a new node, float32; ``op_type`` as ONNX spells it."""
        name = f"front_end/{len(self.nodes)}_{op_type}"
        inputs = [
            one if isinstance(one, ir.Value) else self._constant(f"{name}/constant_{index}", one)
            for index, one in enumerate(operands)
        ]
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].dtype = name, ir.DataType.FLOAT
        self.nodes.append(node)
        return node.outputs[0]

    def _constant(self, name: str, array: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.constants.append(value)
        return value


def front_end(write: NodeWriter, waveform: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Write the whole front end.

    Args:
        write: takes the nodes.
        waveform: float32 [batch, window_samples], a full-scale sine having an amplitude of 1.
        config: the front end's settings.

    Returns:
        [batch, 1, rows, columns] of ``config.input_shape``, as :func:`birdinfer.mel.windows_to_input` gives it for a
        file of exactly one window, to the rounding of float32.
    """
    power = mel_power(write, frames(write, waveform, config), config)
    compress = pcen_of if config.mel.compression == "pcen" else decibels_of
    return stretched(write, normalised(write, compress(write, power, config), config), config)


def frames(write: NodeWriter, waveform: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Waveform [batch, window_samples] -> frames [batch, frames, n_fft], which overlap.

    A hop's samples are copied as one piece: hops side by side hold a frame and a rest, which is cut off.
    """
    n_fft, hop, n_frames = config.mel.n_fft, config.mel.hop_length, config.frames_per_window
    n_pieces = -(-n_fft // hop)
    margin, n_hops = config.margin_samples, n_frames + n_pieces
    # What lies beyond the window is not known here; prediction reflects a file's ends in the same way.
    reflected = write("Pad", waveform, _ints(0, margin, 0, margin), mode="reflect")
    rest = n_hops * hop - (config.window_samples + 2 * margin)
    hops = write("Reshape", write("Pad", reflected, _ints(0, 0, 0, rest)), _ints(-1, n_hops, hop))
    pieces = [_cut(write, hops, 1, first, first + n_frames) for first in range(n_pieces)]
    return _cut(write, write("Concat", *pieces, axis=2), 2, 0, n_fft)


def mel_power(write: NodeWriter, framed: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Frames [batch, frames, n_fft] -> mel power [batch, n_mels, frames], a full-scale sine having 1.

    A Fourier transform in two steps, each a product of matrices (:mod:`birdinfer.export.graphs.fourier`).
    """
    # Not the operator STFT, which takes four times as long in ONNX Runtime (16 ms for 5 s at n_fft 2048 on one thread,
    # this 4) and which OpenVINO reads for a fixed batch only. The whole transform as one product or convolution: 40.
    tables = fourier_tables(mel.hann_window(config.mel), mel.filterbank(config.mel, config.audio.sample_rate))
    n_frames, (n_steps, n_strided, width) = config.frames_per_window, tables.strided.shape
    n_kept = width // 2
    rows = write("Reshape", framed, _ints(-1, n_frames, n_strided, n_steps))
    strided = write("MatMul", write("Transpose", rows, perm=[0, 3, 1, 2]), tables.strided)
    flat = write("Reshape", strided, _ints(-1, n_steps, n_frames * width))
    regrouped = write("Reshape", write("Transpose", flat, perm=[0, 2, 1]), _ints(-1, n_frames * n_kept, 2 * n_steps))
    real, imaginary = write("MatMul", regrouped, tables.real), write("MatMul", regrouped, tables.imaginary)
    power = write("Add", write("Mul", real, real), write("Mul", imaginary, imaginary))
    gathered = write("MatMul", write("Reshape", power, _ints(-1, n_frames, len(tables.bank))), tables.bank)
    return write("Transpose", gathered, perm=[0, 2, 1])


def decibels_of(write: NodeWriter, power: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Mel power -> dB of a full-scale sine, the same shape."""
    lifted = write("Add", power, _number(mel.floor_power(config.mel)))
    return write("Mul", write("Log", lifted), _number(10.0 / np.log(10.0)))


def pcen_of(write: NodeWriter, power: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Mel power -> PCEN, the same shape; the equations stand in :mod:`birdinfer.pcen`."""
    settings = config.mel
    lifted = write("Add", power, _number(pcen.MIN_POWER))
    energy = write("Mul", lifted, _number(pcen.FULL_SCALE_POWER))
    loudness = write("Add", running_loudness(write, energy, config), _number(settings.pcen_epsilon))
    levelled = write("Div", energy, write("Pow", loudness, _number(settings.pcen_gain)))
    biased = write("Add", levelled, _number(settings.pcen_bias))
    root = write("Pow", biased, _number(settings.pcen_power))
    return write("Sub", root, _number(settings.pcen_bias**settings.pcen_power))


def running_loudness(write: NodeWriter, energy: ir.Value, config: FrontEndConfig) -> ir.Value:
    """PCEN's smoother: energy [batch, n_mels, frames] -> its running mean, the same shape.

    All blocks at once, as if each began in silence; then the last frame of every block is smoothed from block to block
    in the same way, which gives what each block has before it.
    """
    n_mels, n_frames, length = config.mel.n_mels, config.frames_per_window, pcen.FRAMES_PER_BLOCK
    n_blocks, smoother = -(-n_frames // length), pcen.smoother(config)
    filled = write("Pad", energy, _ints(0, 0, 0, 0, 0, n_blocks * length - n_frames))
    blocks = write("Reshape", filled, _ints(-1, n_mels, n_blocks, length))
    within = write("MatMul", blocks, smoother.within)
    last = write("Reshape", _cut(write, within, 3, length - 1, length), _ints(-1, n_mels, n_blocks))
    begun = write("Concat", _cut(write, energy, 2, 0, 1), last, axis=2)
    before = write("MatMul", _cut(write, begun, 2, 0, n_blocks), _carried(float(smoother.after[-1]), n_blocks))
    carried = write("Mul", write("Reshape", before, _ints(-1, n_mels, n_blocks, 1)), smoother.after)
    loudness = write("Reshape", write("Add", within, carried), _ints(-1, n_mels, n_blocks * length))
    return _cut(write, loudness, 2, 0, n_frames)


def _carried(left: float, n_blocks: int) -> Float32:
    """[blocks, blocks]: what is left of each block's end (rows) before later blocks, a share ``left`` from one on."""
    age = np.arange(n_blocks) - np.arange(n_blocks)[:, None]
    return np.where(age >= 0, left ** np.maximum(age, 0), 0.0).astype(np.float32)


def normalised(write: NodeWriter, values: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Values [batch, n_mels, frames] -> [batch, 1, n_mels, frames], each window normalised by itself."""
    n_mels, n_frames = config.mel.n_mels, config.frames_per_window
    picture = write("Reshape", values, _ints(-1, 1, n_mels, n_frames))
    epsilon = _number(mel_input.NORMALISATION_EPSILON)
    if config.mel.normalisation == "none":
        return picture
    if config.mel.normalisation == "minmax":
        # ONNX pools know a maximum only.
        lowest = write("Neg", write("GlobalMaxPool", write("Neg", picture)))
        above = write("Sub", picture, lowest)
        return write("Div", above, write("Add", write("GlobalMaxPool", above), epsilon))
    if config.mel.normalisation == "frequency":
        centred, spread = _centred(write, values)
        least = _number(mel_input.least_band_spread(config.mel))
        return write("Reshape", write("Div", centred, write("Max", spread, least)), _ints(-1, 1, n_mels, n_frames))
    centred, spread = _centred(write, picture)
    return write("Div", centred, write("Add", spread, epsilon))


def _centred(write: NodeWriter, values: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Values about their mean, and their standard deviation: over all axes but the first two, which are kept as 1."""
    for _ in range(2):
        # Twice: a mean is rounded, and what that leaves of silence would be divided by a spread of as little.
        values = write("Sub", values, write("GlobalAveragePool", values))
    return values, write("Sqrt", write("GlobalAveragePool", write("Mul", values, values)))


def stretched(write: NodeWriter, picture: ir.Value, config: FrontEndConfig) -> ir.Value:
    """A picture [batch, 1, n_mels, frames] -> [batch, 1, rows, columns] of ``config.input_shape``."""
    if config.mel.resize == (0, 0):
        return picture
    matrices = mel_input.stretch(config)
    return write("MatMul", matrices.rows, write("MatMul", picture, matrices.columns))


def _cut(write: NodeWriter, values: ir.Value, axis: int, begin: int, end: int) -> ir.Value:
    """``values[begin:end]`` along an axis."""
    return write("Slice", values, _ints(begin), _ints(end), _ints(axis))


def _ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def _number(value: float) -> Float32:
    return np.asarray(value, np.float32)
