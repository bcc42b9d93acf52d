"""Match the rows and columns of a submission and its truth by name; find the species of a table's columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.cli.options import bundle_folder
from birdinfer.errors import ConfigError, MetadataError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.external.label_lists import read_label_list
from birdinfer.inference.external.label_matching import species_of
from birdinfer.species import Species
from birdinfer.submission.blend_tables import species_of_columns
from birdinfer.tables.cells import near_miss
from birdinfer.tables.scores import ScoreTable, read_scores
from birdinfer.tables.truth import Scored, read_truth, rows_as_spelled, rows_of
from birdinfer.typing import Float64, Index

_NAMED_ROWS = 3
_NAMED_COLUMNS = 5


class MatchedTables(NamedTuple):
    """Two tables, and the positions of the truth's cells in the other one."""

    given: ScoreTable
    truth: ScoreTable  # its values are 0 or 1
    rows: Index  # of ``given``, in the order of the truth's rows
    columns: Index
    notes: tuple[str, ...]  # what was left out of the truth, a line each

    @property
    def scores(self) -> Float64:
        """The cells of the truth's rows and columns, in its order [rows, labels]."""
        return self.given.values[self.rows][:, self.columns]


def read_matched(
    submission: Path, truth: Path, bundle: Path | None = None, taxonomy: Path | None = None
) -> MatchedTables:
    """Read a submission and a truth of any kind; the species' names are those of a bundle or a taxonomy.

    Raises:
        MetadataError: one is not as needed, or the submission lacks what the truth has.
        LabelError: the truth names a species otherwise than the submission.
    """
    given = read_scores(submission)
    species = known_species(given.labels, bundle, taxonomy)
    wanted, notes = read_truth(truth, lambda: Scored(rows_of(given), species, str(submission)))
    rows = _positions(given.row_ids, rows_as_spelled(wanted.row_ids, given.row_ids))
    if None in rows:
        missing = [row_id for row_id, row in zip(wanted.row_ids, rows, strict=True) if row is None]
        raise _lacking(given, wanted, f"{len(missing)} of {len(rows)} rows", missing, _NAMED_ROWS)
    columns = _positions(given.labels, wanted.labels)
    if None in columns:
        missing = [_with_near_miss(label, given.labels) for label in wanted.labels if label not in given.labels]
        raise _lacking(given, wanted, f"{len(missing)} of {len(columns)} columns", missing, _NAMED_COLUMNS)
    return MatchedTables(given, wanted, np.array(rows, np.intp), np.array(columns, np.intp), notes)


def _positions(among: Sequence[str], names: Sequence[str]) -> list[int | None]:
    position_of = {name: index for index, name in enumerate(among)}
    return [position_of.get(name) for name in names]


def _with_near_miss(label: str, labels: Sequence[str]) -> str:
    near = near_miss(label, labels)
    return f"{label!r} is {near}" if near else label


def _lacking(given: ScoreTable, wanted: ScoreTable, what: str, missing: Sequence[str], n_named: int) -> MetadataError:
    first = ", ".join(missing[:n_named]) + (", ..." if len(missing) > n_named else "")
    return MetadataError(given.path, f"lacks {what} of {wanted.path}: {first}")


def check_one_source(bundle: Path | None, taxonomy: Path | None) -> None:
    """Refuse two sources of the same species."""
    if bundle and taxonomy:
        raise ConfigError("--taxonomy", "says what --bundle says", "give one of them")


def known_species(labels: Sequence[str], bundle: Path | None, taxonomy: Path | None) -> tuple[Species, ...]:
    """Return the species of columns; without a bundle and a taxonomy, their labels."""
    if bundle:
        return species_of_columns(labels, Bundle.load(bundle_folder(bundle)).manifest.species, bundle)
    if taxonomy:
        return species_of_columns(labels, species_of(read_label_list(taxonomy), taxonomy), taxonomy)
    return tuple(Species(label) for label in labels)
