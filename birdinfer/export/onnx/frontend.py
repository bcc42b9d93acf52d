"""A member's graph with its front end inside, for hosts without birdinfer: a phone, a web page, another program.

In: a graph that takes log-mel [batch, 1, rows, columns], and its front end. Out: one ONNX file that takes ``waveform``
[batch, window_samples], float32 in -1 .. 1 at the bundle's rate, and returns the graph's own outputs and
``probabilities`` [batch, labels]. Its ``metadata_props`` hold all that a host needs to know. A window's first and last
frames reach n_fft / 2 samples beyond it: the graph reflects it there, as prediction does at the two ends of a file. A
file of one window gets the same scores from both; windows of a longer file, for which prediction reads the true
neighbouring sound, nearly the same.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

import onnx
from birdinfer.audio.windows import window_of
from birdinfer.config import FrontEndConfig, InputConfig
from birdinfer.errors import BundleError, ConfigError, LabelError, ParityError
from birdinfer.export.onnx.torch_export import OUTPUT_NAME, WAVEFORM_NAME
from birdinfer.features import log_mel as mel
from birdinfer.features import normalize as mel_input
from birdinfer.features import pcen
from birdinfer.inference.activation import activate
from birdinfer.inference.bundle import labels_sha256
from birdinfer.inference.engines import Engine, EnginePlan, GraphFacts, load_engine
from birdinfer.system.files import write_atomic
from birdinfer.typing import Float32, Float64, Index, Int64
from birdinfer.version import __version__

# ---- A real Fourier transform as two small matrix products, followed by a filterbank


@dataclass(frozen=True, kw_only=True, slots=True)
class FourierTables:
    """``|rfft(x window)|^2 @ filterbank`` of frames x as four matrix products; all float32."""

    strided: Float32
    """[n_steps, n_strided, 2 * (n_strided // 2 + 1)]: the first sum, for each c its real and its imaginary part. Frames
    are cut into [n_strided, n_steps], whose columns it multiplies. It includes the window."""
    real: Float32  # [2 * n_steps, n_steps]: the second sum's real part over d, of real and then imaginary parts over b
    imaginary: Float32  # [2 * n_steps, n_steps]: likewise the imaginary part
    bank: Float32  # [(n_strided // 2 + 1) * n_steps, bands]: the filters on the resulting power, c by c


def fourier_tables(window: Float32, filterbank: Float32) -> FourierTables:
    """Compute tables for frames as long as the window [n], n even, and for a filterbank [n / 2 + 1, bands]."""
    n_samples = len(window)
    n_strided = strided_length(n_samples)
    n_steps, n_kept = n_samples // n_strided, n_strided // 2 + 1
    time = n_steps * np.arange(n_strided) + np.arange(n_steps)[:, None]
    strided = _rotations(time[..., None] * np.arange(n_kept), n_samples) * window[time][..., None, None]
    turned = _rotations(np.outer(np.arange(n_steps), np.arange(n_steps)), n_steps)
    cos, sin = turned[..., 0], turned[..., 1]
    return FourierTables(
        strided=strided.reshape(n_steps, n_strided, 2 * n_kept).astype(np.float32),
        real=np.concatenate([cos, -sin]).astype(np.float32),
        imaginary=np.concatenate([sin, cos]).astype(np.float32),
        bank=_reordered(filterbank, n_strided, n_steps),
    )


def strided_length(n_samples: int) -> int:
    """Find the divisor of n_samples, above 1, with the fewest products per frame."""
    divisors = [length for length in range(2, n_samples + 1) if n_samples % length == 0]
    return min(divisors, key=lambda length: _products(length, n_samples // length))


def _products(n_strided: int, n_steps: int) -> int:
    n_kept = n_strided // 2 + 1
    return n_steps * n_strided * 2 * n_kept + n_kept * (2 * n_steps) ** 2


def _rotations(turns: Index, length: int) -> Float64:
    """exp(-2 pi i turns / length) as real and imaginary parts on a new last axis, computed in double."""
    angle = -2.0 * np.pi * (turns % length) / length
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _reordered(filterbank: Float32, n_strided: int, n_steps: int) -> Float32:
    """The filterbank's rows in the order in which the second sum returns bins, each once; the others are 0."""
    n_kept, n_samples = n_strided // 2 + 1, n_strided * n_steps
    bins = np.arange(n_kept)[:, None] + n_strided * np.arange(n_steps)
    # A bin above n / 2 is the mirror image of one below.
    _, first = np.unique(np.minimum(bins, n_samples - bins), return_index=True)
    weights = np.zeros((n_kept * n_steps, filterbank.shape[1]), np.float32)
    weights[first] = filterbank
    return weights


# ---- The front end as nodes of a graph

Operand = ir.Value | Float32 | Int64  # what a node reads: another's output, or an array, which becomes a constant


class NodeWriter:
    """Collects nodes in the order in which they compute, each with one output."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def __call__(self, op_type: str, *operands: Operand, **attributes: int | str | Sequence[int]) -> ir.Value:
        """Add a node and return its float32 output; ``op_type`` as ONNX spells it."""
        name = f"front_end/{len(self.nodes)}_{op_type}"
        inputs = [
            one if isinstance(one, ir.Value) else self._constant(f"{name}/constant_{index}", one)
            for index, one in enumerate(operands)
        ]
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].dtype = name, ir.DataType.FLOAT
        self.nodes.append(node)
        return node.outputs[0]

    def _constant(self, name: str, array: Float32 | Int64) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.constants.append(value)
        return value


def front_end(write: NodeWriter, waveform: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Write the whole front end of a waveform [batch, window_samples], whose full-scale sine has an amplitude of 1.

    Returns [batch, 1, rows, columns] of ``config.input_shape``, equal to that of
    :func:`birdinfer.features.log_mel.windows_to_input` for a file of exactly one window, except for rounding.
    """
    power = mel_power(write, frames(write, waveform, config), config)
    compress = pcen_of if config.mel.compression == "pcen" else decibels_of
    return stretched(write, normalised(write, compress(write, power, config), config), config)


def frames(write: NodeWriter, waveform: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Cut waveforms [batch, window_samples] into overlapping frames [batch, frames, n_fft].

    A hop's samples are copied as one piece: several hops side by side hold a frame and a rest, which is cut off.
    """
    n_fft, hop, n_frames = config.mel.n_fft, config.mel.hop_length, config.frames_per_window
    n_pieces = -(-n_fft // hop)
    margin, n_hops = config.margin_samples, n_frames + n_pieces
    # Sound beyond the window is not known here; prediction reflects a file's ends in the same way.
    reflected = write("Pad", waveform, _ints(0, margin, 0, margin), mode="reflect")
    rest = n_hops * hop - (config.window_samples + 2 * margin)
    hops = write("Reshape", write("Pad", reflected, _ints(0, 0, 0, rest)), _ints(-1, n_hops, hop))
    pieces = [_cut(write, hops, 1, first, first + n_frames) for first in range(n_pieces)]
    return _cut(write, write("Concat", *pieces, axis=2), 2, 0, n_fft)


def mel_power(write: NodeWriter, framed: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Turn frames [batch, frames, n_fft] into mel power [batch, n_mels, frames]; a full-scale sine has 1."""
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
    """Turn mel power into dB relative to a full-scale sine, the same shape."""
    lifted = write("Add", power, _number(mel.floor_power(config.mel)))
    return write("Mul", write("Log", lifted), _number(10.0 / np.log(10.0)))


def pcen_of(write: NodeWriter, power: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Turn mel power into PCEN, the same shape; the equations stand in :mod:`birdinfer.features.pcen`."""
    settings = config.mel
    lifted = write("Add", power, _number(pcen.MIN_POWER))
    energy = write("Mul", lifted, _number(pcen.FULL_SCALE_POWER))
    loudness = write("Add", running_loudness(write, energy, config), _number(settings.pcen_epsilon))
    levelled = write("Div", energy, write("Pow", loudness, _number(settings.pcen_gain)))
    biased = write("Add", levelled, _number(settings.pcen_bias))
    root = write("Pow", biased, _number(settings.pcen_power))
    return write("Sub", root, _number(settings.pcen_bias**settings.pcen_power))


def running_loudness(write: NodeWriter, energy: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Apply PCEN's smoother: energy [batch, n_mels, frames] -> its running mean, the same shape.

    All blocks are smoothed at once, as if each began in silence; then the last frames of the blocks are smoothed from
    block to block in the same way, which gives the value before each block.
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
    """[blocks, blocks]: what remains of each block's end (rows) before later blocks, a share ``left`` per block."""
    age = np.arange(n_blocks) - np.arange(n_blocks)[:, None]
    return np.where(age >= 0, left ** np.maximum(age, 0), 0.0).astype(np.float32)


def normalised(write: NodeWriter, values: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Normalise each window by itself: [batch, n_mels, frames] -> [batch, 1, n_mels, frames]."""
    n_mels, n_frames = config.mel.n_mels, config.frames_per_window
    picture = write("Reshape", values, _ints(-1, 1, n_mels, n_frames))
    epsilon = _number(mel_input.NORMALISATION_EPSILON)
    if config.mel.normalisation == "none":
        return picture
    if config.mel.normalisation == "minmax":
        # ONNX has a global pool for the maximum only.
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
    """Values minus their mean, and their standard deviation: over all axes but the first two, kept as 1."""
    for _ in range(2):
        # Twice: the mean is rounded, and for silence the error would be divided by a spread of the same size.
        values = write("Sub", values, write("GlobalAveragePool", values))
    return values, write("Sqrt", write("GlobalAveragePool", write("Mul", values, values)))


def stretched(write: NodeWriter, picture: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Resize [batch, 1, n_mels, frames] to [batch, 1, rows, columns] of ``config.input_shape``."""
    if config.mel.resize == (0, 0):
        return picture
    matrices = mel_input.stretch(config)
    return write("MatMul", matrices.rows, write("MatMul", picture, matrices.columns))


def _cut(write: NodeWriter, values: ir.Value, axis: int, begin: int, end: int) -> ir.Value:
    return write("Slice", values, _ints(begin), _ints(end), _ints(axis))


def _ints(*values: int) -> Int64:
    return np.array(values, np.int64)


def _number(value: float) -> Float32:
    return np.asarray(value, np.float32)


# ---- The file: front end, graph and probabilities, compared with prediction

PROBABILITIES_NAME = "probabilities"
TOLERANCE = 1e-3
"""Largest |p - p_birdinfer| that is accepted. In fp32 it is a hundred times smaller; INT8 rounds a value that lies
between two steps to either."""

_ACTIVATION_NODES = {"sigmoid": "Sigmoid", "softmax": "Softmax", "none": "Identity"}


def export_with_frontend(
    graph: Path, out: Path, input_config: InputConfig, *, activation: str, labels: Sequence[str], check_on: Float32
) -> float:
    """Write a member's graph with its front end inside if its probabilities are those of prediction.

    ``graph`` is fp32 or INT8 in QDQ form, opset 17 or later; ``activation`` is ``sigmoid``, ``softmax`` or ``none``;
    ``labels`` are in column order; ``check_on`` are real windows [windows, window_samples], at least one, to which
    silence is added. Returns the largest |p - p_birdinfer| of these windows, in one batch and one by one; raises
    ParityError if it exceeds 1e-3 or is not finite, and nothing is written. Raises ConfigError if the member takes the
    waveform, the activation is unknown or windows have another length, BundleError if the graph cannot be loaded or
    takes or gives something else, LabelError if it was exported with other labels.
    """
    config = _checked(graph, input_config, activation, check_on)
    facts = _load(graph, [], (1, *config.input_shape), 1).facts
    clip = _clip_output(graph, facts, config, labels)
    model = _load_for_front_end(graph)
    put_front_end_before(model.graph, config)
    add_probabilities(model.graph, clip, activation)
    model.metadata_props.update(_for_other_hosts(config, activation, labels))
    content: bytes = ir.to_proto(model).SerializeToString()
    onnx.checker.check_model(content, full_check=True)
    waveforms = np.concatenate([check_on, np.zeros((1, config.window_samples))], dtype=np.float32)
    reference = activate(_predict(graph, clip, config, waveforms), activation)
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "joined.onnx"
        joined.write_bytes(content)
        difference = _largest_difference(joined, waveforms, reference)
    if not difference <= TOLERANCE:  # also true for NaN
        what = f"with its front end inside differs by {difference:.2g} of probability; allowed is {TOLERANCE:g}"
        raise ParityError(graph, what, "nothing was written")
    write_atomic(out, content)
    return difference


def put_front_end_before(graph: ir.Graph, config: FrontEndConfig) -> None:
    """Make a graph take ``waveform`` [batch, window_samples] instead of log-mel, in place."""
    (log_mel,) = graph.inputs
    batch = log_mel.shape[0] if log_mel.shape is not None else None
    shape = ir.Shape([batch, config.window_samples])
    waveform = ir.Value(name=WAVEFORM_NAME, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    write = NodeWriter()
    computed = front_end(write, waveform, config)
    computed.shape = log_mel.shape
    graph.inputs[0] = waveform
    ir.convenience.replace_all_uses_with(log_mel, computed)
    for constant in write.constants:
        graph.register_initializer(constant)
    graph.insert_before(graph[0], write.nodes)


def add_probabilities(graph: ir.Graph, clip: str, activation: str) -> None:
    """Add the output ``probabilities`` [batch, labels], computed from the output ``clip``, in place."""
    (logits,) = [output for output in graph.outputs if output.name == clip]
    attributes = {"axis": -1} if activation == "softmax" else {}
    node = ir.node(_ACTIVATION_NODES[activation], [logits], attributes, name=PROBABILITIES_NAME)
    probabilities = node.outputs[0]
    probabilities.name, probabilities.shape, probabilities.type = PROBABILITIES_NAME, logits.shape, logits.type
    graph.append(node)
    graph.outputs.append(probabilities)


def _checked(graph: Path, input_config: InputConfig, activation: str, check_on: Float32) -> FrontEndConfig:
    if not isinstance(input_config, FrontEndConfig):
        raise ConfigError(graph, "takes the waveform, its front end is inside already", "give it to the host as it is")
    if activation not in _ACTIVATION_NODES:
        raise ConfigError("activation", f"{activation!r} is unknown", f"choose one of {', '.join(_ACTIVATION_NODES)}")
    if check_on.ndim != 2 or check_on.shape[1] != input_config.window_samples or not len(check_on):
        what = f"{list(check_on.shape)} are no windows of {input_config.window_samples} samples"
        raise ConfigError("check_on", what, "give a few windows of real sound")
    return input_config


def _clip_output(graph: Path, facts: GraphFacts, config: FrontEndConfig, labels: Sequence[str]) -> str:
    taken, given = facts.input_shape, (1, *config.input_shape)
    if len(taken) != 4 or any(size not in (None, other) for size, other in zip(taken[1:], given, strict=True)):
        raise BundleError(graph, f"takes {list(taken[1:])}, its front end gives {list(given)}", "export it again")
    stamped = facts.metadata.get("labels_sha256", "")
    if stamped and stamped != labels_sha256(tuple(labels)):
        raise LabelError(graph, f"was exported with other labels than these {len(labels)}", "name the bundle's own")
    if PROBABILITIES_NAME in facts.outputs:
        raise BundleError(graph, f"gives {PROBABILITIES_NAME!r} already", "export it again")
    fitting = [name for name, shape in facts.outputs.items() if len(shape) == 2 and shape[1] == len(labels)]
    named = [name for name in fitting if name == OUTPUT_NAME] or fitting
    if len(named) != 1:
        there = ", ".join(f"{name} {list(shape[1:])}" for name, shape in facts.outputs.items())
        what = f"has {len(named)} outputs of one score for each of {len(labels)} labels (it has {there})"
        raise BundleError(graph, what, "one is needed")
    return named[0]


def _load_for_front_end(graph: Path) -> ir.Model:
    # Not ir.load, which would leave weights that lie beside the graph where they are.
    model = ir.from_proto(onnx.load(graph))
    kinds = [str(value.dtype) for value in model.graph.inputs]
    if kinds != ["FLOAT"]:
        raise BundleError(graph, f"takes {', '.join(kinds)}, its front end gives FLOAT", "name the fp32 or int8 graph")
    return model


def _for_other_hosts(config: FrontEndConfig, activation: str, labels: Sequence[str]) -> dict[str, str]:
    rate = config.audio.sample_rate
    takes = (
        f"{WAVEFORM_NAME} [batch, {config.window_samples}]: mono float32 in -1 .. 1 at {rate} Hz, "
        "not scaled to a peak; fill a shorter rest with zeros; compute in float32, half precision loses what is quiet"
    )
    return {
        "sample_rate_hz": str(rate),
        "window_seconds": f"{config.window.window_seconds:g}",
        "labels": json.dumps(list(labels), ensure_ascii=False),
        "activation": activation,
        "input": takes,
        "output": f"{PROBABILITIES_NAME} [batch, {len(labels)}]: 0 .. 1, in the order of labels",
        "birdinfer": __version__,
    }


def _predict(graph: Path, clip: str, config: FrontEndConfig, waveforms: Float32) -> Float32:
    """The output ``clip`` [windows, labels] as prediction computes it for files of one window."""
    inputs = [mel.windows_to_input(window_of(waveform, 0, config), 1, config) for waveform in waveforms]
    return _load(graph, [clip], inputs[0].shape[1:], len(inputs)).run(np.concatenate(inputs))[clip]


def _largest_difference(graph: Path, waveforms: Float32, reference: Float32) -> float:
    """Largest |p - reference|, in one batch and one by one; NaN where one is not finite."""
    engines = [_load(graph, [PROBABILITIES_NAME], waveforms.shape[1:], size) for size in (len(waveforms), 1)]
    return float(np.max([np.abs(engine.run(waveforms)[PROBABILITIES_NAME] - reference) for engine in engines]))


def _load(graph: Path, outputs: Sequence[str], sample_shape: tuple[int, ...], batch_size: int) -> Engine:
    return load_engine(EnginePlan(batch_size=batch_size), graph, outputs, sample_shape)
