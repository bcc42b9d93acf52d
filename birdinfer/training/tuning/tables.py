"""A study's trials as CSV: trials.csv (a row each), curves.csv (what pruning went by), importance.csv.

They are what pictures are drawn of, and what a user opens; nothing is read back from them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from birdinfer.files import write_atomic
from birdinfer.tables.csv_files import csv_text
from birdinfer.training.tuning.folder import CURVES_FILE, IMPORTANCE_FILE, TRIALS_FILE
from birdinfer.training.tuning.records import TrialRecord
from birdinfer.training.tuning.values import cell

_COLUMNS = ("trial", "state", "score", "seconds", "worker", "started", "continues")


def write_tables(
    study_dir: Path, records: Sequence[TrialRecord], keys: Sequence[str], importance: Mapping[str, float]
) -> None:
    """Write the tables, each whole or not at all; importance.csv only where there is any.

    Args:
        study_dir: where.
        records: all trials by number; those that wait are left out.
        keys: those that are searched, a column each.
        importance: of the keys, empty where it cannot be computed.

    Raises:
        OutputError: one cannot be written.
    """
    begun = [record for record in records if record.state != "waiting"]
    write_atomic(study_dir / TRIALS_FILE, trials_table(begun, keys))
    curve = [(each.number, step, f"{score:.6f}") for each in begun for step, score in each.curve.items()]
    write_atomic(study_dir / CURVES_FILE, csv_text(("trial", "step", "score"), curve))
    if importance:
        rows = [(key, f"{share:.6f}") for key, share in importance.items()]
        write_atomic(study_dir / IMPORTANCE_FILE, csv_text(("key", "importance"), rows))
    else:
        (study_dir / IMPORTANCE_FILE).unlink(missing_ok=True)


def trials_table(records: Sequence[TrialRecord], keys: Sequence[str]) -> str:
    """trials.csv; a cell is empty where there is nothing to say."""
    rows = [
        (
            record.number,
            record.state,
            "" if record.score is None else f"{record.score:.6f}",
            "" if record.seconds is None else f"{record.seconds:.1f}",
            record.worker,
            record.started,
            "" if record.continues is None else record.continues,
            *(cell(record.values[key]) if key in record.values else "" for key in keys),
        )
        for record in records
    ]
    return csv_text((*_COLUMNS, *keys), rows)
