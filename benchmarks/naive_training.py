"""What one writes first: a script in the style of torchvision's reference training, for comparison.

Clips are decoded and turned into spectrograms by librosa, one at a time, three equal channels; Adam at 1e-3,
cross-entropy on the primary label, a step schedule, no augmentation but a random crop; the last epoch counts.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import librosa
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from birdinfer.training.models.timm_import import import_timm

RATE, SECONDS = 32_000, 5.0


class Row(NamedTuple):
    """One clip of train.csv."""

    path: Path
    label: str
    fold: int


class Clips(Dataset[tuple[torch.Tensor, int]]):
    """Clips as pictures [3, 64, frames]."""

    def __init__(self, rows: Sequence[Row], labels: Sequence[str], is_training: bool) -> None:
        """Keep the rows."""
        self._rows, self._labels, self._is_training = rows, list(labels), is_training

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self._rows[index]
        samples, _ = librosa.load(row.path, sr=RATE, mono=True)
        wanted = round(SECONDS * RATE)
        samples = np.pad(samples, (0, max(0, wanted - len(samples))))
        begin = int(torch.randint(len(samples) - wanted + 1, ())) if self._is_training else 0
        mel = librosa.feature.melspectrogram(
            y=samples[begin : begin + wanted], sr=RATE, n_fft=1024, hop_length=500, n_mels=64, fmin=50, fmax=16_000
        )
        picture = librosa.power_to_db(mel)
        picture = (picture - picture.mean()) / (picture.std() + 1e-6)
        return torch.from_numpy(picture.astype(np.float32)).expand(3, -1, -1), self._labels.index(row.label)


def read_rows(data_dir: Path, fold_column: str) -> list[Row]:
    """train.csv with its folds."""
    with (data_dir / "train.csv").open(newline="", encoding="utf-8") as file:
        return [
            Row(data_dir / "train_audio" / row["filename"], row["primary_label"], int(row[fold_column]))
            for row in csv.DictReader(file)
        ]


def out_of_fold(
    rows: Sequence[Row], labels: Sequence[str], backbone: str, epochs: int, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Train one model a fold and predict what it was not trained on: probabilities [rows, labels]."""
    scores = np.zeros((len(rows), len(labels)))
    for fold in sorted({row.fold for row in rows}):
        torch.manual_seed(seed)
        held_out = [index for index, row in enumerate(rows) if row.fold == fold]
        model = _train([row for row in rows if row.fold != fold], labels, backbone, epochs)
        loader = DataLoader(Clips([rows[index] for index in held_out], labels, is_training=False), batch_size=16)
        with torch.no_grad():
            scores[held_out] = torch.cat([model(pictures).softmax(1) for pictures, _ in loader]).numpy()
    return scores


def _train(rows: Sequence[Row], labels: Sequence[str], backbone: str, epochs: int) -> torch.nn.Module:
    model: torch.nn.Module = import_timm().create_model(backbone, num_classes=len(labels))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=max(1, epochs // 3), gamma=0.1)
    loader = DataLoader(Clips(rows, labels, is_training=True), batch_size=16, shuffle=True, drop_last=True)
    for _ in range(epochs):
        model.train()
        for pictures, classes in loader:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(pictures), classes).backward()
            optimiser.step()
        schedule.step()
    return model.eval()
