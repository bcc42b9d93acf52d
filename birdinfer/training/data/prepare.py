"""Data folder and recipe -> the clips of a run, their folds and where their sound comes from.

What this decides is written to ``folds.csv`` once; a run that is resumed, or trains another fold, reads it there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from birdinfer.config import AudioConfig, WaveformConfig
from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.species import Species
from birdinfer.training.callbacks import SILENT, TrainingCallback
from birdinfer.training.data.cache import CacheSettings, build_cache
from birdinfer.training.data.clip import Clip, Metadata
from birdinfer.training.data.duplicates import LONGEST_SECONDS, SAMPLE_RATE, Decision, decide, find_duplicates
from birdinfer.training.data.fold_constraints import coverage, leaks
from birdinfer.training.data.folds import assign_folds
from birdinfer.training.data.folds_file import (
    ALWAYS_TRAINING,
    FOLDS_FILE,
    LEFT_OUT,
    TEST,
    VALIDATION,
    folds_by_name,
    gone_clips,
    read_folds,
    write_folds,
)
from birdinfer.training.data.metadata import read_metadata, without_rare
from birdinfer.training.data.overlap import leave_out_overlaps
from birdinfer.training.data.source_tables import SourceClips, TrainingSource, find_source, read_source
from birdinfer.training.data.sources import ClipDecoder, ClipSource, DecodedSource
from birdinfer.training.recipe.schema import Recipe

_CHOICE = 20
"""First element of the seed that chooses ``data.max_clips`` of the clips."""


class PreparedData(NamedTuple):
    """The clips of a run and their folds."""

    species: tuple[Species, ...]
    clips: tuple[Clip, ...]
    folds: tuple[int, ...]
    """Of each clip: 0 and up, -1 always in training, -2 test, -4 always in validation."""
    sources: tuple[TrainingSource, ...] = ()
    """The recipe's ``data.sources``."""
    taxa: tuple[str, ...] = ()
    """Of each species, "" where unknown; empty without ``labels.taxon``."""

    def training(self, fold: int) -> tuple[Clip, ...]:
        """What a fold's model learns from."""
        unseen = {fold, TEST, VALIDATION}
        return tuple(clip for clip, its in zip(self.clips, self.folds, strict=True) if its not in unseen)

    def held_out(self, fold: int) -> tuple[Clip, ...]:
        """What a fold's model is validated on; ``TEST`` gives the clips that no fold sees."""
        wanted = {fold} if fold == TEST else {fold, VALIDATION}
        held_out = (clip for clip, its in zip(self.clips, self.folds, strict=True) if its in wanted)
        # What is labelled with a taxon alone says nothing about a column of the scores.
        scored = {one.label for one in self.species} | {""}
        return tuple(clip for clip in held_out if not self.taxa or clip.primary_label in scored)


def prepare_data(recipe: Recipe, data_dir: Path, run_dir: Path, callback: TrainingCallback = SILENT) -> PreparedData:
    """Read the data and its folds, which are assigned and written down if the run has none yet.

    Raises:
        BirdinferError: data or folds cannot be used.
    """
    for config in recipe.data.sources:
        find_source(config, data_dir)
    # The headers of 50,000 clips take half a minute.
    callback.on_message(f"reading {data_dir}")
    metadata = read_metadata(data_dir, recipe.data.fold_column, recipe.labels)
    metadata = without_rare(metadata, recipe.data.min_clips_per_species)
    sources = [
        read_source(
            config,
            number,
            data_dir,
            metadata.species,
            recipe.input_config.window.window_seconds,
            metadata.also,
        )
        for number, config in enumerate(recipe.data.sources, start=1)
    ]
    every = (*metadata.clips, *(clip for source in sources for clip in source.clips))
    _check_nocall(every, recipe)
    path = run_dir / FOLDS_FILE
    notes = [*metadata.notes, *(note for source in sources for note in source.notes)]
    if path.exists():
        folds = _as_before(path, every)
    else:
        if recipe.data.folds_file:
            notes += gone_clips(Path(recipe.data.folds_file), every)
        folds = _assign(metadata, recipe, callback) + [fold for one in sources for fold in _of_source(one, recipe)]
        if sources:
            searching = partial(callback.on_progress, "searching sources for overlaps")
            folds, found = leave_out_overlaps(every, folds, recipe.data.sources, searching)
            notes += found
        folds = _choose(every, folds, recipe)
        write_folds(path, every, folds)
    kept = [(clip, fold) for clip, fold in zip(every, folds, strict=True) if fold != LEFT_OUT]
    clips, its = tuple(clip for clip, _ in kept), tuple(fold for _, fold in kept)
    notes += [_describe(source, number, kept) for number, source in enumerate(sources, start=1)]
    of_taxa = metadata.also - {""}
    in_a_column = [(clip, fold) for clip, fold in kept if clip.primary_label not in of_taxa]
    covered = coverage([clip for clip, _ in in_a_column], [fold for _, fold in in_a_column], recipe.data)
    for note in (*notes, *leaks(clips, its, recipe.data), *covered):
        callback.on_message(note)
    return PreparedData(metadata.species, clips, its, tuple(one.source for one in sources), metadata.taxa)


def _check_nocall(clips: Sequence[Clip], recipe: Recipe) -> None:
    """Refuse to learn what nothing is an example of."""
    unlabelled = {number for number, one in enumerate(recipe.data.sources, start=1) if one.kind == "unlabelled"}
    if recipe.labels.nocall and all(clip.primary_label or clip.source in unlabelled for clip in clips):
        what = "is true, and every clip has a species"
        hint = "add rows labelled nocall, or [[data.sources]] of kind background"
        raise ConfigError("labels.nocall", what, hint)


def _of_source(source: SourceClips, recipe: Recipe) -> list[int]:
    """Folds of a source's clips: those of an earlier run, if that had them all."""
    role, config = source.source.config.role, recipe.data
    if role != "folds":
        return [ALWAYS_TRAINING if role == "train" else VALIDATION] * len(source.clips)
    if config.folds_file:
        known = folds_by_name(Path(config.folds_file))
        if all(clip.filename in known for clip in source.clips):
            return [known[clip.filename][1] for clip in source.clips]
    own = msgspec.structs.replace(config, fold_column="", folds_file="", complete_fold0=False, test_share=0.0)
    return assign_folds(source.clips, own, recipe.seed)


def _describe(source: SourceClips, number: int, kept: Sequence[tuple[Clip, int]]) -> str:
    own = [(clip, fold) for clip, fold in kept if clip.source == number]
    config, files = source.source.config, {clip.path for clip, _ in own}
    if not own:
        return f"{config.title}: nothing is left of it"
    of = f" of {len(files)} recordings" if len(files) < len(own) else ""
    how = {"train": "train only", "folds": "train and validate", "validate": "validate only"}[config.role]
    drawn = f", {config.share:.0%} of each batch" if config.share else ""
    drawn = drawn or (f", mixed into {config.mix_probability:.0%} of windows" if config.mix_probability else "")
    return f"{config.title}: {len(own)} {config.kind.replace('_', '-')}{of}, {how}{drawn}"


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
    recipe: Recipe,
    clips: Sequence[Clip],
    cache_dir: Path | None,
    callback: TrainingCallback,
    between: Callable[[], None],
) -> ClipSource:
    """Open the clips' sound: decoded as it is needed, or once before.

    Args:
        recipe: says which.
        clips: of all folds.
        cache_dir: where decoded clips are kept; None for the user's own cache folder.
        callback: receives the progress of decoding.
        between: called now and then; may raise to stop.

    Raises:
        BirdinferError: the cache cannot be written, or people's voices cannot be found here.
    """
    if not recipe.data.cache:
        return DecodedSource(recipe.input_config, recipe.data.max_seconds)
    settings = CacheSettings(recipe.input_config, recipe.data.max_seconds, recipe.data.remove_voice)
    cache = build_cache(clips, settings, cache_dir, partial(callback.on_progress, "decoding clips"), between)
    callback.on_message(f"{len(clips)} clips decoded in the cache, {cache.bytes / 1e9:.2f} GB")
    if recipe.data.remove_voice:
        callback.on_message(f"{cache.voice_seconds:.0f} s of people's voices are cut out")
    for line in cache.notes:
        callback.on_message(f"odd, but used: {line}")
    return cache


def _assign(metadata: Metadata, recipe: Recipe, callback: TrainingCallback) -> list[int]:
    clips, duplicates = metadata.clips, _duplicates(metadata.clips, recipe, callback)
    for note in duplicates.notes:
        callback.on_message(note)
    kept = [index for index in range(len(clips)) if index not in duplicates.left_out]
    place = {index: number for number, index in enumerate(kept)}
    together = [[place[index] for index in members] for members in duplicates.kept_together]
    assigned = assign_folds([clips[index] for index in kept], recipe.data, recipe.seed, together)
    folds = [LEFT_OUT] * len(clips)
    for index, fold in zip(kept, assigned, strict=True):
        folds[index] = fold
    return folds


def _duplicates(clips: Sequence[Clip], recipe: Recipe, callback: TrainingCallback) -> Decision:
    config = recipe.data
    if config.duplicates == "keep":
        return Decision(frozenset(), (), ())
    decode = None
    if config.remove_voice or any(clip.is_part for clip in clips):
        # Announcements of one person in two recordings are alike, the birds are not; nor are two parts of one file.
        sound = WaveformConfig(AudioConfig(SAMPLE_RATE), recipe.input_config.window)
        decode = ClipDecoder(CacheSettings(sound, config.max_seconds or LONGEST_SECONDS, config.remove_voice))
    found = find_duplicates(clips, partial(callback.on_progress, "searching for duplicates"), decode)
    return decide(clips, found, config.duplicates)


def _choose(clips: Sequence[Clip], folds: list[int], recipe: Recipe) -> list[int]:
    """Leave out all but ``data.max_clips``, of each source, too."""
    chosen = list(folds)
    for source in range(len(recipe.data.sources) + 1):
        there = [
            index
            for index, (clip, fold) in enumerate(zip(clips, folds, strict=True))
            if clip.source == source and fold != LEFT_OUT
        ]
        most = recipe.data.max_clips
        if 0 < most < len(there):
            rng = np.random.default_rng((_CHOICE, recipe.seed, source) if source else (_CHOICE, recipe.seed))
            for index in set(there) - set(rng.choice(there, most, replace=False).tolist()):
                chosen[index] = LEFT_OUT
    return chosen
