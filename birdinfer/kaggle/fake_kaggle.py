"""Folders as a notebook finds them on Kaggle: a packed data set and soundscapes -> ``input/`` and ``working/``.

The public run has an empty test folder and a sample of three rows; the hidden run has test soundscapes and rows for
each of their windows. Sub-folders of the data set are left out, as Kaggle's client does. The folders are stricter than
Kaggle's, so that no submission passes by luck: the sample's files have another order than on the disk, and one
soundscape of the hidden run breaks off after its headers.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from pathlib import Path

from birdinfer.errors import InputNotFoundError, OutputError
from birdinfer.inference.soundscapes import header_seconds
from birdinfer.kaggle.competitions import Competition
from birdinfer.kaggle.pack import DATASET_METADATA, not_uploaded
from birdinfer.species import NO_CALL
from birdinfer.submission.formats import TRUTHS, value_names
from birdinfer.system.files import atomic_text, write_atomic
from birdinfer.tables.csv import CsvWriter
from birdinfer.tables.row_ids import ROW_SECONDS, make_row_id, row_stem

PUBLIC_ROWS = 3  # of the public run's sample
TRAIN_FILES = 16
DATASET = "bundle-and-wheels"
OWNER = "owner"
_CORRUPT_BYTES = 2_000  # what is left of the corrupt soundscape: headers without sound
_README = "Test soundscapes are only there when the notebook is scored.\n"


class Layout(StrEnum):
    """Where Kaggle mounts inputs."""

    mounts_2025 = "2025"  # ``input/<name>``
    mounts_2026 = "2026"  # ``input/competitions/<name>``, ``input/datasets/<owner>/<name>``


class Run(StrEnum):
    """Why Kaggle runs a notebook."""

    public = "public"  # the author sees its output; there are no test soundscapes
    hidden = "hidden"  # the submission is scored; its output is not shown


@dataclass(frozen=True, kw_only=True, slots=True)
class KaggleTree:
    """The folders of one run."""

    root: Path  # in place of ``/kaggle``
    input: Path
    working: Path
    sample: Path
    n_files: int  # test soundscapes
    corrupt: Path | None  # the test soundscape without sound


@dataclass(frozen=True, kw_only=True, slots=True)
class KagglePlan:
    """What the folders are made of."""

    competition: Competition
    dataset: Path  # the packed, flat folder
    labels: tuple[str, ...]  # species that the competition asks for, in the order of the sample's columns
    soundscapes: tuple[Path, ...]  # Ogg files; they are repeated if more are needed
    n_test_files: int  # of the hidden run, without the corrupt one


def write_tree(root: Path, layout: Layout, run: Run, plan: KagglePlan) -> KaggleTree:
    """Write the folders of one run below ``root``, a new folder in place of ``/kaggle``."""
    if not plan.soundscapes:
        raise InputNotFoundError("soundscapes", "there is none", "name a folder with .ogg files, or leave it out")
    inputs, working, slug = root / "input", root / "working", plan.competition.slug
    competition, dataset = inputs / "competitions" / slug, inputs / "datasets" / OWNER / DATASET
    if layout is Layout.mounts_2025:
        competition, dataset = inputs / slug, inputs / DATASET
    try:
        for folder in (dataset, working, competition / plan.competition.test_folder):
            folder.mkdir(parents=True)
        _mount_dataset(plan.dataset, dataset)
        tests, corrupt = _write_sound(competition, run, plan)
    except OSError as error:
        raise OutputError(root, f"cannot be written ({error.strerror})", "choose another place for it") from error
    sample = competition / plan.competition.sample_name
    _write_sample(sample, tests, plan)
    return KaggleTree(root=root, input=inputs, working=working, sample=sample, n_files=len(tests), corrupt=corrupt)


def changes(tree: KaggleTree, before: frozenset[tuple[str, int, int]]) -> list[str]:
    """List what was written or removed below ``input`` since :func:`state`: on Kaggle it is read-only."""
    return sorted({name for name, _, _ in state(tree) ^ before})


def state(tree: KaggleTree) -> frozenset[tuple[str, int, int]]:
    """Return names, sizes (bytes) and times (ns) of all files below ``input``; links are followed."""
    files = ((path, path.stat()) for path in tree.input.rglob("*") if not path.is_dir())
    return frozenset((str(path.relative_to(tree.input)), stat.st_size, stat.st_mtime_ns) for path, stat in files)


def _mount_dataset(packed: Path, mounted: Path) -> None:
    """Link the files at the top; hard links, because a bundle refuses graphs that are links out of its folder."""
    left_out = {DATASET_METADATA, *(name for name, _ in not_uploaded(packed))}
    for path in sorted(path for path in packed.iterdir() if path.name not in left_out):
        try:
            os.link(path, mounted / path.name)
        except OSError:  # another disk
            shutil.copyfile(path, mounted / path.name)


def _write_sound(competition: Path, run: Run, plan: KagglePlan) -> tuple[list[Path], Path | None]:
    """Write training and test soundscapes; return the test ones, and which of them is corrupt."""
    train = competition / plan.competition.train_folder
    _link_sound(plan.soundscapes, train, _names(plan.competition.year, "Train", 0, TRAIN_FILES))
    tests = competition / plan.competition.test_folder
    if run is Run.public:
        write_atomic(tests / "readme.txt", _README)
        return [], None
    names = _names(plan.competition.year, "Test", TRAIN_FILES, plan.n_test_files + 1)
    found = _link_sound(plan.soundscapes, tests, names)
    corrupt = found[len(found) // 2]
    whole = corrupt.read_bytes()
    corrupt.unlink()
    write_atomic(corrupt, whole[:_CORRUPT_BYTES])
    return found, corrupt


def _link_sound(soundscapes: Sequence[Path], folder: Path, names: Iterator[str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for name, soundscape in zip(names, cycle(soundscapes), strict=False):
        links.append(folder / f"{name}.ogg")
        links[-1].symlink_to(soundscape.resolve())
    return links


def _names(year: int, kind: str, first: int, n: int) -> Iterator[str]:
    for index in range(first, first + n):
        if year == 2021:
            yield f"{index + 1}_{('COL', 'COR', 'SNE', 'SSW')[index % 4]}_20170105"
        elif year == 2026:
            yield f"BC2026_{kind}_{index + 1:04d}_S{index % 20 + 1:02d}_20250227_{index % 24:02d}0000"
        else:
            yield f"soundscape_{100_000 + index}"


def _write_sample(path: Path, tests: Sequence[Path], plan: KagglePlan) -> None:
    year, labels = plan.competition.year, plan.labels
    cells = {2021: [NO_CALL], 2022: [TRUTHS[0]]}.get(year, [f"{1 / len(labels):.6f}"] * len(labels))
    with atomic_text(path) as text:
        table = CsvWriter(text)
        table.row("row_id", value_names(year, labels))
        for row_id in _row_ids(tests, plan):
            table.row(row_id, cells)


def _row_ids(tests: Sequence[Path], plan: KagglePlan) -> Iterator[str]:
    """A row per window of every file, in reverse order of files; without files, three rows of one that is absent."""
    year = plan.competition.year
    labels = plan.labels if year == 2022 else ("",)
    absent = next(_names(year, "Test", 0, 1))
    seconds = {path: header_seconds(path) or plan.competition.hidden_file_seconds for path in tests}
    n_rows_of = {path: max(1, round(seconds[path] / ROW_SECONDS)) for path in tests}
    stems = [(path.stem, n_rows_of[path]) for path in reversed(tests)] or [(absent, PUBLIC_ROWS)]
    rows = (
        make_row_id(row_stem(stem, year), ROW_SECONDS * (row + 1), label).text
        for stem, n_rows in stems
        for row in range(n_rows)
        for label in labels
    )
    return rows if tests else islice(rows, PUBLIC_ROWS)
