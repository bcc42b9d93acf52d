"""Rescale scores cell by cell: one file's probabilities [rows, species] -> the same shape, in the same order.

A temperature makes a network's confidence milder or sharper. A histogram match gives each species' scores the
distribution of other scores: another model's, or the same model's in another region. Both are monotone for every
species: no two rows change places, and ROC-AUC changes by ties alone, at the last float before 0 or 1 or on a flat
part of a curve. What changes is how scores compare with those of other models and species, and with thresholds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError
from birdinfer.postprocess.base import BoundStep, Step, TableStep
from birdinfer.postprocess.numeric import lerp, row_blocks
from birdinfer.species import Species
from birdinfer.tables.step_tables import Quantiles, read_quantiles
from birdinfer.typing import Float32, Float64, Index

_ROWS_AT_ONCE = 256
"""Each is compared with every quantile of every species: a day of sound at once would be gigabytes."""


def temper(probabilities: Float32, temperatures: npt.ArrayLike) -> Float32:
    """Divide each logit by a temperature: logit p' = logit p / t.

    From Guo et al. 2017, "On Calibration of Modern Neural Networks". Computed as p' = 1 / (1 + ((1 - p) / p)^(1 / t)),
    which is the same and holds at 0 and 1, too.

    ``temperatures``: > 0, one or [species]; above 1 scores move towards 0.5, below 1 away from it.
    Returns [rows, species], in [0, 1]; where a temperature is 1 the same bits.

    >>> temper(np.array([[0.9]], np.float32), 2.0).round(3).tolist()
    [[0.75]]
    """
    exponents = 1 / np.broadcast_to(np.asarray(temperatures, np.float64), probabilities.shape[1:])
    changed = np.flatnonzero(exponents != 1)
    tempered = probabilities.copy()
    for rows in row_blocks(len(probabilities)):
        wide = probabilities[rows, changed].astype(np.float64)
        with np.errstate(divide="ignore", over="ignore"):  # p = 0 becomes 1 / (1 + infinity) = 0
            tempered[rows, changed] = 1 / (1 + ((1 - wide) / wide) ** exponents[changed])
    return tempered


def quantiles_of(values: npt.ArrayLike, n: int) -> Float64:
    """Values [n] at n >= 2 equal steps from the lowest of one species' scores to the highest, interpolated linearly."""
    quantiles = np.quantile(np.asarray(values, np.float64), np.linspace(0, 1, n))
    ascending: Float64 = np.maximum.accumulate(quantiles)  # interpolation may err in the last bit
    return ascending


def match_histogram(
    values: npt.ArrayLike, source_quantiles: npt.ArrayLike, reference_quantiles: npt.ArrayLike
) -> Float64:
    """Map scores so that their quantiles become the reference's: histogram matching (Gonzalez and Woods, 3.3).

    Piecewise linear through the points (source, reference), with (0, 0) and (1, 1) beyond the first and the last.
    Points with the same source become one with the mean of their references. The map is monotone, stays in [0, 1], and
    changes nothing where source and reference are the same.

    ``source_quantiles``: [quantiles] of the scores that are changed, ascending, in [0, 1].
    ``reference_quantiles``: [quantiles] of the scores to match, at the same shares, ascending, in [0, 1].
    """
    source, reference = _curve(source_quantiles, reference_quantiles)
    scores = np.asarray(values, np.float64)
    piece = np.searchsorted(source, scores, side="right") - 1
    return _along(scores, source, reference, piece.clip(0, len(source) - 2))


def _along(scores: Float64, source: Float64, reference: Float64, piece: Index) -> Float64:
    """Scores on a curve of points (source, reference), each between the points ``piece`` and ``piece + 1``.

    Not numpy's interp, whose pieces may overshoot by the last bit at their ends, so that the map is not monotone.
    """
    low, high = reference[piece], reference[piece + 1]
    share = (scores - source[piece]) / (source[piece + 1] - source[piece])
    matched: Float64 = np.minimum(low + share * (high - low), high)
    return matched


def _checked(name: str, quantiles: npt.ArrayLike) -> Float64:
    checked = np.asarray(quantiles, np.float64)
    if checked.ndim != 1 or not checked.size:
        raise ConfigError("match_histogram", f"the {name}'s quantiles are no list of numbers")
    if not ((checked >= 0).all() and (checked <= 1).all() and (np.diff(checked) >= 0).all()):
        raise ConfigError("match_histogram", f"the {name}'s quantiles do not ascend within 0 to 1")
    return checked


def _curve(source_quantiles: npt.ArrayLike, reference_quantiles: npt.ArrayLike) -> tuple[Float64, Float64]:
    """The points of the curve, sources strictly ascending from 0 to 1."""
    source, reference = _checked("source", source_quantiles), _checked("reference", reference_quantiles)
    if len(source) != len(reference):
        raise ConfigError(
            "match_histogram", f"{len(source)} quantiles of the source, {len(reference)} of the reference"
        )
    distinct, group, sizes = np.unique(source, return_inverse=True, return_counts=True)
    means = np.bincount(group, reference) / sizes
    before = [0.0] if distinct[0] > 0 else []
    behind = [1.0] if distinct[-1] < 1 else []
    return np.concatenate([before, distinct, behind]), np.concatenate([before, means, behind])


class _Curves:
    """A curve for each species, all evaluated at once: one numpy call for each species would take longer."""

    def __init__(self, quantiles: Sequence[Quantiles]) -> None:
        curves = [_curve(*both) for both in quantiles]
        self._source = np.concatenate([source for source, _ in curves])
        self._reference = np.concatenate([reference for _, reference in curves])
        sizes = np.array([len(source) for source, _ in curves])
        self._first = np.cumsum(sizes) - sizes
        self._inner = np.full((len(curves), max(sizes.max() - 2, 0)), np.inf)
        for row, (source, _) in zip(self._inner, curves, strict=True):
            row[: len(source) - 2] = source[1:-1]

    def __call__(self, probabilities: Float32) -> Float64:
        scores = probabilities.astype(np.float64)
        piece = self._first + (scores[..., None] >= self._inner).sum(axis=-1)
        return _along(scores, self._source, self._reference, piece)


class Temperature(Step, frozen=True, forbid_unknown_fields=True, tag="temperature"):
    """Each logit divided by a temperature, one for all or one for a class: logit p' = logit p / t."""

    t: float = 1.0
    """Above 1 confidence becomes milder, below 1 sharper; 0.01 to 100."""
    by_class: dict[str, float] = msgspec.field(default_factory=dict)
    """Class (Aves, Insecta ...) -> its own temperature in place of ``t``."""

    def __post_init__(self) -> None:
        for name, value in (("t", self.t), *((f"by_class {key}", value) for key, value in self.by_class.items())):
            if not 0.01 <= value <= 100:
                raise ValueError(f"{name} is {value}, allowed are 0.01 to 100")

    context_rows = 0

    @property
    def is_neutral(self) -> bool:
        return all(value == 1 for value in (self.t, *self.by_class.values()))

    def bind(self, species: Sequence[Species]) -> BoundStep:
        classes = {one.class_name for one in species}
        unknown = sorted(self.by_class.keys() - classes)
        if unknown:
            known = ", ".join(sorted(classes - {""})) or "none"
            raise ConfigError("temperature", f"no species is of class {unknown[0]!r}", f"their classes: {known}")
        temperatures = np.array([self.by_class.get(one.class_name, self.t) for one in species])
        return lambda probabilities, file_id: temper(probabilities, temperatures)


class HistogramMatch(TableStep, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="histogram_match"):
    """Each species' scores on the distribution of other scores: p' = p + share * (matched p - p)."""

    share: float = 1.0
    """0 changes nothing, 1 matches completely."""

    context_rows = 0
    ranges: ClassVar = {"share": (0, 1)}
    neutral: ClassVar = {"share": 0}

    def bind(self, species: Sequence[Species]) -> BoundStep:
        """Species that the table lacks are not changed; ConfigError if it knows none of them."""
        table = read_quantiles(Path(self.table))
        columns = self.known_columns(species, table)
        curves = _Curves([table[species[column].label] for column in columns])
        return lambda probabilities, file_id: _match_columns(probabilities, columns, curves, self.share)


def _match_columns(probabilities: Float32, columns: Sequence[int], curves: _Curves, share: float) -> Float32:
    matched = probabilities.copy()
    for begin in range(0, len(probabilities), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        own = probabilities[rows, columns]
        matched[rows, columns] = lerp(own, curves(own), share)
    return matched
