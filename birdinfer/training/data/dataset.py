"""Clips -> batches of waveform windows, cut while training runs.

In: clips, and where their sound comes from. Out: :class:`Batch` for training, :class:`ClipWindows` for validation;
waveforms are float32 with their margins, as :func:`birdinfer.audio.windows.window_of` cuts them. An item is a pure
function of (seed, epoch, place in the epoch), so the number of worker processes changes nothing and a resumed run
gets the same windows.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.system.cpu import available_cores, one_thread_per_worker
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.source_draw import Mixer
from birdinfer.training.data.source_tables import TrainingSource
from birdinfer.training.data.sources import ClipSource
from birdinfer.training.data.starts import fixed_starts, spare_seconds
from birdinfer.training.data.targets import Targets
from birdinfer.training.data.teacher import TeacherTargets
from birdinfer.training.recipe.schema import Recipe
from birdinfer.typing import Float32, Int64

TargetsOf = Callable[..., tuple[Float32, Float32, float]]
"""A clip, and one that is mixed into it if there is one -> targets [labels], cells' weights [labels], the window's
weight; see ``targets.TargetMaker``."""
Augment = Callable[[Float32, np.random.Generator], Float32]
"""A window [samples] and what decides -> a window of the same length."""

_WINDOW = 1
"""First element of a window's seed: streams for different purposes never meet (see loop and sampling)."""
_BATCHES_AHEAD = 16
"""Decoded before they are needed, over all workers: a slow file is not waited for."""


class Batch(NamedTuple):
    """Training windows."""

    waveforms: torch.Tensor
    """float32 [windows, samples], margins included."""
    targets: Targets
    failed: Sequence[str]
    """What could not be decoded, a line each; those windows are silent and weigh nothing."""


class ClipWindows(NamedTuple):
    """A validation clip."""

    clip_index: int
    """Which of the validation clips."""
    waveforms: Float32
    """float32 [windows, samples], margins included; no window if the clip cannot be decoded."""
    failed: str
    """Why it cannot be decoded, "" if it can."""


class WindowKey(NamedTuple):
    """The key of an item of :class:`TrainingWindows`."""

    epoch: int
    item: int
    """Which clip, or which window of which clip."""
    place: int
    """In the epoch's order: an item that is drawn twice is cut and augmented differently."""


class TrainingItem(NamedTuple):
    """One training window."""

    samples: Float32
    targets: Float32
    """[labels]."""
    cell_weights: Float32
    """[labels]."""
    window_weight: float
    failed: str
    """What could not be decoded, and why: the clip, whose window is then silent, or one that was to be mixed in."""
    teacher: Float32 | None = None
    """What a teacher says of it [numbers], NaN where nothing; None without a teacher."""


class Sampler(Protocol):
    """Which items an epoch consists of, see :class:`~birdinfer.training.data.sampling.EpochSampler`."""

    @property
    def n_items(self) -> int:
        """Items in an epoch."""
        ...

    def epoch(self, epoch: int) -> Int64:
        """The epoch's items, in order."""
        ...


class TrainingWindows(Dataset[Any]):
    """Augmented windows of training clips, as ``data.windows`` says."""

    def __init__(
        self,
        clips: Sequence[Clip],
        recipe: Recipe,
        source: ClipSource,
        targets: TargetsOf,
        augment: Augment,
        teacher: TeacherTargets | None = None,
        sources: Sequence[TrainingSource] = (),
    ) -> None:
        """List the items: one for each clip, or one for each of its windows.

        Args:
            clips: to train on.
            recipe: how they are cut.
            source: their sound.
            targets: their targets and weights.
            augment: applied to each window, with random numbers from (seed, epoch, place).
            teacher: what is to be learned besides the labels.
            sources: the recipe's, some of which are mixed into other windows.
        """
        self._clips, self._seed, self._source = tuple(clips), recipe.seed, source
        self._targets, self._augment, self._teacher = targets, augment, teacher
        self._mixer = Mixer(clips, sources)
        starts = [fixed_starts(recipe.data.windows, source, clip) or [np.nan] for clip in clips]
        self._clip_of = np.repeat(np.arange(len(starts), dtype=np.int32), [len(one) for one in starts])
        self._start_seconds = np.array([start for one in starts for start in one])

    @property
    def items(self) -> tuple[tuple[int, float | None], ...]:
        """Of each item its clip's index, and where its window begins in seconds; None: drawn each time."""
        starts = (None if np.isnan(start) else float(start) for start in self._start_seconds)
        return tuple(zip(self._clip_of.tolist(), starts, strict=True))

    @property
    def item_clips(self) -> tuple[Clip, ...]:
        """The clip of each item, by whose label or source it is drawn."""
        return tuple(self._clips[index] for index in self._clip_of)

    def __len__(self) -> int:
        return len(self._clip_of)

    def __getitem__(self, key: WindowKey) -> TrainingItem:
        """One window."""
        rng = np.random.default_rng((_WINDOW, self._seed, key.epoch, key.place))
        clip, start = self._clips[self._clip_of[key.item]], self._start_seconds[key.item]
        if np.isnan(start):
            start = rng.uniform(0, spare_seconds(self._source, clip))
            start = start if self._teacher is None else self._teacher.nearest(clip, start)
        samples, failed = read_or_silence(self._source, clip, float(start))
        taught = None if self._teacher is None else self._teacher.target(clip, float(start))
        if failed:
            # No target either: mixed into another window, silence must not claim a bird.
            values, cell_weights, _ = self._targets(clip)
            return TrainingItem(samples, np.zeros_like(values), np.ones_like(cell_weights), 0.0, failed, taught)
        mixed_in = self._mixer.draw(rng)
        if mixed_in is None:
            return TrainingItem(self._augment(samples, rng), *self._targets(clip), "", taught)
        start = rng.uniform(0, spare_seconds(self._source, mixed_in.clip))
        start = start if self._teacher is None else self._teacher.nearest(mixed_in.clip, start)
        other, failed = read_or_silence(self._source, mixed_in.clip, start)
        if failed:
            return TrainingItem(self._augment(samples, rng), *self._targets(clip), failed, taught)
        share = np.float32(mixed_in.share)
        samples = samples * (1 - share) + other * share
        if self._teacher is not None and taught is not None:
            taught = taught * (1 - share) + self._teacher.target(mixed_in.clip, start) * share
        return TrainingItem(self._augment(samples, rng), *self._targets(clip, mixed_in.clip), "", taught)


class ValidationWindows(Dataset[Any]):
    """Evenly spaced windows of validation clips; a key is the clip's index."""

    def __init__(self, clips: Sequence[Clip], recipe: Recipe, source: ClipSource) -> None:
        self._clips, self._most_windows, self._source = tuple(clips), recipe.loop.val_windows, source

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> ClipWindows:
        """The clip's windows, as many of them as can be decoded."""
        clip, source = self._clips[index], self._source
        window_seconds = source.input_config.window.window_seconds
        starts = window_starts(window_seconds + spare_seconds(source, clip), window_seconds, self._most_windows)
        windows, reasons = [], []
        for start in starts:
            try:
                windows.append(source.window(clip, start))
            except (AudioError, InputNotFoundError) as error:
                reasons.append(f"{clip.filename} ({error.what})")
        if windows:
            return ClipWindows(index, np.stack(windows), "")
        return ClipWindows(index, np.zeros((0, len(_silence(source))), np.float32), reasons[0])


class EpochBatches:
    """The batches of one epoch as lists of keys, this process's share of each; restartable at any step."""

    def __init__(self, sampler: Sampler, recipe: Recipe, process: int = 0, n_processes: int = 1) -> None:
        """Cut epochs into batches.

        Args:
            sampler: which items an epoch consists of.
            recipe: gives the size of a batch, over all processes.
            process: which of them this is, from 0.
            n_processes: how many train together; the size is a multiple of it.
        """
        self._sampler, self._size = sampler, recipe.loop.batch_size
        self._process, self._n_processes = process, n_processes
        self._epoch = self._first_step = 0

    def begin(self, epoch: int, first_step: int) -> None:
        """Say which epoch comes next, and from which of its steps."""
        self._epoch, self._first_step = epoch, first_step

    def __len__(self) -> int:
        """Steps in a whole epoch; a last batch that is not full is left out, for BatchNorm's sake."""
        return max(1, self._sampler.n_items // self._size)

    def __iter__(self) -> Iterator[list[WindowKey]]:
        # Fewer items than a batch are repeated until it is full.
        order = np.resize(self._sampler.epoch(self._epoch), len(self) * self._size).tolist()
        for step in range(self._first_step, len(self)):
            places = range(step * self._size + self._process, (step + 1) * self._size, self._n_processes)
            yield [WindowKey(self._epoch, order[place], place) for place in places]


def build_targets(clips: Sequence[Clip], labels: Sequence[str], secondary_weight: float) -> Float32:
    """Targets [clips, labels]: 1 for the primary label, ``secondary_weight`` for the others a clip names."""
    column = {label: index for index, label in enumerate(labels)}
    targets = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in zip(targets, clips, strict=True):
        row[[column[label] for label in clip.secondary_labels]] = secondary_weight
        row[column[clip.primary_label]] = 1.0
    return targets


def window_starts(duration_seconds: float, window_seconds: float, most_windows: int) -> list[float]:
    """Evenly spaced starts in seconds that cover a clip, at most ``most_windows``."""
    needed = max(1, min(most_windows, int(np.ceil(duration_seconds / window_seconds - 0.1))))
    return [float(start) for start in np.linspace(0.0, max(0.0, duration_seconds - window_seconds), needed)]


def read_or_silence(source: ClipSource, clip: Clip, start_seconds: float) -> tuple[Float32, str]:
    """A window of a clip; from its beginning where the place asked for fails (headers lie); else silence and why."""
    failed = ""
    for start in dict.fromkeys((start_seconds, 0.0)):
        try:
            return source.window(clip, start), ""
        except (AudioError, InputNotFoundError) as error:
            failed = f"{clip.filename} ({error.what})"
    return _silence(source), failed


def training_loader(dataset: TrainingWindows, batches: EpochBatches, recipe: Recipe, pin: bool) -> DataLoader[Any]:
    """A loader of :class:`Batch`; one for all epochs, for its workers take seconds to start."""
    return DataLoader(dataset, batch_sampler=batches, collate_fn=_collate, pin_memory=pin, **_workers(recipe))


_GRACE_SECONDS = 10
"""A worker that was sent SIGTERM ends after so long by itself, if it was not ended before."""


def validation_loader(dataset: ValidationWindows, indices: Sequence[int], recipe: Recipe) -> DataLoader[Any]:
    """A loader of lists of :class:`ClipWindows`, about ``batch_size`` windows each, of the clips at ``indices``."""
    size = max(1, recipe.loop.batch_size // recipe.loop.val_windows)
    return DataLoader(dataset, batch_size=size, sampler=indices, collate_fn=list, **_workers(recipe))


def _silence(source: ClipSource) -> Float32:
    return np.zeros(source.input_config.window_samples + 2 * source.input_config.margin_samples, np.float32)


def _workers(recipe: Recipe) -> dict[str, Any]:
    """Spawned, not forked: a forked copy of a process with threads may hang."""
    n_workers = min(recipe.loop.num_workers, available_cores())
    if not n_workers:
        return {"num_workers": 0}
    return {
        "num_workers": n_workers,
        "persistent_workers": True,
        "prefetch_factor": max(2, _BATCHES_AHEAD // n_workers),
        "multiprocessing_context": "spawn",
        "worker_init_fn": _begin_worker,
    }


def _begin_worker(_: int) -> None:
    """Ctrl-C and, of systemd or timeout, SIGTERM reach workers, too; the training process saves first and ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows, which sends no SIGTERM to a group
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS) and None)
    one_thread_per_worker().__enter__()  # until the worker ends; torch is pinned by its loader


def _collate(items: Sequence[TrainingItem]) -> Batch:
    samples, values, cell_weights, window_weights, failed, taught = zip(*items, strict=True)
    targets = Targets(
        torch.from_numpy(np.stack(values)),
        torch.from_numpy(np.stack(cell_weights)),
        torch.tensor(window_weights, dtype=torch.float32),
        None if taught[0] is None else torch.from_numpy(np.stack(taught)),
    )
    return Batch(torch.from_numpy(np.stack(samples)), targets, tuple(reason for reason in failed if reason))
