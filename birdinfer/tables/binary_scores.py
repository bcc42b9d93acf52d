"""Wide tables of scores as a file: CSV, Parquet or ``.npz``, by the file's ending, written row by row.

CSV holds seven digits of a score, as Kaggle takes it; the others hold it as it was computed. Parquet has a column
``row_id`` and one for each label. An ``.npz`` has ``row_ids`` [rows], ``labels`` [labels] and ``scores``
[rows, labels]; nothing in it is pickled.
"""

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.system.files import atomic_file, utf8_text
from birdinfer.tables.pyarrow_import import load_pyarrow
from birdinfer.typing import Float64

PARQUET, NPZ = ".parquet", ".npz"
ROW_ID = "row_id"
MARK = "birdinfer.scores"
"""Stands in each Parquet that birdinfer has written, so that it may replace it."""
_GROUP_VALUES = 1 << 22
"""Scores of a row group of Parquet, which are in memory at a time."""
_ARRAYS = ("row_ids", "labels", "scores")

AddRow = Callable[[npt.NDArray[Any]], object]
"""Takes the scores of the next row [labels]."""


def is_binary(path: Path) -> bool:
    """Whether a file of scores is no CSV, by its ending."""
    return path.suffix.lower() in (PARQUET, NPZ)


def check_can_write(path: Path) -> None:
    """Raise MissingExtraError, before any work, if what writes a file of this ending is not installed."""
    if path.suffix.lower() == PARQUET:
        load_pyarrow()


@contextlib.contextmanager
def binary_rows(
    path: Path, row_ids: Sequence[str], labels: Sequence[str], dtype: npt.DTypeLike = np.float32
) -> Iterator[AddRow]:
    """Write a Parquet or ``.npz``, whole or not at all; yields what takes each row's scores, in the order of the ids.

    Raises OutputError as :func:`birdinfer.system.files.atomic_file` does.
    """
    names = [utf8_text(row_id) for row_id in row_ids]
    columns = [utf8_text(label) for label in labels]
    write = _parquet_rows if path.suffix.lower() == PARQUET else _npz_rows
    with atomic_file(path) as file, write(file, names, columns, np.dtype(dtype)) as add:
        yield add


@contextlib.contextmanager
def _npz_rows(file: BinaryIO, row_ids: list[str], labels: list[str], dtype: np.dtype[Any]) -> Iterator[AddRow]:
    with zipfile.ZipFile(file, "w") as archive:
        for name, texts in zip(_ARRAYS, (row_ids, labels), strict=False):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.array(texts, np.str_), allow_pickle=False)
        with archive.open("scores.npy", "w", force_zip64=True) as entry:
            head = {"descr": dtype.str, "fortran_order": False, "shape": (len(row_ids), len(labels))}
            np.lib.format.write_array_header_2_0(entry, head)
            yield lambda scores: entry.write(scores.astype(dtype, copy=False).tobytes())


@contextlib.contextmanager
def _parquet_rows(file: BinaryIO, row_ids: list[str], labels: list[str], dtype: np.dtype[Any]) -> Iterator[AddRow]:
    pyarrow, parquet = load_pyarrow()
    kind = pyarrow.from_numpy_dtype(dtype)
    fields = [(ROW_ID, pyarrow.string()), *((label, kind) for label in labels)]
    schema = pyarrow.schema(fields)
    most = max(1, _GROUP_VALUES // max(1, len(labels)))
    held: list[npt.NDArray[Any]] = []
    # Scores hardly repeat: a dictionary would only cost time. Without Arrow's own schema the mark is near the end.
    settings = {"compression": "zstd", "use_dictionary": False, "write_statistics": False, "store_schema": False}
    with parquet.ParquetWriter(file, schema, **settings) as writer:
        n_written = 0

        def flush() -> None:
            nonlocal n_written
            columns = np.ascontiguousarray(np.stack(held).T)
            names = pyarrow.array(row_ids[n_written : n_written + len(held)], pyarrow.string())
            arrays = [names, *(pyarrow.array(column) for column in columns)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            n_written += len(held)
            held.clear()

        def add(scores: npt.NDArray[Any]) -> None:
            held.append(scores.astype(dtype))
            if len(held) == most:
                flush()

        yield add
        if held:
            flush()
        writer.add_key_value_metadata({MARK: "1"})


def read_binary(path: Path) -> tuple[list[str], list[str], Float64]:
    """Read row ids, labels and scores [rows, labels] of a Parquet or ``.npz``.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: it is no such table.
    """
    if not path.is_file():
        raise InputNotFoundError(path, "no such file")
    return _read_parquet(path) if path.suffix.lower() == PARQUET else _read_npz(path)


def _read_npz(path: Path) -> tuple[list[str], list[str], Float64]:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            row_ids, labels, scores = (arrays[name] for name in _ARRAYS)
    except KeyError as error:
        raise MetadataError(path, f"lacks {error.args[0]}", f"needed are {', '.join(_ARRAYS)}") from error
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise MetadataError(path, "is no .npz of scores", "birdinfer predict -o NAME.npz writes one") from error
    if (
        row_ids.dtype.kind != "U" or labels.dtype.kind != "U" or scores.dtype.kind not in "fiu"
        or scores.shape != (row_ids.size, labels.size)
    ):  # fmt: skip
        what = f"holds row_ids {row_ids.shape}, labels {labels.shape} and scores {scores.shape} {scores.dtype}"
        raise MetadataError(path, what, "needed are two of text, and numbers [rows, labels]")
    return row_ids.tolist(), labels.tolist(), scores.astype(np.float64)


def _read_parquet(path: Path) -> tuple[list[str], list[str], Float64]:
    pyarrow, parquet = load_pyarrow()
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise MetadataError(path, "is no Parquet table", "birdinfer predict -o NAME.parquet writes one") from error
    names = list(table.column_names)
    if ROW_ID not in names:
        raise MetadataError(path, f"has no column {ROW_ID}", "birdinfer predict -o NAME.parquet writes one")
    if not pyarrow.types.is_string(table.schema.field(ROW_ID).type):
        raise MetadataError(path, f"column {ROW_ID} holds no text")
    labels = [name for name in names if name != ROW_ID]
    scores = np.empty((table.num_rows, len(labels)))
    for index, label in enumerate(labels):
        column = table.column(label)
        if not (pyarrow.types.is_floating(column.type) or pyarrow.types.is_integer(column.type)):
            raise MetadataError(path, f"column {label!r} holds {column.type}", "numbers are needed")
        scores[:, index] = column.to_numpy()
    return table.column(ROW_ID).to_pylist(), labels, scores
