"""Data folder and recipe -> the clips of a run, their folds and where their sound comes from.

What this decides is written to ``folds.csv`` once; a run that goes on, or trains another fold, reads it there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import CheckpointError
from birdinfer.labels import Species
from birdinfer.training.clips.cache import CacheSettings, build_cache
from birdinfer.training.clips.duplicates import Decision, decide, find_duplicates
from birdinfer.training.clips.metadata import Clip, Metadata, read_metadata, without_rare
from birdinfer.training.clips.sources import ClipSource, DecodedSource
from birdinfer.training.folds.file import FOLDS_FILE, LEFT_OUT, gone_clips, read_folds, write_folds
from birdinfer.training.folds.laying import TEST, lay_folds, leaks
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.data import DataConfig
from birdinfer.training.report import Reporter

_CHOICE = 20
"""First element of the seed that chooses ``data.max_clips`` of the clips."""


class Laid(NamedTuple):
    """The clips of a run and their folds."""

    species: tuple[Species, ...]
    clips: tuple[Clip, ...]
    folds: tuple[int, ...]
    """Of each clip: 0 and up, -1 always in training, -2 test."""

    def training(self, fold: int) -> tuple[Clip, ...]:
        """What a fold's model learns from."""
        return tuple(clip for clip, its in zip(self.clips, self.folds, strict=True) if its not in {fold, TEST})

    def held_out(self, fold: int) -> tuple[Clip, ...]:
        """What a fold's model is validated on; ``TEST`` gives the clips that no fold sees."""
        return tuple(clip for clip, its in zip(self.clips, self.folds, strict=True) if its == fold)


def lay(recipe: Recipe, data_dir: Path, run_dir: Path, reporter: Reporter) -> Laid:
    """Read the data and its folds, which are laid, and written down, if the run has none yet.

    Raises:
        BirdinferError: data or folds cannot be used.
    """
    # The headers of 50,000 clips take half a minute.
    reporter.message(f"reading {data_dir}")
    metadata = without_rare(read_metadata(data_dir, recipe.data.fold_column), recipe.data.min_clips_per_species)
    path = run_dir / FOLDS_FILE
    notes = list(metadata.notes)
    if path.exists():
        folds = _as_before(path, metadata.clips)
    else:
        if recipe.data.folds_file:
            notes += gone_clips(Path(recipe.data.folds_file), metadata.clips)
        folds = _choose(_laid_anew(metadata, recipe, reporter), recipe)
        write_folds(path, metadata.clips, folds)
    kept = [(clip, fold) for clip, fold in zip(metadata.clips, folds, strict=True) if fold != LEFT_OUT]
    clips, its = tuple(clip for clip, _ in kept), tuple(fold for _, fold in kept)
    for note in (*notes, *leaks(clips, its, recipe.data)):
        reporter.message(note)
    return Laid(metadata.species, clips, its)


def _as_before(path: Path, clips: Sequence[Clip]) -> list[int]:
    """The folds that the run has, for the very clips that it has.

    Raises:
        CheckpointError: clips are gone, so that what is trained now would not fit what is there.
        MetadataError: there are new ones, or the file is damaged.
    """
    gone = gone_clips(path, clips)
    if gone:
        raise CheckpointError(path, gone[0], "put them back, or train into another run with --run")
    return read_folds(path, clips)


def open_source(
    recipe: Recipe, clips: Sequence[Clip], cache_dir: Path | None, reporter: Reporter, between: Callable[[], None]
) -> ClipSource:
    """Where the clips' sound comes from: decoded as it is needed, or once before.

    Args:
        recipe: says which.
        clips: all that any fold will hear.
        cache_dir: where decoded clips are kept; None for the user's own cache folder.
        reporter: is told how far the decoding is.
        between: called now and then; may raise to stop.

    Raises:
        BirdinferError: the cache cannot be written, or people's voices cannot be found here.
    """
    if not recipe.data.cache:
        return DecodedSource(recipe.hearing, recipe.data.max_seconds)
    settings = CacheSettings(recipe.hearing, recipe.data.max_seconds, recipe.data.remove_voice)
    cache = build_cache(clips, settings, cache_dir, partial(reporter.preparing, "decoding clips"), between)
    reporter.message(f"{len(clips)} clips decoded in the cache, {cache.bytes / 1e9:.2f} GB")
    if recipe.data.remove_voice:
        reporter.message(f"{cache.voice_seconds:.0f} s of people's voices are cut out")
    for line in cache.notes:
        reporter.message(f"odd, but heard: {line}")
    return cache


def _laid_anew(metadata: Metadata, recipe: Recipe, reporter: Reporter) -> list[int]:
    clips, duplicates = metadata.clips, _duplicates(metadata.clips, recipe.data, reporter)
    for note in duplicates.notes:
        reporter.message(note)
    kept = [index for index in range(len(clips)) if index not in duplicates.left_out]
    laid = lay_folds([clips[index] for index in kept], recipe.data, recipe.seed, duplicates.kept_together)
    folds = [LEFT_OUT] * len(clips)
    for index, fold in zip(kept, laid, strict=True):
        folds[index] = fold
    return folds


def _duplicates(clips: Sequence[Clip], config: DataConfig, reporter: Reporter) -> Decision:
    if config.duplicates == "keep":
        return Decision(frozenset(), (), ())
    found = find_duplicates(clips, partial(reporter.preparing, "searching for duplicates"))
    return decide(clips, found, config.duplicates)


def _choose(folds: list[int], recipe: Recipe) -> list[int]:
    """``data.max_clips`` of the clips at random; the others are left out."""
    there = [index for index, fold in enumerate(folds) if fold != LEFT_OUT]
    most = recipe.data.max_clips
    if not 0 < most < len(there):
        return folds
    rng = np.random.default_rng((_CHOICE, recipe.seed))
    chosen = set(rng.choice(there, most, replace=False).tolist())
    return [fold if index in chosen else LEFT_OUT for index, fold in enumerate(folds)]
