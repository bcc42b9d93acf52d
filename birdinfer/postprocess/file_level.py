"""Use a file's own evidence: one file's probabilities [rows, species], at least one row -> the same shape, in [0, 1].

A species detected with certainty once in a file is likely to call again in it, and one that was never certain is likely
absent. Only the file itself is used, so nothing leaks from one file into another. Where a function keeps the order of
rows, two of them may become equal at the limits of float32, but never change places.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from birdinfer.postprocess.base import BoundStep, Step
from birdinfer.postprocess.numeric import shift_logits
from birdinfer.species import Species
from birdinfer.typing import Float32


def scale_by_max(probabilities: Float32, power: float) -> Float32:
    """Scale by the maximum: p' = p m^power with m the species' greatest probability in the file.

    Power 1 is that of the second place of BirdCLEF 2025 (+.005 to +.01); public notebooks of 2026 take 0.4 ("rank-aware
    scaling").
    Returns [rows, species], nowhere above the input; the order of rows stays.

    >>> scale_by_max(np.array([[0.5], [0.25]], np.float32), power=1.0).tolist()
    [[0.25], [0.125]]
    """
    scaled: Float32 = probabilities * probabilities.max(axis=0) ** np.float32(power)
    return scaled


def scale_by_top_mean(probabilities: Float32, top_rows: int, power: float) -> Float32:
    """Scale by the mean of the highest: p' = p m^power with m the mean of the species' ``top_rows`` highest rows.

    Of all rows, if the file has fewer. Two rows and power 1: the second place of BirdCLEF 2026. One row is
    :func:`scale_by_max`; with more rows a single false alarm counts for less.
    Returns [rows, species], nowhere above the input; the order of rows stays.
    """
    first = max(0, len(probabilities) - top_rows)
    top = np.partition(probabilities, first, axis=0)[first:]
    scaled: Float32 = probabilities * np.minimum(top.mean(axis=0), 1) ** np.float32(power)
    return scaled


def boost_logits(probabilities: Float32, strength: float) -> Float32:
    """Add to the logits: logit p' = logit p + strength m with m the species' greatest probability in the file.

    After the "max boost" of BirdCLEF 2026's first place. The maximum enters as a probability, for its logit has no
    bounds. See :func:`birdinfer.postprocess.numeric.shift_logits` for the formula: 0 and 1 stay.
    Returns [rows, species], nowhere below the input; the order of rows stays.
    """
    return shift_logits(probabilities, strength * probabilities.max(axis=0).astype(np.float64))


def contrast(probabilities: Float32, strength: float) -> Float32:
    """Lift what stands out: p' = (p + strength (m - mean m + mean p)) / (1 + strength), below 0 taken as 0.

    m is the species' greatest probability in the file, mean m is over species, mean p over all cells of the file: what
    stands out is lifted, and the file's mean is unchanged unless a cell is cut at 0. After the third place of BirdCLEF
    2024, P + 0.8 (Pmax + mean P - mean Pmax), which reaches 1.8: clipped at 1, the most certain rows would tie. The
    division by 1 + strength keeps their ranks and their differences.
    Returns [rows, species]; the order of rows stays, except for ties at 0.
    """
    greatest = probabilities.max(axis=0)
    lift = greatest - greatest.mean() + probabilities.mean()
    raised = (probabilities + np.float32(strength) * lift) / np.float32(1 + strength)
    contrasted: Float32 = np.clip(raised, 0, 1)
    return contrasted


def cut_off(probabilities: Float32, threshold: float, factor: float) -> Float32:
    """Scale down the unlikely: p' = factor p for species whose greatest probability in the file is below the threshold.

    The fourth place of BirdCLEF 2024 cuts off at .10.
    Returns [rows, species], nowhere above the input.
    """
    weak = probabilities.max(axis=0) < threshold
    cut: Float32 = probabilities * np.where(weak, np.float32(factor), np.float32(1))
    return cut


def press_low_ranks(probabilities: Float32, top_species: int, power: float) -> Float32:
    """Lower the unlikely species: p' = p^power outside the file's ``top_species`` by their greatest probability.

    "Post-processing with power adjustment for low-ranked classes", a public notebook of BirdCLEF 2025, took 30 species
    and power 2. Species that tie with the last of the top all belong to it, whatever their columns.
    Returns [rows, species], nowhere above the input; the order of rows stays.
    """
    greatest = probabilities.max(axis=0)
    n_species = len(greatest)
    if n_species <= top_species:
        return probabilities.copy()
    last_of_top = np.partition(greatest, n_species - top_species)[n_species - top_species]
    low = greatest < last_of_top
    pressed = probabilities.copy()
    pressed[:, low] **= np.float32(power)
    return pressed


class _OfFile(Step, frozen=True, forbid_unknown_fields=True):
    context_rows = None


class FileMax(_OfFile, frozen=True, forbid_unknown_fields=True, tag="file_max"):
    """Scores times the file's maximum of the species."""

    power: float = 1.0
    """Of the maximum, 0 to 10; 0 changes nothing."""

    is_per_species = True
    ranges: ClassVar = {"power": (0, 10)}
    neutral: ClassVar = {"power": 0}

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: scale_by_max(probabilities, self.power)


class FileTopMean(_OfFile, frozen=True, forbid_unknown_fields=True, tag="file_top_mean"):
    """Scores times the mean of the species' highest in the file."""

    top_rows: int = 2
    """Number of highest rows, 1 to 1000."""
    power: float = 1.0
    """Of their mean, 0 to 10; 0 changes nothing."""

    is_per_species = True
    ranges: ClassVar = {"top_rows": (1, 1000), "power": (0, 10)}
    neutral: ClassVar = {"power": 0}

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: scale_by_top_mean(probabilities, self.top_rows, self.power)


class FileBoost(_OfFile, frozen=True, forbid_unknown_fields=True, tag="file_boost"):
    """Logits plus the file's maximum of the species."""

    strength: float = 1.0
    """Added to the logit where the maximum is 1, 0 to 20; 0 changes nothing."""

    is_per_species = True
    ranges: ClassVar = {"strength": (0, 20)}
    neutral: ClassVar = {"strength": 0}

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: boost_logits(probabilities, self.strength)


class FileContrast(_OfFile, frozen=True, forbid_unknown_fields=True, tag="file_contrast"):
    """Species that stand out in the file are lifted above the others."""

    strength: float = 0.8
    """Weight of the species' maximum beside the row's own score, 0 to 10; 0 changes nothing."""

    ranges: ClassVar = {"strength": (0, 10)}
    neutral: ClassVar = {"strength": 0}

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: contrast(probabilities, self.strength)


class CutOff(_OfFile, frozen=True, forbid_unknown_fields=True, tag="cut_off"):
    """Species that were nowhere likely in the file are scaled down."""

    threshold: float = 0.1
    """Of the species' maximum in the file, 0 to 1; 0 cuts nothing."""
    factor: float = 0.1
    """What is left below it, 0 to 1; 1 changes nothing."""

    is_per_species = True
    ranges: ClassVar = {"threshold": (0, 1), "factor": (0, 1)}
    neutral: ClassVar = {"threshold": 0, "factor": 1}

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: cut_off(probabilities, self.threshold, self.factor)


class LowRankPower(_OfFile, frozen=True, forbid_unknown_fields=True, tag="low_rank_power"):
    """Species that are not among the file's likeliest are lowered by a power."""

    top_species: int = 30
    """Number of species left as they are, 1 to 100000."""
    power: float = 2.0
    """Of the others' scores, 1 to 10; 1 changes nothing."""

    ranges: ClassVar = {"top_species": (1, 100_000), "power": (1, 10)}
    neutral: ClassVar = {"power": 1}

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: press_low_ranks(probabilities, self.top_species, self.power)
