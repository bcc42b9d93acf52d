"""Smooth over time: one file's probabilities [rows, species] in time order -> the same shape, float32 in [0, 1].

A call rarely ends where a row does, so neighbouring rows are evidence for each other. At both ends of a file every
kernel is cut and its remaining weights are scaled to sum to 1: constant scores stay constant.
"""

import difflib
import math
from collections.abc import Sequence
from typing import ClassVar

import msgspec
import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.postprocess.base import BoundStep, Step
from birdinfer.postprocess.numeric import lerp, row_blocks
from birdinfer.species import Species
from birdinfer.typing import Float32

Kernel = tuple[float, ...]

_MAX_RADIUS_ROWS = 100


def check_kernel(name: str, kernel: Sequence[float]) -> None:
    """Raise ValueError, beginning with ``name``, unless the weights are odd in number, >= 0, and sum to 1."""
    if len(kernel) % 2 == 0:
        raise ValueError(f"{name} has {len(kernel)} weights, an odd number is needed")
    if not all(weight >= 0 for weight in kernel) or not math.isclose(sum(kernel), 1, abs_tol=1e-6):
        raise ValueError(f"{name} is {list(kernel)}, weights must be >= 0 and sum to 1")


def is_identity_kernel(kernel: Kernel) -> bool:
    """Whether only the row itself has weight."""
    middle = len(kernel) // 2
    return not any(kernel[:middle]) and not any(kernel[middle + 1 :])


def smooth(probabilities: Float32, kernel: Sequence[float]) -> Float32:
    """Weighted mean of each row with its neighbours in time: p'[t] = sum_d w_d p[t+d] / sum_d w_d over rows that exist.

    The kernels [.1, .2, .4, .2, .1] and [.2, .6, .2] are those of BirdCLEF 2025 and 2026 winners.
    Returns [rows, species], within the range of the input of each species.

    >>> smooth(np.array([[0.0], [0.75], [0.0]], np.float32), (0.25, 0.5, 0.25)).tolist()
    [[0.25], [0.375], [0.25]]
    """
    smoothed, n_rows = np.empty_like(probabilities), len(probabilities)
    for rows in row_blocks(n_rows):
        smoothed[rows] = _smoothed_rows(probabilities, rows.start, min(rows.stop, n_rows), kernel)
    return smoothed


def _smoothed_rows(probabilities: Float32, begin: int, end: int, kernel: Sequence[float]) -> Float32:
    """The rows from ``begin`` to ``end``, in double precision: the mean of equal rows has the same bits."""
    radius, n_rows = len(kernel) // 2, len(probabilities)
    total = np.zeros((end - begin, probabilities.shape[1]))
    weight_sum = np.zeros((end - begin, 1))
    for offset, weight in zip(range(-radius, radius + 1), kernel, strict=True):
        first, last = max(begin, -offset), min(end, n_rows - offset)
        if first < last:
            weight_sum[first - begin : last - begin] += weight
            total[first - begin : last - begin] += weight * probabilities[first + offset : last + offset].astype(
                np.float64
            )
    # With a kernel whose middle is 0 a single row has no weight at all: it stays as it is.
    unweighted = weight_sum[:, 0] == 0
    total[unweighted], weight_sum[unweighted] = probabilities[begin:end][unweighted], 1
    return (total / weight_sum).astype(np.float32)


def gaussian_kernel(sigma_rows: float, truncate_sigmas: float) -> Kernel:
    """Weights proportional to exp(-d^2 / (2 sigma^2)) for |d| up to the truncation, rounded to rows; they sum to 1.

    The public notebooks of BirdCLEF 2026 take sigma 0.65; truncation at 4 sigma is scipy.ndimage's rule.
    """
    radius = int(truncate_sigmas * sigma_rows + 0.5)
    return _normalised([math.exp(-0.5 * (d / sigma_rows) ** 2) if d else 1.0 for d in range(-radius, radius + 1)])


def fat_tail_kernel(width_rows: float, radius_rows: int) -> Kernel:
    """Weights proportional to 1 / (1 + (d / width)^2), Cauchy's bell, for |d| up to the radius; they sum to 1.

    At the same middle weight a distant row counts for more than with a Gaussian: a species that called a minute ago is
    likelier now, even if it is absent in the rows between.
    """
    return _normalised([1 / (1 + (d / width_rows) ** 2) for d in range(-radius_rows, radius_rows + 1)])


def smooth_adaptively(probabilities: Float32, strength: float) -> Float32:
    """Move each row towards its two neighbours, the more the less certain it is of any species.

    p'[t] = (1 - a) p[t] + a n[t] with n the mean of the neighbours that exist and a = strength (1 - max over species of
    p[t]): the "adaptive delta smoothing" of BirdCLEF 2026's public notebooks, which take strength 0.2.

    ``strength``: 0 to 0.5; beyond it a greater score could become a smaller one.
    Returns [rows, species], within the range of the input of each species.
    """
    unsure = 1 - probabilities.max(axis=1, keepdims=True).astype(np.float64)
    return lerp(probabilities, smooth(probabilities, (0.5, 0.0, 0.5)), strength * unsure)


def lift_to_local_max(probabilities: Float32, share: float, radius_rows: int) -> Float32:
    """Lift each row towards the greatest of the rows around it: p'[t] = (1 - share) p[t] + share max_{|d|<=r} p[t+d].

    A running maximum, softened; the second place of BirdCLEF 2026 took the maximum over its shifted windows per row.
    Returns [rows, species], nowhere below the input.
    """
    greatest = probabilities.copy()
    for distance in range(1, min(radius_rows, len(probabilities) - 1) + 1):
        np.maximum(greatest[distance:], probabilities[:-distance], out=greatest[distance:])
        np.maximum(greatest[:-distance], probabilities[distance:], out=greatest[:-distance])
    return lerp(probabilities, greatest, share)


class Smooth(Step, frozen=True, forbid_unknown_fields=True, tag="smooth"):
    """Weighted mean with neighbouring rows."""

    kernel: Kernel = (0.2, 0.6, 0.2)
    """An odd number of weights that sum to 1, the row's own in the middle; 2025's winner: 0.1, 0.2, 0.4, 0.2, 0.1."""

    is_per_species = True

    def __post_init__(self) -> None:
        check_kernel("kernel", self.kernel)

    @property
    def context_rows(self) -> int:
        return len(self.kernel) // 2

    @property
    def is_neutral(self) -> bool:
        return is_identity_kernel(self.kernel)

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: smooth(probabilities, self.kernel)


class GaussianSmooth(Step, frozen=True, forbid_unknown_fields=True, tag="gaussian_smooth"):
    """Weighted mean with neighbouring rows, Gaussian weights."""

    sigma_rows: float = 0.65
    """Standard deviation, 0 to 25 rows; 0 smooths nothing."""
    truncate_sigmas: float = 4.0
    """Distance at which the bell is cut, 1 to 4 standard deviations."""

    is_per_species = True
    ranges: ClassVar = {"sigma_rows": (0, 25), "truncate_sigmas": (1, 4)}

    @property
    def context_rows(self) -> int:
        return int(self.truncate_sigmas * self.sigma_rows + 0.5)

    @property
    def is_neutral(self) -> bool:
        return self.context_rows == 0

    def bind(self, species: Sequence[Species]) -> BoundStep:
        kernel = gaussian_kernel(self.sigma_rows, self.truncate_sigmas)
        return lambda probabilities, file_id: smooth(probabilities, kernel)


class FatTail(Step, frozen=True, forbid_unknown_fields=True, tag="fat_tail"):
    """Weighted mean with rows near and far, Cauchy weights."""

    width_rows: float = 0.5
    """Distance at which the weight is half the row's own, 0.05 to 100. At 0.5 the row has 0.62, a neighbour 0.12."""
    radius_rows: int = 5
    """Rows before and behind that count, 0 to 100; 0 smooths nothing."""

    is_per_species = True
    ranges: ClassVar = {"width_rows": (0.05, 100), "radius_rows": (0, _MAX_RADIUS_ROWS)}
    neutral: ClassVar = {"radius_rows": 0}

    @property
    def context_rows(self) -> int:
        return self.radius_rows

    def bind(self, species: Sequence[Species]) -> BoundStep:
        kernel = fat_tail_kernel(self.width_rows, self.radius_rows)
        return lambda probabilities, file_id: smooth(probabilities, kernel)


class AdaptiveSmooth(Step, frozen=True, forbid_unknown_fields=True, tag="adaptive_smooth"):
    """Uncertain rows move towards their neighbours, certain ones stay."""

    strength: float = 0.2
    """Share that a completely uncertain row takes from its neighbours, 0 to 0.5; 0 smooths nothing."""

    context_rows = 1
    ranges: ClassVar = {"strength": (0, 0.5)}
    neutral: ClassVar = {"strength": 0}

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: smooth_adaptively(probabilities, self.strength)


class LocalMax(Step, frozen=True, forbid_unknown_fields=True, tag="local_max"):
    """Rows are lifted towards the greatest around them."""

    share: float = 0.5
    """Of the maximum in the result, 0 to 1; 0 lifts nothing."""
    radius_rows: int = 1
    """Rows before and behind that count, 0 to 100; 0 lifts nothing."""

    is_per_species = True
    ranges: ClassVar = {"share": (0, 1), "radius_rows": (0, _MAX_RADIUS_ROWS)}
    neutral: ClassVar = {"share": 0, "radius_rows": 0}

    @property
    def context_rows(self) -> int:
        return self.radius_rows

    def bind(self, species: Sequence[Species]) -> BoundStep:
        return lambda probabilities, file_id: lift_to_local_max(probabilities, self.share, self.radius_rows)


def _normalised(weights: Sequence[float]) -> Kernel:
    total = sum(weights)
    return tuple(weight / total for weight in weights)


class TaxonKernels(Step, frozen=True, forbid_unknown_fields=True, tag="taxon_kernels"):
    """A smoothing kernel for each class of animals: frogs and insects call continuously, birds now and then."""

    kernels: dict[str, Kernel] = msgspec.field(
        default_factory=lambda: {"Amphibia": (1 / 3, 1 / 3, 1 / 3), "Insecta": (1 / 3, 1 / 3, 1 / 3)}
    )
    """By ``class_name``; those of BirdCLEF 2026's first place."""
    otherwise: Kernel = (0.2, 0.6, 0.2)
    """Of all other species."""

    def __post_init__(self) -> None:
        for name, kernel in self.kernels.items():
            check_kernel(f"kernels.{name}", kernel)
        check_kernel("otherwise", self.otherwise)

    @property
    def context_rows(self) -> int:
        return max(len(kernel) // 2 for kernel in (*self.kernels.values(), self.otherwise))

    @property
    def is_neutral(self) -> bool:
        return all(map(is_identity_kernel, (*self.kernels.values(), self.otherwise)))

    def bind(self, species: Sequence[Species]) -> BoundStep:
        self._check_classes({each.class_name for each in species})
        columns: dict[Kernel, list[int]] = {}
        for column, each in enumerate(species):
            columns.setdefault(self.kernels.get(each.class_name, self.otherwise), []).append(column)

        def smooth_groups(probabilities: Float32, file_id: str) -> Float32:
            smoothed = np.empty_like(probabilities)
            for kernel, group in columns.items():
                smoothed[:, group] = smooth(probabilities[:, group], kernel)
            return smoothed

        return smooth_groups

    def _check_classes(self, there: set[str]) -> None:
        absent = [name for name in self.kernels if name not in there]
        for name in absent:
            near = difflib.get_close_matches(name, sorted(there), n=1, cutoff=0.7)
            if near:
                raise ConfigError("taxon_kernels", f"no species is of class {name!r}", f"did you mean {near[0]}?")
        if absent and len(absent) == len(self.kernels):
            known = ", ".join(sorted(there - {""})) or "none"
            what = f"no species is of class {' or '.join(absent)}; the bundle's classes: {known}"
            raise ConfigError(
                "taxon_kernels", what, "leave the step out, or give the bundle's species their class_name"
            )
