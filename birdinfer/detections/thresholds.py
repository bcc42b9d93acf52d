"""From which probability on a species counts as present: one for all, a table of some, those that the bundle holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from birdinfer.errors import MetadataError
from birdinfer.species import Species, SpeciesNames
from birdinfer.tables.cells import number
from birdinfer.tables.csv import rows
from birdinfer.typing import Float32

MIN_CONFIDENCE = 0.25
"""From which probability on a species counts as present if nothing else is asked for."""
NAME_COLUMNS = ("label", "primary_label", "species", "scientific_name", "Scientific name", "Common name")
"""Names a table's column of species, the first that is there; each cell a label, a scientific or a common name."""
THRESHOLD_COLUMN = "threshold"


def make_thresholds(
    species: Sequence[Species], min_confidence: float, own: Mapping[str, float] | None = None
) -> Float32:
    """Return the least probability at which each species is present, float32 [species].

    ``own``: thresholds by label, in place of ``min_confidence``.

    >>> make_thresholds([Species("comcuc"), Species("eurbla")], 0.25, {"comcuc": 0.5})
    array([0.5 , 0.25], dtype=float32)
    """
    known = own or {}
    return np.array([known.get(each.label, min_confidence) for each in species], np.float32)


def read_thresholds(path: Path, species: Sequence[Species]) -> dict[str, float]:
    """Read a table of ``label`` (or a name of the species) and ``threshold``, 0 to 1; species it lacks are left out.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: a column is missing, a row names no species of these or several, one stands twice, or a
            threshold is no number from 0 to 1.
    """
    names, found = SpeciesNames(species), dict[str, float]()
    for line, row in rows(path, THRESHOLD_COLUMN):
        column = next((each for each in NAME_COLUMNS if each in row), None)
        if column is None:
            raise MetadataError(path, "has no column of species", f"needed is one of {', '.join(NAME_COLUMNS[:4])}")
        labels, threshold = names.find(row[column].strip()), number(path, line, row, THRESHOLD_COLUMN)
        if len(labels) != 1:
            what = f"is the name of {len(labels)} species" if labels else "is no species of the bundle"
            raise MetadataError(path, f"row {line}: {row[column]!r} {what}", "name it by its label")
        if labels[0] in found:
            raise MetadataError(path, f"row {line}: {labels[0]} stands twice", "keep one")
        if not 0 <= threshold <= 1:
            raise MetadataError(path, f"row {line}: threshold is {threshold:g}, allowed are numbers from 0 to 1")
        found[labels[0]] = threshold
    return found
