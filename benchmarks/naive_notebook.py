"""What most public notebooks do, as the yardstick: librosa.load, a mel spectrogram per window, torch eager, pandas.

It frames as birdinfer does (each window with its true neighbouring sound), so that the scores can be compared.
"""

from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import torch

from b0_bundle import FRONTEND, LABELS
from birdinfer.mel import floor_power


def predict_naively(model: torch.nn.Module, paths: list[Path], output: Path) -> pd.DataFrame:
    """Predict one-minute soundscapes one after the other and write a submission; returns the table."""
    tables = []
    for path in paths:
        wave, rate = librosa.load(path, sr=FRONTEND.audio.sample_rate)
        n_windows = round(len(wave) / FRONTEND.window_samples)
        wave = np.pad(wave, (0, n_windows * FRONTEND.window_samples - len(wave)))
        padded = np.pad(wave, FRONTEND.margin_samples, mode="reflect")
        images = np.stack([_image(padded, index, rate) for index in range(n_windows)])
        with torch.no_grad():
            scores = torch.sigmoid(model(torch.from_numpy(images[:, None]))).numpy()
        smoothed = pd.DataFrame(_smooth(scores), columns=list(LABELS))
        smoothed.insert(0, "row_id", [f"{path.stem}_{5 * index + 5}" for index in range(n_windows)])
        tables.append(smoothed)
    table = pd.concat(tables)
    table.to_csv(output, index=False)
    return table


def _image(padded: np.ndarray, index: int, rate: float) -> np.ndarray:
    mel = FRONTEND.mel
    begin = index * FRONTEND.window_samples
    window = padded[begin : begin + FRONTEND.window_samples + 2 * FRONTEND.margin_samples]
    power = librosa.feature.melspectrogram(
        y=window, sr=rate, n_fft=mel.n_fft, hop_length=mel.hop_length, n_mels=mel.n_mels, fmin=mel.f_min_hz,
        fmax=mel.f_max_hz, center=False,
    )[:, : FRONTEND.frames_per_window]  # fmt: skip
    decibels = 10 * np.log10(power / (mel.n_fft / 4) ** 2 + floor_power(mel))
    return ((decibels - decibels.mean()) / (decibels.std() + 1e-5)).astype(np.float32)


def _smooth(scores: np.ndarray) -> np.ndarray:
    smoothed = scores.copy()
    for index in range(len(scores)):
        near = [(0.2, index - 1), (0.6, index), (0.2, index + 1)]
        near = [(weight, other) for weight, other in near if 0 <= other < len(scores)]
        smoothed[index] = sum(w * scores[other] for w, other in near) / sum(w for w, _ in near)
    return smoothed
