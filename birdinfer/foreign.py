"""A foreign ONNX graph, asked what it is: which waveform it takes, which output scores labels, and as what.

In: a graph that was made elsewhere. Out: its rate and window, its outputs, and the activation that turns them into
probabilities, which no graph says and which is therefore measured: it hears silence, noise and tones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.config import AudioConfig, WaveformConfig, WindowConfig
from birdinfer.engines.onnxruntime import open_session, read_facts
from birdinfer.engines.protocol import GraphFacts, run_in_batches
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.manifest import Outputs
from birdinfer.scores import activate

Float32 = npt.NDArray[np.float32]
Activation = Literal["sigmoid", "softmax", "none"]

KNOWN_LENGTHS = {160_000: (32_000, 5.0), 144_000: (48_000, 3.0)}
"""Samples of a window -> Hz and seconds: Perch v2 and BirdNET 3.0; BirdNET 2.4."""
RATE_KEYS = ("sample_rate_hz", "sample_rate", "sampling_rate", "samplerate", "sr")
"""Of metadata, in Hz; the first is how an export with its front end inside names it."""
WINDOW_KEYS = ("window_seconds", "window_size_s", "segment_seconds", "segment_duration", "clip_seconds", "chunk_length")

MAX_COMPANY_DIFFERENCE = 1e-3
"""Of a probability, between a window alone and in company: kernels of other batch sizes round otherwise, no more."""
N_QUIET = 2
"""The first of :func:`probe_windows`, in which nothing calls."""
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class ForeignGraph:
    """A graph that takes the waveform, open in ONNX Runtime."""

    path: Path
    session: Any
    facts: GraphFacts
    n_samples: int | None
    """Samples of its window; None: any number."""
    batch_size: int | None
    """Windows that each call must have; None: any number."""

    def run(self, windows: Float32, most: int) -> dict[str, Float32]:
        """Answers to windows.

        Args:
            windows: [windows, samples].
            most: windows in a call, where the graph leaves that free.

        Returns:
            Outputs by name [windows, ...]; those that are no such array are left out.

        Raises:
            BundleError: the graph fails.
        """
        if len(self.facts.input_shape) == 3:
            windows = windows[:, np.newaxis]
        fixed = self.batch_size is not None
        return run_in_batches(self._run, windows, self.batch_size or most, fixed=fixed)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        try:
            found = self.session.run(None, {self.facts.input_name: batch})
        except Exception as error:  # onnxruntime's own exception classes share no base but Exception
            shape = list(batch.shape)
            raise BundleError(
                self.path, f"cannot be run on a waveform {shape} ({error})", "see --window and --sample-rate"
            ) from error
        return {
            name: np.asarray(output, np.float32)
            for name, output in zip(self.facts.outputs, found, strict=True)
            if isinstance(output, np.ndarray) and output.ndim > 1 and len(output) == len(batch)
        }


class Answers(NamedTuple):
    """What a graph says of :func:`probe_windows`."""

    alone: dict[str, Float32]
    """By output [windows, ...], each window in a call of its own."""
    together: dict[str, Float32]
    """All windows in one call; the same where the graph takes one at a time."""


class Measured(NamedTuple):
    """What makes probabilities of a graph's outputs."""

    activation: Activation
    reason: str


def open_foreign(path: Path) -> ForeignGraph:
    """Open a graph that takes the waveform and nothing else.

    Raises:
        InputNotFoundError: there is no such file.
        MissingExtraError: onnxruntime is not installed.
        BundleError: it cannot be loaded, or takes something else.
    """
    if not path.is_file():
        raise InputNotFoundError(path, "no such file", "name an ONNX graph")
    session = open_session(path, ["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise BundleError(path, f"takes {len(inputs)} inputs ({names})", "a member takes one, the waveform")
    facts = read_facts(session)
    if inputs[0].type != "tensor(float)":
        raise BundleError(path, f"takes {inputs[0].type}, a member takes float32", "export it with a float32 input")
    shape = facts.input_shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[1] not in (1, None)):
        raise BundleError(
            path,
            f"takes {shape_text(shape)}, which is no waveform",
            "a member takes [batch, samples] or [batch, 1, samples]",
        )
    return ForeignGraph(path, session, facts, shape[-1], shape[0])


def hearing_of(graph: ForeignGraph, sample_rate: int | None, window_seconds: float | None) -> WaveformConfig:
    """The waveform that a graph takes.

    Args:
        graph: its length and metadata are looked at.
        sample_rate: in Hz, as the user says; else as the graph's metadata say, else as known of its length.
        window_seconds: likewise.

    Raises:
        ConfigError: that is not enough to know, or does not fit the graph's length.
    """
    n_samples, metadata = graph.n_samples, graph.facts.metadata
    rate = sample_rate or _number(metadata, RATE_KEYS)
    seconds = window_seconds or _number(metadata, WINDOW_KEYS)
    if n_samples and not rate and not seconds:
        rate, seconds = KNOWN_LENGTHS.get(n_samples, (None, None))
    if n_samples and rate and not seconds:
        seconds = n_samples / rate
    if n_samples and seconds and not rate:
        rate = n_samples / seconds
    if not rate or not seconds:
        length = f"takes {n_samples} samples" if n_samples else "takes any number of samples"
        missing = " and ".join(
            option for option, value in (("--sample-rate", rate), ("--window", seconds)) if not value
        )
        raise ConfigError(graph.path, f"{length} and does not say of which rate and time", f"say {missing}")
    return _waveform(graph, rate, seconds)


def probe_windows(hearing: WaveformConfig) -> Float32:
    """Windows to ask a graph with [6, samples]: silence, faint noise, loud noise, two tones, a sweep in noise.

    The same at every call. Of unlike loudness, so that a graph which scales by its batch is found out.
    """
    rng = np.random.default_rng(0)
    n_samples, rate = hearing.window_samples, hearing.audio.sample_rate
    clock = np.arange(n_samples) / rate
    noise = rng.normal(0, 1, (3, n_samples))
    top_hz = 0.4 * rate
    sweep = np.sin(np.pi * top_hz * clock**2 / clock[-1])
    windows = [
        np.zeros(n_samples),
        0.01 * noise[0],
        np.clip(0.2 * noise[1], -1, 1),
        0.1 * np.sin(2 * np.pi * 0.03 * rate * clock),
        0.5 * np.sin(2 * np.pi * 0.12 * rate * clock) * np.sin(2 * np.pi * 3 * clock) ** 2,
        0.3 * sweep + 0.05 * noise[2],
    ]
    return np.stack(windows).astype(np.float32)


def ask(graph: ForeignGraph, windows: Float32) -> Answers:
    """A graph's answers to windows, alone and in company.

    Raises:
        BundleError: it fails.
    """
    alone = graph.run(windows, 1)
    return Answers(alone, alone if graph.batch_size == 1 else graph.run(windows, len(windows)))


def choose_outputs(
    graph: ForeignGraph, answers: Answers, n_labels: int, clip: str | None, frames: str | None
) -> tuple[str | None, str | None]:
    """Which outputs score the labels.

    Args:
        graph: for complaints.
        answers: their true shapes; a graph often leaves them open.
        n_labels: columns looked for.
        clip: the output [batch, labels], as the user says; else the only one of that shape.
        frames: the output [batch, frames, labels], as the user says.

    Returns:
        Names of both, None for one that is not there.

    Raises:
        ConfigError: an output that was named is not there, or has another shape.
        BundleError: several could be meant, or none.
    """
    shapes = {name: output.shape[1:] for name, output in answers.alone.items()}
    for option, name, rank in (("--output", clip, 1), ("--frames", frames, 2)):
        if name is not None and not (name in shapes and len(shapes[name]) == rank and shapes[name][-1] == n_labels):
            wanted = f"[batch, {'frames, ' if rank == 2 else ''}{n_labels}]"
            raise ConfigError(option, f"{name!r} is no output {wanted}", f"there is {_list_outputs(graph, shapes)}")
    if clip is None:
        fitting = [name for name, shape in shapes.items() if shape == (n_labels,)]
        if len(fitting) > 1:
            raise BundleError(
                graph.path, f"has {len(fitting)} outputs of {n_labels} labels ({', '.join(fitting)})", "say --output"
            )
        if not fitting and frames is None:
            raise BundleError(
                graph.path,
                f"has no output of {n_labels} labels, as many as the list has",
                f"it has {_list_outputs(graph, shapes)}",
            )
        clip = fitting[0] if fitting else None
    return clip, frames


def measure_activation(
    path: Path, outputs: Sequence[Float32], wanted: Literal["auto", "sigmoid", "softmax", "none"]
) -> Measured:
    """What makes probabilities of a graph's outputs, by the values that it gave.

    Args:
        path: the graph, for complaints.
        outputs: each [windows, (frames,) labels].
        wanted: what the user says; ``auto`` to look.

    Raises:
        BundleError: a value is not finite, or no probability although the graph is said to give some.
    """
    if not all(np.isfinite(output).all() for output in outputs):
        raise BundleError(path, "answers NaN or Inf to silence, noise or a tone", "it cannot be used as it is")
    lowest, highest = min(float(output.min()) for output in outputs), max(float(output.max()) for output in outputs)
    values = f"values from {lowest:.3g} to {highest:.3g}"
    is_bounded = lowest >= 0 and highest <= 1
    if wanted == "none" and not is_bounded:
        raise BundleError(path, f"gives {values}, which are no probabilities", "--activation auto")
    if wanted != "auto":
        doubt = ", which could be probabilities already" if is_bounded and wanted != "none" else ""
        return Measured(wanted, f"{wanted}, as you say, of {values}{doubt}")
    if not is_bounded:
        return Measured(
            "sigmoid",
            f"logits ({values}), sigmoid makes them probabilities; say --activation softmax for a network that was "
            "trained with softmax, as Perch v2 was",
        )
    sums_to_one = all(np.allclose(output.sum(axis=-1), 1, atol=_SUM_TOLERANCE) for output in outputs)
    if sums_to_one and outputs[0].shape[-1] > 2:
        return Measured("none", f"probabilities that sum to 1: the graph ends with softmax ({values})")
    return Measured("none", f"probabilities: the graph ends with sigmoid ({values})")


def check_company(path: Path, answers: Answers, outputs: Outputs) -> None:
    """Refuse a graph whose answer to a window depends on what else is in the batch.

    Raises:
        BundleError: it does.
    """
    for name in (outputs.clip, outputs.frames):
        if name is None:
            continue
        alone, together = (activate(each[name], outputs.activation) for each in answers)
        # The shapes may differ too: a graph that folds its batch into another axis.
        most = float(np.abs(alone - together).max()) if alone.shape == together.shape else float("inf")
        if not most <= MAX_COMPANY_DIFFERENCE:  # also true for NaN
            raise BundleError(
                path,
                f"scores a window otherwise in company than alone (by {most:.2g}, output {name!r})",
                "export it with a batch of 1",
            )


def shape_text(shape: Sequence[int | None]) -> str:
    """``(None, 160000)`` -> ``[?, 160000]``."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _list_outputs(graph: ForeignGraph, shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(
        f"{name} {shape_text((None, *shapes[name]) if name in shapes else declared)}"
        for name, declared in graph.facts.outputs.items()
    )


def _waveform(graph: ForeignGraph, rate: float, seconds: float) -> WaveformConfig:
    where = f"{graph.path} ({rate:g} Hz, {seconds:g} s)"
    if rate != round(rate):
        raise ConfigError(where, f"{graph.n_samples} samples in {seconds:g} s are no whole rate", "say --sample-rate")
    try:
        window = WindowConfig(seconds, min(WindowConfig().min_tail_seconds, seconds))
        hearing = WaveformConfig(AudioConfig(round(rate)), window, len(graph.facts.input_shape) == 3)
    except ValueError as error:
        raise ConfigError(where, str(error), "say --sample-rate and --window") from error
    if graph.n_samples not in (None, hearing.window_samples):
        raise ConfigError(
            where,
            f"makes {hearing.window_samples} samples, the graph takes {graph.n_samples}",
            "say --sample-rate and --window",
        )
    return hearing


def _number(metadata: Mapping[str, str], keys: Sequence[str]) -> float | None:
    """The first of these that says a number above 0."""
    for key in keys:
        try:
            value = float(metadata.get(key, ""))
        except ValueError:
            continue
        if 0 < value < float("inf"):
            return value
    return None
