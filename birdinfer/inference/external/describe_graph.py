"""Describe an external graph: the waveform that it takes, the outputs that count, and their activation.

In: an ONNX file, its labels, and what the user says about it. Out: :class:`GraphDescription`. What is known of public
models needs no option; the rest is probed (:mod:`birdinfer.inference.external.onnx_probe`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from birdinfer.config import SpectrogramConfig, WaveformConfig
from birdinfer.errors import BundleError, ConfigError
from birdinfer.inference.external.known_models import KnownModel, recognise
from birdinfer.inference.external.label_lists import ListedLabel
from birdinfer.inference.external.measured_activation import Requested, measure_activation
from birdinfer.inference.external.onnx_probe import (
    N_QUIET,
    ExternalGraph,
    check_batch_independence,
    choose_embedding,
    choose_outputs,
    input_config_of,
    only_embedding,
    open_external_graph,
    probe,
    scores_of,
)
from birdinfer.inference.manifest import Outputs
from birdinfer.typing import Float32


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphOptions:
    """What the user says about a graph; None is found out."""

    sample_rate: int | None = None
    """Hz; from the graph's metadata or its input length if None."""
    window_seconds: float | None = None
    """Likewise."""
    peak: float | None = None
    """Remove each window's mean and scale it to this largest magnitude (perch-hoplite uses 0.25 for Perch)."""
    output: str | None = None
    """Name of the output [batch, labels]; the only one of that shape if None."""
    frames: str | None = None
    """Name of an output [batch, frames, labels] to use, too."""
    embedding: str | None = None
    """Name of an output [batch, numbers] that describes a window; the only one of that shape, if any, if None."""
    activation: Requested = "auto"
    """Function that turns the outputs into probabilities; ``auto`` finds it from their values."""
    spectrogram: SpectrogramConfig | None = None
    """What it takes if that is not the waveform; channels and order of the axes are those of the graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphDescription:
    """What a member's entry says of its graph."""

    input_config: WaveformConfig | SpectrogramConfig
    outputs: Outputs
    batch: Literal["any", "one"]
    """Windows that a call may have."""
    quiet: Float32
    """Probabilities [columns] for windows without any call; of an encoder one 0."""
    notes: tuple[str, ...]
    """What was measured or decided, one line each."""
    known: KnownModel | None
    """The public model that it is."""


def describe_graph(
    path: Path, listed: Sequence[ListedLabel] | None, options: GraphOptions, expected: KnownModel | None = None
) -> GraphDescription:
    """Run a graph on silence, noise and tones, and describe it.

    Args:
        path: the ONNX file, which takes [batch, samples] or [batch, 1, samples] as float32.
        listed: the labels of its columns; None: it gives embeddings alone.
        options: what the user says about it.
        expected: the public model that it must be.

    Raises:
        InputNotFoundError: there is no such file.
        ConfigError: an option does not fit the graph, or one is needed.
        BundleError: the graph is another model, or takes or returns something else.
        MissingExtraError: onnxruntime is not installed.
    """
    opened = open_external_graph(path, options.spectrogram)
    known = _recognised(opened, listed, expected)
    input_config = _input_config(opened, options, known)
    results = probe(opened, input_config)
    output, embedding = options.output, options.embedding
    if known is not None and options.frames is None and known.scores in results.alone:
        is_listed = listed is not None and results.alone[known.scores].shape[-1] == len(listed)
        output, embedding = output or (known.scores if is_listed else None), embedding or known.embedding
    notes: list[str] = []
    quiet = np.zeros(1, np.float32)
    if listed is None:
        outputs = Outputs(None, None, "none", only_embedding(opened, results, embedding))
    else:
        clip, frames = choose_outputs(opened, results, len(listed), output, options.frames)
        used = [results.alone[each] for each in (clip, frames) if each is not None]
        measured = measure_activation(path, used, options.activation, known)
        embedding = choose_embedding(opened, results, (clip, frames), len(listed), embedding)
        outputs = Outputs(clip, frames, measured.activation, embedding, measured.slope, measured.intercept)
        notes.append(measured.reason)
        every = scores_of(used[0][:N_QUIET], outputs).reshape(-1, len(listed))
        quiet = every.mean(axis=0, dtype=np.float64).astype(np.float32)
    check_batch_independence(path, results, outputs)
    if known is not None:
        notes.append(f"{known.title}, {known.licence}: {known.terms}")
    if outputs.embedding is not None:
        notes.append(f"embeddings of {results.alone[outputs.embedding].shape[-1]} numbers: {outputs.embedding}")
    if results.batch == "one" and opened.batch_size is None:
        notes.append("takes one window a call, although its batch is open")
    return GraphDescription(
        input_config=input_config, outputs=outputs, batch=results.batch, quiet=quiet, notes=tuple(notes), known=known
    )


def _recognised(
    opened: ExternalGraph, listed: Sequence[ListedLabel] | None, expected: KnownModel | None
) -> KnownModel | None:
    """The public model that a graph is; BundleError if it is not the expected one, or scores none of the labels."""
    known = recognise(opened.facts.outputs, opened.n_samples)
    if expected is not None and known is not expected:
        what = f"is {known.title}, not {expected.title}" if known else f"is not {expected.title}"
        raise BundleError(opened.path, what, f"its outputs are {', '.join(opened.facts.outputs)}")
    if known is not None and not known.has_scores and listed is not None:
        what = f"is {known.title}, which gives embeddings alone and scores no species"
        raise BundleError(opened.path, what, "leave out --labels, then fit a head: birdinfer head fit")
    return known


def _input_config(
    opened: ExternalGraph, options: GraphOptions, known: KnownModel | None
) -> WaveformConfig | SpectrogramConfig:
    if opened.spectrogram is not None:
        for option, value in (
            ("--sample-rate", options.sample_rate), ("--window", options.window_seconds), ("--peak", options.peak),
        ):  # fmt: skip
            if value is not None:
                raise ConfigError(option, "is that of the front end", "state it in the file of --frontend")
        return opened.spectrogram
    sample_rate, window_seconds, peak = options.sample_rate, options.window_seconds, options.peak
    if known is not None:
        peak = known.peak if peak is None else peak
        if sample_rate is None and window_seconds is None:
            sample_rate = known.sample_rate
            window_seconds = opened.n_samples / sample_rate if opened.n_samples else known.window_seconds
    input_config = input_config_of(opened, sample_rate, window_seconds)
    if peak is None:
        return input_config
    try:
        return msgspec.structs.replace(input_config, peak=peak)
    except ValueError as error:
        raise ConfigError("--peak", str(error)) from error
