"""Probe an external ONNX graph: which waveform it takes, and which outputs score labels or describe a window.

In: a graph that was made elsewhere. Out: its sample rate and window, its outputs, and their values for silence, noise
and tones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np

from birdinfer.config import AudioConfig, SpectrogramConfig, WaveformConfig, WindowConfig, WindowedAudio
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.features.spectrogram import windows_to_input
from birdinfer.inference.activation import activate
from birdinfer.inference.engines.base import GraphFacts, run_in_batches
from birdinfer.inference.engines.onnxruntime import open_session, read_facts, run_for
from birdinfer.inference.external.front_end import with_axes_of
from birdinfer.inference.manifest import Outputs
from birdinfer.inference.onnx_files import external_files
from birdinfer.typing import Float32

KNOWN_LENGTHS = {160_000: (32_000, 5.0), 144_000: (48_000, 3.0), 22_050: (22_050, 1.0)}
"""Samples of a window -> Hz and seconds: Perch v2 and BirdNET 3.0; BirdNET 2.4; Nighthawk."""
RATE_KEYS = ("sample_rate_hz", "sample_rate", "sampling_rate", "samplerate", "sr")
"""Keys of metadata, in Hz; the first is used by birdinfer's export with the front end inside."""
WINDOW_KEYS = ("window_seconds", "window_size_s", "segment_seconds", "segment_duration", "clip_seconds", "chunk_length")

MAX_SECONDS = 120.0
"""Of one call: a graph may hold a loop without end."""
MAX_BATCH_DIFFERENCE = 1e-3
"""Of a probability, between a window alone and in a batch: kernels for other batch sizes round differently, no more."""
N_QUIET, N_NOISE = 2, 3
"""The first of :func:`probe_windows`, without any call: silence and faint noise; and the loud noise behind them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalGraph:
    """A graph that takes the waveform, open in ONNX Runtime."""

    path: Path
    session: Any
    facts: GraphFacts
    n_samples: int | None
    """Samples of its window; None: any number."""
    batch_size: int | None
    """Windows that each call must have; None: any number."""
    spectrogram: SpectrogramConfig | None = None
    """What it takes, if that is not the waveform."""

    @property
    def takes(self) -> str:
        """``a waveform`` or ``a spectrogram``."""
        return "a waveform" if self.spectrogram is None else "a spectrogram"

    def run(self, windows: Float32, batch_size: int) -> dict[str, Float32]:
        """Run windows [windows, samples], ``batch_size`` in a call unless the graph fixes it, or raise BundleError."""
        if self.spectrogram is not None:
            windows = windows_to_input(windows, self.spectrogram)
        elif len(self.facts.input_shape) == 3:
            windows = windows[:, np.newaxis]
        fixed = self.batch_size is not None
        return run_in_batches(self._run, windows, self.batch_size or batch_size, fixed=fixed)

    def _run(self, batch: Float32) -> dict[str, Float32]:
        try:
            outputs = run_for(self.session, {self.facts.input_name: batch}, MAX_SECONDS)
        except Exception as error:  # onnxruntime's own exception classes share no base but Exception
            if isinstance(error, TimeoutError):
                raise BundleError(self.path, f"does not return within {MAX_SECONDS:g} s", "it may never end") from error
            shape = list(batch.shape)
            raise BundleError(
                self.path, f"cannot be run on {self.takes} {shape} ({error})", "see --window and --sample-rate"
            ) from error
        return {
            name: np.asarray(output, np.float32)
            for name, output in zip(self.facts.outputs, outputs, strict=True)
            if isinstance(output, np.ndarray)
            and output.dtype.kind in "fiub"  # not texts
            and output.ndim > 1
            and len(output) == len(batch)
        }


class ProbeResults(NamedTuple):
    """A graph's outputs for :func:`probe_windows`."""

    alone: dict[str, Float32]
    """By output [windows, ...], each window in a call of its own."""
    together: dict[str, Float32]
    """Several windows in each call; the same if the graph takes one at a time."""

    @property
    def batch(self) -> Literal["any", "one"]:
        """Whether it takes several windows a call."""
        return "one" if self.together is self.alone else "any"


def open_external_graph(path: Path, spectrogram: SpectrogramConfig | None = None) -> ExternalGraph:
    """Open a graph of one input; raises InputNotFoundError, MissingExtraError or BundleError.

    ``spectrogram``: what it takes; the waveform if None.
    """
    if not path.is_file():
        raise InputNotFoundError(path, "no such file", "name an ONNX graph")
    if beside := external_files(path):
        name = PurePath(beside[0].replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise BundleError(path, f"names a file outside its folder for its weights ({beside[0]})", "do not use it")
        hint = f"save it as one file: onnx.save(onnx.load({path.name!r}), 'one_file.onnx')"
        if not path.with_name(beside[0]).is_file():
            hint = f"copy {beside[0]}, too, then {hint}"
        raise BundleError(path, f"keeps its weights in a file beside it ({beside[0]})", hint)
    session = open_session(path, ["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise BundleError(path, f"takes {len(inputs)} inputs ({names})", "a member takes one, the waveform")
    facts = read_facts(session)
    if not facts.outputs:
        raise BundleError(path, "returns nothing", "export it again")
    if inputs[0].type != "tensor(float)":
        raise BundleError(path, f"takes {inputs[0].type}, a member takes float32", "export it with a float32 input")
    shape = facts.input_shape
    if 0 in shape:
        raise BundleError(path, f"takes {shape_text(shape)}, which is empty", "export it again")
    if spectrogram is not None:
        spectrogram = with_axes_of(spectrogram, shape, path)
        n_samples = spectrogram.window_samples
        return ExternalGraph(
            path=path, session=session, facts=facts, n_samples=n_samples, batch_size=shape[0], spectrogram=spectrogram
        )
    if len(shape) == 4 or (len(shape) == 3 and all(size is not None and size > 3 for size in shape[1:])):
        hint = "declare how it is made: --frontend FILE (docs/models.md)"
        raise BundleError(path, f"takes {shape_text(shape)}, which is no waveform but a spectrogram", hint)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[1] not in (1, None)):
        raise BundleError(
            path,
            f"takes {shape_text(shape)}, which is no waveform",
            "a member takes [batch, samples] or [batch, 1, samples]",
        )
    return ExternalGraph(path=path, session=session, facts=facts, n_samples=shape[-1], batch_size=shape[0])


def input_config_of(graph: ExternalGraph, sample_rate: int | None, window_seconds: float | None) -> WaveformConfig:
    """Find the waveform that a graph takes; ConfigError if rate or length remain unknown or do not fit its input.

    ``sample_rate`` (Hz) and ``window_seconds``: the user's, else its metadata's, else those of :data:`KNOWN_LENGTHS`.
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
        raise ConfigError(graph.path, f"{length} without stating their rate and duration", f"give {missing}")
    return _waveform(graph, rate, seconds)


def probe_windows(input_config: WindowedAudio) -> Float32:
    """Make windows to probe a graph with [6, samples]: silence, faint noise, loud noise, two tones, a sweep in noise.

    The same at every call. Their loudness differs, which exposes a graph that scales by its batch.
    """
    rng = np.random.default_rng(0)
    n_samples, rate = input_config.window_samples, input_config.audio.sample_rate
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


def probe(graph: ExternalGraph, input_config: WindowedAudio) -> ProbeResults:
    """Run a graph on :func:`probe_windows`, one by one and in one batch.

    A graph that leaves its batch open but fails on several windows, or mixes them up, takes one at a time.
    """
    windows = probe_windows(input_config)
    each = [graph.run(window, 1) for window in windows[:, np.newaxis]]
    alone = {name: np.concatenate([outputs[name] for outputs in each]) for name in each[0]}
    if graph.batch_size == 1:
        return ProbeResults(alone, alone)
    try:
        together = graph.run(windows, len(windows))
    except BundleError:
        if graph.batch_size is not None:
            raise
        return ProbeResults(alone, alone)
    shapes = ({name: output.shape for name, output in outputs.items()} for outputs in (alone, together))
    is_mixed = graph.batch_size is None and next(shapes) != next(shapes)
    return ProbeResults(alone, alone if is_mixed else together)


def choose_outputs(
    graph: ExternalGraph, results: ProbeResults, n_labels: int, clip: str | None, frames: str | None
) -> tuple[str | None, str | None]:
    """Find the outputs that score the labels.

    ``results``: give the true shapes, which a graph often leaves open.
    ``clip``: the output [batch, labels], as given by the user; else the only one of that shape.
    ``frames``: the output [batch, frames, labels], as given by the user.

    Returns:
        Names of both, None for one that does not exist.

    Raises:
        ConfigError: an output that was named does not exist, or has another shape.
        BundleError: several outputs fit, or none.
    """
    shapes = {name: output.shape[1:] for name, output in results.alone.items()}
    for option, name, rank in (("--output", clip, 1), ("--frames", frames, 2)):
        if name is not None and not (name in shapes and len(shapes[name]) == rank and shapes[name][-1] == n_labels):
            wanted = f"[batch, {'frames, ' if rank == 2 else ''}{n_labels}]"
            raise ConfigError(option, f"{name!r} is no output {wanted}", f"there is {_list_outputs(graph, shapes)}")
    if clip is None:
        fitting = [name for name, shape in shapes.items() if shape == (n_labels,)]
        if len(fitting) > 1:
            raise BundleError(
                graph.path, f"has {len(fitting)} outputs of {n_labels} labels ({', '.join(fitting)})", "give --output"
            )
        if not fitting and frames is None:
            raise BundleError(
                graph.path,
                f"has no output of {n_labels} labels, the number in the list",
                f"it has {_list_outputs(graph, shapes)}",
            )
        clip = fitting[0] if fitting else None
    return clip, frames


def choose_embedding(
    graph: ExternalGraph, results: ProbeResults, scores: Sequence[str | None], n_labels: int, embedding: str | None
) -> str | None:
    """Find the output [batch, (frames,) numbers] that describes a window; None if none does, or several might.

    ``scores``: the outputs that score the labels; where there is none, an embedding of frames is looked for, too.
    ``embedding``: as given by the user; ConfigError if there is no such output.
    """
    shapes = {name: output.shape[1:] for name, output in results.alone.items()}
    ranks = (1,) if any(scores) else (1, 2)
    fitting = [name for name, shape in shapes.items() if len(shape) in ranks and name not in scores]
    if embedding is not None:
        if embedding not in fitting:
            what = f"{embedding!r} is no output [batch, numbers] beside the scores"
            raise ConfigError("--embedding", what, f"there is {_list_outputs(graph, shapes)}")
        return embedding
    fitting = [name for name in fitting if shapes[name][-1] not in (1, n_labels)]
    named = [name for name in fitting if "embedding" in name.lower()]
    return next(iter(named or fitting)) if len(named or fitting) == 1 else None


def only_embedding(graph: ExternalGraph, results: ProbeResults, embedding: str | None) -> str:
    """Find the embedding of a graph that scores nothing, as :func:`choose_embedding` does; BundleError for none."""
    found = choose_embedding(graph, results, (), 1, embedding)
    if found is None:
        what = "has no output, or several, that could be the embedding of a window"
        raise BundleError(graph.path, what, "name one with --embedding, or give its --labels")
    return found


def check_batch_independence(path: Path, results: ProbeResults, outputs: Outputs) -> None:
    """Raise BundleError for a graph whose scores of a window depend on what else is in the batch."""
    for name in (outputs.clip, outputs.frames, outputs.embedding if outputs.is_encoder else None):
        if name is None:
            continue
        alone, together = (each[name] if outputs.is_encoder else scores_of(each[name], outputs) for each in results)
        # The shapes may differ too: a graph that folds its batch into another axis.
        most = float(np.abs(alone - together).max()) if alone.shape == together.shape else float("inf")
        if not most <= MAX_BATCH_DIFFERENCE:  # also true for NaN
            raise BundleError(
                path,
                f"scores a window differently in a batch than alone (by {most:.2g}, output {name!r})",
                "export it with a batch of 1",
            )


def scores_of(values: Float32, outputs: Outputs) -> Float32:
    """Turn the values of an output of scores [windows, (frames,) labels] into probabilities."""
    return activate(values, outputs.activation, slope=outputs.slope, intercept=outputs.intercept)


def shape_text(shape: Sequence[int | None]) -> str:
    """Format a shape.

    >>> shape_text((None, 160_000))
    '[?, 160000]'
    """
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _list_outputs(graph: ExternalGraph, shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(
        f"{name} {shape_text((None, *shapes[name]) if name in shapes else declared)}"
        for name, declared in graph.facts.outputs.items()
    )


def _waveform(graph: ExternalGraph, rate: float, seconds: float) -> WaveformConfig:
    location = f"{graph.path} ({rate:g} Hz, {seconds:g} s)"
    if rate != round(rate):
        raise ConfigError(
            location, f"{graph.n_samples} samples in {seconds:g} s are no whole rate", "give --sample-rate"
        )
    try:
        window = WindowConfig(seconds, min(WindowConfig().min_tail_seconds, seconds))
        input_config = WaveformConfig(AudioConfig(round(rate)), window, len(graph.facts.input_shape) == 3)
    except ValueError as error:
        raise ConfigError(location, str(error), "give --sample-rate and --window") from error
    if graph.n_samples not in (None, input_config.window_samples):
        raise ConfigError(
            location,
            f"makes {input_config.window_samples} samples, the graph takes {graph.n_samples}",
            "give --sample-rate and --window",
        )
    return input_config


def _number(metadata: Mapping[str, str], keys: Sequence[str]) -> float | None:
    """The first of these keys with a number above 0."""
    for key in keys:
        try:
            value = float(metadata.get(key, ""))
        except ValueError:
            continue
        if 0 < value < float("inf"):
            return value
    return None
