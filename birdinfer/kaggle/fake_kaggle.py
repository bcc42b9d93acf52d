"""A tree as a notebook finds it on Kaggle: a packed data set and soundscapes -> ``input/`` and ``working/``.

Two layouts of mounts are known: ``input/<name>`` (2025), and ``input/competitions/<name>`` beside
``input/datasets/<owner>/<name>`` (2026). The public run has an empty test folder and a sample of three rows; the hidden
run has test soundscapes and rows for each of their windows. Sub-folders of the data set are left out, as Kaggle's
client leaves them out when it uploads.

The tree asks for more than Kaggle does, so that luck is no pass: the sample's columns stand in another order than the
bundle's, its files in another order than on the disk, and one soundscape of the hidden run breaks off behind its
headers.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from birdinfer.errors import InputNotFoundError, OutputError
from birdinfer.files import atomic_text, write_atomic
from birdinfer.kaggle.competitions import Competition
from birdinfer.kaggle.flat_bundle import not_uploaded
from birdinfer.kaggle.metadata import DATASET_METADATA
from birdinfer.row_ids import ROW_SECONDS, make_row_id, row_stem
from birdinfer.soundscapes import header_seconds
from birdinfer.submission_shapes import NO_CALL, TRUTHS, value_names
from birdinfer.tables.csv_files import CsvWriter

PUBLIC_ROWS = 3
"""Of the public run's sample."""
TRAIN_FILES = 16
DATASET = "bundle-and-wheels"
OWNER = "somebody"
_CORRUPT_BYTES = 2_000
"""What is left of the corrupt soundscape: headers without sound."""
_README = "Test soundscapes are only there when the notebook is scored.\n"


class Layout(StrEnum):
    """Where Kaggle mounts inputs."""

    mounts_2025 = "2025"
    mounts_2026 = "2026"


class Run(StrEnum):
    """What Kaggle runs a notebook for."""

    public = "public"
    """The author sees its output; there are no test soundscapes."""
    hidden = "hidden"
    """The submission is scored; nobody sees any output."""


class KaggleTree(NamedTuple):
    """A tree that was made."""

    root: Path
    """In place of ``/kaggle``."""
    input: Path
    working: Path
    sample: Path
    n_files: int
    """Test soundscapes."""
    corrupt: Path | None
    """The test soundscape that holds no sound."""


class KagglePlan(NamedTuple):
    """What a tree is made of."""

    competition: Competition
    dataset: Path
    """The packed, flat folder."""
    labels: tuple[str, ...]
    """The bundle's, in its order."""
    soundscapes: tuple[Path, ...]
    """Ogg files; they come round again where more are wanted."""
    n_test_files: int
    """Of the hidden run, the corrupt one not counted."""


def write_tree(root: Path, layout: Layout, run: Run, plan: KagglePlan) -> KaggleTree:
    """Make the tree.

    Args:
        root: a new folder, in place of ``/kaggle``.
        layout: where inputs are mounted.
        run: with or without test soundscapes.
        plan: what it is made of.

    Raises:
        InputNotFoundError: there are no soundscapes.
        OutputError: the folder is there already, or cannot be made.
    """
    if not plan.soundscapes:
        raise InputNotFoundError("soundscapes", "there is none", "name a folder with .ogg files, or let them be made")
    competition, dataset = _mounts(root / "input", layout, plan.competition)
    working = root / "working"
    try:
        for folder in (dataset, working, competition / plan.competition.test_folder):
            folder.mkdir(parents=True)
        _mount_dataset(plan.dataset, dataset)
        tests, corrupt = _write_sound(competition, run, plan)
    except OSError as error:
        raise OutputError(root, f"cannot be written ({error.strerror})", "choose another place for it") from error
    sample = competition / plan.competition.sample_name
    _write_sample(sample, tests, plan)
    return KaggleTree(root, root / "input", working, sample, len(tests), corrupt)


def changes(tree: KaggleTree, before: frozenset[tuple[str, int, int]]) -> list[str]:
    """Names below ``input`` that were made, changed or removed since :func:`state`: on Kaggle it is read-only."""
    return sorted({name for name, _, _ in state(tree) ^ before})


def state(tree: KaggleTree) -> frozenset[tuple[str, int, int]]:
    """Names, sizes in bytes and times in nanoseconds of all files below ``input``; of a link, what it leads to."""
    files = ((path, path.stat()) for path in tree.input.rglob("*") if not path.is_dir())
    return frozenset((str(path.relative_to(tree.input)), stat.st_size, stat.st_mtime_ns) for path, stat in files)


def _mounts(inputs: Path, layout: Layout, competition: Competition) -> tuple[Path, Path]:
    """Where the competition and the data set are mounted."""
    if layout is Layout.mounts_2025:
        return inputs / competition.slug, inputs / DATASET
    return inputs / "competitions" / competition.slug, inputs / "datasets" / OWNER / DATASET


def _mount_dataset(packed: Path, mounted: Path) -> None:
    """The files of the top alone; real ones, for a bundle refuses graphs that are links out of its folder."""
    left_out = {DATASET_METADATA, *(name for name, _ in not_uploaded(packed))}
    for path in sorted(path for path in packed.iterdir() if path.name not in left_out):
        try:
            os.link(path, mounted / path.name)
        except OSError:  # another disk
            shutil.copyfile(path, mounted / path.name)


def _write_sound(competition: Path, run: Run, plan: KagglePlan) -> tuple[list[Path], Path | None]:
    """Training and test soundscapes -> the test soundscapes, and which of them is corrupt."""
    train = competition / plan.competition.train_folder
    _link_sound(plan.soundscapes, train, _names(plan.competition.year, "Train", 0, TRAIN_FILES))
    tests = competition / plan.competition.test_folder
    if run is Run.public:
        write_atomic(tests / "readme.txt", _README)
        return [], None
    found = _link_sound(
        plan.soundscapes, tests, _names(plan.competition.year, "Test", TRAIN_FILES, plan.n_test_files + 1)
    )
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
    """Stems as a year's sound files have them."""
    for index in range(first, first + n):
        if year == 2021:
            yield f"{index + 1}_{('COL', 'COR', 'SNE', 'SSW')[index % 4]}_20170105"
        elif year == 2026:
            yield f"BC2026_{kind}_{index + 1:04d}_S{index % 20 + 1:02d}_20250227_{index % 24:02d}0000"
        else:
            yield f"soundscape_{100_000 + index}"


def _write_sample(path: Path, tests: Sequence[Path], plan: KagglePlan) -> None:
    """The rows wanted, and values that are valid."""
    year, labels = plan.competition.year, tuple(reversed(plan.labels))
    with atomic_text(path) as text:
        table = CsvWriter(text)
        table.row("row_id", value_names(year, labels))
        for row_id in _row_ids(tests, plan):
            table.row(row_id, _sample_cells(year, labels))


def _row_ids(tests: Sequence[Path], plan: KagglePlan) -> Iterator[str]:
    """Every window of every file, in another order than the files'; three rows of a file that is not there without."""
    year = plan.competition.year
    labels = plan.labels if year == 2022 else ("",)
    absent = next(_names(year, "Test", 0, 1))
    stems = [(path.stem, _n_rows(path, plan)) for path in reversed(tests)] or [(absent, PUBLIC_ROWS)]
    rows = (
        make_row_id(row_stem(stem, year), ROW_SECONDS * (row + 1), label).text
        for stem, n_rows in stems
        for row in range(n_rows)
        for label in labels
    )
    return rows if tests else islice(rows, PUBLIC_ROWS)


def _n_rows(path: Path, plan: KagglePlan) -> int:
    seconds = header_seconds(path) or plan.competition.hidden_file_seconds
    return max(1, round(seconds / ROW_SECONDS))


def _sample_cells(year: int, labels: Sequence[str]) -> list[str]:
    """What a sample submission of the year holds: as if nothing were known."""
    narrow = {2021: [NO_CALL], 2022: [TRUTHS[0]]}
    return narrow.get(year) or [f"{1 / len(labels):.6f}"] * len(labels)
