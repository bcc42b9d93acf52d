"""Clips -> batches of waveform windows: decoded while training runs, a window at a time.

In: clips. Out: :class:`Batch` for training, :class:`ClipWindows` for validation; waveforms are float32 with their
margins, as :func:`birdinfer.windows.read_window` gives them. An item is a pure function of (seed, epoch, index), so
the number of worker processes changes nothing and a resumed run hears what it would have heard.
"""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from birdinfer.config import FrontEndConfig
from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.training.augment import WaveformAugment
from birdinfer.training.metadata import Clip
from birdinfer.training.recipe import Recipe
from birdinfer.windows import read_window

Float32 = npt.NDArray[np.float32]

_ORDER, _WINDOW = 0, 1
"""First element of a generator's seed: streams for different purposes never meet."""


class Batch(NamedTuple):
    """Training windows."""

    waveforms: torch.Tensor
    """float32 [clips, samples], margins included."""
    targets: torch.Tensor
    """float32 [clips, labels], 0 to 1."""
    weights: torch.Tensor
    """float32 [clips]: 1, or 0 for a clip that could not be decoded."""
    failed: tuple[str, ...]
    """What could not be decoded, a line each."""


class ClipWindows(NamedTuple):
    """A validation clip."""

    clip_index: int
    """Which of the validation clips."""
    waveforms: Float32
    """float32 [windows, samples], margins included; no window if the clip cannot be decoded."""
    failed: str
    """Why it cannot be decoded, "" if it can."""


class TrainingWindows(Dataset[Any]):
    """Random windows of training clips; a key is (epoch, index)."""

    def __init__(self, clips: Sequence[Clip], targets: Float32, recipe: Recipe, augment: WaveformAugment) -> None:
        """Keep clips and their targets [clips, labels]."""
        self._clips, self._targets = tuple(clips), targets
        self._recipe, self._augment = recipe, augment

    def __getitem__(self, key: tuple[int, int]) -> tuple[Float32, Float32, str]:
        """One window [samples], its target [labels], and why it is silent ("" if it is not)."""
        epoch, index = key
        clip, frontend = self._clips[index], self._recipe.frontend
        rng = np.random.default_rng((_WINDOW, self._recipe.seed, epoch, index))
        spare_seconds = max(0.0, clip.duration_seconds - frontend.window.window_seconds)
        samples, failed = read_or_silence(clip, rng.uniform(0, spare_seconds), frontend)
        if failed:
            return samples, np.zeros_like(self._targets[index]), failed
        return self._augment(samples, rng), self._targets[index], ""


class ValidationWindows(Dataset[Any]):
    """Evenly spaced windows of validation clips; a key is the clip's index."""

    def __init__(self, clips: Sequence[Clip], frontend: FrontEndConfig, most_windows: int) -> None:
        """Keep the clips; ``most_windows`` are taken of each."""
        self._clips, self._frontend, self._most_windows = tuple(clips), frontend, most_windows

    def __getitem__(self, index: int) -> ClipWindows:
        """The clip's windows."""
        clip = self._clips[index]
        starts = window_starts(clip.duration_seconds, self._frontend.window.window_seconds, self._most_windows)
        try:
            windows = [read_window(clip.path, start, self._frontend) for start in starts]
        except (AudioError, InputNotFoundError):
            windows = []
        if not windows:
            samples, failed = read_or_silence(clip, 0.0, self._frontend)
            windows = [] if failed else [samples]
            return ClipWindows(index, _stack(windows, len(samples)), failed)
        return ClipWindows(index, np.stack(windows), "")


class EpochBatches:
    """The batches of one epoch as lists of (epoch, index); restartable at any step."""

    def __init__(self, labels: Sequence[str], recipe: Recipe) -> None:
        """Keep the clips' labels, which weigh the draw."""
        self._recipe, self._n_clips = recipe, len(labels)
        frequency = Counter(labels)
        weights = np.array([frequency[label] ** recipe.data.sampling_power for label in labels])
        self._probabilities = weights / weights.sum()
        self._epoch = self._first_step = 0

    def begin(self, epoch: int, first_step: int) -> None:
        """Say which epoch comes next, and from which of its steps."""
        self._epoch, self._first_step = epoch, first_step

    def __len__(self) -> int:
        """Steps in a whole epoch; a last batch that is not full is left out, for BatchNorm's sake."""
        return max(1, self._n_clips // self._recipe.loop.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng((_ORDER, self._recipe.seed, self._epoch))
        if self._recipe.data.sampling_power == 0:
            order = rng.permutation(self._n_clips)
        else:
            order = rng.choice(self._n_clips, self._n_clips, p=self._probabilities)
        size = self._recipe.loop.batch_size
        for step in range(self._first_step, len(self)):
            yield [(self._epoch, int(index)) for index in order[step * size : (step + 1) * size]]


def build_targets(clips: Sequence[Clip], labels: Sequence[str], secondary_weight: float) -> Float32:
    """Targets [clips, labels]: 1 for the primary label, ``secondary_weight`` for the others a clip names."""
    column = {label: index for index, label in enumerate(labels)}
    targets = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in zip(targets, clips, strict=True):
        row[[column[label] for label in clip.secondary_labels]] = secondary_weight
        row[column[clip.primary_label]] = 1.0
    return targets


def window_starts(duration_seconds: float, window_seconds: float, most_windows: int) -> list[float]:
    """Where to hear a clip: evenly spaced starts in seconds, as many as it takes to cover it, at most so many."""
    needed = max(1, min(most_windows, int(np.ceil(duration_seconds / window_seconds - 0.1))))
    return [float(start) for start in np.linspace(0.0, max(0.0, duration_seconds - window_seconds), needed)]


def read_or_silence(clip: Clip, start_seconds: float, frontend: FrontEndConfig) -> tuple[Float32, str]:
    """A window of a clip; from its beginning where the place asked for fails (headers lie); else silence and why."""
    for start in dict.fromkeys((start_seconds, 0.0)):
        try:
            return read_window(clip.path, start, frontend), ""
        except (AudioError, InputNotFoundError) as error:
            failed = f"{clip.filename} ({error.what})"
    return np.zeros(frontend.window_samples + 2 * frontend.margin_samples, np.float32), failed


def training_loader(dataset: TrainingWindows, batches: EpochBatches, recipe: Recipe, pin: bool) -> DataLoader[Any]:
    """A loader of :class:`Batch`; one for all epochs, for its workers take seconds to start."""
    return DataLoader(dataset, batch_sampler=batches, collate_fn=_collate, pin_memory=pin, **_workers(recipe))


def validation_loader(dataset: ValidationWindows, n_clips: int, recipe: Recipe) -> DataLoader[Any]:
    """A loader of lists of :class:`ClipWindows`, about ``batch_size`` windows each."""
    size = max(1, recipe.loop.batch_size // recipe.loop.val_windows)
    return DataLoader(dataset, batch_size=size, sampler=range(n_clips), collate_fn=list, **_workers(recipe))


def _workers(recipe: Recipe) -> dict[str, Any]:
    """Spawned, not forked: a forked copy of a process with threads may hang."""
    n_workers = recipe.loop.num_workers
    if not n_workers:
        return {"num_workers": 0}
    return {
        "num_workers": n_workers,
        "persistent_workers": True,
        "multiprocessing_context": "spawn",
        "worker_init_fn": _leave_ctrl_c_to_the_parent,
    }


def _leave_ctrl_c_to_the_parent(_: int) -> None:
    """A terminal sends Ctrl-C to workers, too; the training process saves first and then ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collate(items: Sequence[tuple[Float32, Float32, str]]) -> Batch:
    waveforms, targets, failed = zip(*items, strict=True)
    return Batch(
        torch.from_numpy(np.stack(waveforms)),
        torch.from_numpy(np.stack(targets)),
        torch.tensor([0.0 if reason else 1.0 for reason in failed]),
        tuple(reason for reason in failed if reason),
    )


def _stack(windows: Sequence[Float32], n_samples: int) -> Float32:
    return np.stack(windows) if windows else np.zeros((0, n_samples), np.float32)
