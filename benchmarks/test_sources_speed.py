"""Training with three sources against clips alone: the same network, steps a second, everything in the cache.

The sources are those of ``train/injectors_2026.toml``: labelled soundscapes and pseudo-labels, mixed into fifteen of
sixteen windows, and more clips; here with a share of each batch besides, so that every way of drawing is measured.
"""

import statistics
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from time import process_time

import msgspec
import numpy as np
import pytest

from birdinfer.tables.pseudo_labels import Teacher, write_pseudo_labels
from birdinfer.training.callbacks import SILENT
from birdinfer.training.data.dataset import Batch
from birdinfer.training.data.prepare import open_source, prepare_data
from birdinfer.training.fold import Fold
from birdinfer.training.recipe.data_config import SourceConfig
from birdinfer.training.recipe.schema import Recipe
from bundles import SHARED_DATA
from test_training_speed import (
    HAS_GPU,
    LEAST_SHARE,
    WHERE,
    Trainer,
    endless,
    median_and_range,
    one_thread_per_core,
    ratios,
    recipe,
)

__all__ = ["one_thread_per_core"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PUBLIC = SHARED_DATA / "soundscapes" / "public"


def cost(trainer: Trainer, batches: Iterable[Batch]) -> float:
    """Seconds of some steps; without a GPU of the processor, which decodes between them, whatever else it does."""
    began = process_time()
    elapsed = trainer.seconds(batches)
    return elapsed if HAS_GPU else process_time() - began


def fold_of(wanted: Recipe, folder: Path) -> Fold:
    """All of a recipe's data in training."""
    found = prepare_data(wanted, SHARED_DATA / "birds", folder)
    return Fold(
        recipe=wanted, species=found.species, number=0, training=found.clips, validation=(), sources=found.sources,
        source=open_source(wanted, found.clips, folder / "cache", SILENT, lambda: None),
        data_dir=SHARED_DATA / "birds", folder=folder,
    )  # fmt: skip


def test_three_sources_against_clips_alone(tmp_path: Path, table: list[dict[str, str]]):
    if not PUBLIC.is_dir():
        pytest.skip("needs ../shared/data")
    plain = recipe("auto")
    loop = plain.loop if HAS_GPU else msgspec.structs.replace(plain.loop, num_workers=0)
    plain = msgspec.structs.replace(
        plain, data=msgspec.structs.replace(plain.data, all_data=True, cache=True), loop=loop
    )
    alone = fold_of(plain, tmp_path / "alone")
    labels = tuple(one.label for one in alone.species)
    windows = [(5.0 * index, 5.0 * index + 5) for index in range(12)]
    rng = np.random.default_rng(0)
    files = sorted(path.name for path in (PUBLIC / "audio").glob("bird*.ogg"))
    taught = ((name, windows, rng.random((12, len(labels)), np.float32) ** 8) for name in files)
    write_pseudo_labels(tmp_path / "pseudo", Teacher(labels=labels, bundle="random"), taught)
    audio, birds = str(PUBLIC / "audio"), SHARED_DATA / "birds"
    sources = (
        SourceConfig(
            path=audio, kind="segments", table=str(PUBLIC / "truth_bird.csv"), name="labelled", share=0.1,
            overlap="keep",
        ),
        SourceConfig(
            path=audio, kind="pseudo_labels", table=str(tmp_path / "pseudo"), mix_probability=0.9375,
            mix_label_sum=0.75, drawn_by="label_sum", overlap="keep",
        ),
        SourceConfig(path=str(birds / "eval_audio"), table=str(birds / "eval.csv"), overlap="keep"),
    )  # fmt: skip
    three = msgspec.structs.replace(plain, data=msgspec.structs.replace(plain.data, sources=sources))
    trainers = [Trainer.of(job) for job in (alone, fold_of(three, tmp_path / "three"))]
    first, second = (partial(cost, trainer, endless(trainer)) for trainer in trainers)
    values = ratios(first, second)
    table.append(
        {
            "what": f"training with three sources against clips alone, steps a second ({WHERE})",
            "measured": median_and_range(values),
            "bound": f">= {LEAST_SHARE}",
            "detail": f"efficientnet_b0, {plain.loop.num_workers} workers, all in the cache, real recordings",
        }
    )
    assert statistics.median(values) >= LEAST_SHARE
