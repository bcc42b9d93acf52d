"""Smoothing over time: one file's probabilities [rows, species] in time order -> the same shape, float32 in [0, 1].

A call rarely stops where a row does, so neighbouring rows bear witness to each other. At a file's two ends every kernel
is cut and its remaining weights are scaled to sum to 1: what is constant stays constant.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from birdinfer.labels import Species
from birdinfer.postprocess.nudges import row_blocks, towards
from birdinfer.postprocess.step import Bound, Step

Float32 = npt.NDArray[np.float32]
Kernel = tuple[float, ...]

_MAX_RADIUS_ROWS = 100


def check_kernel(name: str, kernel: Sequence[float]) -> None:
    """Refuse weights that are no kernel.

    Raises:
        ValueError: they are even in number, one is below 0, or they do not sum to 1; it calls them by ``name``.
    """
    if len(kernel) % 2 == 0:
        raise ValueError(f"{name} has {len(kernel)} weights, an odd number is needed")
    if not all(weight >= 0 for weight in kernel) or not math.isclose(sum(kernel), 1, abs_tol=1e-6):
        raise ValueError(f"{name} is {list(kernel)}, weights must be >= 0 and sum to 1")


def keeps_all(kernel: Kernel) -> bool:
    """Whether only the row itself has weight."""
    middle = len(kernel) // 2
    return not any(kernel[:middle]) and not any(kernel[middle + 1 :])


def smooth(probabilities: Float32, kernel: Sequence[float]) -> Float32:
    """Weighted mean of each row with its neighbours in time: p'[t] = sum_d w_d p[t+d] / sum_d w_d over rows that exist.

    The kernels [.1, .2, .4, .2, .1] and [.2, .6, .2] are those of BirdCLEF 2025 and 2026 winners.

    Args:
        probabilities: [rows, species], one file in time order.
        kernel: an odd number of weights >= 0, the middle one for the row itself.

    Returns:
        [rows, species], within the range of the input of each species.
    """
    smoothed, n_rows = np.empty_like(probabilities), len(probabilities)
    for rows in row_blocks(n_rows):
        smoothed[rows] = _smoothed_rows(probabilities, rows.start, min(rows.stop, n_rows), kernel)
    return smoothed


def _smoothed_rows(probabilities: Float32, begin: int, end: int, kernel: Sequence[float]) -> Float32:
    """The rows from ``begin`` to ``end``; in double precision, so that equal neighbours give their value to the bit."""
    reach, n_rows = len(kernel) // 2, len(probabilities)
    total = np.zeros((end - begin, probabilities.shape[1]))
    weight_sum = np.zeros((end - begin, 1))
    for offset, weight in zip(range(-reach, reach + 1), kernel, strict=True):
        first, last = max(begin, -offset), min(end, n_rows - offset)
        if first < last:
            weight_sum[first - begin : last - begin] += weight
            total[first - begin : last - begin] += weight * probabilities[first + offset : last + offset].astype(
                np.float64
            )
    # A kernel whose middle is 0 leaves a lone row without any weight: it stays as it is.
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

    At the same middle weight a far row counts for more than under a Gaussian: a species that called a minute ago is
    likelier now, though no neighbour heard it.
    """
    return _normalised([1 / (1 + (d / width_rows) ** 2) for d in range(-radius_rows, radius_rows + 1)])


def smooth_adaptively(probabilities: Float32, strength: float) -> Float32:
    """Pull each row towards its two neighbours, the more the less sure it is of anything.

    p'[t] = (1 - a) p[t] + a n[t] with n the mean of the neighbours that exist and a = strength (1 - max over species of
    p[t]): the "adaptive delta smoothing" of BirdCLEF 2026's public notebooks, which take strength 0.2.

    Args:
        probabilities: [rows, species], one file in time order.
        strength: 0 to 0.5; beyond it a greater score could become a smaller one.

    Returns:
        [rows, species], within the range of the input of each species.
    """
    unsure = 1 - probabilities.max(axis=1, keepdims=True).astype(np.float64)
    return towards(probabilities, smooth(probabilities, (0.5, 0.0, 0.5)), strength * unsure)


def lift_to_local_max(probabilities: Float32, share: float, radius_rows: int) -> Float32:
    """Lift each row towards the greatest of the rows around it: p'[t] = (1 - share) p[t] + share max_{|d|<=r} p[t+d].

    A running maximum, softened; the second place of BirdCLEF 2026 took the maximum over its shifted windows per row.

    Args:
        probabilities: [rows, species], one file in time order.
        share: 0 to 1.
        radius_rows: rows before and behind that count.

    Returns:
        [rows, species], nowhere below the input.
    """
    greatest = probabilities.copy()
    for distance in range(1, min(radius_rows, len(probabilities) - 1) + 1):
        np.maximum(greatest[distance:], probabilities[:-distance], out=greatest[distance:])
        np.maximum(greatest[:-distance], probabilities[distance:], out=greatest[:-distance])
    return towards(probabilities, greatest, share)


class Smooth(Step, frozen=True, forbid_unknown_fields=True, tag="smooth"):
    """Weighted mean with neighbouring rows."""

    kernel: Kernel = (0.2, 0.6, 0.2)
    """An odd number of weights that sum to 1, the row's own in the middle; 2025's winner: 0.1, 0.2, 0.4, 0.2, 0.1."""

    def __post_init__(self) -> None:
        check_kernel("kernel", self.kernel)

    @property
    def reach(self) -> int:
        """Half the kernel."""
        return len(self.kernel) // 2

    @property
    def is_neutral(self) -> bool:
        """Whether only the row itself has weight."""
        return keeps_all(self.kernel)

    def bind(self, species: Sequence[Species]) -> Bound:
        """:func:`smooth`, whatever the species."""
        return lambda probabilities, stem: smooth(probabilities, self.kernel)


class GaussianSmooth(Step, frozen=True, forbid_unknown_fields=True, tag="gaussian_smooth"):
    """Weighted mean with neighbouring rows, weights after Gauss."""

    sigma_rows: float = 0.65
    """Standard deviation, 0 to 25 rows; 0 smooths nothing."""
    truncate_sigmas: float = 4.0
    """Where the bell is cut, 1 to 4 standard deviations."""

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_rows <= 25:
            raise ValueError(f"sigma_rows is {self.sigma_rows}, allowed are 0 to 25")
        if not 1 <= self.truncate_sigmas <= 4:
            raise ValueError(f"truncate_sigmas is {self.truncate_sigmas}, allowed are 1 to 4")

    @property
    def reach(self) -> int:
        """The truncation, rounded to rows."""
        return int(self.truncate_sigmas * self.sigma_rows + 0.5)

    @property
    def is_neutral(self) -> bool:
        """Whether the bell is cut before the first neighbour."""
        return self.reach == 0

    def bind(self, species: Sequence[Species]) -> Bound:
        """:func:`smooth` with :func:`gaussian_kernel`, whatever the species."""
        kernel = gaussian_kernel(self.sigma_rows, self.truncate_sigmas)
        return lambda probabilities, stem: smooth(probabilities, kernel)


class FatTail(Step, frozen=True, forbid_unknown_fields=True, tag="fat_tail"):
    """Weighted mean with rows near and far, weights after Cauchy."""

    width_rows: float = 0.5
    """Distance at which the weight is half the row's own, 0.05 to 100. At 0.5 the row has 0.62, a neighbour 0.12."""
    radius_rows: int = 5
    """Rows before and behind that count, 0 to 100; 0 smooths nothing."""

    def __post_init__(self) -> None:
        if not 0.05 <= self.width_rows <= 100:
            raise ValueError(f"width_rows is {self.width_rows}, allowed are 0.05 to 100")
        _check_radius(self.radius_rows)

    @property
    def reach(self) -> int:
        """The radius."""
        return self.radius_rows

    @property
    def is_neutral(self) -> bool:
        """Whether no neighbour counts."""
        return self.radius_rows == 0

    def bind(self, species: Sequence[Species]) -> Bound:
        """:func:`smooth` with :func:`fat_tail_kernel`, whatever the species."""
        kernel = fat_tail_kernel(self.width_rows, self.radius_rows)
        return lambda probabilities, stem: smooth(probabilities, kernel)


class AdaptiveSmooth(Step, frozen=True, forbid_unknown_fields=True, tag="adaptive_smooth"):
    """Unsure rows lean on their neighbours, sure ones stay."""

    strength: float = 0.2
    """Share that a row wholly unsure takes from its neighbours, 0 to 0.5; 0 smooths nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 0.5:
            raise ValueError(f"strength is {self.strength}, allowed are 0 to 0.5")

    @property
    def reach(self) -> int:
        """The two neighbours."""
        return 1

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is taken."""
        return self.strength == 0

    def bind(self, species: Sequence[Species]) -> Bound:
        """:func:`smooth_adaptively`, whatever the species."""
        return lambda probabilities, stem: smooth_adaptively(probabilities, self.strength)


class LocalMax(Step, frozen=True, forbid_unknown_fields=True, tag="local_max"):
    """Rows are lifted towards the greatest around them."""

    share: float = 0.5
    """Of the maximum in the result, 0 to 1; 0 lifts nothing."""
    radius_rows: int = 1
    """Rows before and behind that count, 0 to 100; 0 lifts nothing."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}, allowed are 0 to 1")
        _check_radius(self.radius_rows)

    @property
    def reach(self) -> int:
        """The radius."""
        return self.radius_rows

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is lifted."""
        return self.share == 0 or self.radius_rows == 0

    def bind(self, species: Sequence[Species]) -> Bound:
        """:func:`lift_to_local_max`, whatever the species."""
        return lambda probabilities, stem: lift_to_local_max(probabilities, self.share, self.radius_rows)


def _normalised(weights: Sequence[float]) -> Kernel:
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def _check_radius(radius_rows: int) -> None:
    if not 0 <= radius_rows <= _MAX_RADIUS_ROWS:
        raise ValueError(f"radius_rows is {radius_rows}, allowed are 0 to {_MAX_RADIUS_ROWS}")
