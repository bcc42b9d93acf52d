"""A bundle -> the same bundle made cheaper, step by step: what a run that is short of time gives up, in which order.

First overlap: windows that follow each other faster than they need to take twice the stride, again and again, until
each row is heard once. Then the shifts of frame-wise scores. Then members, the one with the least out-of-fold gain
first; of members that share a graph, all, for a graph is computed as a whole. Labels, rows and post-processing stay.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from birdinfer.bundle import Bundle, sharing
from birdinfer.config import TimelineConfig
from birdinfer.ensemble import check_blend
from birdinfer.errors import ConfigError
from birdinfer.manifest import Member


class Level(NamedTuple):
    """One rung: how soundscapes are heard."""

    name: str
    """What is given up, as it follows "from now on": ``with windows every 2.5 s``, ``without overlap, shifts and
    fold3``; "" for nothing."""
    bundle: Bundle


def ladder(bundle: Bundle) -> list[Level]:
    """The levels of a bundle, from "as asked", which is the bundle itself, to the cheapest.

    Each computes less than the one before it, and gives up all that the one before it does. The order among members,
    first to go first: those whose weight is of no effect; those of unknown out-of-fold AUC, by weight; the others by
    that AUC. Of a group that shares a graph the best member counts. At least one group with a weight stays.
    """
    levels = [Level("", bundle)]
    levels += _without_overlap(bundle)
    given_up = ["overlap"] if len(levels) > 1 else []
    unshifted = _map_timelines(levels[-1].bundle, _unshifted)
    if unshifted.manifest != levels[-1].bundle.manifest:
        given_up.append("shifts")
        levels.append(Level(_without(given_up), unshifted))
    for gone, fewer in _without_members(levels[-1].bundle):
        given_up += [member.name for member in gone]
        levels.append(Level(_without(given_up), fewer))
    return levels


def _without(given_up: list[str]) -> str:
    *others, last = given_up
    return f"without {', '.join(others)} and {last}" if others else f"without {last}"


def _without_overlap(bundle: Bundle) -> Iterator[Level]:
    """Strides doubled once more and once more, until no member has one below its usual."""
    row_seconds = bundle.manifest.rows.window_seconds
    while any(_is_dense(member, row_seconds) for member in bundle.manifest.members):
        bundle = _with_timelines(bundle, [_sparser(member, row_seconds) for member in bundle.manifest.members])
        yield Level(_overlap_in_words(bundle.manifest.members, row_seconds), bundle)


def _overlap_in_words(members: Sequence[Member], row_seconds: float) -> str:
    """``without overlap``, ``with windows every 2.5 s``, ``with windows every 1.2 to 2.5 s``."""
    if not any(_is_dense(member, row_seconds) for member in members):
        return "without overlap"
    strides = [member.timeline.stride_seconds or _usual_stride_seconds(member, row_seconds) for member in members]
    every = " to ".join(f"{stride:g}" for stride in sorted({min(strides), max(strides)}))
    return f"with windows every {every} s"


def _usual_stride_seconds(member: Member, row_seconds: float) -> float:
    """What :func:`birdinfer.windows.place` takes where no stride is given: each row is heard once."""
    return row_seconds / math.ceil(row_seconds / member.hearing.window.window_seconds)


def _is_dense(member: Member, row_seconds: float) -> bool:
    stride_seconds = member.timeline.stride_seconds
    return stride_seconds is not None and stride_seconds < _usual_stride_seconds(member, row_seconds)


def _sparser(member: Member, row_seconds: float) -> TimelineConfig:
    """Its timeline with twice the stride, at most the usual one."""
    timeline = member.timeline
    if not _is_dense(member, row_seconds):
        return timeline
    assert timeline.stride_seconds is not None  # _is_dense saw to it
    stride_seconds = min(2 * timeline.stride_seconds, _usual_stride_seconds(member, row_seconds))
    head_seconds = timeline.head_seconds
    if head_seconds is not None:
        head_seconds = max(head_seconds, stride_seconds)  # else there would be sound that no head hears
    return msgspec.structs.replace(timeline, stride_seconds=stride_seconds, head_seconds=head_seconds)


def _unshifted(timeline: TimelineConfig) -> TimelineConfig:
    """The timeline with each row's frames pooled once; as it is where frames do not count."""
    if timeline.frame_share == 0:
        return timeline
    return msgspec.structs.replace(timeline, frame_shifts_seconds=(0.0,), frame_shift_weights=(1.0,))


def _without_members(bundle: Bundle) -> Iterator[tuple[list[Member], Bundle]]:
    """Who goes, and the bundle without them, one group after the other until none can be spared."""
    groups = sorted(reversed(sharing(bundle.manifest.members)), key=lambda group: _gain(group, bundle))
    while (gone := next((group for group in groups if _can_go(group, bundle)), None)) is not None:
        groups.remove(gone)
        bundle = bundle.with_members({member.name for group in groups for member in group})
        yield gone, bundle


def _gain(group: list[Member], bundle: Bundle) -> tuple[bool, float, float]:
    """What is lost with a group; the least first."""
    heard = [member for member in group if member.weight > 0 or member.name == bundle.manifest.blend.by]
    known = [member.out_of_fold_macro_auc for member in heard if member.out_of_fold_macro_auc is not None]
    return bool(heard), max(known, default=0.0), sum(member.weight for member in group)


def _can_go(group: list[Member], bundle: Bundle) -> bool:
    """Whether the others can be blended without it."""
    rest = [member for member in bundle.manifest.members if member not in group]
    names = [member.name for member in rest]
    try:
        check_blend(bundle.manifest.blend.among(names), names, [member.weight for member in rest])
    except ConfigError:
        return False
    return True


def _map_timelines(bundle: Bundle, change: Callable[[TimelineConfig], TimelineConfig]) -> Bundle:
    return _with_timelines(bundle, [change(member.timeline) for member in bundle.manifest.members])


def _with_timelines(bundle: Bundle, timelines: list[TimelineConfig]) -> Bundle:
    members = tuple(
        msgspec.structs.replace(member, timeline=timeline)
        for member, timeline in zip(bundle.manifest.members, timelines, strict=True)
    )
    return Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, members=members))
