"""Stand-ins for modules that a test is not about, in a file of their own so that they travel to worker processes."""

from typing import NamedTuple

import numpy as np
import threadpoolctl
import torch
from tiny_clips import LABELS


class OneHot(NamedTuple):
    """Targets: the primary label, and half a weight for the cell after it."""

    def __call__(self, clip):
        values = np.array([label == clip.primary_label for label in LABELS], np.float32)
        return values, 1 - np.roll(values, 1) / 2, 0.75


class RandomGain(NamedTuple):
    """Augmentation that shows its generator."""

    def __call__(self, samples, rng):
        return samples * np.float32(rng.uniform(0.5, 1.0))


class AsTheyAre(NamedTuple):
    """Augmentation that does nothing."""

    def __call__(self, samples, rng):
        return samples


class CountsThreads(NamedTuple):
    """Augmentation that puts the most threads that torch or BLAS would take in a window's place."""

    def __call__(self, samples, rng):
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
        return np.full_like(samples, max(*pools, torch.get_num_threads()))


class Shuffled(NamedTuple):
    """A draw: each item once, in another order each epoch."""

    n_items: int

    def epoch(self, epoch):
        return np.random.default_rng(epoch).permutation(self.n_items)
