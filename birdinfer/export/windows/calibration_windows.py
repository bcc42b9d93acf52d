"""On which windows a graph is calibrated: real ones that its model learnt from, of all classes, from quiet to loud.

In: a trained run. Out: :class:`CalibrationWindows`. Held-out clips are never among them: they judge the result.

Ranges of activations hang on what is loud and on what a class alone excites, so chance is not left to choose: labels
take turns, and of each label's candidates those are taken that lie evenly over the quantiles of loudness.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.export.windows.clip_windows import ClipWindows, Place
from birdinfer.export.windows.even_draw import even_shares, evenly_spaced
from birdinfer.export.windows.held_out import trained_clips
from birdinfer.training.checkpoint import Checkpoint
from birdinfer.training.clips.metadata import Clip

Float32 = npt.NDArray[np.float32]

_CALIBRATION = 41
"""First element of the seed: streams for different purposes never meet."""
_CANDIDATES_PER_WINDOW = 4
"""Windows that are decoded for their loudness, for each that is wanted: quantiles of fewer would be chance."""
_PLACES_PER_CLIP = 4
"""The most candidates of one clip: others of its label are to be heard, too."""
_SILENCE_DB = -120.0


class CalibrationWindows(Sequence[Float32]):
    """Windows as a model takes them, [1, ...] each; a slice is such a sequence, too.

    Each is decoded anew whenever it is asked for, so memory does not grow with their number. There is no cache: of the
    50 ms that one pass of calibration spends on a window of an efficientnet_b0, decoding and log-mel are 4.
    """

    def __init__(self, windows: ClipWindows, places: Sequence[Place], failed: Sequence[str] = ()) -> None:
        """Name the windows.

        Args:
            windows: cuts them.
            places: where each lies, in a clip that could be decoded there.
            failed: clips that could not be decoded, a line each.
        """
        self._windows, self.places, self.failed = windows, tuple(places), tuple(failed)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Float32: ...
    @overload
    def __getitem__(self, index: slice) -> "CalibrationWindows": ...
    def __getitem__(self, index: int | slice) -> "Float32 | CalibrationWindows":
        """One window [1, ...], float32, or a part of the sequence.

        Raises:
            InputNotFoundError: the clip is gone by now.
            AudioError: it cannot be decoded any more.
        """
        if isinstance(index, slice):
            return CalibrationWindows(self._windows, self.places[index], self.failed)
        return self._windows.heard(self.places[index])


class _Candidate(NamedTuple):
    place: Place
    loudness_db: float
    """Of a full-scale square wave."""


def draw_calibration(
    folder: Path, checkpoint: Checkpoint, data_dir: Path | None, n_windows: int, seed: int = 0
) -> CalibrationWindows:
    """Choose windows of the clips that a fold was trained on.

    Primary labels take turns, as far as each has windows; of a label they lie evenly over the quantiles of loudness,
    and at random places of its clips. Four times as many windows are decoded once, for their loudness. The windows
    come label by label in turn, so that any first part of them covers the labels as well.

    Args:
        folder: the fold's, with the run's folder around it.
        checkpoint: of the fold.
        data_dir: where the clips are now; where they were in training if None.
        n_windows: how many, >= 1; there are less where the clips do not hold so many.
        seed: of the choice. The same seed gives the same windows.

    Raises:
        InputNotFoundError: the run lacks its ``folds.csv``.
        MetadataError: it cannot be read.
        AudioError: none of the clips that were tried can be decoded.
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
    """Of each label's clips the windows to choose from, and a line on each clip that could not be decoded."""
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
    """One window in each of equal parts of the clip; no more than lie in it side by side, or they would be alike."""
    spare = windows.spare_seconds(clip)
    n = min(most, 1 + int(spare / windows.hearing.window.window_seconds))
    return [Place(clip, float(start)) for start in (np.arange(n) + rng.random(n)) * spare / n]


def _loudness_db(samples: Float32) -> float:
    """Root mean square in dB of full scale; digital silence is -120."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(_SILENCE_DB, 10.0 * math.log10(power)) if power > 0 else _SILENCE_DB


def _over_loudness(pool: Sequence[_Candidate], n_wanted: int, rng: np.random.Generator) -> list[Place]:
    """So many of a label's candidates, one out of each of as many equal parts of them in order of loudness."""
    in_order = sorted(pool, key=lambda candidate: candidate.loudness_db)
    # A random start, or labels with one window each would all be of middling loudness.
    return [in_order[index].place for index in evenly_spaced(len(pool), n_wanted, rng.random())]


def _in_turn(chosen: Sequence[Sequence[Place]]) -> Iterator[Place]:
    """One place of each label, then the second of each, until all are given out."""
    for turn in range(max(map(len, chosen))):
        yield from (places[turn] for places in chosen if turn < len(places))
