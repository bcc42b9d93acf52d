"""One fold to train: what goes in, and the names of the files that come out."""

from pathlib import Path
from typing import NamedTuple

from birdinfer.labels import Species
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.clips.sources import ClipSource
from birdinfer.training.recipe import Recipe

LAST, BEST = "last.safetensors", "best.safetensors"
OUT_OF_FOLD, TEST_SCORES = "oof.csv", "test.csv"
HISTORY, CLASSES, TAXA = "history.csv", "classes.csv", "taxa.csv"
SOUP_DIR = "soup"


def fold_dir(run_dir: Path, fold: int) -> Path:
    """Where a fold of a run is written."""
    return run_dir / f"fold{fold}"


class FoldJob(NamedTuple):
    """What to train."""

    recipe: Recipe
    species: tuple[Species, ...]
    fold: int
    training: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    """Empty where everything trains (``data.all_data``)."""
    test: tuple[Clip, ...]
    """Clips that no fold sees; empty unless ``data.test_share`` is set."""
    source: ClipSource
    """Where their sound comes from."""
    background: tuple[Path, ...]
    """Files to mix in (``augment.background_dir``)."""
    data_dir: Path
    folder: Path
    """Where everything of the fold is written."""

    @property
    def labels(self) -> list[str]:
        """Columns of the logits."""
        return [species.label for species in self.species]
