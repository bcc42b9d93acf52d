"""Does the graph answer as its model does? On real windows, in any company, to 1e-4 of probability.

Noise alone proves little: BatchNorm statistics and saturated activations show themselves on sound.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from birdinfer import mel
from birdinfer.config import FrontEndConfig
from birdinfer.engines import EnginePlan, load_engine, parse_spec
from birdinfer.errors import AudioError, InputNotFoundError, ParityError
from birdinfer.export.onnx import OUTPUT_NAME
from birdinfer.scores import sigmoid
from birdinfer.windows import read_window

Float32 = npt.NDArray[np.float32]

TOLERANCE = 1e-4
"""Largest |p_onnx - p_torch| that is accepted: fp32 rounding is a hundred times smaller."""

N_WINDOWS = 16


def real_windows(clips: Iterable[Path], frontend: FrontEndConfig) -> Float32:
    """The first window of up to 16 clips, and one of silence.

    Returns:
        Log-mel [windows, 1, n_mels, frames].

    Raises:
        AudioError: not one of the clips can be read.
    """
    windows: list[Float32] = []
    tried = 0
    for clip in clips:
        tried += 1
        try:
            windows.append(mel.windows_to_input(read_window(clip, 0.0, frontend), 1, frontend))
        except (AudioError, InputNotFoundError):
            continue  # training has listed it already; here any other clip serves as well
        if len(windows) == N_WINDOWS:
            break
    if not windows:
        raise AudioError("export", f"none of {tried} validation clips can be read", "name the data folder: --data")
    silence = np.zeros(frontend.window_samples + 2 * frontend.margin_samples, np.float32)
    windows.append(mel.windows_to_input(silence, 1, frontend))
    return np.concatenate(windows)


def check_parity(model: torch.nn.Module, graph: Path, log_mel: Float32, engines: Sequence[str]) -> float:
    """Compare a graph with its model, in one batch, one by one, and in reverse order.

    Args:
        model: in evaluation mode, on the CPU.
        graph: the exported file.
        log_mel: real windows [windows, 1, n_mels, frames].
        engines: which engines to run the graph with.

    Returns:
        The largest |p_onnx - p_torch| of all windows, species, batches and engines.

    Raises:
        ParityError: it exceeds 1e-4, or a probability is not finite.
    """
    with torch.no_grad():
        wanted = sigmoid(model(torch.from_numpy(log_mel)).numpy())
    worst = 0.0
    for name in engines:
        engine = load_engine(EnginePlan(parse_spec(name)), graph, [OUTPUT_NAME], log_mel.shape[1:])
        for company, order in _companies(len(log_mel)).items():
            found = np.concatenate(
                [sigmoid(engine.run(np.ascontiguousarray(log_mel[batch]))[OUTPUT_NAME]) for batch in order]
            )
            difference = float(np.abs(found - wanted[np.concatenate(order)]).max())
            if not difference <= TOLERANCE:  # also true for NaN
                raise ParityError(
                    graph,
                    f"differs from its torch model by {difference:.2g} of probability ({name}, {company}); "
                    f"allowed is {TOLERANCE:g}",
                    "no bundle was written",
                )
            worst = max(worst, difference)
    return worst


def _companies(n_windows: int) -> dict[str, list[npt.NDArray[np.intp]]]:
    """Ways to put the same windows into batches: a score may depend on none of them."""
    every = np.arange(n_windows)
    return {
        "all in one batch": [every],
        "one by one": list(every[:, None]),
        "in reverse, by threes": [every[::-1][begin : begin + 3] for begin in range(0, n_windows, 3)],
    }
