"""Score tables of several models -> one: rows and columns brought together by name, and blended.

In: tables as :func:`birdinfer.tables.score_table.read_scores` reads them, all of the same row ids and labels in any
order. Out: values [rows, labels] in the order of the first, and a table on disk in the shape of a submission. All ways
of :mod:`birdinfer.ensemble` work here; ranks do only here, for they need all files at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdinfer.ensemble import Blend, check_blend, make_blend
from birdinfer.errors import MetadataError
from birdinfer.files import atomic_text
from birdinfer.labels import Species
from birdinfer.postprocess.calibration import match_histogram
from birdinfer.ranks import rank_per_class
from birdinfer.submission_shapes import number_cells
from birdinfer.tables.csv_files import CsvWriter
from birdinfer.tables.score_table import ROW_ID, ScoreTable

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def align_tables(tables: Sequence[ScoreTable]) -> list[Float64]:
    """The values of each table, [rows, labels] in the order of the first table's.

    Raises:
        MetadataError: a table lacks a row or column of the first, or has one more; names the first that differs.
    """
    first = tables[0]
    aligned = [first.values]
    for table in tables[1:]:
        rows = _places("row", first.row_ids, table.row_ids, first.path, table.path)
        columns = _places("column", first.labels, table.labels, first.path, table.path)
        aligned.append(table.values[np.ix_(rows, columns)])
    return aligned


def match_to_first(values: Sequence[Float64]) -> list[Float64]:
    """Bring each later table onto the first one's distribution, class by class: its order, the first one's values.

    Of all rows of all files, each a quantile of its own: classes are rare, and what tells them apart is the last per
    mille. :func:`birdinfer.postprocess.calibration.match_histogram` has the formula.

    Args:
        values: [rows, labels] of each table, in [0, 1].

    Returns:
        The same shapes, the first as it is.
    """
    return [values[0], *(_matched(each, values[0]) for each in values[1:])]


def blend_probabilities(values: Sequence[Float64], blend: Blend, weights: Sequence[float]) -> Float32:
    """Blend as a bundle does; the tables' names are their numbers, from "1".

    Args:
        values: [rows, labels] of each table, in [0, 1].
        blend: how; a gate is by the number of a table.
        weights: one >= 0 for each table, with a sum above 0.

    Returns:
        [rows, labels], in [0, 1].

    Raises:
        ConfigError: the tables cannot be blended so, see :func:`birdinfer.ensemble.check_blend`.
    """
    n_labels = values[0].shape[1]
    names = [str(number) for number in range(1, len(values) + 1)]
    blender = make_blend(blend, names, weights, [None] * len(values), [0.0] * n_labels)
    return blender([each.astype(np.float32) for each in values])


def blend_ranks(values: Sequence[Float64], weights: Sequence[float]) -> Float64:
    """Weighted mean of each class's ranks over all rows (:func:`birdinfer.ranks.rank_per_class`).

    Args:
        values: [rows, labels] of each table, any finite numbers.
        weights: one >= 0 for each table, with a sum above 0.

    Returns:
        [rows, labels], in [0, 1).

    Raises:
        ConfigError: weights without sense.
    """
    check_blend(Blend(), [str(number) for number in range(1, len(values) + 1)], weights)
    total = np.zeros_like(values[0], np.float64)
    for each, weight in zip(values, weights, strict=True):
        total += weight / sum(weights) * rank_per_class(each)
    return total


def species_of_columns(labels: Sequence[str], known: Sequence[Species], where: Path) -> tuple[Species, ...]:
    """What is known of a table's columns.

    Args:
        labels: of the columns.
        known: species of a bundle or a taxonomy, in any order.
        where: the bundle or taxonomy, as a complaint names it.

    Raises:
        MetadataError: it does not have one of the labels: it is of other species.
    """
    by_label = {species.label: species for species in known}
    missing = [label for label in labels if label not in by_label]
    if missing:
        raise MetadataError(where, f"lacks {len(missing)} of {len(labels)} columns of the table, first {missing[0]!r}")
    return tuple(by_label[label] for label in labels)


def write_scores(
    path: Path, row_ids: Sequence[str], labels: Sequence[str], values: npt.NDArray[np.floating[Any]]
) -> None:
    """Write a score table, atomically; numbers of seven digits, as a submission has them.

    Args:
        path: where to.
        row_ids: of the rows.
        labels: of the columns.
        values: [rows, labels].

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_text(path) as text:
        table = CsvWriter(text)
        table.row(ROW_ID, labels)
        for row_id, row in zip(row_ids, values, strict=True):
            table.row(row_id, number_cells(row))


def _matched(values: Float64, reference: Float64) -> Float64:
    # Both have as many rows, so that the values in order are the quantiles, exactly.
    quantiles, others = np.sort(values, axis=0), np.sort(reference, axis=0)
    columns = range(values.shape[1])
    return np.column_stack([match_histogram(values[:, at], quantiles[:, at], others[:, at]) for at in columns])


def _places(kind: str, wanted: Sequence[str], given: Sequence[str], first: Path, path: Path) -> list[int]:
    """Where the wanted names stand among the given ones, which are to be the same."""
    place = {name: index for index, name in enumerate(given)}
    remedy = f"every table needs the same {kind}s, in any order"
    missing = [name for name in wanted if name not in place]
    if missing:
        what = f"lacks {len(missing)} of {len(wanted)} {kind}s of {first}, first {missing[0]!r}"
        raise MetadataError(path, what, remedy)
    if len(given) > len(wanted):
        known = set(wanted)
        more = [name for name in given if name not in known]
        raise MetadataError(path, f"has {len(more)} {kind}s that {first} lacks, first {more[0]!r}", remedy)
    return [place[name] for name in wanted]
