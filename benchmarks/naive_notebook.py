"""What most public notebooks do, as the yardstick: librosa.load, a mel spectrogram per window, torch eager, pandas.

It frames as birdinfer does (each window with its true neighbouring sound), so that the scores can be compared.
"""

from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import torch

from birdinfer.config import FrontEndConfig
from bundles import LABELS


def predict_naively(
    models: list[torch.nn.Module], frontend: FrontEndConfig, paths: list[Path], output: Path
) -> pd.DataFrame:
    """Predict one-minute soundscapes one after the other and write a submission; returns the table."""
    tables = []
    for path in paths:
        images = decode_naively(path, frontend)
        with torch.no_grad():
            member_scores = [torch.sigmoid(model(torch.from_numpy(images[:, None]))).numpy() for model in models]
        smoothed = pd.DataFrame(_smooth(np.mean(member_scores, axis=0)), columns=list(LABELS))
        smoothed.insert(0, "row_id", [f"{path.stem}_{5 * index + 5}" for index in range(len(images))])
        tables.append(smoothed)
    table = pd.concat(tables)
    table.to_csv(output, index=False)
    return table


def decode_naively(path: Path, frontend: FrontEndConfig) -> np.ndarray:
    """Decode and compute a spectrogram for each window [windows, n_mels, frames]."""
    wave, rate = librosa.load(path, sr=frontend.audio.sample_rate)
    n_windows = round(len(wave) / frontend.window_samples)
    wave = np.pad(wave, (0, n_windows * frontend.window_samples - len(wave)))
    padded = np.pad(wave, frontend.margin_samples, mode="reflect")
    return np.stack([_image(padded, index, rate, frontend) for index in range(n_windows)])


def _image(padded: np.ndarray, index: int, rate: float, frontend: FrontEndConfig) -> np.ndarray:
    mel = frontend.mel
    begin = index * frontend.window_samples
    window = padded[begin : begin + frontend.window_samples + 2 * frontend.margin_samples]
    power = librosa.feature.melspectrogram(
        y=window, sr=rate, n_fft=mel.n_fft, hop_length=mel.hop_length, n_mels=mel.n_mels, fmin=mel.f_min_hz,
        fmax=mel.f_max_hz, center=False,
    )[:, : frontend.frames_per_window]  # fmt: skip
    decibels = 10 * np.log10(power / (mel.n_fft / 4) ** 2 + mel.floor_power)
    return ((decibels - decibels.mean()) / (decibels.std() + 1e-5)).astype(np.float32)


def _smooth(scores: np.ndarray) -> np.ndarray:
    smoothed = scores.copy()
    for index in range(len(scores)):
        near = [(0.2, index - 1), (0.6, index), (0.2, index + 1)]
        near = [(weight, other) for weight, other in near if 0 <= other < len(scores)]
        smoothed[index] = sum(w * scores[other] for w, other in near) / sum(w for w, _ in near)
    return smoothed
