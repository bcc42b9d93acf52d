"""What is searched for: sounds, windows that are embedded already, or a table of both -> queries with their embeddings.

In: files, row ids, and an index of embeddings. Out: :class:`Query`, of one label, with an :class:`Example` for each of
its windows: float32 [numbers], from the network that made the embeddings.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from birdinfer.audio.kinds import without_ending
from birdinfer.audio.windows import WindowBatch, read_window
from birdinfer.errors import ConfigError, InputNotFoundError, MetadataError
from birdinfer.inference.embedding_index import EmbeddingIndex, IndexedWindow
from birdinfer.inference.embeddings import EmbeddingInfo, encoder_of
from birdinfer.inference.predictor import Predictor
from birdinfer.species import Species, label_problem
from birdinfer.tables.cells import is_blank, seconds_of
from birdinfer.tables.csv import rows
from birdinfer.tables.recordings import spelled
from birdinfer.tables.row_ids import split_row_id
from birdinfer.typing import Float32

MOST_WINDOWS = 100
"""Of a sound that is searched for as a whole."""
_FILES = ("recording", "file", "filename")
_LABELS = ("label", "primary_label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A window like which others are searched for."""

    text: str
    """``song.wav 12.5 s``, or a row id."""
    values: Float32
    """[numbers]."""
    recording: str = ""
    """Its name among the recordings that are embedded; "": it is none of them, or not known."""
    start_seconds: float = 0.0
    end_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Examples of one thing: a window is as similar to it as to the most similar of them."""

    species: Species
    examples: tuple[Example, ...]


class Encoder:
    """Embeds windows of sounds as those of the index were; the network is loaded when the first sound comes."""

    def __init__(self, info: EmbeddingInfo, bundle: Path | None = None, engine: str = "onnxruntime") -> None:
        """Take the bundle that made the embeddings, where it was then or in a folder; errors come with a sound."""
        self._info, self._folder, self._engine = info, bundle, engine

    @cached_property
    def predictor(self) -> Predictor:
        """The one member; errors as of :func:`birdinfer.inference.embeddings.encoder_of`."""
        bundle, member = encoder_of(self._info, self._folder)
        return Predictor(bundle.with_members([member.name]), self._engine, embeddings=True)

    def embed(self, path: Path, start_seconds: float | None) -> Iterator[tuple[float, Float32]]:
        """Yield start and embedding [numbers] of the window that begins at a second, or of all windows of a sound.

        AudioError if there is no sound.
        """
        if not path.is_file():
            what, hint = ("is a folder", "name a sound file") if path.is_dir() else ("no such file", "")
            raise InputNotFoundError(path, what, hint)
        group = self.predictor.member_groups[0]
        if start_seconds is not None:
            samples = read_window(path, start_seconds, group.input_config)
            yield start_seconds, self._values(WindowBatch(0, 1, samples))[0]
            return
        rate, half = group.grid.sample_rate, group.grid.window_samples // 2
        found: list[Float32] = []
        with self.predictor.open(path) as reader:
            for batch in reader.batches():
                found.extend(self._values(batch))
                if len(found) > MOST_WINDOWS:
                    what = f"has more than {MOST_WINDOWS} windows"
                    raise ConfigError(path, what, "--at SECONDS names the one that is meant")
            n_samples = reader.stream.decoded_seconds * rate
        for window, values in enumerate(found):
            begin = group.grid.begin(window)
            if not window or begin + half <= n_samples:  # others are silence for the most part
                yield begin / rate, values

    def _values(self, batch: WindowBatch) -> Float32:
        (scores,) = self.predictor.score_batch(batch)
        assert scores.embeddings is not None  # the member was asked for them
        return scores.embeddings


class QueryReader:
    """Makes queries; ``names`` gives the recording that an absolute path was embedded as."""

    def __init__(self, index: EmbeddingIndex, encoder: Encoder, names: Mapping[str, str]) -> None:
        self._index, self._encoder, self._names = index, encoder, names

    def of_sound(self, path: Path, at_seconds: Sequence[float] = ()) -> list[Example]:
        """Take the windows of a sound that begin at these seconds, or all."""
        length, name = self._index.info.window_seconds, self._names.get(os.path.abspath(path), "")  # noqa: PTH100 - links stay as they are named
        return [
            Example(
                text=f"{path.name} {start:g} s", values=values, recording=name, start_seconds=start,
                end_seconds=start + length,
            )
            for at in (at_seconds or (None,))
            for start, values in self._encoder.embed(path, at)
        ]  # fmt: skip

    def of_row(self, row_id: str) -> list[Example]:
        """Take the windows of a row of the embeddings; MetadataError if there is none."""
        name, end = split_row_id(row_id, self._index.folder)
        windows = self._index.windows_of(name)
        found = [window for window in windows if window.row_id == f"{window.recording}_{end}"]
        if not found:
            what = f"holds no row {row_id}" if windows else f"holds no recording {name}, or several"
            raise MetadataError(self._index.folder, what, "row ids stand in its index.csv")
        return [self._embedded(window) for window in found]

    def of_table(self, path: Path, label: str = "") -> list[Query]:
        """Read a table of examples; those of one label are one query.

        A row has a ``row_id``, or a ``recording``, ``file`` or ``filename`` with ``start`` (and ``end``) in seconds: of
        an embedded recording, or of a sound file, named from the table's folder. Of reviews (``'verdict'``) those that
        are right count.

        Raises:
            InputNotFoundError: there is no such table, or a sound.
            MetadataError: it lacks columns, names no example, or one that there is not.
        """
        examples: dict[str, list[Example]] = {}
        species: dict[str, Species] = {}
        for number, cells in rows(path, ()):
            if "row_id" not in cells and not set(_FILES) & set(cells):
                raise MetadataError(path, "has no column row_id, recording, file or filename")
            if cells.get("verdict", "right").strip().casefold() not in ("right", "true", "1"):
                continue
            found = self._of_cells(path, number, cells)
            own = next((cells[name].strip() for name in _LABELS if not is_blank(cells.get(name, ""))), "")
            named = label or own or _plain(path.stem)
            check_label(named)
            names = (cells.get(name, "").strip() for name in ("scientific_name", "common_name"))
            species.setdefault(named, Species(named, *names) if own == named else Species(named))
            examples.setdefault(named, []).extend(found)
        if not examples:
            raise MetadataError(path, "names no example", "of reviews those that are right are examples")
        return [Query(species=species[each], examples=tuple(examples[each])) for each in examples]

    def _of_cells(self, path: Path, number: int, cells: dict[str, str]) -> list[Example]:
        if not is_blank(cells.get("row_id", "")):
            return self.of_row(cells["row_id"].strip())
        file = next((cells[name].strip() for name in _FILES if not is_blank(cells.get(name, ""))), "")
        start, end = (seconds_of(cells.get(name, "")) for name in ("start", "end"))
        if not file:
            raise MetadataError(path, f"row {number} names no recording and no file", "mend the row")
        if start is None and not is_blank(cells.get("start", "")):
            raise MetadataError(path, f"row {number} has no start in seconds", "mend the row")
        if windows := self._index.windows_of(spelled(file)):
            begin = 0.0 if start is None else start
            until = end or (np.inf if start is None else begin + self._index.info.window_seconds)
            within = list(_sharing(windows, begin, until))
            if not within:
                raise MetadataError(path, f"row {number} is of a second that {file} does not have", "mend the row")
            return [self._embedded(window) for window in within]
        return self.of_sound(path.parent / file, [] if start is None else [start])

    def _embedded(self, window: IndexedWindow) -> Example:
        return Example(
            text=window.row_id, values=self._index.values[window.row].astype(np.float32), recording=window.recording,
            start_seconds=window.start_seconds, end_seconds=window.end_seconds,
        )  # fmt: skip


def label_of(path: Path) -> str:
    """Name what a sound is an example of: its file's name, as far as a label can hold it."""
    return _plain(without_ending(path.name))


def check_label(label: str) -> str:
    """Return a label of a query; ConfigError if it is none."""
    if problem := label_problem(label):
        raise ConfigError("--label", f"{label[:60]!r} {problem}", "name what is searched for with --label")
    return label


def _plain(name: str) -> str:
    return name.translate(str.maketrans(",;|", "___")).strip()


def _sharing(windows: Iterable[IndexedWindow], begin: float, end: float) -> Iterator[IndexedWindow]:
    """The windows that share at least half of theirs, or of the stretch, with it."""
    for window in windows:
        shared = min(window.end_seconds, end) - max(window.start_seconds, begin)
        if shared >= min(window.end_seconds - window.start_seconds, end - begin) / 2:
            yield window
