"""Make cheaper versions of a bundle, step by step: what a run that is short of time gives up, and in which order.

First overlap: windows whose stride is below the usual one get twice the stride, again and again, until each row is
processed once. Then the shifts of frame-wise scores. Then members, the one with the least out-of-fold gain first;
members that share a graph go together, because a graph is computed as a whole. Labels, rows and post-processing stay.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from birdinfer.config import AggregationConfig
from birdinfer.errors import ConfigError
from birdinfer.inference.bundle import Bundle, sharing
from birdinfer.inference.ensemble import check_blend
from birdinfer.inference.manifest import Member


class Level(NamedTuple):
    """A bundle, and what it gives up, to follow "from now on": ``without overlap, shifts and fold3``; "": nothing."""

    name: str
    bundle: Bundle


def fallback_levels(bundle: Bundle) -> list[Level]:
    """List the levels of a bundle, from the bundle itself to the cheapest.

    Each computes less than the one before it, and gives up all that the one before it does. Members go in this order:
    those whose weight has no effect; those of unknown out-of-fold AUC, by weight; the others by that AUC. Of a group
    that shares a graph the best member counts. At least one group with a weight stays.
    """
    levels = [Level("", bundle), *_without_overlap(bundle)]
    given_up = ["overlap"] if len(levels) > 1 else []
    unshifted = _with_aggregations(levels[-1].bundle, lambda member: _unshifted(member.aggregation))
    if unshifted.manifest != levels[-1].bundle.manifest:
        given_up.append("shifts")
        levels.append(Level(_without(given_up), unshifted))
    for group, fewer in _without_members(levels[-1].bundle):
        given_up += [member.name for member in group]
        levels.append(Level(_without(given_up), fewer))
    return levels


def _without(given_up: list[str]) -> str:
    *others, last = given_up
    return f"without {', '.join(others)} and {last}" if others else f"without {last}"


def _without_overlap(bundle: Bundle) -> Iterator[Level]:
    """Double the strides until no member has one below its usual one."""
    row_seconds = bundle.manifest.rows.window_seconds
    while any(_is_dense(member, row_seconds) for member in bundle.manifest.members):
        bundle = _with_aggregations(bundle, lambda member: _sparser(member, row_seconds))
        yield Level(_overlap_text(bundle.manifest.members, row_seconds), bundle)


def _overlap_text(members: Sequence[Member], row_seconds: float) -> str:
    """``without overlap``, ``with windows every 2.5 s``, ``with windows every 1.2 to 2.5 s``."""
    if not any(_is_dense(member, row_seconds) for member in members):
        return "without overlap"
    strides = [member.aggregation.stride_seconds or _usual_stride_seconds(member, row_seconds) for member in members]
    every = " to ".join(f"{stride:g}" for stride in sorted({min(strides), max(strides)}))
    return f"with windows every {every} s"


def _usual_stride_seconds(member: Member, row_seconds: float) -> float:
    """The stride of :func:`birdinfer.audio.windows.make_grid` if none is given: each row is processed once."""
    return row_seconds / math.ceil(row_seconds / member.input_config.window.window_seconds)


def _is_dense(member: Member, row_seconds: float) -> bool:
    stride_seconds = member.aggregation.stride_seconds
    if member.sequence is not None:  # its head was fitted to these windows
        return False
    return stride_seconds is not None and stride_seconds < _usual_stride_seconds(member, row_seconds)


def _sparser(member: Member, row_seconds: float) -> AggregationConfig:
    aggregation = member.aggregation
    if not _is_dense(member, row_seconds):
        return aggregation
    assert aggregation.stride_seconds is not None  # of a dense one
    stride_seconds = min(2 * aggregation.stride_seconds, _usual_stride_seconds(member, row_seconds))
    scored_seconds = aggregation.scored_seconds
    if scored_seconds is not None:
        scored_seconds = max(scored_seconds, stride_seconds)  # otherwise some sound would get no score
    return msgspec.structs.replace(aggregation, stride_seconds=stride_seconds, scored_seconds=scored_seconds)


def _unshifted(aggregation: AggregationConfig) -> AggregationConfig:
    """The aggregation with each row's frames pooled once; unchanged if frames do not count."""
    if aggregation.frame_share == 0:
        return aggregation
    return msgspec.structs.replace(aggregation, frame_shifts_seconds=(0.0,), frame_shift_weights=(1.0,))


def _without_members(bundle: Bundle) -> Iterator[tuple[list[Member], Bundle]]:
    """Yield the members that go, and the bundle without them, one group after the other while one can be spared."""
    groups = sorted(reversed(sharing(bundle.manifest.members)), key=lambda group: _gain(group, bundle))
    while (gone := next((group for group in groups if _can_go(group, bundle)), None)) is not None:
        groups.remove(gone)
        bundle = bundle.with_members({member.name for group in groups for member in group})
        yield gone, bundle


def _gain(group: list[Member], bundle: Bundle) -> tuple[bool, float, float]:
    """What is lost with a group, to sort by: whether it counts, its best known AUC, its weight."""
    blend = bundle.manifest.blend
    used = [member for member in group if (member.weight > 0 and blend.uses(member.name)) or member.name == blend.by]
    known = [member.out_of_fold_macro_auc for member in used if member.out_of_fold_macro_auc is not None]
    return bool(used), max(known, default=0.0), sum(member.weight for member in group)


def _can_go(group: list[Member], bundle: Bundle) -> bool:
    rest = [member for member in bundle.manifest.members if member not in group]
    names = [member.name for member in rest]
    try:
        check_blend(bundle.manifest.blend.among(names), names, [member.weight for member in rest])
    except ConfigError:
        return False
    return True


def _with_aggregations(bundle: Bundle, aggregation_of: Callable[[Member], AggregationConfig]) -> Bundle:
    members = tuple(
        msgspec.structs.replace(member, aggregation=aggregation_of(member)) for member in bundle.manifest.members
    )
    return Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, members=members))
