"""Does the graph answer as its model does? On real windows, in any company, to 1e-4 of probability.

Noise alone proves little: BatchNorm statistics and saturated activations show themselves on sound.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from birdinfer import mel
from birdinfer.config import FrontEndConfig, Hearing
from birdinfer.engines import EnginePlan, load_engine, parse_spec
from birdinfer.errors import AudioError, InputNotFoundError, ParityError
from birdinfer.export.onnx import named_outputs
from birdinfer.scores import activate
from birdinfer.windows import read_window

Float32 = npt.NDArray[np.float32]

TOLERANCE = 1e-4
"""Largest |p_onnx - p_torch| that is accepted: fp32 rounding is a hundred times smaller."""

N_WINDOWS = 16


def real_windows(clips: Iterable[Path], hearing: Hearing) -> Float32:
    """The first window of up to 16 clips, and one of silence.

    Returns:
        What a model takes of them: log-mel [windows, 1, rows, columns] or waveforms [windows, samples].

    Raises:
        AudioError: not one of the clips can be read.
    """
    windows: list[Float32] = []
    tried = 0
    for clip in clips:
        tried += 1
        try:
            windows.append(_heard(read_window(clip, 0.0, hearing), hearing))
        except (AudioError, InputNotFoundError):
            continue  # training has listed it already; here any other clip serves as well
        if len(windows) == N_WINDOWS:
            break
    if not windows:
        raise AudioError("export", f"none of {tried} clips can be read", "name the data folder: --data")
    silence = np.zeros(hearing.window_samples + 2 * hearing.margin_samples, np.float32)
    windows.append(_heard(silence, hearing))
    return np.concatenate(windows)


def _heard(samples: Float32, hearing: Hearing) -> Float32:
    """One window with its margins [samples] -> what a model takes of it [1, ...]."""
    if isinstance(hearing, FrontEndConfig):
        return mel.windows_to_input(samples, 1, hearing)
    return samples[np.newaxis]


def check_parity(
    model: torch.nn.Module, graph: Path, heard: Float32, engines: Sequence[str], activation: str = "sigmoid"
) -> float:
    """Compare a graph's outputs with its model's, in one batch, one by one, and in reverse order.

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
    with torch.no_grad():
        answer = named_outputs(model(torch.from_numpy(heard)))
    wanted = {name: activate(logits.numpy(), activation) for name, logits in answer.items()}
    worst = 0.0
    for engine_name in engines:
        engine = load_engine(EnginePlan(parse_spec(engine_name)), graph, list(wanted), heard.shape[1:])
        for company, order in _companies(len(heard)).items():
            found = [engine.run(np.ascontiguousarray(heard[batch])) for batch in order]
            for output, probabilities in wanted.items():
                logits = np.concatenate([answers[output] for answers in found])
                difference = np.abs(activate(logits, activation) - probabilities[np.concatenate(order)]).max()
                if not difference <= TOLERANCE:  # also true for NaN
                    raise _refusal(graph, float(difference), f"{output}, {engine_name}, {company}")
                worst = max(worst, float(difference))
    return worst


def _refusal(graph: Path, difference: float, where: str) -> ParityError:
    what = f"differs from its torch model by {difference:.2g} of probability ({where}); allowed is {TOLERANCE:g}"
    return ParityError(graph, what, "no bundle was written")


def _companies(n_windows: int) -> dict[str, list[npt.NDArray[np.intp]]]:
    """Ways to put the same windows into batches: a score may depend on none of them."""
    every = np.arange(n_windows)
    return {
        "all in one batch": [every],
        "one by one": list(every[:, None]),
        "in reverse, by threes": [every[::-1][begin : begin + 3] for begin in range(0, n_windows, 3)],
    }
