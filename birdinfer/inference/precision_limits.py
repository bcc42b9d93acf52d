"""How far the probabilities of a faster precision may differ from those of fp32, and whether they do.

In: a member with what its export measured, and probabilities of both. Out: its :class:`Limit`, and the differences.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from birdinfer.inference.engines import FROM_FP32_GRAPHS
from birdinfer.inference.manifest import Figures, Member, Precision, Tolerance
from birdinfer.typing import Float32

MARGIN = 1.5
"""Factor on the differences that the export measured. The windows here are others, a largest difference is that of one
window, and another engine rounds differently; an INT8 kernel that overflows differs by many times as much."""

_BUNDLE_TOLERANCE = "the bundle's tolerance"
_EXPORT_MARGIN = f"{MARGIN:g} times what its export measured"


@dataclass(frozen=True, slots=True)
class Limit:
    """How far probabilities may differ from those of fp32."""

    max_probability_difference: float
    """In any window and species."""
    mean_probability_difference: float
    """On average over windows and species."""
    max_source: str = _BUNDLE_TOLERANCE
    """Where each of them comes from, as text."""
    mean_source: str = _BUNDLE_TOLERANCE


def limit_of(member: Member, precision: Precision, tolerance: Tolerance) -> Limit:
    """Find a member's limit in a precision: what its export measured with :data:`MARGIN`, or the bundle's tolerance.

    The wider of the two, separately for largest and mean difference.
    """
    most, mean = tolerance.max_probability_difference, tolerance.mean_probability_difference
    figures = acceptance_figures(member, precision)
    if figures is None:
        return Limit(most, mean)
    export_most, export_mean = MARGIN * figures.max_probability_difference, MARGIN * figures.mean_probability_difference
    return Limit(
        max(most, export_most),
        max(mean, export_mean),
        _EXPORT_MARGIN if export_most > most else _BUNDLE_TOLERANCE,
        _EXPORT_MARGIN if export_mean > mean else _BUNDLE_TOLERANCE,
    )


def acceptance_figures(member: Member, precision: Precision) -> Figures | None:
    """Return what the acceptance test measured of the variant accepted for a precision; None if there is none.

    A variant without AUC and rank correlation was compared but not tested, which says no more than is measured here
    again. A variant's name begins with its precision (``int8 static``).
    """
    if precision not in member.graphs and precision not in FROM_FP32_GRAPHS:
        return None  # the member runs in fp32, whatever was tried
    accepted = (
        each.figures for each in member.variants if each.name.partition(" ")[0] == precision and not each.refused
    )
    return next((each for each in accepted if each.auc_fall is not None and each.least_spearman is not None), None)


def compare_with_fp32(
    reference: Mapping[str, Float32], candidate: Mapping[str, Float32], limits: Mapping[str, Limit]
) -> tuple[float, float, str]:
    """Compare probabilities with those of fp32; members with one limit are compared together.

    Returns largest and mean difference over all members, and the first limit that is exceeded: which, and by how much;
    "" if none is.
    """
    together: dict[Limit, list[Float32]] = {}
    for member, probabilities in reference.items():
        together.setdefault(limits[member], []).append(np.abs(candidate[member] - probabilities).ravel())
    differences = {limit: np.concatenate(each) for limit, each in together.items()}
    every = np.concatenate(list(differences.values()))
    exceeded = (_exceeded(each, limit) for limit, each in differences.items())
    return float(every.max()), float(every.mean()), next(filter(None, exceeded), "")


def _exceeded(differences: Float32, limit: Limit) -> str:
    most, mean = float(differences.max()), float(differences.mean())
    if not most <= limit.max_probability_difference:  # also true for NaN
        return f"{most:.2g} is more than {limit.max_probability_difference:.3g} ({limit.max_source})"
    if not mean <= limit.mean_probability_difference:
        return f"{mean:.2g} on average is more than {limit.mean_probability_difference:.3g} ({limit.mean_source})"
    return ""
