"""A member's graph with its front end inside, for hosts without birdinfer: a phone, a web page, another program.

In: a graph that takes log-mel [batch, 1, rows, columns], and the front end that it was trained with. Out: one ONNX
file that takes ``waveform`` [batch, window_samples], float32 in -1 .. 1 at the bundle's rate, and answers with the
graph's own outputs and ``probabilities`` [batch, labels]. Its ``metadata_props`` say all that a host needs to know.

A window's first and last frames reach n_fft / 2 samples beyond it, which such a host does not hand over: the graph
reflects the window there, as prediction does at a file's two ends. So a file of one window gets the same scores from
both; windows out of a longer one, for which prediction hears the true neighbouring sound, nearly the same.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

import birdinfer
from birdinfer import mel
from birdinfer.bundle import labels_sha256
from birdinfer.config import FrontEndConfig, Hearing
from birdinfer.engines import Engine, EnginePlan, GraphFacts, load_engine
from birdinfer.errors import BundleError, ConfigError, LabelError, ParityError
from birdinfer.export.graphs.front_end_nodes import NodeWriter, front_end
from birdinfer.export.graphs.onnx import OUTPUT_NAME, WAVEFORM_NAME
from birdinfer.files import write_atomic
from birdinfer.scores import activate
from birdinfer.windows import window_of

Float32 = npt.NDArray[np.float32]

PROBABILITIES_NAME = "probabilities"
TOLERANCE = 1e-3
"""Largest |p - p_ours| that is accepted. In fp32 it is a hundred times smaller; INT8 rounds a value that lies between
two steps to either."""

_ACTIVATION_NODES = {"sigmoid": "Sigmoid", "softmax": "Softmax", "none": "Identity"}


def export_with_frontend(
    graph: Path, hearing: Hearing, activation: str, labels: Sequence[str], out: Path, check_on: Float32
) -> float:
    """Write a member's graph with its front end inside, once it has answered as the two do apart.

    Args:
        graph: the member's, fp32 or INT8 in QDQ form, opset 17 or later.
        hearing: the front end that it was trained with.
        activation: what makes its outputs probabilities: ``sigmoid``, ``softmax`` or ``none``.
        labels: in column order.
        out: where to.
        check_on: real windows [windows, window_samples], at least one; silence is added to them.

    Returns:
        The largest |p - p_ours| of these windows, in one batch and one by one.

    Raises:
        ConfigError: a member that hears the waveform needs no such graph; an unknown activation; or windows of another
            length.
        BundleError: the graph cannot be loaded, or takes or gives something else.
        LabelError: the graph was exported with other labels.
        ParityError: a probability differs by more than 1e-3, or is not finite; nothing is written.
        OutputError: the graph cannot be written there.
    """
    config = _refuse_wishes(graph, hearing, activation, check_on)
    facts = _load(graph, [], (1, *config.input_shape), 1).facts
    clip = _clip_output(graph, facts, config, labels)
    content = _joined(graph, clip, config, activation, labels)
    heard = np.concatenate([check_on, np.zeros((1, config.window_samples))], dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "joined.onnx"
        joined.write_bytes(content)
        difference = _largest_difference(joined, heard, _ours(graph, clip, config, activation, heard))
    if not difference <= TOLERANCE:  # also true for NaN
        what = f"with its front end inside differs by {difference:.2g} of probability; allowed is {TOLERANCE:g}"
        raise ParityError(graph, what, "nothing was written")
    write_atomic(out, content)
    return difference


def put_front_end_before(graph: ir.Graph, config: FrontEndConfig) -> None:
    """Let a graph take ``waveform`` [batch, window_samples] instead of log-mel, in place."""
    (log_mel,) = graph.inputs
    batch = log_mel.shape[0] if log_mel.shape is not None else None
    shape = ir.Shape([batch, config.window_samples])
    waveform = ir.Value(name=WAVEFORM_NAME, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    write = NodeWriter()
    heard = front_end(write, waveform, config)
    heard.shape = log_mel.shape
    graph.inputs[0] = waveform
    ir.convenience.replace_all_uses_with(log_mel, heard)
    for constant in write.constants:
        graph.register_initializer(constant)
    graph.insert_before(graph[0], write.nodes)


def add_probabilities(graph: ir.Graph, clip: str, activation: str) -> None:
    """Add the output ``probabilities`` [batch, labels], made of the output ``clip``, in place."""
    (logits,) = [output for output in graph.outputs if output.name == clip]
    attributes = {"axis": -1} if activation == "softmax" else {}
    node = ir.node(_ACTIVATION_NODES[activation], [logits], attributes, name=PROBABILITIES_NAME)
    probabilities = node.outputs[0]
    probabilities.name, probabilities.shape, probabilities.type = PROBABILITIES_NAME, logits.shape, logits.type
    graph.append(node)
    graph.outputs.append(probabilities)


def _refuse_wishes(graph: Path, hearing: Hearing, activation: str, check_on: Float32) -> FrontEndConfig:
    """The front end, once everything asked for makes sense."""
    if not isinstance(hearing, FrontEndConfig):
        raise ConfigError(graph, "hears the waveform, its front end is inside already", "hand it to the host as it is")
    if activation not in _ACTIVATION_NODES:
        raise ConfigError("activation", f"{activation!r} is unknown", f"choose one of {', '.join(_ACTIVATION_NODES)}")
    if check_on.ndim != 2 or check_on.shape[1] != hearing.window_samples or not len(check_on):
        what = f"{list(check_on.shape)} are no windows of {hearing.window_samples} samples"
        raise ConfigError("check_on", what, "give a few windows of real sound")
    return hearing


def _clip_output(graph: Path, facts: GraphFacts, config: FrontEndConfig, labels: Sequence[str]) -> str:
    """The output [batch, labels] of a graph that takes the log-mel of ``config``."""
    taken, wanted = facts.input_shape, (1, *config.input_shape)
    if len(taken) != 4 or any(size not in (None, want) for size, want in zip(taken[1:], wanted, strict=True)):
        raise BundleError(graph, f"takes {list(taken[1:])}, its front end gives {list(wanted)}", "export it again")
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


def _joined(graph: Path, clip: str, config: FrontEndConfig, activation: str, labels: Sequence[str]) -> bytes:
    """The file's content: graph, front end, probabilities and what a host must know."""
    # Not ir.load, which would leave weights that lie beside the graph where they are.
    model = ir.from_proto(onnx.load(graph))
    kinds = [str(value.dtype) for value in model.graph.inputs]
    if kinds != ["FLOAT"]:
        raise BundleError(graph, f"takes {', '.join(kinds)}, its front end gives FLOAT", "name the fp32 or int8 graph")
    put_front_end_before(model.graph, config)
    add_probabilities(model.graph, clip, activation)
    model.metadata_props.update(_for_other_hosts(config, activation, labels))
    content: bytes = ir.to_proto(model).SerializeToString()
    onnx.checker.check_model(content, full_check=True)
    return content


def _for_other_hosts(config: FrontEndConfig, activation: str, labels: Sequence[str]) -> dict[str, str]:
    """What a host must know that has nothing but the file."""
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
        "birdinfer": birdinfer.__version__,
    }


def _ours(graph: Path, clip: str, config: FrontEndConfig, activation: str, waveforms: Float32) -> Float32:
    """Probabilities [windows, labels] as prediction has them of files of one window."""
    heard = [mel.windows_to_input(window_of(waveform, 0, config), 1, config) for waveform in waveforms]
    engine = _load(graph, [clip], heard[0].shape[1:], len(heard))
    return activate(engine.run(np.concatenate(heard))[clip], activation)


def _largest_difference(graph: Path, waveforms: Float32, wanted: Float32) -> float:
    """Largest |p - wanted|, in one batch and one by one; NaN where one is not finite."""
    engines = [_load(graph, [PROBABILITIES_NAME], waveforms.shape[1:], most) for most in (len(waveforms), 1)]
    return float(np.max([np.abs(engine.run(waveforms)[PROBABILITIES_NAME] - wanted) for engine in engines]))


def _load(graph: Path, outputs: Sequence[str], sample_shape: tuple[int, ...], most: int) -> Engine:
    """A graph in ONNX Runtime, with at most so many windows in a call."""
    return load_engine(EnginePlan(batch_size=most), graph, outputs, sample_shape)
