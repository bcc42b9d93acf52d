"""After each trial: the tables, best.toml and no more checkpoints than are of use. Called under the study's lock."""

from collections.abc import Sequence

import msgspec

from birdinfer.files import write_atomic
from birdinfer.training.recipe.file import write_recipe
from birdinfer.training.tuning.folder import BEST_FILE, remove_weights, trial_dir
from birdinfer.training.tuning.importance import importance_of
from birdinfer.training.tuning.ledger import Ledger
from birdinfer.training.tuning.records import TrialRecord, best_of
from birdinfer.training.tuning.search import Search
from birdinfer.training.tuning.tables import write_tables
from birdinfer.training.tuning.values import with_values


def publish(search: Search, ledger: Ledger) -> list[TrialRecord]:
    """Write what the study's trials have come to.

    Returns:
        All trials as they stand.

    Raises:
        OutputError: something cannot be written.
    """
    records, keys = ledger.records(), list(search.space)
    write_tables(search.study_dir, records, keys, importance_of(ledger.study, records, keys))
    best = best_of(records)
    if best is not None:
        write_atomic(search.study_dir / BEST_FILE, best_recipe(search, best, records))
    _keep_best_weights(search, records, best)
    return records


def best_recipe(search: Search, best: TrialRecord, records: Sequence[TrialRecord]) -> str:
    """best.toml: a whole recipe, which trains as its trial did; above it, what it is worth."""
    recipe = with_values(search.recipe, best.values, "recipe")
    recipe = msgspec.structs.replace(recipe, name=f"{search.recipe.name}-best")
    n_finished = sum(record.is_finished for record in records)
    folds = ",".join(map(str, search.folds))
    head = (
        f"# score {best.score:.6f}, mean over folds {folds} of the best epoch's macro AUC",
        f"# trial {best.number} of study {search.study_dir.name}, the best of {n_finished} finished trials",
        f"# searched: {', '.join(search.space)}",
    )
    return "\n".join([*head, "", write_recipe(recipe)])


def _keep_best_weights(search: Search, records: Sequence[TrialRecord], best: TrialRecord | None) -> None:
    """Of trials that are over only the best one's checkpoints stay; tables and histories of all do."""
    for record in records:
        if record.is_over and record is not best:
            remove_weights(trial_dir(search.study_dir, record.number))
