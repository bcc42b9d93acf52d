"""A data folder and a recipe -> all facts of the report: clips with their headers, sound, duplicates and folds."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from birdinfer.callbacks import Callback
from birdinfer.errors import BirdinferError
from birdinfer.inference.voice import VoiceDetector, detector_version
from birdinfer.report.cuts import cut_recordings
from birdinfer.report.files import FileFacts, identical_files, read_headers
from birdinfer.report.listing import ListedClip, Listing, read_listing
from birdinfer.report.progress import sound_progress
from birdinfer.report.sound import SoundFacts, examine
from birdinfer.training.data.clip import Clip, Metadata
from birdinfer.training.data.duplicates import Decision, Duplicates, components, decide, overlaps
from birdinfer.training.data.fold_constraints import connected, leaks
from birdinfer.training.data.folds import assign_folds
from birdinfer.training.data.folds_file import LEFT_OUT
from birdinfer.training.data.metadata import without_rare
from birdinfer.training.recipe.schema import Recipe


class Pair(NamedTuple):
    """Two clips that hold the same sound."""

    one: int
    """Index of a clip."""
    other: int
    overlap_seconds: float
    shift_seconds: float
    """From the first sample of the one to that of the other."""
    is_copy: bool
    """Whether their files are equal byte by byte."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFacts:
    """A clip and what is known of its file."""

    listed: ListedClip
    file: FileFacts
    sound: SoundFacts | None = None
    """None where it was not decoded."""
    seconds: float
    """How long it is: as decoded, else as its header claims."""
    fold: int | None = None
    """As the recipe assigns it; None of a clip that training cannot use, or where no folds can be assigned."""

    @property
    def clip(self) -> Clip:
        """As training takes it."""
        return self.listed.clip

    @property
    def is_usable(self) -> bool:
        """Whether training can decode something of it."""
        return not self.file.is_missing and not self.file.is_unreadable


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """All that the report is made of."""

    listing: Listing
    recipe: Recipe
    clips: tuple[ClipFacts, ...]
    pairs: tuple[Pair, ...]
    """Copies, and with sound near-duplicates."""
    cuts: tuple[tuple[int, ...], ...]
    """Clips that may be cut from one recording."""
    soundscapes: tuple[FileFacts, ...]
    fold_problem: str = ""
    """Why no folds can be assigned."""
    leaks: tuple[str, ...] = ()
    """What stands on both sides of a fold."""
    n_alone: dict[str, int]
    """Label -> sets of clips that folds may part."""
    is_decoded: bool
    voice_problem: str = ""
    """Why speech was not looked for."""

    @property
    def is_voice_known(self) -> bool:
        """Whether speech was looked for."""
        return self.is_decoded and not self.voice_problem


def take_survey(data: Path, recipe: Recipe, *, sound: bool, callback: Callback, progress: Path | None = None) -> Survey:
    """Read a data folder; with ``sound`` decode every file once.

    Args:
        data: the folder.
        recipe: assigns the folds.
        sound: whether files are decoded.
        callback: receives how far it is.
        progress: a file that keeps what was decoded while this runs; None keeps nothing.

    Raises:
        InputNotFoundError, MetadataError: there is no such folder or table, or it cannot be read at all.
    """
    callback.on_message(f"reading the tables of {data}")
    listing = read_listing(data, recipe.data.fold_column, recipe.labels)
    paths = [each.clip.path for each in listing.clips]
    headers = read_headers(paths, partial(callback.on_progress, "headers"))
    scapes = read_headers(listing.soundscapes.files, partial(callback.on_progress, "headers of soundscapes"))
    detector, voice_problem = _voice_detector() if sound else (None, "")
    usable = [path for path, facts in headers.items() if not facts.is_missing and not facts.is_unreadable]
    decoded = _decoded(usable, detector, progress, callback) if sound else {}
    clips = tuple(_facts(each, headers[each.clip.path], decoded.get(each.clip.path)) for each in listing.clips)
    callback.on_message("comparing clips and assigning folds")
    pairs = _pairs(clips)
    folds = _assign(clips, listing, recipe, pairs)
    clips = tuple(replace(each, fold=folds.of_clip.get(index)) for index, each in enumerate(clips))
    return Survey(
        listing=listing, recipe=recipe, clips=clips, pairs=tuple(pairs), soundscapes=tuple(scapes.values()),
        cuts=tuple(cut_recordings(listing.clips, [each.seconds for each in clips])), fold_problem=folds.problem,
        leaks=tuple(folds.leaks), n_alone=folds.n_alone, is_decoded=sound, voice_problem=voice_problem,
    )  # fmt: skip


def _decoded(
    paths: Sequence[Path], detector: VoiceDetector | None, progress: Path | None, callback: Callback
) -> dict[Path, SoundFacts]:
    if progress is None:
        return examine(paths, detector, partial(callback.on_progress, "decoding"))
    with sound_progress(progress, detector_version() if detector else "") as kept:
        known = {path: facts for path in paths if (facts := kept.get(path)) is not None}
        if known:
            callback.on_message(f"{len(known):,} of {len(paths):,} files were decoded before")
        left = [path for path in paths if path not in known]
        return known | examine(left, detector, partial(callback.on_progress, "decoding"), kept.put)


def _facts(listed: ListedClip, file: FileFacts, sound: SoundFacts | None) -> ClipFacts:
    decoded = sound.seconds if sound is not None else 0.0
    return ClipFacts(listed=listed, file=file, sound=sound, seconds=listed.clip.seconds_of(decoded or file.seconds))


def _voice_detector() -> tuple[VoiceDetector | None, str]:
    try:
        return VoiceDetector("--sound"), ""
    except BirdinferError as error:
        return None, f"{error.what} - {error.hint}"


def _pairs(clips: Sequence[ClipFacts]) -> list[Pair]:
    """Find clips of the same sound; parts of one file, which have it in common, are none."""
    first = {each.clip.path: index for index, each in reversed(list(enumerate(clips))) if each.is_usable}
    copies = {
        (min(first[path], first[same[0]]), max(first[path], first[same[0]]))
        for same in identical_files([clips[index].file for index in sorted(first.values())])
        for path in same[1:]
    }
    pairs = [Pair(one, other, clips[one].seconds, 0.0, True) for one, other in sorted(copies)]
    order = sorted(first.values())
    prints = [sound.fingerprint if (sound := clips[index].sound) is not None else None for index in order]
    for found in overlaps(prints) if any(prints) else ():
        one, other = order[found.one], order[found.other]
        if (one, other) not in copies:
            pairs.append(Pair(one, other, found.seconds, found.shift_seconds, False))
    return pairs


class _Folds(NamedTuple):
    of_clip: dict[int, int]
    """Index of a clip -> its fold."""
    problem: str
    leaks: Sequence[str]
    n_alone: dict[str, int]


def _assign(clips: Sequence[ClipFacts], listing: Listing, recipe: Recipe, pairs: Sequence[Pair]) -> _Folds:
    """Assign the recipe's folds to the clips that training can use, as ``training/data/prepare.py`` does."""
    labels, config = listing.labels, recipe.data
    able = [index for index, each in enumerate(clips) if each.is_usable and each.clip.primary_label in labels]
    used = [_as_training_takes_it(clips[index], labels) for index in able]
    sets = _sets(len(clips), pairs, able)
    decision = Decision(frozenset(), (), ())
    if config.duplicates != "keep":
        decision = decide(used, Duplicates(tuple(map(tuple, sets)), ()), config.duplicates)
    alone: dict[str, set[int]] = {label: set() for label in labels}
    for clip, number in zip(used, connected(used, config.group_by, decision.kept_together), strict=True):
        alone[clip.primary_label].add(number)
    n_alone = {label: len(numbers) for label, numbers in alone.items()}
    if not used:
        return _Folds({}, "there is no clip that can be decoded", (), n_alone)
    try:
        frequent = set(without_rare(Metadata(tuple(used), listing.species, ()), config.min_clips_per_species).clips)
        kept = [place for place, clip in enumerate(used) if clip in frequent and place not in decision.left_out]
        its = [used[place] for place in kept]
        folds = assign_folds(its, config, recipe.seed, _among(kept, decision.kept_together))
    except (BirdinferError, ValueError) as error:
        return _Folds({}, str(error), (), n_alone)
    of_clip = dict.fromkeys(able, LEFT_OUT) | {able[place]: fold for place, fold in zip(kept, folds, strict=True)}
    # Which species fold 0 lacks is a finding of its own.
    rules = msgspec.structs.replace(config, complete_fold0=False)
    return _Folds(of_clip, "", leaks(its, folds, rules, _among(kept, sets)), n_alone)


def _as_training_takes_it(each: ClipFacts, labels: Collection[str]) -> Clip:
    known = tuple(label for label in each.clip.secondary_labels if label in labels)
    return each.clip._replace(duration_seconds=each.seconds, secondary_labels=known)


def _among(kept: Sequence[int], sets: Iterable[Sequence[int]]) -> list[list[int]]:
    """Number the members of sets by their places among those that are kept."""
    place = {index: number for number, index in enumerate(kept)}
    return [[place[each] for each in same if each in place] for same in sets]


def _sets(n_clips: int, pairs: Iterable[Pair], able: Sequence[int]) -> list[list[int]]:
    """Group the clips that pairs link, two or more a set, as places among the ``able`` ones."""
    position = {index: number for number, index in enumerate(able)}
    members: dict[int, list[int]] = {}
    for index, number in enumerate(components(n_clips, ((pair.one, pair.other) for pair in pairs))):
        if index in position:
            members.setdefault(number, []).append(position[index])
    return [same for same in members.values() if len(same) > 1]
