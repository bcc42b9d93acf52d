"""train.csv, taxonomy.csv and train_audio/ -> clips and species: what there is to train on.

In: a folder in the layout of BirdCLEF, read by :mod:`metadata_table`. Out: :class:`Metadata`. What can be worked
around is noted and left out; what would make the run mean something else is refused.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from birdinfer.audio import probe
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError, LabelError
from birdinfer.labels import Species, check_labels
from birdinfer.training.clips.clip_files import AUDIO_FOLDERS, audio_folder, clip_file
from birdinfer.training.clips.metadata_table import (
    Row,
    find_table,
    parse_rating,
    parse_secondary,
    parse_site,
    read_rows,
    without_repeats,
)

_NEEDED = ("primary_label", "filename")
_NOBODY = frozenset({"", "unknown", "anonymous", "none", "nan"})
"""Author names that name nobody: recordings that share them have nothing in common."""
_LISTED = 3


class Clip(NamedTuple):
    """One labelled recording."""

    filename: str
    path: Path
    primary_label: str
    secondary_labels: tuple[str, ...] = ()
    author: str = ""
    group: str = ""
    """The table's column: rows of one group belong together."""
    duration_seconds: float = 0.0
    given_fold: str = ""
    """What ``data.fold_column`` says of it."""
    rating: float | None = None
    """0.5 to 5 stars; None where nobody rated."""
    url: str = ""
    collection: str = ""
    """Where it comes from, as the table calls it: XC, iNat, CSA."""
    site: str = ""
    """"latitude,longitude" in degrees, rounded to 0.01; "" where unknown."""
    recording: str = ""
    """What it was cut from: ``group``, else ``url``, else "" for nothing known."""


class Metadata(NamedTuple):
    """What there is to train on."""

    clips: tuple[Clip, ...]
    """Those that have sound, in the table's order."""
    species: tuple[Species, ...]
    """In the order of taxonomy.csv: the order of the scores' columns."""
    notes: tuple[str, ...]
    """What was left out, one line each."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the scores."""
        return tuple(species.label for species in self.species)


def read_metadata(data_dir: Path, fold_column: str = "") -> Metadata:
    """Read a folder in the layout of BirdCLEF.

    Args:
        data_dir: holds train.csv (or train_metadata.csv), train_audio/ and, if there is one, taxonomy.csv.
        fold_column: a column of train.csv to keep as ``given_fold``.

    Raises:
        InputNotFoundError: the folder, its table or every sound file is missing.
        MetadataError: a column is missing, or one filename has two labels.
        LabelError: a primary label is not in taxonomy.csv.
    """
    if not data_dir.is_dir():
        raise InputNotFoundError(data_dir, "no such folder", "name the data's folder with --data")
    table = find_table(data_dir)
    rows = read_rows(table, (*_NEEDED, *([fold_column] if fold_column else [])))
    rows, repeats = without_repeats(table, rows)
    species = _read_species(data_dir / "taxonomy.csv", rows)
    labels = frozenset(one.label for one in species)
    _check_known(table, rows, labels)
    listed = [_clip(row, _audio_folder(data_dir), fold_column) for row in rows]
    clips, silent = _with_sound(data_dir, listed)
    clips, foreign = _known_secondary(clips, labels, "are not in the taxonomy")
    return Metadata(tuple(clips), species, (*repeats, *silent, *foreign, *_odd_ratings(rows)))


def without_rare(metadata: Metadata, min_clips: int) -> Metadata:
    """Leave out species with too few clips: their clips, their column, and their name among secondary labels.

    Args:
        metadata: what there is.
        min_clips: a species needs as many clips that carry it as primary label. 1 leaves out none, not even species
            without any clip: they keep their column, for labelled soundscapes may teach them.

    Raises:
        ConfigError: no species has so many.
    """
    counts = Counter(clip.primary_label for clip in metadata.clips)
    rare = [label for label in metadata.labels if counts[label] < min_clips]
    if min_clips <= 1 or not rare:
        return metadata
    species = tuple(one for one in metadata.species if counts[one.label] >= min_clips)
    if not species:
        most = max(counts.values())
        raise ConfigError("data.min_clips_per_species", f"is {min_clips}, no species has more than {most}", "lower it")
    kept = [clip for clip in metadata.clips if counts[clip.primary_label] >= min_clips]
    clips, foreign = _known_secondary(kept, frozenset(one.label for one in species), "have lost their column")
    lost = len(metadata.clips) - len(kept)
    note = f"{len(rare)} species have fewer than {min_clips} clips and are left out, with {lost} clips: {_some(rare)}"
    return Metadata(tuple(clips), species, (*metadata.notes, note, *foreign))


def _audio_folder(data_dir: Path) -> Path:
    folder = audio_folder(data_dir)
    if folder is None:
        raise InputNotFoundError(data_dir, f"holds no folder {AUDIO_FOLDERS[0]}/", "the clips are expected there")
    return folder


def _read_species(taxonomy: Path, rows: Iterable[Row]) -> tuple[Species, ...]:
    """The species in column order; without a taxonomy, the labels sorted."""
    if not taxonomy.is_file():
        labels = check_labels(sorted({row["primary_label"] for row in rows}), "train.csv")
        return tuple(Species(label) for label in labels)
    table = read_rows(taxonomy, ["primary_label"])
    check_labels((row["primary_label"] for row in table), str(taxonomy))
    names = ("scientific_name", "common_name", "class_name")
    return tuple(Species(row["primary_label"], *(row.get(name, "") for name in names)) for row in table)


def _check_known(path: Path, rows: Iterable[Row], labels: frozenset[str]) -> None:
    unknown = sorted({row["primary_label"] for row in rows} - labels)
    if unknown:
        raise LabelError(path, f"primary_label {_some(unknown)} not in taxonomy.csv", "add the species there")


def _clip(row: Row, folder: Path, fold_column: str) -> Clip:
    label = row["primary_label"]
    author = row.get("author", "").strip()
    group, url = row.get("group", "").strip(), row.get("url", "").strip()
    secondary = tuple(other for other in parse_secondary(row.get("secondary_labels", "")) if other != label)
    return Clip(
        filename=row["filename"],
        path=clip_file(folder, row["filename"], label),
        primary_label=label,
        secondary_labels=secondary,
        author="" if author.lower() in _NOBODY else author,
        group=group,
        given_fold=row.get(fold_column, "").strip() if fold_column else "",
        rating=_rating(row),
        url=url,
        collection=row.get("collection", "").strip(),
        site=parse_site(row.get("latitude", ""), row.get("longitude", "")),
        recording=group or url,
    )


def _rating(row: Row) -> float | None:
    try:
        return parse_rating(row.get("rating", ""))
    except ValueError:
        return None


def _odd_ratings(rows: Iterable[Row]) -> list[str]:
    """A line on ratings that are none; their clips count as unrated."""
    odd = []
    for row in rows:
        try:
            parse_rating(row.get("rating", ""))
        except ValueError:
            odd.append(f"{row['rating']} of {row['filename']}")
    return [f"{len(odd)} ratings are no number from 0 to 5 and count as unrated: {_some(odd)}"] if odd else []


def _with_sound(data_dir: Path, listed: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """The clips whose header can be read, with their duration, and a line on the others."""
    with ThreadPoolExecutor() as pool:
        durations = list(pool.map(_duration_seconds, listed))
    clips = [
        clip._replace(duration_seconds=seconds)
        for clip, seconds in zip(listed, durations, strict=True)
        if isinstance(seconds, float)
    ]
    missing = [clip.filename for clip, seconds in zip(listed, durations, strict=True) if seconds is None]
    broken = [seconds for seconds in durations if isinstance(seconds, str)]
    if not clips:
        why = f"none of {len(listed)} listed sound files can be read: {_some(missing + broken)}"
        raise InputNotFoundError(data_dir, why, "are the clips in train_audio/?")
    notes = [f"{len(missing)} sound files are missing and left out: {_some(missing)}"] if missing else []
    notes += [f"{len(broken)} clips cannot be decoded and are left out: {_some(broken)}"] if broken else []
    return clips, notes


def _duration_seconds(clip: Clip) -> float | str | None:
    """Seconds of sound; None if the file is missing, a word on what is wrong if it is broken."""
    try:
        seconds = float(probe(clip.path).duration_seconds)
    except InputNotFoundError:
        return None
    except AudioError as error:
        return f"{clip.filename} ({error.what})"
    return seconds if seconds > 0 else f"{clip.filename} (holds no sound)"


def _known_secondary(clips: Iterable[Clip], labels: frozenset[str], why: str) -> tuple[list[Clip], list[str]]:
    """Secondary labels outside the taxonomy are common in the real tables and have no column: they are dropped."""
    foreign: set[str] = set()
    kept: list[Clip] = []
    for clip in clips:
        foreign.update(set(clip.secondary_labels) - labels)
        kept.append(clip._replace(secondary_labels=tuple(one for one in clip.secondary_labels if one in labels)))
    line = f"{len(foreign)} secondary labels {why} and are left out: {_some(sorted(foreign))}"
    return kept, [line] if foreign else []


def _some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
