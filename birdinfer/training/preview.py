"""Clips and a recipe -> what the network gets in training, to be looked at: windows drawn, augmented and mixed.

The steps are those of training itself (``TrainingWindows``, ``mix_waveforms``, ``Forward.augment``); only the order of
clips is given instead of drawn, so that the same clips can be seen in several draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from birdinfer.config import FrontEndConfig
from birdinfer.species import Species
from birdinfer.training.augment import WaveformAugment, find_background, mix_waveforms
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.dataset import Batch, TrainingItem, TrainingWindows, WindowKey
from birdinfer.training.data.source_tables import SourceClips, read_source
from birdinfer.training.data.sources import DecodedSource
from birdinfer.training.data.targets import TargetMaker, Targets
from birdinfer.training.forward import Forward
from birdinfer.training.outputs import Outputs
from birdinfer.training.recipe.schema import Recipe
from birdinfer.typing import Float32

_DRAW = 30
"""First element of a draw's seed: streams for different purposes never meet (see dataset and loop)."""
_LEAST_TARGET = 0.05
"""Smaller targets, as label smoothing gives every species, are not listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One training window of a clip."""

    waveform: Float32
    """[samples] at the recipe's rate, augmented and mixed with others, without its margins."""
    picture: Float32 | None
    """[rows, columns], the network's input, channels above one another; None of a network that takes the waveform."""
    targets: tuple[tuple[str, float], ...]
    """What is asked of the network: labels and their targets from 0.05 on, the highest first."""
    problem: str = ""
    """Why the clip cannot be decoded; its window is silent then."""


def draw_windows(
    clips: Sequence[Clip],
    others: Sequence[Clip],
    species: Sequence[Species],
    recipe: Recipe,
    n_draws: int,
    data_dir: Path | None = None,
) -> list[list[Draw]]:
    """Draw training windows of clips.

    Args:
        clips: to look at.
        others: clips that stand beside them in the batch, and may be mixed into them.
        species: the columns; every label of all clips is one.
        recipe: decides all of it.
        n_draws: windows of each clip.
        data_dir: where ``augment.background_dir`` and ``data.sources`` are looked for, too; None reads no sources.

    Returns:
        For each draw one window of each clip.

    Raises:
        BirdinferError: the recipe's folder of background, or a source, cannot be used.
    """
    # Taxa and no call follow from the species that are shown.
    learned = msgspec.structs.replace(recipe.labels, taxon="", nocall=False)
    recipe = msgspec.structs.replace(recipe, labels=learned)
    sources = [] if data_dir is None else _read_sources(recipe, species, data_dir)
    labels = [one.label for one in species]
    whole = [*clips, *others, *(clip for each in sources for clip in each.clips)]
    background = find_background(recipe.augment.background_dir, data_dir or Path()).files
    augment = WaveformAugment(recipe.augment, recipe.input_config, background)
    source = DecodedSource(recipe.input_config, recipe.data.max_seconds)
    of_sources = tuple(each.source for each in sources)
    targets = TargetMaker(Outputs(tuple(labels)), recipe.labels, whole, of_sources)
    windows = TrainingWindows(whole, recipe, source, targets, augment, sources=of_sources)
    first = {clip: item for item, (clip, _) in reversed(list(enumerate(windows.items)))}
    forward = Forward(recipe, [1] * len(labels), torch.device("cpu"))
    margin = recipe.input_config.margin_samples
    drawn = []
    for number in range(n_draws):
        items = [windows[WindowKey(number, first[index], index)] for index in range(len(clips) + len(others))]
        batch = _batch(items)
        # The same numbers twice: what is played is what is drawn.
        mixed, _ = mix_waveforms(batch.waveforms, batch.targets, recipe.augment, _rng(recipe, number))
        made = forward.augment(batch, _rng(recipe, number))
        is_picture = isinstance(recipe.input_config, FrontEndConfig)
        drawn.append([
            Draw(
                waveform=mixed[index].numpy()[margin : mixed.shape[1] - margin],
                picture=picture_of(made.inputs[index].float().numpy()) if is_picture else None,
                targets=_listed(made.targets.values[index].tolist(), labels), problem=items[index].failed,
            )
            for index in range(len(clips))
        ])  # fmt: skip
    return drawn


def picture_of(channels: Float32) -> Float32:
    """A network's input [channels, rows, columns] as one picture: the first channel above the second."""
    return np.concatenate(channels[::-1], axis=0)


def _read_sources(recipe: Recipe, species: Sequence[Species], data_dir: Path) -> list[SourceClips]:
    """Read the sources, of which those with ``mix_probability`` are mixed into clips."""
    seconds = recipe.input_config.window.window_seconds
    numbered = enumerate(recipe.data.sources, start=1)
    return [read_source(config, number, data_dir, species, seconds) for number, config in numbered]


def _batch(items: Sequence[TrainingItem]) -> Batch:
    targets = Targets(
        torch.from_numpy(np.stack([item.targets for item in items])),
        torch.from_numpy(np.stack([item.cell_weights for item in items])),
        torch.tensor([item.window_weight for item in items], dtype=torch.float32),
    )
    return Batch(torch.from_numpy(np.stack([item.samples for item in items])), targets, ())


def _rng(recipe: Recipe, number: int) -> np.random.Generator:
    return np.random.default_rng((_DRAW, recipe.seed, number))


def _listed(values: Sequence[float], labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    found = [(label, value) for label, value in zip(labels, values, strict=True) if value >= _LEAST_TARGET]
    return tuple(sorted(found, key=lambda each: -each[1]))
