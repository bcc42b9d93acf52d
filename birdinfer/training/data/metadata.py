"""train.csv, taxonomy.csv and train_audio/ -> clips and species: what there is to train on.

In: a folder in the layout of BirdCLEF. Out: :class:`~birdinfer.training.data.clip.Metadata`. What can be worked around
is noted and left out.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from birdinfer.audio.find import find_recordings
from birdinfer.audio.stream import probe
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError
from birdinfer.species import NO_CALL
from birdinfer.training.data.clip import Clip, Metadata
from birdinfer.training.data.clip_files import AUDIO_FOLDERS, ClipFiles, audio_folder, file_name, stretch_of
from birdinfer.training.data.clip_table import (
    clips_of_rows,
    parse_rating,
    primary_first,
    silent_rows,
    without_repeats,
    without_silent,
)
from birdinfer.training.data.label_names import check_labels_known, read_taxa, read_taxonomy, species_of_table
from birdinfer.training.data.train_table import NEEDED, TABLES, NumberedRow, find_table, read_rows
from birdinfer.training.outputs import shared_taxa
from birdinfer.training.recipe.data_config import LabelConfig

TAXONOMY = "taxonomy.csv"
SPECIES_ALONE = LabelConfig()
_LISTED = 3


def read_metadata(data_dir: Path, fold_column: str = "", learned: LabelConfig = SPECIES_ALONE) -> Metadata:
    """Read a folder in the layout of BirdCLEF.

    Args:
        data_dir: holds train.csv (or train_metadata.csv), train_audio/ and, if there is one, taxonomy.csv.
        fold_column: a column of train.csv to keep as ``given_fold``.
        learned: what is learned besides species: with ``nocall`` rows without a species are clips, too, and none of the
            species is called so; with ``taxon`` a taxon may be a row's label.

    Raises:
        ConfigError: there is no such ``taxon``.
        InputNotFoundError: the folder, its table or every sound file is missing.
        MetadataError: a table is damaged, a column is missing, a cell is no use, or one filename has two labels.
        LabelError: a primary label is not in taxonomy.csv, or two differ only in their spelling.
    """
    if not data_dir.is_dir():
        raise InputNotFoundError(data_dir, "no such folder", "name the data's folder with --data")
    table = find_table(data_dir)
    rows = read_rows(table, (*NEEDED, *([fold_column] if fold_column else [])))
    rows, silent = (silent_rows(rows), []) if learned.nocall else without_silent(table, rows)
    no_call = frozenset({NO_CALL}) if learned.nocall else frozenset()
    taxonomy = {label: one for label, one in read_taxonomy(data_dir / TAXONOMY).items() if label not in no_call}
    rows = [primary_first(table, row, no_call.union(taxonomy)) for row in rows]
    named = [row for row in rows if row[1]["primary_label"] not in no_call]
    species = tuple(taxonomy.values()) or species_of_table(table, named)
    taxa = read_taxa(data_dir / TAXONOMY, species, learned.taxon) if learned.taxon else ()
    labels = frozenset(one.label for one in species)
    check_labels_known(table, named, labels.union(shared_taxa(taxa)))
    files = ClipFiles(_audio_folder(data_dir))
    listed, repeats = without_repeats(table, rows, clips_of_rows(table, rows, files, labels, fold_column))
    clips, gone = _with_sound(data_dir, listed, files)
    clips, unknown = _known_secondary(clips, labels)
    notes = (*_unfinished(table), *silent, *repeats, *_respelled(rows, listed), *gone, *unknown, *_odd_ratings(rows))
    if learned.taxon or learned.nocall:
        notes = (*_also_learned(clips, taxa, labels, learned), *notes)
    return Metadata(tuple(clips), species, notes, taxa, learned.nocall)


def _also_learned(
    clips: Sequence[Clip], taxa: Sequence[str], labels: Collection[str], learned: LabelConfig
) -> list[str]:
    notes = []
    if learned.taxon:
        shared = shared_taxa(taxa)
        n_species, n_clips = sum(name in shared for name in taxa), sum(clip.primary_label in shared for clip in clips)
        alone = f", and {n_clips} clips labelled with a {learned.taxon} alone" if n_clips else ""
        notes.append(f"learned, too: {learned.taxon}, {len(shared)} with {n_species} of {len(taxa)} species{alone}")
    if learned.nocall:
        notes.append(f"learned, too: no call, {sum(not clip.primary_label for clip in clips)} clips without a species")
    return notes


def listed_clips(data_dir: Path, labels: Collection[str], learned: LabelConfig = SPECIES_ALONE) -> list[Clip]:
    """The clips of a folder's table whose primary label is one of ``labels``, whether they have sound or not.

    With ``nocall`` learned also those without a species.

    Raises:
        InputNotFoundError: there is no table.
        MetadataError, LabelError: it is damaged, or a cell is no use.
    """
    table = find_table(data_dir)
    rows, known = read_rows(table, NEEDED), frozenset(labels)
    if learned.nocall:
        rows, known = silent_rows(rows), known | {NO_CALL}
    else:
        rows, _ = without_silent(table, rows)
    rows = [row for row in (primary_first(table, row, known) for row in rows) if row[1]["primary_label"] in known]
    files = ClipFiles(audio_folder(data_dir) or data_dir)
    return without_repeats(table, rows, clips_of_rows(table, rows, files, labels))[0]


def clips_of_folder(
    folder: Path, table: Path | None, labels: Collection[str], also: Collection[str] = ()
) -> tuple[list[Clip], list[str]]:
    """Read the clips of any folder whose primary label is one of ``labels``, and what was left out, a line each.

    Args:
        folder: holds the sound files, or a folder train_audio with them.
        table: in the form of train.csv; None for the folder's own, or, without one, the name of each clip's folder.
        labels: the columns of the scores.
        also: primary labels besides these (:attr:`Metadata.also`).

    Raises:
        InputNotFoundError: there is no such table, or no clip that can be read.
        MetadataError, LabelError: the table is damaged, or a cell is no use.
    """
    root = audio_folder(folder) or folder
    found = table or next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if found is None:
        found = root
        names = (path.relative_to(root) for path in find_recordings([root]).names)
        rows = [(0, {"primary_label": name.parts[0], "filename": name.as_posix()}) for name in names if name.parts[1:]]
    else:
        rows = read_rows(found, NEEDED)
    if "" in also:
        rows = silent_rows(rows)
    elif found != root:
        rows, _ = without_silent(found, rows)
    known = {*labels, *also, NO_CALL} - {""} if "" in also else {*labels, *also}
    rows = [primary_first(found, row, known) for row in rows]
    outside = Counter(row["primary_label"] for _, row in rows if row["primary_label"] not in known)
    rows = [row for row in rows if row[1]["primary_label"] in known]
    common = ", ".join(f"{label} ({n})" for label, n in outside.most_common(_LISTED))
    more = ", ..." if len(outside) > _LISTED else ""
    line = f"{outside.total()} clips of {len(outside)} labels outside the taxonomy are left out: {common}{more}"
    if not rows:
        why = line if outside else f"holds neither {' nor '.join(TABLES)}, nor clips in folders named as labels"
        raise InputNotFoundError(found, why, "labels are those of taxonomy.csv")
    files = ClipFiles(root)
    listed, repeats = without_repeats(found, rows, clips_of_rows(found, rows, files, labels))
    clips, gone = _with_sound(folder, listed, files)
    clips, unknown = _known_secondary(clips, frozenset(labels))
    return clips, [*([line] if outside else []), *repeats, *gone, *unknown]


def without_rare(metadata: Metadata, min_clips: int) -> Metadata:
    """Leave out the clips of species with too few; every species keeps its column, as a competition asks for it.

    Args:
        metadata: what there is.
        min_clips: a species needs as many clips that carry it as primary label. 1 leaves out none.

    Raises:
        ConfigError: no species has so many.
    """
    counts, labels = Counter(clip.primary_label for clip in metadata.clips), frozenset(metadata.labels)
    kept = tuple(
        clip for clip in metadata.clips if counts[clip.primary_label] >= min_clips or clip.primary_label not in labels
    )
    if not kept:
        most = max(counts.values())
        raise ConfigError(
            "data.min_clips_per_species", f"is {min_clips}, no species has more than {most}", f"lower it to {most}"
        )
    if len(kept) == len(metadata.clips):
        return metadata
    rare = [label for label in metadata.labels if 0 < counts[label] < min_clips]
    lost = f"{len(metadata.clips) - len(kept)} clips are left out"
    note = f"{lost}: of {len(rare)} species with fewer than {min_clips}, which keep their columns: {_some(rare)}"
    return metadata._replace(clips=kept, notes=(*metadata.notes, note))


def _audio_folder(data_dir: Path) -> Path:
    folder = audio_folder(data_dir)
    if folder is None:
        raise InputNotFoundError(data_dir, f"holds no folder {AUDIO_FOLDERS[0]}/", "the clips are expected there")
    return folder


def _unfinished(path: Path) -> list[str]:
    """A line if a table does not end with a line: it may have been cut off."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        end = file.read().rstrip(b"\0")
    return [] if end.endswith((b"\n", b"\r")) else [f"{path.name} has no line end behind its last row: is it whole?"]


def _respelled(rows: Sequence[NumberedRow], clips: Iterable[Clip]) -> list[str]:
    listed = {file_name(row["filename"]) for _, row in rows}
    found = [name for name in (stretch_of(clip.filename).filename for clip in clips) if name not in listed]
    line = f"{len(found)} sound files are spelled otherwise in the table, and found: {_some(found)}"
    return [line] if found else []


def _odd_ratings(rows: Iterable[NumberedRow]) -> list[str]:
    odd = []
    for _, row in rows:
        try:
            parse_rating(row.get("rating", ""))
        except ValueError:
            odd.append(f"{row['rating']} of {row['filename']}")
    return [f"{len(odd)} ratings are no number from 0 to 5 and count as unrated: {_some(odd)}"] if odd else []


def _with_sound(data_dir: Path, listed: Sequence[Clip], files: ClipFiles) -> tuple[list[Clip], list[str]]:
    with ThreadPoolExecutor() as pool:
        durations = list(pool.map(_duration_seconds, listed))
    clips = [
        clip._replace(duration_seconds=seconds)
        for clip, seconds in zip(listed, durations, strict=True)
        if isinstance(seconds, float)
    ]
    gone = [clip for clip, seconds in zip(listed, durations, strict=True) if seconds is None]
    missing = [clip.filename for clip in gone]
    for index, clip in enumerate(gone[:_LISTED]):
        hint = files.hint(stretch_of(clip.filename).filename, clip.primary_label)
        missing[index] += f" ({hint})" if hint else ""
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
        seconds = clip.seconds_of(float(probe(clip.path).duration_seconds))
    except InputNotFoundError:
        return None
    except AudioError as error:
        return f"{clip.filename} ({error.what})"
    return seconds if seconds > 0 else f"{clip.filename} (holds no sound)"


def _known_secondary(clips: Iterable[Clip], labels: frozenset[str]) -> tuple[list[Clip], list[str]]:
    """Secondary labels outside the taxonomy are common in the real tables and have no column: they are dropped."""
    unknown: set[str] = set()
    kept: list[Clip] = []
    for clip in clips:
        unknown.update(set(clip.secondary_labels) - labels)
        kept.append(clip._replace(secondary_labels=tuple(one for one in clip.secondary_labels if one in labels)))
    line = f"{len(unknown)} secondary labels are not in the taxonomy and are left out: {_some(sorted(unknown))}"
    return kept, [line] if unknown else []


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
