"""How ``data.sources`` come into the batches: by a share of each, mixed into other windows, or among the other clips.

Everything is a pure function of the recipe's seed and of an epoch or a window's own random numbers, so that a resumed
run draws the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from birdinfer.training.data.clip import Clip
from birdinfer.training.data.sampling import EpochSampler, SharedItems, SharedSampler, repeats
from birdinfer.training.data.source_tables import TrainingSource, draw_weights
from birdinfer.training.recipe.schema import Recipe
from birdinfer.typing import Float32, Float64, Index


def build_sampler(
    clips: Sequence[Clip], sources: Sequence[TrainingSource], recipe: Recipe
) -> EpochSampler | SharedSampler:
    """Build what draws epochs.

    Args:
        clips: of each item, [items].
        sources: the recipe's.
        recipe: how items are drawn.
    """
    # Of a source whose clips are all left out, nothing is drawn.
    shared = [
        SharedItems(source.config.share, *_drawn(clips, number, source))
        for number, source in enumerate(sources, start=1)
        if source.config.share and any(clip.source == number for clip in clips)
    ]
    apart = {
        number for number, source in enumerate(sources, start=1) if source.config.share or source.config.mix_probability
    }
    pool: Index = np.array([item for item, clip in enumerate(clips) if clip.source not in apart], np.intp)
    sampler = EpochSampler([clips[item].primary_label for item in pool], recipe.data, recipe.seed)
    if not apart:
        return sampler
    return SharedSampler(sampler, pool, shared, recipe.loop.batch_size, recipe.seed)


class MixedIn(NamedTuple):
    """A clip a window of which is mixed into another one."""

    clip: Clip
    share: float
    """Of the mix, 0 to 1."""


class Mixer:
    """Draws what is mixed into a training window; small, and ready to be sent to workers."""

    def __init__(self, clips: Sequence[Clip], sources: Sequence[TrainingSource]) -> None:
        """Find the clips of the sources that are mixed in."""
        self._probabilities: list[float] = []
        self._sources: list[tuple[tuple[Clip, ...], Float64, float]] = []
        for number, source in enumerate(sources, start=1):
            items, weights = _drawn(clips, number, source)
            if source.config.mix_probability and len(items):
                chances = np.ones(len(items)) if weights is None else weights.astype(np.float64)
                ends = np.cumsum(chances / chances.sum())
                self._sources.append((tuple(clips[item] for item in items), ends, source.config.mix_share))
                self._probabilities.append(source.config.mix_probability)

    def draw(self, rng: np.random.Generator) -> MixedIn | None:
        """Draw a clip, or none; takes no random numbers where nothing is ever mixed in."""
        if not self._sources:
            return None
        number = int(np.searchsorted(np.cumsum(self._probabilities), rng.random(), side="right"))
        if number == len(self._sources):
            return None
        clips, ends, share = self._sources[number]
        index = int(np.searchsorted(ends, rng.random(), side="right"))
        return MixedIn(clips[min(index, len(clips) - 1)], share)


def _drawn(clips: Sequence[Clip], number: int, source: TrainingSource) -> tuple[Index, Float32 | None]:
    """Items of a source, repeated as often as ``upsample_to`` asks, and how often each is drawn."""
    items = [item for item, clip in enumerate(clips) if clip.source == number]
    own = [clips[item] for item in items]
    weights = draw_weights(own, source)
    found: Index = np.array(items, np.intp)
    if not source.config.upsample_to or not items:
        return found, weights
    labels = [[label for label in (clip.primary_label, *clip.secondary_labels) if label] for clip in own]
    times = repeats(labels, source.config.upsample_to)
    return np.repeat(found, times), None if weights is None else np.repeat(weights, times)
