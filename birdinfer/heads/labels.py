"""What is known about embedded windows: a table of labelled recordings, or of reviews -> truth per window and species.

In: embeddings of ``predict --embeddings`` and a table, either of whole recordings (``filename``, ``primary_label``, as
train.csv of BirdCLEF), or of reviewed stretches (``recording``, ``start``, ``end``, ``label``, ``'verdict'``, as the
page of ``birdinfer detect`` exports them). Out: :class:`LabelledWindows`. A label of a recording counts for each of its
windows; of a review it counts for the windows that share at least half of theirs with it, and says nothing about other
species. Labelled soundscapes are read by :mod:`birdinfer.heads.annotated`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from birdinfer.audio.kinds import without_ending
from birdinfer.errors import MetadataError
from birdinfer.inference.embeddings import Embeddings
from birdinfer.species import Species, check_labels
from birdinfer.tables.cells import flag_of, is_blank, labels_of, seconds_of
from birdinfer.tables.csv import rows
from birdinfer.typing import Float32, Index

_CLIPS = ("filename", "primary_label")
_REVIEWS = ("label", "verdict", "start", "end")
_ANSWERS = {"right": 1.0, "wrong": 0.0}
_GROUPS = ("group", "author")
_NAMES = ("scientific_name", "common_name", "class_name")
NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledWindows:
    """Windows with known truth."""

    species: tuple[Species, ...]
    windows: Index
    """[n], of the embeddings."""
    truth: Float32
    """[n, species]: 1 present, 0 absent, NaN unknown."""
    clips: Index
    """[n], from 0: the recording or review that a window belongs to, or itself; its scores are the mean over its
    windows."""
    groups: Index
    """[clips], from 0: clips of one group are never on both sides of a split."""
    unit: Literal["clip", "review", "window"] = "clip"
    """What a clip is: a recording with its labels, a reviewed stretch, or a window of a soundscape."""
    folds: Index | None = None
    """[clips], from 0: as the table assigns them; None: it does not."""
    notes: tuple[str, ...] = ()
    """What was left out, a line each."""

    @property
    def clip_truth(self) -> Float32:
        """[clips, species]."""
        _, first = np.unique(self.clips, return_index=True)
        truth: Float32 = self.truth[first]
        return truth

    @property
    def n_groups_of_species(self) -> list[int]:
        """How many groups hold each species."""
        return [len(np.unique(self.groups[present])) for present in (self.clip_truth == 1).T]


@dataclass(slots=True, kw_only=True)
class _Clip:
    windows: list[int]
    labels: dict[str, float]
    others: float
    """Truth of the species that it does not name."""
    group: str
    fold: str = ""


def read_labels(path: Path, embeddings: Embeddings, *, fold_column: str = "") -> LabelledWindows:
    """Read a table of labels for embedded windows.

    Args:
        path: of recordings or of reviews. Names of species are read from taxonomy.csv beside it, if there is one.
        embeddings: recordings that the table does not name are left out.
        fold_column: a column of the table that assigns recordings to folds, in place of a split by groups.

    Raises:
        InputNotFoundError: there is no such table.
        MetadataError: it lacks a column, or names none of the recordings; or a cell is no use.
        LabelError: a label cannot be one.
    """
    table = list(rows(path, ()))
    if not table:
        raise MetadataError(path, "has no rows")
    columns = table[0][1]
    is_reviews = "verdict" in columns
    needed = [*(_REVIEWS if is_reviews else _CLIPS), *([fold_column] if fold_column else [])]
    if missing := [name for name in needed if name not in columns]:
        hint = f"its columns are: {', '.join(columns)}"
        raise MetadataError(path, f"has no column {', '.join(missing)}", hint)
    find = _Recordings(embeddings)
    read = _reviewed if is_reviews else _recorded
    clips, notes = read(path, table, find, fold_column)
    if not clips:
        raise MetadataError(path, "names none of the recordings that were embedded", "embed those that it names")
    if is_reviews:
        clips, few = _answerable(clips)
        notes += few
    if not clips:
        what = "has no species with reviews that are right and others that are wrong"
        raise MetadataError(path, what, "review more of one species, also its low confidences")
    labels = check_labels(sorted({label for clip in clips for label in clip.labels}), str(path))
    unit: Literal["clip", "review"] = "review" if is_reviews else "clip"
    return _labelled(clips, _species(path, labels, table), notes, unit, has_folds=bool(fold_column))


class _Recordings:
    """Finds the windows of the recording that a table means."""

    def __init__(self, embeddings: Embeddings) -> None:
        self.starts, self.ends = embeddings.start_seconds, embeddings.end_seconds
        self._windows: dict[str, list[int]] = defaultdict(list)
        for window, name in enumerate(embeddings.recordings):
            self._windows[name].append(window)
        self._by_last: dict[str, list[str]] = defaultdict(list)
        for name in self._windows:
            self._by_last[name.rpartition("/")[2]].append(name)

    def __len__(self) -> int:
        return len(self._windows)

    def find(self, file: str) -> tuple[str, list[int]]:
        """Name and windows of the recording; one whose folders end, or begin, otherwise is known by its end."""
        name = without_ending(file.strip().replace("\\", "/"))
        if name in self._windows:
            return name, self._windows[name]
        alike = [
            other
            for other in self._by_last.get(name.rpartition("/")[2], ())
            if other.endswith(f"/{name}") or name.endswith(f"/{other}")
        ]
        return (alike[0], self._windows[alike[0]]) if len(alike) == 1 else (name, [])


_Table = Sequence[tuple[int, Mapping[str, str]]]


def _recorded(path: Path, table: _Table, find: _Recordings, fold_column: str) -> tuple[list[_Clip], list[str]]:
    """Clips of a table of recordings."""
    clips: dict[str, _Clip] = {}
    missing = []
    primary = {cells["primary_label"].strip() for _, cells in table}
    for number, cells in table:
        name, windows = find.find(cells["filename"])
        if is_blank(cells["primary_label"]):
            raise MetadataError(path, f"row {number} has no primary_label", "fill it in, or take the row out")
        try:
            labels = [cells["primary_label"].strip(), *labels_of(cells.get("secondary_labels", ""), primary)]
        except ValueError as error:
            raise MetadataError(path, f"row {number}: secondary_labels {error}", "mend the row") from error
        if not windows:
            missing.append(name)
            continue
        group = next((cells[each] for each in _GROUPS if not is_blank(cells.get(each, ""))), name)
        clip = clips.setdefault(name, _Clip(windows=windows, labels={}, others=0.0, group=group))
        clip.labels.update(dict.fromkeys(labels, 1.0))
        clip.fold = cells[fold_column].strip() if fold_column else ""
    notes = []
    if missing:
        shown = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        notes.append(f"{len(missing)} recordings of {path.name} are not embedded: {shown}")
    if len(clips) < len(find):
        notes.append(f"{len(find) - len(clips)} embedded recordings are not in {path.name}")
    return list(clips.values()), notes


def _reviewed(path: Path, table: _Table, find: _Recordings, fold_column: str) -> tuple[list[_Clip], list[str]]:
    """Clips of a table of reviews: each the windows of a reviewed stretch."""
    clips, n_left_out = [], 0
    for number, cells in table:
        answer = cells["verdict"].strip().casefold()
        flag = flag_of(answer)
        truth = _ANSWERS.get(answer, None if flag is None else float(flag))
        begin, end = seconds_of(cells["start"]), seconds_of(cells["end"])
        if begin is None or end is None or end <= begin:
            raise MetadataError(path, f"row {number} has no start and end in seconds", "mend the row")
        file = next((cells[each] for each in ("recording", "file") if not is_blank(cells.get(each, ""))), "")
        name, windows = find.find(file)
        at = np.array(windows, np.intp)
        shared = np.minimum(find.ends[at], end) - np.maximum(find.starts[at], begin)
        least = np.minimum(find.ends[at] - find.starts[at], end - begin) / 2
        within = at[shared >= least].tolist()
        if truth is None or not within:
            n_left_out += 1
            continue
        fold = cells[fold_column].strip() if fold_column else ""
        label = {cells["label"].strip(): truth}
        clips.append(_Clip(windows=within, labels=label, others=float("nan"), group=name, fold=fold))
    notes = [f"{n_left_out} reviews are unsure, or of what is not embedded"] if n_left_out else []
    return clips, notes


def _answerable(clips: Sequence[_Clip]) -> tuple[list[_Clip], list[str]]:
    """The reviews of species of which some are right and some are wrong: of others nothing can be learnt."""
    answers: dict[str, set[float]] = defaultdict(set)
    for clip in clips:
        for label, truth in clip.labels.items():
            answers[label].add(truth)
    few = sorted(label for label, found in answers.items() if len(found) < 2)
    shown = ", ".join(few[:NAMED]) + (", ..." if len(few) > NAMED else "")
    notes = [f"{len(few)} species are left out, all their reviews are right, or all wrong: {shown}"] if few else []
    return [clip for clip in clips if not set(clip.labels) & {*few}], notes


def _labelled(
    clips: Sequence[_Clip],
    species: tuple[Species, ...],
    notes: Iterable[str],
    unit: Literal["clip", "review"],
    *,
    has_folds: bool,
) -> LabelledWindows:
    column = {each.label: index for index, each in enumerate(species)}
    truth = np.empty((len(clips), len(species)), np.float32)
    for row, clip in zip(truth, clips, strict=True):
        row[:] = clip.others
        row[[column[label] for label in clip.labels]] = list(clip.labels.values())
    of_window = np.repeat(np.arange(len(clips)), [len(clip.windows) for clip in clips])
    return LabelledWindows(
        species=species,
        windows=np.array([window for clip in clips for window in clip.windows], np.intp),
        truth=truth[of_window],
        clips=of_window,
        groups=numbered(clip.group for clip in clips),
        folds=numbered(clip.fold for clip in clips) if has_folds else None,
        unit=unit,
        notes=tuple(notes),
    )


def _species(path: Path, labels: Sequence[str], table: _Table) -> tuple[Species, ...]:
    """Names from taxonomy.csv, or from the table's own columns."""
    known = known_species(path.with_name("taxonomy.csv")) or _species_of(table)
    names = {each.label: each for each in known}
    return tuple(names.get(label, Species(label)) for label in labels)


def known_species(taxonomy: Path) -> tuple[Species, ...]:
    """Read the species of a taxonomy.csv, if there is one."""
    return _species_of(list(rows(taxonomy, "primary_label"))) if taxonomy.is_file() else ()


def _species_of(table: _Table) -> tuple[Species, ...]:
    names = {
        cells.get("primary_label", cells.get("label", "")).strip(): tuple(cells.get(name, "") for name in _NAMES)
        for _, cells in reversed(table)
    }
    return tuple(Species(label, *rest) for label, rest in reversed(names.items()))


def numbered(names: Iterable[str]) -> Index:
    """Number names from 0, in the order of their first appearance."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], np.intp)
