"""Labels of made embeddings."""

import numpy as np

from birdinfer.heads.labels import LabelledWindows
from birdinfer.species import Species


def labelled_of(species, clips, n_species, groups=None, folds=None, unit="clip"):
    """Windows with one species each."""
    truth = np.eye(n_species, dtype=np.float32)[species]
    n_clips = clips.max() + 1
    return LabelledWindows(
        species=tuple(Species(f"s{index}") for index in range(n_species)), windows=np.arange(len(clips)), truth=truth,
        clips=clips, groups=np.arange(n_clips) if groups is None else groups, folds=folds, unit=unit,
    )  # fmt: skip
