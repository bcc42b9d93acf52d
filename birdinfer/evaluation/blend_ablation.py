"""Test which parts of a blend by rank help: the groups' scores and truth -> gain, interval and conclusion of each part.

Parts are what a group may have: a gate, a weight for a class, weights for species, a mask of species, and the group
itself. Each is tried added last: the whole blend is compared with the blend without that part. Ranks themselves are
compared with the mean of the groups' probabilities. Intervals and conclusions are those of
:mod:`birdinfer.evaluation.ablation`, by file.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from birdinfer.evaluation.ablation import Ablation, Comparison, Processed, compare
from birdinfer.evaluation.confidence import LabelledRows
from birdinfer.evaluation.metrics import roc_auc_per_class
from birdinfer.inference.rank_blend import Groups, RankBlender, RankGroup, make_rank_blender
from birdinfer.species import Species
from birdinfer.typing import Float64, Index

RANKS = "ranks, not the mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupScores:
    """The scores of the groups of a blend by rank, before they are ranked, and their truth."""

    groups: Groups
    """As the blend that is tested has them, in the order of ``scores``."""
    scores: Float64
    """[groups, rows, species], 0 to 1; including rows and species without truth: ranks are over all rows."""
    species: Sequence[Species]
    known: Mapping[str, frozenset[str]]
    """Labels that each group knows."""
    rows: Index
    """Those with truth, in the order of ``labelled``."""
    columns: Index
    """As ``rows``, of the species with truth."""
    labelled: LabelledRows


def blend_parts(groups: Groups) -> dict[str, dict[str, RankGroup]]:
    """Name the parts of a blend, each with the groups as they are without it.

    >>> list(blend_parts({"a": RankGroup(("m",)), "b": RankGroup(("n",), taxon_weights={"Aves": 0.5})}))
    ['b: Aves 0.5', 'group a', 'group b']
    """
    parts: dict[str, dict[str, RankGroup]] = {}

    def without(part: str, name: str, **change: object) -> None:
        parts[part] = {**groups, name: msgspec.structs.replace(groups[name], **change)}

    for name, group in groups.items():
        if group.gate:
            without(f"{name}: gate by {group.gate.by} from {group.gate.share:g}", name, gate=None)
        for taxon, weight in group.taxon_weights.items():
            others = {key: value for key, value in group.taxon_weights.items() if key != taxon}
            without(f"{name}: {taxon} {weight:g}", name, taxon_weights=others)
        if group.species_weights:
            without(f"{name}: weights of {len(group.species_weights)} species", name, species_weights={})
        if group.species:
            without(f"{name}: for {len(group.species)} species alone", name, species=())
    weighing = [name for name, group in groups.items() if group.has_weight]
    for name in weighing if len(weighing) > 1 else ():
        without(f"group {name}", name, weight=0.0, taxon_weights={}, species_weights={})
    return parts


def ablate_blend(subject: GroupScores, n_resamples: int = 2000, seed: int = 0) -> Ablation:
    """Try the parts of a blend, and ranks against the mean of the groups' probabilities with the same weights.

    Raises as :func:`birdinfer.evaluation.ablation.ablate`.
    """
    whole, plain = _ranked(subject, subject.groups), _mean(subject)
    trials = [Comparison(RANKS, "whole", plain, whole)]
    for part, groups in blend_parts(subject.groups).items():
        trials.append(Comparison(part, "last", _ranked(subject, groups), whole))
    return compare(subject.labelled, plain, trials, n_resamples, seed)


def _ranked(subject: GroupScores, groups: Groups) -> Processed:
    blender = _blender(subject, groups)
    began = time.perf_counter()
    return _processed(subject, blender(subject.scores), time.perf_counter() - began)


def _mean(subject: GroupScores) -> Processed:
    weights = _blender(subject, subject.groups).weights[:, np.newaxis]
    return _processed(subject, (weights * subject.scores).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-12), 0.0)


def _blender(subject: GroupScores, groups: Groups) -> RankBlender:
    return make_rank_blender(groups, subject.species, subject.known)


def _processed(subject: GroupScores, blended: Float64, seconds: float) -> Processed:
    values = blended[np.ix_(subject.rows, subject.columns)]
    return Processed(values, roc_auc_per_class(subject.labelled.truth, values), 1e6 * seconds / len(blended))
