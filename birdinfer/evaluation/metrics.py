"""Metrics of the competitions: truth [rows, classes] and scores [rows, classes] -> numbers.

* A row is one window of one file, a column is one class; truth and scores have the same shape.
* Truth holds 0 or 1 (bool, integer or float). Scores are finite numbers of any scale: ROC-AUC only uses their order,
  padded cmAP compares them with the value 1 of its padding rows and so needs probabilities.
* Equal scores are a tie: in ROC-AUC a tied pair counts one half, in average precision tied rows enter together.
* A class is scorable by ROC-AUC if its truth has a positive and a negative. The official scorer of BirdCLEF
  2024-2026 drops columns without a positive; a column without a negative has no AUC either (scikit-learn warns
  or raises there, by version) and is left out as well.
* A value that does not exist is nan, never 0 or 0.5.
* Every function validates first and raises :class:`~birdinfer.errors.MetadataError` for what it cannot use.
"""

import numpy as np
import numpy.typing as npt

from birdinfer.errors import MetadataError
from birdinfer.typing import Bool, Float64

PADDING_ROWS = 5
"""Rows of ones that BirdCLEF 2023 appends to truth and submission before its cmAP."""


def macro_roc_auc(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Compute the metric of BirdCLEF 2024-2026: the mean ROC-AUC of the classes that occur.

    >>> macro_roc_auc([[1, 0], [0, 0], [1, 0]], [[0.9, 0.1], [0.4, 0.2], [0.3, 0.3]])  # the second class never occurs
    0.5
    """
    per_class = roc_auc_per_class(truth, scores)
    scorable = per_class[~np.isnan(per_class)]
    return float(scorable.mean()) if scorable.size else float("nan")


def roc_auc_per_class(truth: npt.ArrayLike, scores: npt.ArrayLike) -> Float64:
    """Compute ROC-AUC of each class: how often a positive row scores above a negative one, ties counting half.

    Computed from ranks (Mann and Whitney 1947): ``(R - p (p + 1) / 2) / (p q)``, where R is the sum of the
    positives' ranks, p and q are how many positives and negatives there are.
    """
    is_positive, values = _validated(truth, scores)
    return np.array([_roc_auc(*column) for column in zip(is_positive.T, values.T, strict=True)], np.float64)


def padded_cmap(truth: npt.ArrayLike, scores: npt.ArrayLike, padding: int = PADDING_ROWS) -> float:
    """Compute the metric of BirdCLEF 2023: class-mean average precision over padded tables.

    ``padding`` rows of ones are appended to truth and scores, so that every class has a positive and a class
    with few of them moves the mean less. A score above 1 would rank above the padding.

    ``padding``: rows of ones to append, >= 0. With 0, a class without a positive counts as 0, as in scikit-learn.

    >>> padded_cmap([[1], [0]], [[0.2], [0.9]], padding=0)
    0.5
    """
    if padding < 0:
        raise MetadataError("padding", f"is {padding}, 0 or more rows can be appended")
    is_positive, values = _validated(truth, scores)
    is_positive = np.pad(is_positive, ((0, padding), (0, 0)), constant_values=True)
    values = np.pad(values, ((0, padding), (0, 0)), constant_values=1.0)
    per_class = [_average_precision(*column) for column in zip(is_positive.T, values.T, strict=True)]
    return float(np.mean(per_class)) if per_class else float("nan")


def average_precision_per_class(truth: npt.ArrayLike, scores: npt.ArrayLike) -> Float64:
    """Compute unpadded average precision of each class: the mean precision over its positives, highest score first."""
    is_positive, values = _validated(truth, scores)
    pairs = zip(is_positive.T, values.T, strict=True)
    return np.array([_average_precision(*pair) if pair[0].any() else np.nan for pair in pairs], np.float64)


def macro_f1(truth: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> float:
    """Compute F1 of each class that occurs, from ``threshold`` on a class counts as found, and take the mean.

    F1 is ``2 t / (2 t + false positives + false negatives)``, t are the true positives. A class that does not occur has
    no recall, and is left out; nan if none occurs.

    >>> macro_f1([[1, 0], [0, 0], [1, 0]], [[0.9, 0.1], [0.4, 0.2], [0.3, 0.3]], threshold=0.5)
    0.6666666666666666
    """
    is_positive, values = _validated(truth, scores)
    occurs = is_positive.any(axis=0)
    wanted, found = is_positive[:, occurs], values[:, occurs] >= threshold
    per_class = 2 * (wanted & found).sum(axis=0) / (wanted.sum(axis=0) + found.sum(axis=0))
    return float(per_class.mean()) if per_class.size else float("nan")


def _roc_auc(is_positive: Bool, values: Float64) -> float:
    """ROC-AUC of one class, from average ranks; both [rows]."""
    n_positive = int(is_positive.sum())
    n_negative = len(is_positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, level, in_level = np.unique(values, return_inverse=True, return_counts=True)
    # Rows of one level share the mean of their ranks.
    ranks = (np.cumsum(in_level) - (in_level - 1) / 2)[level]
    wins = ranks[is_positive].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def _average_precision(is_positive: Bool, values: Float64) -> float:
    """Sum over thresholds of (gain in recall) x precision, without interpolation; both [rows]."""
    n_positive = int(is_positive.sum())
    if not n_positive:
        return 0.0
    _, level, in_level = np.unique(values, return_inverse=True, return_counts=True)
    hits = np.bincount(level, weights=is_positive, minlength=len(in_level))[::-1]
    precision = np.cumsum(hits) / np.cumsum(in_level[::-1])
    # Divided last: a sum of shares may exceed 1 by a rounding error.
    return float((hits * precision).sum() / n_positive)


def _validated(truth: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Bool, Float64]:
    truth_array, values = np.asarray(truth), np.asarray(scores)
    if truth_array.ndim != 2 or truth_array.shape != values.shape:
        raise MetadataError(
            "scores", f"have shape {values.shape} and truth {truth_array.shape}, needed is one shape [rows, classes]"
        )
    for name, table in (("truth", truth_array), ("scores", values)):
        if table.dtype.kind not in "biuf":
            raise MetadataError(name, f"has values of type {table.dtype}, needed are numbers")
    outside = ~np.isin(truth_array, (0, 1))
    if outside.any():
        raise MetadataError("truth", f"{_first(truth_array, outside)}, needed is 0 or 1")
    missing = ~np.isfinite(values)
    if missing.any():
        raise MetadataError("scores", f"{_first(values, missing)}, needed are finite numbers")
    return truth_array.astype(np.bool_), values.astype(np.float64)


def _first(table: npt.NDArray[np.generic], wrong: Bool) -> str:
    row, column = np.argwhere(wrong)[0]
    return f"row {row}, column {column} holds {table[row, column]}"
