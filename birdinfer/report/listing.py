"""A data folder's tables -> the clips, species and soundscapes that they list, with every fault of a row kept.

Training refuses a table at its first fault; here each becomes a line, so that all can be mended at once. The rows are
read by training's own reader (``training/data/clip_table.py``): what counts as a fault there counts here.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from birdinfer.audio.find import find_recordings
from birdinfer.audio.kinds import sounds_by_name
from birdinfer.errors import BirdinferError, InputNotFoundError
from birdinfer.species import NO_CALL, Species
from birdinfer.tables.annotations import read_annotations
from birdinfer.tables.cells import is_blank, near_miss
from birdinfer.tables.csv import rows
from birdinfer.tables.recording_names import parse_name
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.clip_files import ClipFiles, audio_folder
from birdinfer.training.data.clip_table import parse_rating, parse_site, read_clip
from birdinfer.training.data.label_names import read_taxa
from birdinfer.training.data.metadata import SPECIES_ALONE, TAXONOMY
from birdinfer.training.data.train_table import NumberedRow, find_table, read_rows
from birdinfer.training.outputs import shared_taxa
from birdinfer.training.recipe.data_config import LabelConfig

SOUNDSCAPE_FOLDERS = ("train_soundscapes", "unlabeled_soundscapes")
SOUNDSCAPE_LABELS = ("train_soundscapes_labels.csv", "train_soundscape_labels.csv")
_DATES = ("date", "recorded_on", "recorded_date", "date_recorded", "observed_on", "datetime", "recorded_at")
_TIMES = ("time", "recorded_time", "time_recorded", *_DATES)
_NAMES = ("scientific_name", "common_name", "class_name")
_DATE = re.compile(r"(?P<year>(?:19|20)[0-9]{2})-(?P<month>[0-9]{1,2})(?:-(?P<day>[0-9]{1,2}))?")
_TIME = re.compile(r"(?<![0-9])(?P<hour>[0-9]{1,2}):[0-9]{2}(?::[0-9]{2})?\s*(?P<half>[ap]m)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedClip:
    """A row of train.csv that names a clip, and what training does not read of it."""

    row: int
    """In its table, where the header is row 1."""
    clip: Clip
    """As training takes it; its ``duration_seconds`` is 0, and secondary labels outside the taxonomy are in it."""
    date: str = ""
    """``2013-05-25`` or ``2013-05``, "" if unknown."""
    hour: int | None = None
    """Of the day, 0 to 23."""

    @property
    def month(self) -> int | None:
        """1 to 12."""
        return int(self.date[5:7]) if self.date else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Soundscapes:
    """The recordings without a species of their own, and the table of who is present in them."""

    files: tuple[Path, ...] = ()
    labels: Counter[str] = field(default_factory=Counter)
    """Label -> labelled seconds."""
    n_rows: int = 0
    n_repeated: int = 0
    """Rows that stand in the table before, cell by cell."""
    missing: tuple[str, ...] = ()
    """Recordings that the table names and the folder lacks."""
    problem: str = ""
    """Why the table cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What the tables of a data folder list."""

    data: Path
    table: Path
    audio: Path | None
    """The folder of clips; None if there is none."""
    n_rows: int
    clips: tuple[ListedClip, ...]
    """One for each file or part of a file, in the table's order."""
    species: tuple[Species, ...]
    """The columns of the scores, in their order; of a folder without taxonomy.csv its primary labels."""
    has_taxonomy: bool
    faults: dict[str, list[str]]
    """Kind of fault -> the places where it is, in the table's order."""
    not_listed: tuple[str, ...]
    """Sound files in the folder of clips that no row names."""
    soundscapes: Soundscapes

    @property
    def labels(self) -> frozenset[str]:
        """The labels of the species."""
        return frozenset(one.label for one in self.species)


def read_listing(data: Path, fold_column: str = "", learned: LabelConfig = SPECIES_ALONE) -> Listing:
    """Read train.csv, taxonomy.csv and the table of soundscapes of a folder in the layout of BirdCLEF.

    Args:
        data: the folder.
        fold_column: a column of train.csv that gives folds (``data.fold_column``), "" for none.
        learned: what is learned besides species, and may be a primary label, too.

    Raises:
        InputNotFoundError: there is no such folder, or no train.csv in it.
        MetadataError: train.csv or taxonomy.csv is no table, or lacks a column that is needed.
        ConfigError: taxonomy.csv has no taxa of the kind that is learned.
    """
    if not data.is_dir():
        raise InputNotFoundError(data, "no such folder", "name the folder that holds train.csv")
    table, audio = find_table(data), audio_folder(data)
    listed = read_rows(table, tuple(filter(None, ("primary_label", "filename", fold_column))))
    faults: dict[str, list[str]] = defaultdict(list)
    taxonomy = _read_taxonomy(data / TAXONOMY, faults)
    if learned.nocall:
        taxonomy.pop(NO_CALL, None)
        listed = [row for row in listed if row[1]["primary_label"].strip().casefold() != NO_CALL]
    labels = frozenset(taxonomy)
    files = ClipFiles(audio or data)
    read = _Reader(table, files, labels, fold_column, faults)
    clips = _distinct([read(row) for row in listed], faults)
    taxa = shared_taxa(read_taxa(data / TAXONOMY, tuple(taxonomy.values()), learned.taxon)) if learned.taxon else ()
    used = tuple(taxonomy.values()) or tuple(map(Species, sorted({each.clip.primary_label for each in clips})))
    of_species = [each for each in clips if each.clip.primary_label not in taxa or each.clip.primary_label in taxonomy]
    _note_labels(of_species, frozenset(one.label for one in used), bool(taxonomy), faults)
    return Listing(
        data=data, table=table, audio=audio, n_rows=len(listed), clips=tuple(clips), species=used,
        has_taxonomy=bool(taxonomy), faults=dict(faults), not_listed=_not_listed(audio, clips),
        soundscapes=_read_soundscapes(data, frozenset(one.label for one in used)),
    )  # fmt: skip


def _read_taxonomy(path: Path, faults: dict[str, list[str]]) -> dict[str, Species]:
    if not path.is_file():
        return {}
    found: dict[str, Species] = {}
    names: dict[str, list[str]] = defaultdict(list)
    for number, cells in rows(path, "primary_label"):
        label = cells["primary_label"]
        if not label.strip() or label in found:
            faults["taxonomy"].append(f"row {number}: {f'{label} a second time' if label.strip() else 'no label'}")
            continue
        found[label] = Species(
            label, *(cells.get(name, "") for name in ("scientific_name", "common_name", "class_name"))
        )
        names[" ".join(found[label].scientific_name.lower().split())].append(label)
    # Sonotypes share the name of their family on purpose: two words are a species.
    twins = [f"{', '.join(same)}: {name}" for name, same in names.items() if len(same) > 1 and name.count(" ") == 1]
    faults["same species"] += twins
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads rows; one that training refuses is noted, and read without the cell that is no use where that helps."""

    table: Path
    files: ClipFiles
    labels: frozenset[str]
    fold_column: str
    faults: dict[str, list[str]]

    def __call__(self, row: NumberedRow) -> ListedClip | None:
        number, cells = row
        is_part = any(not is_blank(cells.get(name, "")) for name in ("start", "end"))
        if is_part and cells["primary_label"].strip() in {"", NO_CALL}:
            return None
        clip = self._clip(row)
        if clip is None:
            return None
        try:
            parse_rating(cells.get("rating", ""))
        except ValueError:
            self.faults["ratings"].append(f"row {number}: {cells['rating']!r} of {clip.filename}")
        place = cells.get("latitude", ""), cells.get("longitude", "")
        if not all(map(is_blank, place)) and not parse_site(*place):
            self.faults["places"].append(f"row {number}: {', '.join(place)} of {clip.filename}")
        date, hour = _clock(cells, clip.filename)
        return ListedClip(row=number, clip=clip, date=date, hour=hour)

    def _clip(self, row: NumberedRow) -> Clip | None:
        number, cells = row
        tries: tuple[dict[str, str], ...] = ({}, {"secondary_labels": ""})
        for without in tries:
            try:
                return read_clip(self.table, (number, cells | without), self.files, self.labels, self.fold_column)
            except BirdinferError as error:
                if not without:
                    self.faults["refused rows"].append(error.what)
        return None


def _clock(cells: dict[str, str], filename: str) -> tuple[str, int | None]:
    """Find the date and hour of a recording: in the table, or in the name of its file."""
    date = next(filter(None, (_DATE.match(cells.get(name, "").strip()) for name in _DATES)), None)
    time = next(filter(None, (_TIME.search(cells.get(name, "")) for name in _TIMES)), None)
    if date is None and time is None:
        start = parse_name(PurePosixPath(filename.partition("#")[0]).stem).start
        return (start.date().isoformat(), start.hour) if start else ("", None)
    text, hour = "", None
    if date and 1 <= int(date["month"]) <= 12:
        is_day = int(date["day"] or 0) > 0
        text = f"{date['year']}-{int(date['month']):02}" + (f"-{int(date['day']):02}" if is_day else "")
    if time:
        hour = int(time["hour"])
        if time["half"]:
            hour = hour % 12 + (12 if time["half"].lower() == "pm" else 0)
    return text, hour if hour is not None and hour < 24 else None


def _distinct(read: Sequence[ListedClip | None], faults: dict[str, list[str]]) -> list[ListedClip]:
    """Keep a clip for each file or part of one; note files that stand twice, and those with two labels."""
    first: dict[tuple[Path, float, float], ListedClip] = {}
    for each in filter(None, read):
        clip = each.clip
        before = first.setdefault((clip.path, clip.begin_seconds, clip.end_seconds), each)
        if before is each:
            continue
        if clip.is_part:
            others = dict.fromkeys((*before.clip.secondary_labels, clip.primary_label, *clip.secondary_labels))
            kept = tuple(label for label in others if label != before.clip.primary_label)
            first[clip.path, clip.begin_seconds, clip.end_seconds] = ListedClip(
                row=before.row, clip=before.clip._replace(secondary_labels=kept), date=before.date, hour=before.hour
            )
        elif before.clip.primary_label != clip.primary_label:
            both = f"{before.clip.primary_label} and {clip.primary_label}"
            faults["two labels"].append(f"rows {before.row} and {each.row}: {clip.filename} is {both}")
        else:
            faults["repeated rows"].append(f"rows {before.row} and {each.row}: {clip.filename}")
    return list(first.values())


def _note_labels(
    clips: Sequence[ListedClip], labels: frozenset[str], has_taxonomy: bool, faults: dict[str, list[str]]
) -> None:
    primary = Counter(each.clip.primary_label for each in clips if each.clip.primary_label not in labels)
    for label, count in primary.most_common():
        same = near_miss(label, labels)
        faults["labels outside the taxonomy"].append(f"{label} ({_clips(count)}{f', {same}' if same else ''})")
    if has_taxonomy:
        others = Counter(label for each in clips for label in each.clip.secondary_labels if label not in labels)
        faults["secondary labels outside the taxonomy"] += [
            f"{label} ({_clips(n)})" for label, n in others.most_common()
        ]


def _clips(n: int) -> str:
    return f"{n} clip{'' if n == 1 else 's'}"


def _not_listed(audio: Path | None, clips: Sequence[ListedClip]) -> tuple[str, ...]:
    if audio is None:
        return ()
    named = {str(each.clip.path) for each in clips}
    found = (os.path.join(folder, name) for folder, _, names in os.walk(audio) for name in names)  # noqa: PTH118 - fast
    others = [Path(path) for path in found if path not in named and sounds_by_name(path)]
    return tuple(sorted(path.relative_to(audio).as_posix() for path in others))


def _read_soundscapes(data: Path, labels: frozenset[str]) -> Soundscapes:
    folder = next((data / name for name in SOUNDSCAPE_FOLDERS if (data / name).is_dir()), None)
    table = next((data / name for name in SOUNDSCAPE_LABELS if (data / name).is_file()), None)
    files = tuple(sorted(find_recordings([folder]).names)) if folder else ()
    if table is None:
        return Soundscapes(files=files)
    try:
        found = read_annotations(table, labels).annotations
        cells = [tuple(row.values()) for _, row in rows(table, "filename")]
    except BirdinferError as error:
        return Soundscapes(files=files, problem=str(error))
    present = {(names[0], each.recording, *each[2:4]) for each in found for names in each.species}
    seconds: Counter[str] = Counter()
    for label, _, begin, end in sorted(present):
        seconds[label] += round(end - begin)
    there = {name for path in files for name in (path.name, path.stem)}
    gone = dict.fromkeys(each.recording for each in found if Path(each.recording).name not in there)
    return Soundscapes(
        files=files, labels=seconds, n_rows=len(cells), n_repeated=len(cells) - len(set(cells)), missing=tuple(gone)
    )
