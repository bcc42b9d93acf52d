"""Leaks between sources: recordings that one source trains on and another one validates, under whatever name.

A recording is found by its file name (the same path, or the number that an archive gave it) and by its sound
(:mod:`birdinfer.training.data.duplicates`).
"""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from birdinfer.errors import ConfigError
from birdinfer.tables.recordings import is_tail, spelled
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.clip_files import stretch_of
from birdinfer.training.data.duplicates import find_duplicates
from birdinfer.training.data.folds_file import ALWAYS_TRAINING, LEFT_OUT
from birdinfer.training.data.source_tables import PREFIX
from birdinfer.training.recipe.data_config import SourceConfig

_ARCHIVE = re.compile(r"(?:xc|inat|csa|ml|bc20\d\d)[_-]?\w*\d{3,}\w*", re.IGNORECASE)
"""Names that archives give a recording: the same in whatever folder."""
_LISTED = 3


def leave_out_overlaps(
    clips: Sequence[Clip],
    folds: Sequence[int],
    sources: Sequence[SourceConfig],
    on_progress: Callable[[int, int], None],
) -> tuple[list[int], list[str]]:
    """Leave out of sources what would make validation flatter.

    A source that trains loses recordings that another source, or the data folder, validates or tests; one that
    validates loses recordings that the data folder has, for some fold trains on them.

    Args:
        clips: of the data folder and of all sources.
        folds: one per clip.
        sources: the recipe's; ``overlap`` says what is done.
        on_progress: called with the number of recordings searched so far and of all; what it raises ends the search.

    Returns:
        The folds, and what was found, a line each.

    Raises:
        ConfigError: a source overlaps, and its ``overlap`` is ``refuse``.
    """
    checked = {number for number, source in enumerate(sources, start=1) if source.overlap != "keep"}
    if not checked:
        return list(folds), []
    files = _files(clips, folds, checked)
    # Once for each file: several sources may have it, labels of one and pseudo-labels of another.
    sounding = [clips[own[0]]._replace(begin_seconds=0.0, end_seconds=math.inf) for own in files.values()]
    found, owners = find_duplicates(sounding, on_progress), list(files.values())
    alike = [(a, b) for one, other in found.pairs for a in owners[one] for b in owners[other]]
    same = [(one, other) for own in owners for one, other in itertools.combinations(own, 2)]
    named = _same_names([index for own in owners for index in own], clips)
    overlapping = dict(_leaks(clips, folds, checked, [*alike, *named, *same]))
    changed, notes = list(folds), []
    for number in sorted(checked):
        title = sources[number - 1].title
        lost = {path: other for (source, path), other in overlapping.items() if source == number}
        if not lost:
            continue
        shown = ", ".join(f"{path.name} (as {_name(clips[other])})" for path, other in list(lost.items())[:_LISTED])
        what = f"{len(lost)} recordings overlap validation: {shown}" + (", ..." if len(lost) > _LISTED else "")
        if sources[number - 1].overlap == "refuse":
            raise ConfigError(f"data.sources {title}", what, "take them out, or set its overlap to leave_out")
        for index, clip in enumerate(clips):
            changed[index] = LEFT_OUT if clip.source == number and clip.path in lost else changed[index]
        notes.append(f"{title}: {what}: left out")
    if found.failed:
        notes.append(f"{len(found.failed)} recordings cannot be searched for overlaps, first {found.failed[0]}")
    return changed, notes


def _files(clips: Sequence[Clip], folds: Sequence[int], checked: set[int]) -> dict[Path, list[int]]:
    """File -> the first clip of it in each source, for all files that may be on two sides of a fold."""
    validates = any(clip.source in checked and _validates(fold) for clip, fold in zip(clips, folds, strict=True))
    files: dict[Path, dict[int, int]] = defaultdict(dict)
    for index, (clip, fold) in enumerate(zip(clips, folds, strict=True)):
        if fold != LEFT_OUT and (clip.source in checked or validates or _validates(fold)):
            files[clip.path].setdefault(clip.source, index)
    return {path: list(own.values()) for path, own in files.items()}


def _validates(fold: int) -> bool:
    return fold not in {ALWAYS_TRAINING, LEFT_OUT}


def _leaks(
    clips: Sequence[Clip], folds: Sequence[int], checked: set[int], pairs: Iterable[tuple[int, int]]
) -> Iterator[tuple[tuple[int, Path], int]]:
    """((source, file), the clip that it overlaps) of each file of a source that has to go."""
    for pair in pairs:
        for own, other in (pair, pair[::-1]):
            is_trained_on = _validates(folds[own]) and clips[other].source == 0
            if (
                clips[own].source in checked
                and clips[own].source != clips[other].source
                and (_validates(folds[other]) or is_trained_on)
            ):
                yield (clips[own].source, clips[own].path), other


def _same_names(indices: Iterable[int], clips: Sequence[Clip]) -> list[tuple[int, int]]:
    """Clips whose files have one name, in pairs."""
    by_stem: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        by_stem[PurePosixPath(_name(clips[index])).name.casefold()].append(index)
    return [
        (one, other)
        for stem, own in by_stem.items()
        for one, other in itertools.combinations(own, 2)
        if clips[one].source != clips[other].source
        and (_ARCHIVE.fullmatch(stem) or is_tail(_name(clips[one]).casefold(), _name(clips[other]).casefold()))
    ]


def _name(clip: Clip) -> str:
    """Its file's path below its folder, without the ending."""
    name = stretch_of(clip.filename).filename
    return spelled(name.removeprefix(PREFIX).partition("/")[2] if clip.source else name)
