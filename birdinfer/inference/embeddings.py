"""Embeddings of windows on disk: what a member's network sees in a window, for heads and searches.

In: a member's embeddings [windows, numbers], batch by batch and in any order, while a run predicts. Out: a folder for
each member that has some, ``DIR/MEMBER/``: ``embeddings.json`` (what made them), a ``.npy`` [windows, numbers] in
float16 for each recording, ``recordings.csv``, where each recording lies, and ``index.csv``, a line for each window. A
recording's file appears when all of it is there; the index, which makes the folder readable, at the run's end. Memory
grows neither with the number of recordings nor with their length.
"""

import contextlib
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.audio.channels import split_channel
from birdinfer.audio.windows import WindowGrid, make_grid
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError, MetadataError, OutputError
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle
from birdinfer.inference.manifest import Member
from birdinfer.inference.member_group import MemberScores
from birdinfer.inference.results import SoundscapeResult
from birdinfer.system.files import atomic_text, check_replaceable, write_atomic
from birdinfer.system.outputs import check_folder
from birdinfer.tables.csv import CsvWriter, rows
from birdinfer.tables.row_ids import make_row_id
from birdinfer.typing import Float32, Float64

INFO_NAME, INDEX_NAME = "embeddings.json", "index.csv"
INDEX_COLUMNS = ("row_id", "recording", "start_seconds", "end_seconds", "file", "index")
RECORDINGS_NAME = "recordings.csv"
RECORDINGS_COLUMNS = ("recording", "path", "seconds", "sample_rate", "channel")
SEARCH_NAME = ".search"
"""What :mod:`birdinfer.inference.embedding_index` keeps beside the embeddings; no recording's file has such a name."""
_PLAIN_NAME = re.compile(r"(?:[\w+-][\w .+-]{0,99}/){0,8}[\w+-][\w .+-]{0,149}", re.ASCII)
"""Names that any disk takes as they are."""
HEADER_BYTES = 128
"""Of a ``.npy``: fixed, so that the number of windows can be filled in at the end."""
_AGAIN = "predict them again, with --embeddings"


class EmbeddingInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``embeddings.json``: where a folder's embeddings are from."""

    bundle: str
    """Its folder."""
    bundle_sha256: str
    """:meth:`birdinfer.inference.bundle.Bundle.sha256` with the overlap that was asked for."""
    member: str
    graph_sha256: str
    output: str
    """Of the graph."""
    window_seconds: float
    stride_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Embeddings:
    """A folder of embeddings in memory; everything has an element for each window."""

    info: EmbeddingInfo
    values: npt.NDArray[np.float16] | Float32
    """[windows, numbers]; float16 from a disk."""
    row_ids: tuple[str, ...]
    """Of the row that the window's middle lies in."""
    recordings: tuple[str, ...]
    start_seconds: Float64
    """In the recording; negative where a window begins before it."""
    end_seconds: Float64


class EmbeddingWriter:
    """Writes the embeddings of a run's recordings; calls come one at a time.

    Raises:
        ConfigError: no member of the bundle has embeddings.
        OutputError: the folder holds other things, or cannot be written.
    """

    def __init__(self, folder: Path, bundle: Bundle, names: Mapping[Path, str], inputs: Sequence[Path] = ()) -> None:
        """Check that a run of ``names`` (recordings) can write a bundle's embeddings into a folder."""
        check_folder(folder, inputs)
        self.folder, self._bundle, self._names = folder, bundle, names
        self._members = {
            index: member for index, member in enumerate(bundle.manifest.members) if member.outputs.embedding
        }
        if not self._members:
            what = f"no member of {bundle.manifest.name} gives embeddings"
            raise ConfigError("--embeddings", what, "birdinfer bundle embed BUNDLE lets them, where they can")
        for member in self._members.values():
            check_replaceable(folder / member.name, "embeddings", "name another folder", INFO_NAME)
        rows_config = bundle.manifest.rows
        self._grids = {
            index: make_grid(member.input_config, member.aggregation, rows_config)
            for index, member in self._members.items()
        }
        self._files = _file_names(names)
        self._open: dict[Path, dict[int, _GrowingArray]] = {}

    @property
    def identity(self) -> str:
        """Where which embeddings go: of a run that is resumed the same."""
        outputs = ", ".join(f"{member.name} {member.outputs.embedding}" for member in self._members.values())
        return f"{self.folder.resolve()} ({outputs})"

    def begin(self) -> None:
        """State what makes the embeddings, and remove the index of an earlier run and what a killed one has begun."""
        for member in self._members.values():
            info = info_of(self._bundle, member)
            content = msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n"
            write_atomic(self.folder / member.name / INFO_NAME, content)
            with _disk_errors(self.folder):
                (self.folder / member.name / INDEX_NAME).unlink(missing_ok=True)
                shutil.rmtree(self.folder / member.name / SEARCH_NAME, ignore_errors=True)
                for part in (self.folder / member.name).rglob(".*.npy.part"):
                    part.unlink(missing_ok=True)

    def add(self, path: Path, member_scores: Sequence[MemberScores]) -> None:
        """Add the embeddings of a batch of a recording's windows."""
        for scores in member_scores:
            if scores.embeddings is not None:
                arrays = self._open.setdefault(path, {})
                if scores.member not in arrays:
                    arrays[scores.member] = _GrowingArray(self._path(scores.member, path))
                arrays[scores.member].add(scores.first, scores.embeddings)

    def finish(self, result: SoundscapeResult) -> None:
        """End a recording: the windows of its rows appear in its file, or nothing if it has no rows."""
        for index, array in self._open.pop(result.path, {}).items():
            array.finish(self._grids[index].n_windows(result.n_rows) if result.n_rows else 0)

    def close(self) -> None:
        """Remove what is begun and not finished."""
        for arrays in self._open.values():
            for array in arrays.values():
                array.finish(0)
        self._open.clear()

    def write_index(self, results: Sequence[SoundscapeResult]) -> None:
        """Write the index of each member: all recordings with rows, and their windows, in order."""
        for index, member in self._members.items():
            with atomic_text(self.folder / member.name / RECORDINGS_NAME) as text:
                table = CsvWriter(text)
                table.row(RECORDINGS_COLUMNS[0], RECORDINGS_COLUMNS[1:])
                for result in results:
                    if result.n_rows:
                        path = split_channel(result.path)[0].absolute()
                        cells = [path, f"{result.seconds:.3f}", result.sample_rate, result.channel]
                        table.row(self._names[result.path], cells)
            with atomic_text(self.folder / member.name / INDEX_NAME) as text:
                table = CsvWriter(text)
                table.row(INDEX_COLUMNS[0], INDEX_COLUMNS[1:])
                for result in results:
                    if result.n_rows:
                        self._write_recording(table, index, result)

    def _write_recording(self, table: CsvWriter, member: int, result: SoundscapeResult) -> None:
        grid, name, path = self._grids[member], self._names[result.path], self._path(member, result.path)
        file = path.relative_to(self.folder / self._members[member].name).as_posix()
        for window in range(len(load_values(path))):
            row_id, *times = _place(grid, name, window, result.n_rows)
            table.row(row_id, [name, *(f"{seconds:.3f}" for seconds in times), file, window])

    def _path(self, member: int, path: Path) -> Path:
        return self.folder / self._members[member].name / self._files[path]


class _GrowingArray:
    """A ``.npy`` in float16 that rows are appended to, under a temporary name until it is finished."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._early: dict[int, Float32] = {}
        """Batches that came before one that precedes them."""
        self._n = self._width = 0
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self._part.open("wb")
            self._file.seek(HEADER_BYTES)

    def add(self, first: int, rows_: Float32) -> None:
        """Add neighbouring rows [n, numbers]; BundleError for numbers that float16 does not hold."""
        with np.errstate(over="ignore"):
            short = rows_.astype("<f2")
        if not np.isfinite(short).all():
            raise BundleError(self._path, f"embeddings reach {np.abs(rows_).max():.3g}, float16 holds 65504")
        self._early[first] = short
        while (following := self._early.pop(self._n, None)) is not None:
            with _disk_errors(self._path):
                self._file.write(following.data)
            self._n, self._width = self._n + len(following), following.shape[1]

    def finish(self, n_rows: int) -> None:
        """Let the first ``n_rows``, or all if there are fewer, appear under the name; 0: nothing appears."""
        n_rows = min(n_rows, self._n)
        with _disk_errors(self._path):
            if n_rows:
                self._file.truncate(HEADER_BYTES + 2 * n_rows * self._width)
                self._file.seek(0)
                self._file.write(npy_header(n_rows, self._width))
            self._file.close()
            if n_rows:
                self._part.replace(self._path)
            else:
                self._part.unlink(missing_ok=True)


def read_embeddings(folder: str | Path) -> Embeddings:
    """Read the embeddings of ``predict --embeddings``: the folder of a member, or of one member alone.

    Raises:
        InputNotFoundError: there are none, or the run that writes them has not ended.
        MetadataError: the index or a file is damaged, or there are several members.
    """
    folder = member_folder(Path(folder))
    info = read_info(folder)
    index = index_of(folder)
    files: dict[str, int] = {}
    lines = [cells for _, cells in rows(index, INDEX_COLUMNS)]
    for cells in lines:
        files[cells["file"]] = files.get(cells["file"], 0) + 1
    parts = [load_values(folder / file) for file in files]
    in_order = [file for file, count in files.items() for _ in range(count)]
    wrong = next((file for (file, n), part in zip(files.items(), parts, strict=True) if n != len(part)), None)
    if wrong is not None or in_order != [cells["file"] for cells in lines] or not parts:
        raise MetadataError(index, f"does not fit {wrong or 'the files in its folder'}", _AGAIN)
    return Embeddings(
        info=info, values=np.concatenate(parts), row_ids=tuple(cells["row_id"] for cells in lines),
        recordings=tuple(cells["recording"] for cells in lines),
        start_seconds=np.array([float(cells["start_seconds"]) for cells in lines]),
        end_seconds=np.array([float(cells["end_seconds"]) for cells in lines]),
    )  # fmt: skip


def read_info(folder: Path) -> EmbeddingInfo:
    """Read what made the embeddings of a member's folder; MetadataError if that is damaged."""
    try:
        return msgspec.json.decode((folder / INFO_NAME).read_bytes(), type=EmbeddingInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MetadataError(folder / INFO_NAME, str(error), _AGAIN) from error


def index_of(folder: Path) -> Path:
    """Return the index in a member's folder; InputNotFoundError if the run that writes it has not ended."""
    index = folder / INDEX_NAME
    if not index.is_file():
        raise InputNotFoundError(index, "is not there: the run has not ended", "birdinfer predict --resume")
    return index


def info_of(bundle: Bundle, member: Member) -> EmbeddingInfo:
    """State what makes a member's embeddings; ConfigError if it has none."""
    if member.outputs.embedding is None:
        what = f"member {member.name} gives no embeddings"
        raise ConfigError(bundle.manifest.name, what, "birdinfer bundle embed BUNDLE lets them, where they can")
    grid = make_grid(member.input_config, member.aggregation, bundle.manifest.rows)
    return EmbeddingInfo(
        bundle=str(bundle.folder.absolute()), bundle_sha256=bundle.sha256(), member=member.name,
        graph_sha256=member.graphs["fp32"].sha256, output=member.outputs.embedding,
        window_seconds=grid.window_samples / grid.sample_rate, stride_seconds=grid.stride_samples / grid.sample_rate,
    )  # fmt: skip


def embeddings_of(bundle: Bundle, member: Member, name: str, values: Float32, n_rows: int) -> Embeddings:
    """Describe the embeddings [windows, numbers] of a recording with so many rows, as :func:`read_embeddings` does."""
    grid = make_grid(member.input_config, member.aggregation, bundle.manifest.rows)
    values = values[: grid.n_windows(n_rows)]
    places = [_place(grid, name, window, n_rows) for window in range(len(values))]
    row_ids, starts, ends = zip(*places, strict=True)
    return Embeddings(
        info=info_of(bundle, member), values=values, row_ids=row_ids, recordings=(name,) * len(values),
        start_seconds=np.array(starts), end_seconds=np.array(ends),
    )  # fmt: skip


def encoder_of(info: EmbeddingInfo, folder: Path | None = None) -> tuple[Bundle, Member]:
    """Load the bundle, and find the member, that embeddings are from: where it was then, or in a folder.

    Raises:
        InputNotFoundError: there is no bundle.
        ConfigError: it has no member with the graph that made the embeddings.
    """
    if folder is None and not (Path(info.bundle) / MANIFEST_NAME).is_file():
        what = "the bundle that made the embeddings is not there any more"
        raise InputNotFoundError(info.bundle, what, "name it with --bundle")
    bundle = Bundle.load(folder or Path(info.bundle))
    for member in bundle.manifest.members:
        if member.name == info.member and member.graphs["fp32"].sha256 == info.graph_sha256:
            return bundle, member
    what = f"has no member {info.member} with the graph that made the embeddings"
    raise ConfigError(bundle.folder, what, "name the bundle that made them, or predict them again")


def member_folder(folder: Path) -> Path:
    """Find the folder of the one member whose embeddings a folder holds; errors as of :func:`read_embeddings`."""
    if (folder / INFO_NAME).is_file():
        return folder
    found = sorted(path.parent for path in folder.glob(f"*/{INFO_NAME}"))
    if not found:
        raise InputNotFoundError(folder, f"holds no embeddings (no {INFO_NAME})", "birdinfer predict --embeddings")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise MetadataError(folder, f"holds the embeddings of {len(found)} members ({names})", "name the folder of one")
    return found[0]


def load_values(path: Path) -> npt.NDArray[np.float16]:
    """Open a file [windows, numbers]; nothing of it is in memory until it is used."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputNotFoundError(path, "no such file", _AGAIN) from error
    except (OSError, ValueError) as error:
        raise MetadataError(path, f"cannot be read ({error})", _AGAIN) from error
    if values.ndim != 2 or values.dtype != np.float16:
        raise MetadataError(path, f"holds {values.dtype} of shape {values.shape}", _AGAIN)
    return values  # type: ignore[no-any-return]


def npy_header(n_rows: int, width: int) -> bytes:
    """Make the header of a ``.npy`` [n_rows, width] in float16, :data:`HEADER_BYTES` long."""
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({n_rows}, {width}), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + f"{text:<{HEADER_BYTES - 11}}\n".encode()


def _file_names(names: Mapping[Path, str]) -> dict[Path, str]:
    """Name each recording's file by the recording, or by a digest where a disk might not take or distinguish names."""
    times = Counter(name.casefold() for name in names.values())
    return {
        path: f"{name}.npy"
        if times[name.casefold()] == 1 and _PLAIN_NAME.fullmatch(name)
        else f"{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:24]}.npy"
        for path, name in names.items()
    }


def _place(grid: WindowGrid, name: str, window: int, n_rows: int) -> tuple[str, float, float]:
    """The id of the row that a window's middle lies in, and the window's start and end in seconds."""
    start = grid.begin(window)
    row = (start + grid.window_samples // 2) // grid.row_samples
    row_end = round((min(row, n_rows - 1) + 1) * grid.row_samples / grid.sample_rate)
    return make_row_id(name, row_end).text, start / grid.sample_rate, (start + grid.window_samples) / grid.sample_rate


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot be written ({error.strerror})"
        raise OutputError(path, what, "name another folder for --embeddings") from error
