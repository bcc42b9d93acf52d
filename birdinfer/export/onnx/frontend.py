"""A member's graph with its front end inside, for hosts without birdinfer: a phone, a web page, another program.

In: a graph that takes log-mel [batch, channels, rows, columns], and its front end. Out: one ONNX file that takes
``waveform`` [batch, window_samples], float32 in -1 .. 1 at the bundle's rate, and returns the graph's own outputs and
``probabilities`` [batch, labels]. Its ``metadata_props`` hold all that a host needs to know. A window's first and last
frames reach n_fft / 2 samples beyond it: the graph reflects it there, as prediction does at the two ends of a file. A
file of one window gets the same scores from both; windows of a longer file, for which prediction reads the true
neighbouring sound, nearly the same.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

import onnx
from birdinfer.audio.windows import window_of
from birdinfer.config import FrontEndConfig, InputConfig
from birdinfer.errors import BundleError, ConfigError, LabelError, ParityError
from birdinfer.export.onnx.fourier import NodeWriter, fourier, fourier_tables, ints
from birdinfer.export.onnx.torch_export import OUTPUT_NAME, WAVEFORM_NAME
from birdinfer.features import log_mel as mel
from birdinfer.features import normalize as mel_input
from birdinfer.features import pcen
from birdinfer.inference.activation import activate
from birdinfer.inference.bundle import labels_sha256
from birdinfer.inference.engines import Engine, EnginePlan, GraphFacts, load_engine
from birdinfer.system.files import write_atomic
from birdinfer.typing import Float32
from birdinfer.version import __version__

# ---- The front end as nodes of a graph


def front_end(write: NodeWriter, waveform: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Write the whole front end of a waveform [batch, window_samples], whose full-scale sine has an amplitude of 1.

    Returns [batch, channels, rows, columns], ``config.sample_shape``, equal to that of
    :func:`birdinfer.features.log_mel.windows_to_input` for a file of exactly one window, except for rounding.
    """
    power = mel_power(write, frames(write, waveform, config), config)
    channels = []
    for each in config.channels:
        compress = pcen_of if each.mel.compression == "pcen" else decibels_of
        channels.append(stretched(write, normalised(write, compress(write, power, each), each), each))
    return channels[0] if len(channels) == 1 else write("Concat", *channels, axis=1)


def frames(write: NodeWriter, waveform: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Cut waveforms [batch, window_samples] into overlapping frames [batch, frames, n_fft].

    A hop's samples are copied as one piece: several hops side by side hold a frame and a rest, which is cut off.
    """
    n_fft, hop, n_frames = config.mel.n_fft, config.mel.hop_length, config.frames_per_window
    n_pieces = -(-n_fft // hop)
    margin, n_hops = config.margin_samples, n_frames + n_pieces
    # Sound beyond the window is not known here; prediction reflects a file's ends in the same way.
    reflected = write("Pad", waveform, ints(0, margin, 0, margin), mode="reflect")
    rest = n_hops * hop - (config.window_samples + 2 * margin)
    hops = write("Reshape", write("Pad", reflected, ints(0, 0, 0, rest)), ints(-1, n_hops, hop))
    pieces = [_cut(write, hops, 1, first, first + n_frames) for first in range(n_pieces)]
    return _cut(write, write("Concat", *pieces, axis=2), 2, 0, n_fft)


def mel_power(write: NodeWriter, framed: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Turn frames [batch, frames, n_fft] into mel power [batch, n_mels, frames]; a full-scale sine has 1."""
    # Not the operator STFT, which takes four times as long in ONNX Runtime (16 ms for 5 s at n_fft 2048 on one thread,
    # this 4) and which OpenVINO reads for a fixed batch only. The whole transform as one product or convolution: 40.
    tables = fourier_tables(mel.hann_window(config.mel), mel.filterbank(config.mel, config.audio.sample_rate))
    n_frames = config.frames_per_window
    real, imaginary = fourier(write, framed, tables, n_frames)
    power = write("Add", write("Mul", real, real), write("Mul", imaginary, imaginary))
    gathered = write("MatMul", write("Reshape", power, ints(-1, n_frames, len(tables.bank))), tables.bank)
    return write("Transpose", gathered, perm=[0, 2, 1])


def decibels_of(write: NodeWriter, power: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Turn mel power into dB relative to a full-scale sine, the same shape."""
    lifted = write("Add", power, _number(config.mel.floor_power))
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
    filled = write("Pad", energy, ints(0, 0, 0, 0, 0, n_blocks * length - n_frames))
    blocks = write("Reshape", filled, ints(-1, n_mels, n_blocks, length))
    within = write("MatMul", blocks, smoother.within)
    last = write("Reshape", _cut(write, within, 3, length - 1, length), ints(-1, n_mels, n_blocks))
    begun = write("Concat", _cut(write, energy, 2, 0, 1), last, axis=2)
    before = write("MatMul", _cut(write, begun, 2, 0, n_blocks), _carried(float(smoother.after[-1]), n_blocks))
    carried = write("Mul", write("Reshape", before, ints(-1, n_mels, n_blocks, 1)), smoother.after)
    loudness = write("Reshape", write("Add", within, carried), ints(-1, n_mels, n_blocks * length))
    return _cut(write, loudness, 2, 0, n_frames)


def _carried(left: float, n_blocks: int) -> Float32:
    """[blocks, blocks]: what remains of each block's end (rows) before later blocks, a share ``left`` per block."""
    age = np.arange(n_blocks) - np.arange(n_blocks)[:, None]
    return np.where(age >= 0, left ** np.maximum(age, 0), 0.0).astype(np.float32)


def normalised(write: NodeWriter, values: ir.Value, config: FrontEndConfig) -> ir.Value:
    """Normalise each window by itself: [batch, n_mels, frames] -> [batch, 1, n_mels, frames]."""
    n_mels, n_frames = config.mel.n_mels, config.frames_per_window
    picture = write("Reshape", values, ints(-1, 1, n_mels, n_frames))
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
        return write("Reshape", write("Div", centred, write("Max", spread, least)), ints(-1, 1, n_mels, n_frames))
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
    return write("Slice", values, ints(begin), ints(end), ints(axis))


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
    facts = _load(graph, [], config.sample_shape, 1).facts
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
    taken, given = facts.input_shape, config.sample_shape
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
