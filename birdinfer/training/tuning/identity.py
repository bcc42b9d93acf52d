"""What a study is of, as ``study.json`` keeps it: two workers share a study only if they ask the very same question.

All that a score follows from counts: the base recipe but for keys that change no result, the space, the folds and the
clips with their labels and folds; not where the data lies, for another machine has it elsewhere.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from birdinfer.errors import ConfigError
from birdinfer.training.preparation import Laid
from birdinfer.training.recipe import NOT_DECISIVE, Recipe, flatten
from birdinfer.training.tuning.space import Space
from birdinfer.training.tuning.values import plain

OTHER = "name another with --study"
"""What to do where a study is not the one that is asked for."""


class Question(msgspec.Struct, frozen=True):
    """What a study is of."""

    recipe: dict[str, Any]
    space: dict[str, Any]
    folds: tuple[int, ...]
    clips: str = ""
    """SHA-256 of file names, labels and folds; see :func:`clips_digest`."""
    n_clips: int = 0
    score: str = "mean over folds of the best epoch's macro AUC"

    @classmethod
    def of(cls, recipe: Recipe, space: Space, folds: tuple[int, ...]) -> "Question":
        """All that is known before the data has been read."""
        return cls(_decisive(recipe), {key: choice.told() for key, choice in space.items()}, folds)

    def on(self, clips: str, n_clips: int) -> "Question":
        """The same question of these clips."""
        return msgspec.structs.replace(self, clips=clips, n_clips=n_clips)

    def as_json(self) -> str:
        """For study.json."""
        return json.dumps(msgspec.to_builtins(self), indent=2) + "\n"


def clips_digest(laid: Laid) -> str:
    """One word for all clips with their labels and folds, and the columns of the scores, in whatever order they lie."""
    rows = sorted(
        [clip.filename, clip.primary_label, *clip.secondary_labels, str(fold)]
        for clip, fold in zip(laid.clips, laid.folds, strict=True)
    )
    columns = [species.label for species in laid.species]
    return hashlib.sha256(json.dumps([columns, rows]).encode()).hexdigest()


def load_question(path: Path) -> Question:
    """Read study.json.

    Raises:
        ConfigError: it is none.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Question)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(path, f"cannot be read ({error})", OTHER) from error


def check_question(saved: Question, asked: Question, study_dir: Path) -> None:
    """Refuse a study of another recipe, space or folds.

    Raises:
        ConfigError: something differs; it names the first.
    """
    defaults = _decisive(Recipe())
    _compare(study_dir, "recipe", defaults | saved.recipe, defaults | asked.recipe)
    _compare(study_dir, "space", saved.space, asked.space)
    if saved.folds != asked.folds:
        told, wanted = (",".join(map(str, folds)) for folds in (saved.folds, asked.folds))
        raise ConfigError(study_dir, f"is a study of folds {told}, asked is {wanted}", OTHER)


def check_clips(saved: Question, asked: Question, study_dir: Path) -> None:
    """Refuse a study of other clips.

    Raises:
        ConfigError: they are others, or have other labels.
    """
    if saved.clips != asked.clips:
        what = f"is a study of {saved.n_clips} clips, here are {asked.n_clips}"
        same = " with other labels or folds" if saved.n_clips == asked.n_clips else ""
        raise ConfigError(study_dir, what + same, OTHER)


def _compare(study_dir: Path, kind: str, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for key in [*asked, *(key for key in saved if key not in asked)]:
        if saved.get(key) != asked.get(key):
            before, now = (_told(table, key) for table in (saved, asked))
            raise ConfigError(study_dir, f"is a study of another {kind}: {key} is {before} there, here {now}", OTHER)


def _told(table: Mapping[str, Any], key: str) -> str:
    return json.dumps(table[key]) if key in table else "absent"


def _decisive(recipe: Recipe) -> dict[str, Any]:
    return {
        key: plain(value)
        for key, value in flatten(recipe).items()
        if key not in NOT_DECISIVE and not key.startswith("tracking.")
    }
