"""Windows that a graph is calibrated on: real ones from its training clips, of all classes, from quiet to loud.

In: a trained run. Out: :class:`CalibrationWindows`. Held-out clips are never among them: those serve acceptance.

Ranges of activations depend on loud windows and on windows that excite one class alone, so the sample is stratified:
labels take turns, and of each label's candidates those are taken that lie evenly over the quantiles of loudness.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.export.acceptance.held_out import ClipWindows, Place, even_shares, evenly_spaced, trained_clips
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.data.clip import Clip
from birdinfer.typing import Float32

_CALIBRATION = 41  # first element of the seed: each purpose has a random stream of its own
_CANDIDATES_PER_WINDOW = 4  # decoded for their loudness per wanted window: quantiles of fewer would be chance
_PLACES_PER_CLIP = 4  # the most candidates of one clip, so that other clips of its label take part
_SILENCE_DB = -120.0


class CalibrationWindows(Sequence[Float32]):
    """Windows as a network takes them, [1, ...] each; a slice is such a sequence as well.

    Each is decoded whenever it is read, so memory does not grow with their number. There is no cache: of the 50 ms that
    one pass of calibration spends on a window of an efficientnet_b0, decoding and log-mel take 4. ``failed`` lists the
    clips that could not be decoded.
    """

    def __init__(self, windows: ClipWindows, places: Sequence[Place], failed: Sequence[str] = ()) -> None:
        self._windows, self.places, self.failed = windows, tuple(places), tuple(failed)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Float32: ...
    @overload
    def __getitem__(self, index: slice) -> "CalibrationWindows": ...
    def __getitem__(self, index: int | slice) -> "Float32 | CalibrationWindows":
        """Decode one window [1, ...], which fails if its clip has changed, or return a part of the sequence."""
        if isinstance(index, slice):
            return CalibrationWindows(self._windows, self.places[index], self.failed)
        return self._windows.network_input(self.places[index])


class _Candidate(NamedTuple):
    place: Place
    loudness_db: float  # of a full-scale square wave


def draw_calibration(
    folder: Path, checkpoint: Checkpoint, data_dir: Path | None, n_windows: int, seed: int = 0
) -> CalibrationWindows:
    """Choose windows of the clips that a fold was trained on; the same seed gives the same windows.

    Primary labels take turns while they have windows; those of a label lie evenly over the quantiles of loudness, at
    random places in its clips. Four times that number is decoded once, for its loudness. Labels alternate in the
    sequence, so that any first part of it covers them all. There are fewer than ``n_windows`` if the clips are short.
    """
    windows, rng = ClipWindows(checkpoint.recipe), np.random.default_rng((_CALIBRATION, seed))
    by_label: dict[str, list[Clip]] = defaultdict(list)
    for clip in trained_clips(folder, checkpoint, data_dir):
        by_label[clip.primary_label].append(clip)
    pools, failed = _candidates(windows, [by_label[label] for label in sorted(by_label)], n_windows, rng)
    if not any(pools):
        what = f"none of the {len(failed)} training clips that were tried can be decoded"
        raise AudioError("calibration", what, "name the data folder: --data")
    shares = even_shares([len(pool) for pool in pools], n_windows)
    chosen = [_over_loudness(pool, int(share), rng) for pool, share in zip(pools, shares, strict=True)]
    return CalibrationWindows(windows, list(_in_turn(chosen)), failed)


def _candidates(
    windows: ClipWindows, groups: Sequence[Sequence[Clip]], n_windows: int, rng: np.random.Generator
) -> tuple[list[list[_Candidate]], list[str]]:
    available = [_PLACES_PER_CLIP * len(clips) for clips in groups]
    shares = even_shares(available, _CANDIDATES_PER_WINDOW * n_windows)
    pools, failed = [], []
    for clips, share in zip(groups, shares, strict=True):
        pool, broken = _candidates_of_label(windows, clips, int(share), rng)
        pools.append(pool)
        failed += broken
    return pools, failed


def _candidates_of_label(
    windows: ClipWindows, clips: Sequence[Clip], n_candidates: int, rng: np.random.Generator
) -> tuple[list[_Candidate], list[str]]:
    """Windows of clips in random order, several of a clip only where the label has too few clips."""
    order = rng.permutation(len(clips))[:n_candidates]
    pool, failed = [], []
    for rank, index in enumerate(order):
        n_of_clip = len(range(rank, n_candidates, len(clips)))
        try:
            places = _random_places(windows, windows.measured(clips[index]), n_of_clip, rng)
            pool += [_Candidate(place, _loudness_db(windows.samples(place))) for place in places]
        except (AudioError, InputNotFoundError) as error:
            failed.append(f"{clips[index].filename} ({error.what})")
    return pool, failed


def _random_places(windows: ClipWindows, clip: Clip, most: int, rng: np.random.Generator) -> list[Place]:
    """One window in each of equal parts of the clip, but no more than fit side by side: overlapping ones are alike."""
    spare = windows.spare_seconds(clip)
    n = min(most, 1 + int(spare / windows.input_config.window.window_seconds))
    return [Place(clip, float(start)) for start in (np.arange(n) + rng.random(n)) * spare / n]


def _loudness_db(samples: Float32) -> float:
    """Root mean square in dB of full scale; digital silence is -120."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(_SILENCE_DB, 10.0 * math.log10(power)) if power > 0 else _SILENCE_DB


def _over_loudness(pool: Sequence[_Candidate], n_wanted: int, rng: np.random.Generator) -> list[Place]:
    in_order = sorted(pool, key=lambda candidate: candidate.loudness_db)
    # With a fixed start, labels with one window each would all be of medium loudness.
    return [in_order[index].place for index in evenly_spaced(len(pool), n_wanted, rng.random())]


def _in_turn(chosen: Sequence[Sequence[Place]]) -> Iterator[Place]:
    for turn in range(max(map(len, chosen))):
        yield from (places[turn] for places in chosen if turn < len(places))
