"""Does the graph answer as its model does? On real windows, in any company, to 1e-4 of probability.

In: a model, its graph, and recordings. Out: the largest difference of probability, or a refusal. Noise alone proves
little: BatchNorm statistics and saturated activations show themselves on sound.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.config import Hearing
from birdinfer.engines import EnginePlan, load_engine, parse_spec
from birdinfer.errors import AudioError, InputNotFoundError, ParityError
from birdinfer.export.graphs.onnx import named_outputs
from birdinfer.export.windows.clip_windows import model_input
from birdinfer.scores import activate
from birdinfer.windows import read_window

Float32 = npt.NDArray[np.float32]
Answers = dict[str, Float32]
"""By output [windows, ...]."""

TOLERANCE = 1e-4
"""Largest |p_onnx - p_torch| that is accepted: fp32 rounding is a hundred times smaller."""

N_WINDOWS = 16

_TORCH_AT_ONCE = 4
"""Windows in a call of the model, and"""
_LARGEST_COMPANY = 12
"""in one of the graph: what a network holds of 17 at once would be the most memory of the whole export."""


def real_windows(clips: Iterable[Path], hearing: Hearing) -> Float32:
    """The first window of up to 16 clips, and one of silence.

    Returns:
        What a model takes of them: log-mel [windows, 1, rows, columns] or waveforms [windows, samples].

    Raises:
        AudioError: not one of the clips can be read.
    """
    silence = np.zeros(hearing.window_samples + 2 * hearing.margin_samples, np.float32)
    heard = [model_input(samples, hearing) for samples in (*_first_windows(clips, hearing), silence)]
    return np.concatenate(heard)


def real_waveforms(clips: Iterable[Path], hearing: Hearing) -> Float32:
    """The sound of these windows, without silence: what a host hands to a graph with its front end inside.

    Returns:
        [windows, window_samples], in -1 to 1, without margins.

    Raises:
        AudioError: not one of the clips can be read.
    """
    begin, length = hearing.margin_samples, hearing.window_samples
    return np.stack([samples[begin : begin + length] for samples in _first_windows(clips, hearing)])


def check_parity(
    model: torch.nn.Module, graph: Path, heard: Float32, engines: Sequence[str], activation: str = "sigmoid"
) -> float:
    """Compare a graph's outputs with its model's: one by one, in reverse order by threes, and by twelves.

    Args:
        model: in evaluation mode, on the CPU.
        graph: the exported file.
        heard: real windows, from :func:`real_windows`.
        engines: which engines to run the graph with.
        activation: what makes the logits into probabilities, ``sigmoid`` or ``softmax``.

    Returns:
        The largest |p_onnx - p_torch| of all windows, frames, species, batches and engines.

    Raises:
        ParityError: it exceeds 1e-4, or a probability is not finite.
    """
    wanted = {name: activate(logits, activation) for name, logits in _model_answers(model, heard).items()}
    worst = 0.0
    for engine in engines:
        for company, batches in _companies(len(heard)).items():
            order = np.concatenate(batches)
            for output, logits in _graph_answers(engine, graph, list(wanted), heard, batches).items():
                difference = float(np.abs(activate(logits, activation) - wanted[output][order]).max())
                if not difference <= TOLERANCE:  # also true for NaN
                    raise _refusal(graph, difference, f"{output}, {engine}, {company}")
                worst = max(worst, difference)
    return worst


def _first_windows(clips: Iterable[Path], hearing: Hearing) -> Iterator[Float32]:
    """The first windows of the first 16 clips that can be read, with their margins [samples]."""
    n_tried, n_found = 0, 0
    for clip in clips:
        n_tried += 1
        try:
            window = read_window(clip, 0.0, hearing)
        except (AudioError, InputNotFoundError):
            continue  # training has listed it already; here any other clip serves as well
        yield window
        n_found += 1
        if n_found == N_WINDOWS:
            return
    if not n_found:
        raise AudioError("export", f"none of {n_tried} clips can be read", "name the data folder: --data")


def _model_answers(model: torch.nn.Module, heard: Float32) -> Answers:
    """What the model says of windows, a few at a time."""
    with torch.no_grad():
        pieces = [named_outputs(model(piece)) for piece in torch.split(torch.from_numpy(heard), _TORCH_AT_ONCE)]
    return {name: torch.cat([piece[name] for piece in pieces]).numpy() for name in pieces[0]}


def _graph_answers(
    engine: str, graph: Path, outputs: Sequence[str], heard: Float32, batches: Sequence[npt.NDArray[np.intp]]
) -> Answers:
    """What the graph says of windows, in the order of ``batches``, each of which is one call."""
    # Loaded for just this company: an engine cuts what is more than its plan says, and OpenVINO fills up what is less.
    plan = EnginePlan(parse_spec(engine), batch_size=max(map(len, batches)))
    loaded = load_engine(plan, graph, outputs, heard.shape[1:])
    found = [loaded.run(np.ascontiguousarray(heard[batch])) for batch in batches]
    return {name: np.concatenate([answers[name] for answers in found]) for name in outputs}


def _refusal(graph: Path, difference: float, where: str) -> ParityError:
    what = f"differs from its torch model by {difference:.2g} of probability ({where}); allowed is {TOLERANCE:g}"
    return ParityError(graph, what, "no bundle was written")


def _companies(n_windows: int) -> dict[str, list[npt.NDArray[np.intp]]]:
    """Ways to put the same windows into batches: a score may depend on none of them."""
    every = np.arange(n_windows)
    return {
        "one by one": _batches(every, 1),
        "in reverse, by threes": _batches(every[::-1], 3),
        f"by {_LARGEST_COMPANY}": _batches(every, _LARGEST_COMPANY),
    }


def _batches(order: npt.NDArray[np.intp], size: int) -> list[npt.NDArray[np.intp]]:
    return [order[begin : begin + size] for begin in range(0, len(order), size)]
