"""Picture of a soundscape: its log-mel spectrogram above the probabilities of its species -> one PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from birdinfer.config import FrontEndConfig
from birdinfer.features import log_mel as mel
from birdinfer.plots.style import save, shown
from birdinfer.typing import Bool, Float32

_MOST_SPECIES = 20
_CONTRAST_DB = 60.0


def draw_soundscape(
    path: Path,
    title: str,
    samples: Float32,
    probabilities: Float32,
    names: Sequence[str],
    *,
    frontend: FrontEndConfig,
    truth: Bool | None = None,
) -> None:
    """Draw a soundscape as PNG: its log-mel spectrogram above, the probability of each species below, on one clock.

    ``samples`` is the waveform [samples] at the front end's rate, ``names`` are those of the species. ``probabilities``
    and ``truth`` are [windows, species]: the 20 species with the highest peaks are drawn, and true cells get a frame
    (None: not known).
    """
    highest = np.sort(np.argsort(-probabilities.max(axis=0), kind="stable")[:_MOST_SPECIES])
    seconds = len(probabilities) * frontend.window.window_seconds
    figure = Figure(figsize=(12, 3.2 + 0.28 * len(highest)), layout="constrained")
    sound, scores = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 0.28 * len(highest) + 0.4])
    _draw_spectrogram(sound, samples, seconds, frontend)
    sound.set_title(title, loc="left")
    _draw_scores(scores, probabilities[:, highest], [shown(names[index]) for index in highest], seconds)
    if truth is not None:
        _frame_truth(scores, truth[:, highest], frontend.window.window_seconds)
        scores.set_title("framed: truly there", loc="right", fontsize="small")
    save(figure, path)


def _draw_spectrogram(axes: Any, samples: Float32, seconds: float, frontend: FrontEndConfig) -> None:
    margin, config = frontend.margin_samples, frontend.mel
    padded = np.pad(samples, margin, mode="reflect" if len(samples) > margin else "constant")
    n_frames = (len(padded) - config.n_fft) // config.hop_length + 1
    decibels = mel.log_mel(padded, n_frames, config, frontend.audio.sample_rate)
    loud = float(np.percentile(decibels, 99.9))
    decoded_seconds = n_frames * config.hop_length / frontend.audio.sample_rate
    axes.imshow(
        decibels.T, origin="lower", aspect="auto", cmap="magma", vmin=loud - _CONTRAST_DB, vmax=loud,
        extent=(0, decoded_seconds, 0, config.n_mels),
    )  # fmt: skip
    marks = mel.hz_to_mel(np.array([250.0, 500, 1_000, 2_000, 4_000, 8_000, 16_000]), config.scale)
    low, high = mel.hz_to_mel(np.array([config.f_min_hz, config.f_max_hz]), config.scale)
    within = (marks >= low) & (marks <= high)
    places = (marks[within] - low) / (high - low) * config.n_mels
    names = [f"{hz / 1000:g}" for hz in mel.mel_to_hz(marks[within], config.scale).round()]
    axes.set_yticks(places, names)
    axes.set(ylabel="kHz", xlim=(0, seconds))


def _draw_scores(axes: Any, probabilities: Float32, names: Sequence[str], seconds: float) -> None:
    image = axes.imshow(
        probabilities.T, aspect="auto", cmap="Greens", vmin=0, vmax=1, extent=(0, seconds, len(names) - 0.5, -0.5),
        interpolation="nearest",
    )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="seconds")
    axes.figure.colorbar(image, ax=axes, label="probability", pad=0.01)


def _frame_truth(axes: Any, truth: Bool, window_seconds: float) -> None:
    for window, species in np.argwhere(truth):
        corner = (window * window_seconds, species - 0.5)
        axes.add_patch(Rectangle(corner, window_seconds, 1, fill=False, edgecolor="tab:red", linewidth=1.2))
