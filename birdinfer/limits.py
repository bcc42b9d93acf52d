"""How far a member's probabilities may lie from fp32 for another engine or precision to be taken for it.

Usually no farther than the bundle's tolerance. A graph that passed the accuracy gate when it was exported was judged by
AUC and ranks on labelled windows, which says more than the size of a difference: it may differ as much as it did there,
and a half more.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.engines import FROM_FP32_GRAPHS
from birdinfer.manifest import Figures, Member, Precision, Tolerance

Float32 = npt.NDArray[np.float32]

MARGIN = 1.5
"""Times what the gate measured. The windows here are others than the gate's, a largest difference is one window's, and
another engine rounds otherwise; an INT8 kernel that overflows is many times off."""

_OF_THE_BUNDLE = "the bundle's tolerance"
_OF_THE_GATE = f"{MARGIN:g} times what its export measured"


class Limit(NamedTuple):
    """How far probabilities may lie from those of fp32."""

    max_probability_difference: float
    """In any window and species."""
    mean_probability_difference: float
    """On average over windows and species."""
    max_source: str = _OF_THE_BUNDLE
    """Where each of them comes from, in words."""
    mean_source: str = _OF_THE_BUNDLE


def limit_of(member: Member, precision: Precision, tolerance: Tolerance) -> Limit:
    """A member's limit when it is run in a precision: the gate's figures with their margin, or the bundle's tolerance.

    Of the two the wider, for each of largest and mean.
    """
    most, mean = tolerance.max_probability_difference, tolerance.mean_probability_difference
    figures = gate_figures(member, precision)
    if figures is None:
        return Limit(most, mean)
    gate_most, gate_mean = MARGIN * figures.max_probability_difference, MARGIN * figures.mean_probability_difference
    return Limit(
        max(most, gate_most),
        max(mean, gate_mean),
        _OF_THE_GATE if gate_most > most else _OF_THE_BUNDLE,
        _OF_THE_GATE if gate_mean > mean else _OF_THE_BUNDLE,
    )


def gate_figures(member: Member, precision: Precision) -> Figures | None:
    """What the export measured of the variant that it took for a precision; None where none was judged and taken.

    Without AUC and ranks it was not judged, only compared, which says no more than is measured here again.

    A variant's name begins with its precision (``int8 static``).
    """
    if precision not in member.graphs and precision not in FROM_FP32_GRAPHS:
        return None  # it is run in fp32, whatever was tried
    taken = (each.figures for each in member.variants if each.name.partition(" ")[0] == precision and not each.refused)
    return next((each for each in taken if each.auc_fall is not None and each.least_spearman is not None), None)


def hold(
    reference: Mapping[str, Float32], found: Mapping[str, Float32], limits: Mapping[str, Limit]
) -> tuple[float, float, str]:
    """Hold probabilities against those of fp32; members of one limit are judged together.

    Args:
        reference: member -> probabilities in fp32, of any shape.
        found: the same members' under the candidate.
        limits: the same members', and perhaps others'.

    Returns:
        Largest and mean difference over all members, and the first limit that is left: which, and by how much; "" if
        none is.
    """
    together: dict[Limit, list[Float32]] = {}
    for member, probabilities in reference.items():
        together.setdefault(limits[member], []).append(np.abs(found[member] - probabilities).ravel())
    differences = {limit: np.concatenate(each) for limit, each in together.items()}
    every = np.concatenate(list(differences.values()))
    complaints = (_complaint(each, limit) for limit, each in differences.items())
    return float(every.max()), float(every.mean()), next(filter(None, complaints), "")


def _complaint(differences: Float32, limit: Limit) -> str:
    most, mean = float(differences.max()), float(differences.mean())
    if not most <= limit.max_probability_difference:  # also true for NaN
        return f"{most:.2g} is more than {limit.max_probability_difference:.3g} ({limit.max_source})"
    if not mean <= limit.mean_probability_difference:
        return f"{mean:.2g} on average is more than {limit.mean_probability_difference:.3g} ({limit.mean_source})"
    return ""
