"""Labelled soundscapes: who is present when in a recording -> truth of its embedded windows.

In: a truth of any kind (:mod:`birdinfer.tables.truth`): annotations with begin and end (BirdCLEF's
``filename,start,end,primary_label``, Raven, Audacity and others), or ``row_id`` and a column of 0 and 1 for each label.
Out: :class:`~birdinfer.heads.labels.LabelledWindows`, each window a clip of its own, in groups by recording.

A species is present in a window that shares at least half of the window, or of the annotation, with it; it is unknown
in one that shares less, and absent from all others of the recording.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import LabelError, MetadataError
from birdinfer.heads.labels import NAMED, LabelledWindows, known_species, numbered
from birdinfer.inference.embeddings import Embeddings
from birdinfer.species import Species, SpeciesNames, check_labels
from birdinfer.tables.annotations import Annotations, annotation_files, is_annotated, is_label_track, read_annotations
from birdinfer.tables.csv import csv_rows
from birdinfer.tables.recordings import Recordings, match_recordings, recording_of_table
from birdinfer.tables.row_ids import split_row_id
from birdinfer.tables.scores import read_zeros_and_ones
from birdinfer.tables.truth import labels_of_annotations, left_out, rows_of

_TIMES = ("start", "begin", "onset", "offset")


def is_of_soundscapes(path: Path) -> bool:
    """Whether a table says who is present when, not what a recording is of, or which detections are right."""
    if path.is_dir() or is_label_track(path):
        return True
    with csv_rows(path) as rows:
        header = {name.strip().casefold() for name in next(rows, [])}
    if "verdict" in header:
        return False
    return not header & {"filename", "primary_label"} or any(name.startswith(_TIMES) for name in header)


class _Stretch(NamedTuple):
    recording: str
    start_seconds: float
    end_seconds: float
    labels: frozenset[str]


def read_annotated(path: Path, embeddings: Embeddings) -> LabelledWindows:
    """Read the truth of soundscapes for their embedded windows.

    Args:
        path: a table, or a folder with a table for each recording. Names of species are those of taxonomy.csv beside
            it, or in it; without, the texts of the table are the labels.
        embeddings: recordings that the tables do not name are left out.

    Raises:
        InputNotFoundError: there is no such file, or the folder holds no table.
        MetadataError, LabelError: a table is not as needed, or names none of the recordings, or no species.
    """
    recordings = Recordings(embeddings.recordings)
    taxonomy = known_species(path / "taxonomy.csv" if path.is_dir() else path.with_name("taxonomy.csv"))
    read = _annotations if path.is_dir() or is_annotated(path) else _zeros_and_ones
    stretches, notes = read(path, recordings, taxonomy)
    if not stretches:
        raise MetadataError(path, "names none of the recordings that were embedded", "embed those that it names")
    labels = check_labels(sorted({label for each in stretches for label in each.labels}) or (), str(path))
    names = {each.label: each for each in taxonomy}
    species = tuple(names.get(label, Species(label)) for label in labels)
    return _labelled(path, species, stretches, embeddings, notes)


def _annotations(path: Path, recordings: Recordings, taxonomy: Sequence[Species]) -> tuple[list[_Stretch], list[str]]:
    known = SpeciesNames(taxonomy)
    tables = [read_annotations(each, known.texts) for each in annotation_files(path) if each.name != "taxonomy.csv"]
    if not taxonomy:
        texts = sorted({texts[0] for table in tables for each in table.annotations for texts in each.species})
        known = SpeciesNames([Species(text) for text in texts])
    found, missing, notes = [], set[str](), list[str]()
    for table in tables:
        labels, unknown = labels_of_annotations(table, known, "taxonomy.csv")
        notes += left_out(table, unknown)
        meant = _recordings(table, recordings)
        for annotation, present in zip(table.annotations, labels, strict=True):
            name = meant[annotation.recording]
            if name:
                found.append(_Stretch(name, annotation.start_seconds, annotation.end_seconds, present))
            else:
                missing.add(annotation.recording or table.path.name)
    return found, [*notes, *_not_embedded(path, missing)]


def _recordings(table: Annotations, recordings: Recordings) -> Mapping[str, str]:
    """The embedded recording of each name; "" if there is none."""
    names = dict.fromkeys(each.recording for each in table.annotations)
    if names.keys() == {""}:
        return {"": recording_of_table(table.path, recordings, "the embeddings")}
    rows = ((each.row, each.recording) for each in table.annotations if recordings.find(each.recording))
    return dict.fromkeys(names, "") | match_recordings(rows, recordings, table.path, "the embeddings")


def _zeros_and_ones(
    path: Path, recordings: Recordings, taxonomy: Sequence[Species]
) -> tuple[list[_Stretch], list[str]]:
    table, notes = read_zeros_and_ones(path)
    found, missing = [], set[str]()
    labels = np.array(table.labels)
    for row, values in zip(rows_of(table), table.values, strict=True):
        meant = recordings.find(row.recording)
        if len(meant) != 1:
            missing.add(split_row_id(row.row_id, path)[0])
            continue
        found.append(_Stretch(meant[0], row.start_seconds, row.end_seconds, frozenset(labels[values > 0].tolist())))
    return found, [*notes, *_not_embedded(path, missing)]


def _not_embedded(path: Path, missing: Iterable[str]) -> Iterator[str]:
    names = sorted(missing)
    if names:
        shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        yield f"{len(names)} recordings of {path.name} are not embedded: {shown}"


def _labelled(
    path: Path, species: tuple[Species, ...], stretches: Sequence[_Stretch], embeddings: Embeddings, notes: list[str]
) -> LabelledWindows:
    column = {each.label: index for index, each in enumerate(species)}
    place = {name: index for index, name in enumerate(dict.fromkeys(each.recording for each in stretches))}
    windows = np.array([at for at, name in enumerate(embeddings.recordings) if name in place], np.intp)
    of = np.array([place[embeddings.recordings[at]] for at in windows], np.intp)
    starts, ends = embeddings.start_seconds[windows], embeddings.end_seconds[windows]
    truth = np.zeros((len(windows), len(species)), np.float32)
    for stretch in stretches:
        columns = np.array([column[label] for label in stretch.labels], np.intp)
        own = np.flatnonzero(of == place[stretch.recording])
        begin, end = stretch.start_seconds, stretch.end_seconds
        shared = np.minimum(ends[own], end) - np.maximum(starts[own], begin)
        is_present = shared >= np.minimum(ends[own] - starts[own], end - begin) / 2
        truth[np.ix_(own[is_present], columns)] = 1
        some = own[(shared > 0) & ~is_present]
        cells = truth[np.ix_(some, columns)]
        truth[np.ix_(some, columns)] = np.where(cells == 1, cells, np.nan)
    has_window = (truth == 1).any(axis=0)
    if not has_window.any():
        raise LabelError(path, "has no species in any embedded window", "embed the recordings that it is about")
    if not has_window.all():
        names = [each.label for each, has in zip(species, has_window, strict=True) if not has]
        shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        notes.append(f"{len(names)} species are left out, no window holds half of one of their calls: {shown}")
    return LabelledWindows(
        species=tuple(each for each, has in zip(species, has_window, strict=True) if has),
        windows=windows, truth=truth[:, has_window], clips=np.arange(len(windows)), unit="window",
        groups=numbered(embeddings.recordings[at] for at in windows), notes=tuple(notes),
    )  # fmt: skip
