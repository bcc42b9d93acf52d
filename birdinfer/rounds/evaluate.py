"""Scores of two rounds on the same rows -> the gain of macro ROC-AUC and its interval.

Rows are windows of labelled soundscapes that no round learns from, or out-of-fold clips. The interval is that of the
paired bootstrap over files or recordings (:mod:`birdinfer.evaluation.confidence`).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import MetadataError
from birdinfer.evaluation.ablation import labelled_rows, read_out_of_fold
from birdinfer.evaluation.confidence import LabelledRows, percentile_interval, resampled_drops
from birdinfer.evaluation.metrics import macro_roc_auc
from birdinfer.inference.bundle import Bundle
from birdinfer.tables.scores import read_scores
from birdinfer.tables.truth import Scored, read_truth, rows_as_spelled, rows_of
from birdinfer.typing import Float64

_SEED = 601


class Evaluated(NamedTuple):
    """Scores of rows whose truth is known."""

    rows: tuple[str, ...]
    """Names, by which two tables are compared."""
    labelled: LabelledRows
    scores: Float64
    """[rows, labels]."""

    @property
    def macro_auc(self) -> float:
        """Macro ROC-AUC, 0 to 1."""
        return macro_roc_auc(self.labelled.truth, self.scores)


class Gain(NamedTuple):
    """By how much a round is better than another, in macro ROC-AUC."""

    gain: float
    low: float
    """Of the 95 % interval."""
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval excludes zero, above it."""
        return self.low > 0


def evaluate_soundscapes(table: Path, truth: Path, bundle: Bundle) -> Evaluated:
    """Hold a table of scores against the truth.

    Raises:
        MetadataError, LabelError: the truth is not as needed, or names rows or species that the table lacks.
    """
    given = read_scores(table)
    wanted, _ = read_truth(truth, lambda: Scored(rows_of(given), bundle.manifest.species, str(table)))
    row_of = {row_id: index for index, row_id in enumerate(given.row_ids)}
    column_of = {label: index for index, label in enumerate(given.labels)}
    spelled = rows_as_spelled(wanted.row_ids, given.row_ids)
    lost = [row for row in spelled if row not in row_of] or [name for name in wanted.labels if name not in column_of]
    if lost:
        what = f"names {len(lost)} rows or species that the bundle's scores lack, first {lost[0]}"
        raise MetadataError(truth, what, "name a truth of these recordings and species")
    rows = np.array([row_of[row] for row in spelled], np.intp)
    columns = np.array([column_of[label] for label in wanted.labels], np.intp)
    files = [row.rpartition("_")[0] for row in spelled]
    labelled = labelled_rows(wanted.values > 0, files)
    return Evaluated(tuple(spelled), labelled, given.values[rows][:, columns].astype(np.float64))


def evaluate_out_of_fold(run_dir: Path) -> Evaluated:
    """Take the out-of-fold scores of a run's validation clips."""
    found = read_out_of_fold(run_dir)
    order = np.argsort(found.filenames)
    labelled = labelled_rows(found.truth[order], [found.groups[index] for index in order])
    names = tuple(found.filenames[index] for index in order)
    return Evaluated(names, labelled, found.probabilities[order].astype(np.float64))


def gain_of(before: Evaluated, after: Evaluated, n_resamples: int) -> Gain:
    """Compare two rounds on the rows that both have.

    Raises:
        MetadataError: there is no row, or no label, that could be scored.
    """
    common = [name for name in before.rows if name in set(after.rows)]
    one, other = _picked(before, common), _picked(after, common)
    rng = np.random.default_rng(_SEED)
    drops = resampled_drops(one.labelled, other.scores, one.scores, n_resamples, rng) if common else np.zeros(0)
    interval = percentile_interval(drops)
    if interval is None:
        raise MetadataError("rounds", "no row can be scored", "name labelled recordings: --judge-on and --truth")
    return Gain(other.macro_auc - one.macro_auc, *interval)


def _picked(evaluated: Evaluated, names: list[str]) -> Evaluated:
    at = {name: index for index, name in enumerate(evaluated.rows)}
    rows = np.array([at[name] for name in names], np.intp)
    truth = evaluated.labelled.truth[rows]
    files = [str(evaluated.labelled.clusters[row]) for row in rows]
    return Evaluated(tuple(names), labelled_rows(truth, files), evaluated.scores[rows])
