"""Blend score tables of several models: align rows and columns by name, and combine the values.

In: tables from :func:`birdinfer.tables.scores.read_scores`, with the same row ids and labels in any order. Out: values
[rows, labels] in the order of the first, and a table on disk in the format of a submission. All blends of
:mod:`birdinfer.inference.ensemble` are possible here; ranks only here, since they need all files at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.errors import MetadataError
from birdinfer.inference.ensemble import Blend, check_blend, make_blend
from birdinfer.inference.rank_blend import RankBlender
from birdinfer.postprocess.calibration import match_histogram
from birdinfer.species import Species
from birdinfer.submission.formats import number_cells
from birdinfer.system.files import atomic_text
from birdinfer.tables.csv import CsvWriter
from birdinfer.tables.scores import ROW_ID, ScoreTable
from birdinfer.typing import Float32, Float64

_BLOCK_SCORES = 2**20
"""Scores that are ranked at a time."""


def align_tables(tables: Sequence[ScoreTable]) -> list[Float64]:
    """Return the values of each table, [rows, labels] as in the first; MetadataError if names are not the same."""
    first = tables[0]
    aligned = [first.values]
    for table in tables[1:]:
        rows = _positions("row", first.row_ids, table.row_ids, first.path, table.path)
        columns = _positions("column", first.labels, table.labels, first.path, table.path)
        aligned.append(table.values[np.ix_(rows, columns)])
    return aligned


def match_to_first(values: Sequence[Float64]) -> list[Float64]:
    """Give each later table the first one's distribution, class by class: its own order, the first one's values.

    Each row of all files is a quantile of its own: classes are rare, and the highest per mille matters. See
    :func:`birdinfer.postprocess.calibration.match_histogram` for the formula.
    """
    return [values[0], *(_matched(each, values[0]) for each in values[1:])]


def blend_probabilities(values: Sequence[Float64], blend: Blend, weights: Sequence[float]) -> Float32:
    """Blend tables as a bundle blends members; a gate names its table by number, from "1".

    >>> blend_probabilities([np.array([[0.25]]), np.array([[0.75]])], Blend("mean"), [1.0, 3.0]).tolist()
    [[0.625]]
    """
    n_labels = values[0].shape[1]
    names = [str(number) for number in range(1, len(values) + 1)]
    blender = make_blend(blend, names, weights, [None] * len(values), [0.0] * n_labels)
    return blender([each.astype(np.float32) for each in values])


def blend_ranks(values: Sequence[Float64], weights: Sequence[float]) -> Float64:
    """Compute the weighted mean [rows, labels] of each class's ranks over all rows.

    A table that has one score for a class in all rows does not count there. See
    :class:`birdinfer.inference.rank_blend.RankBlender`.
    """
    check_blend(Blend(), [str(number) for number in range(1, len(values) + 1)], weights)
    n_rows, n_classes = values[0].shape
    blender = RankBlender(weights=np.tile(np.array(weights, np.float64)[:, np.newaxis], n_classes))
    width = max(1, _BLOCK_SCORES // max(1, len(values) * n_rows))
    blocks = [slice(begin, begin + width) for begin in range(0, n_classes, width)]
    return np.concatenate([blender(np.stack([each[:, at] for each in values]), at) for at in blocks], axis=1)


def species_of_columns(labels: Sequence[str], known: Sequence[Species], where: Path) -> tuple[Species, ...]:
    """Find the species of a table's columns in a bundle or taxonomy; MetadataError if it lacks one."""
    by_label = {species.label: species for species in known}
    missing = [label for label in labels if label not in by_label]
    if missing:
        raise MetadataError(where, f"lacks {len(missing)} of {len(labels)} columns of the table, first {missing[0]!r}")
    return tuple(by_label[label] for label in labels)


def write_scores(
    path: Path, row_ids: Sequence[str], labels: Sequence[str], values: npt.NDArray[np.floating[Any]]
) -> None:
    """Write a score table [rows, labels] atomically, with the seven digits of a submission; raises OutputError."""
    with atomic_text(path) as text:
        table = CsvWriter(text)
        table.row(ROW_ID, labels)
        for row_id, row in zip(row_ids, values, strict=True):
            table.row(row_id, number_cells(row))


def _matched(values: Float64, reference: Float64) -> Float64:
    # Both have the same number of rows, so that the sorted values are exactly the quantiles.
    quantiles, others = np.sort(values, axis=0), np.sort(reference, axis=0)
    columns = range(values.shape[1])
    return np.column_stack([match_histogram(values[:, at], quantiles[:, at], others[:, at]) for at in columns])


def _positions(kind: str, expected: Sequence[str], given: Sequence[str], first: Path, path: Path) -> list[int]:
    """Indices of the expected names in the given ones, which have to be the same set."""
    position = {name: index for index, name in enumerate(given)}
    hint = f"every table needs the same {kind}s, in any order"
    missing = [name for name in expected if name not in position]
    if missing:
        what = f"lacks {len(missing)} of {len(expected)} {kind}s of {first}, first {missing[0]!r}"
        raise MetadataError(path, what, hint)
    if len(given) > len(expected):
        known = set(expected)
        more = [name for name in given if name not in known]
        raise MetadataError(path, f"has {len(more)} {kind}s that {first} lacks, first {more[0]!r}", hint)
    return [position[name] for name in expected]
