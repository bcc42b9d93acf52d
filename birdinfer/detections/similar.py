"""Search for windows like an example: queries and embeddings -> the nearest windows, as a table and a page.

``results/`` holds ``similar.json`` (what was searched for), ``similar.csv`` and the page of detections
(:mod:`birdinfer.detections.page`), on which each window is listened to and marked as right or wrong; its table of
reviews is what ``birdinfer head fit`` takes, and ``birdinfer similar --queries`` once more.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from birdinfer.audio.find import find_recordings
from birdinfer.audio.kinds import without_ending
from birdinfer.callbacks import Callback
from birdinfer.detections.events import Detection
from birdinfer.detections.formats.cells import clock_cell, file_cell, name_cell, seconds_cell
from birdinfer.detections.page import PageSettings, check_page, write_page
from birdinfer.detections.queries import Encoder, Example, Query, QueryReader, check_label, label_of
from birdinfer.detections.recordings import OriginSettings, Recording, describe_recording
from birdinfer.errors import ConfigError
from birdinfer.inference.embedding_index import EmbeddingIndex, IndexedWindow, Metric, Neighbour
from birdinfer.inference.embeddings import RECORDINGS_COLUMNS, RECORDINGS_NAME, EmbeddingInfo, member_folder, read_info
from birdinfer.species import Species
from birdinfer.system.files import atomic_text, check_replaceable, write_atomic
from birdinfer.system.outputs import check_folder
from birdinfer.tables.cells import seconds_of, whole_of
from birdinfer.tables.csv import CsvWriter, rows
from birdinfer.typing import Float32, Index
from birdinfer.version import __version__

MARKER, TABLE = "similar.json", "similar.csv"
COLUMNS = (
    "label", "rank", "similarity", "recording", "file", "start", "end", "row_id", "example", "clock", "site",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SimilarSettings:
    """What is searched for, and among which windows."""

    embeddings: str | Path
    """Of ``predict --embeddings``, or the folder of one member in it."""
    sounds: Sequence[str | Path] = ()
    """Each is a query; of a longer one than a window all windows are its examples."""
    at_seconds: Sequence[float] = ()
    """Of the one sound, windows that begin here are its examples."""
    row_ids: Sequence[str] = ()
    """Rows of the embeddings, each a query."""
    table: Path | None = None
    """Of examples: :meth:`birdinfer.detections.queries.QueryReader.of_table`."""
    values: Float32 | None = None
    """Embeddings [windows, numbers], as of ``Model.embed``: examples of one query."""
    label: str = ""
    """Of all queries, which are then one; "": of the files' names, the row ids, or the table."""
    k: int = 20
    """Windows for each query."""
    metric: Metric = "cosine"
    per_recording: int | None = None
    """Most windows of one recording."""
    finds_own: bool = False
    """Whether an example itself is found where it is embedded, and what is less than a window away from it."""
    bundle: Path | None = None
    """That made the embeddings; None: where it was then."""
    engine: str = "onnxruntime"
    recordings: Sequence[Path] = ()
    """Where the embedded recordings are now, as they were given to ``predict``; empty: where they were then."""
    origin: OriginSettings = field(default_factory=OriginSettings)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class SimilarWindow:
    """A window that was found."""

    species: Species
    """What was searched for."""
    rank: int
    """From 1."""
    similarity: float
    """Cosine of the angle between the embeddings, or 1 / (1 + distance)."""
    example: str
    """The nearest example."""
    recording: Recording
    start_seconds: float
    """At least 0."""
    end_seconds: float
    row_id: str

    def __repr__(self) -> str:
        span = f"{self.start_seconds:g}-{self.end_seconds:g} s"
        return f"<SimilarWindow {self.rank}: {self.similarity:.3f}, {span} of {self.recording.file}>"


def find_similar(settings: SimilarSettings, callback: Callback | None = None) -> list[SimilarWindow]:
    """Find the windows most similar to each query, exactly; by query, then by similarity.

    Raises:
        InputNotFoundError: there are no embeddings, no such sound, or not the bundle that made the embeddings.
        ConfigError: nothing is searched for, a number is out of range, or the bundle is another one.
        MetadataError: the embeddings are damaged, or the table is no use.
        AudioError: a query is no sound.
    """
    callback = callback or Callback()
    _check(settings)
    with EmbeddingIndex.open(settings.embeddings, callback) as index:
        return list(_found(index, settings, callback))


def write_similar(
    settings: SimilarSettings, output: Path, page: PageSettings | None, callback: Callback | None = None
) -> list[SimilarWindow]:
    """Do as :func:`find_similar`, and write the table and, with ``page``, the page into a folder.

    Raises:
        OutputError: the folder cannot be written, or holds other things; before anything is searched.
    """
    callback = callback or Callback()
    used = [*map(Path, (*settings.sounds, settings.embeddings)), *filter(None, [settings.table, settings.bundle])]
    check_folder(output, used)
    check_replaceable(output, "results of a search", "name another folder", MARKER)
    if page is not None:
        check_page(output)
    found = find_similar(settings, callback)
    if not found:
        callback.on_warning("no window is left beside the examples themselves; --own finds these, too")
    info = read_info(member_folder(Path(settings.embeddings)))
    write_atomic(output / MARKER, _description(settings, found, info))
    with atomic_text(output / TABLE) as text:
        table = CsvWriter(text)
        table.row(COLUMNS[0], COLUMNS[1:])
        for each in found:
            table.row(name_cell(each.species.label), _cells(each))
    lost = sorted({each.recording.file for each in found if not each.recording.path.is_file()})
    if lost:
        more = ", ..." if len(lost) > 1 else ""
        callback.on_warning(
            f"{len(lost)} of the recordings are not where they were ({lost[0]}{more}): no sound on the page - "
            "--recordings FOLDER finds them"
        )
    if page is not None:
        page = replace(page, bundle=Path(info.bundle).name, measure="similarity", most_events=max(1, len(found)))
        write_page(lambda: _by_recording(found), output, page, callback=callback)
    return found


def _found(index: EmbeddingIndex, settings: SimilarSettings, callback: Callback) -> Iterator[SimilarWindow]:
    known = _Recordings(index, settings)
    queries = list(_queries(settings, index, known))
    examples = [(number, each) for number, query in enumerate(queries) for each in query.examples]
    own = [np.zeros(0, np.intp) if settings.finds_own else _own_rows(index, query) for query in queries]
    found = index.nearest(
        np.stack([example.values for _, example in examples]), settings.k, metric=settings.metric,
        per_recording=settings.per_recording, left_out=[own[number] for number, _ in examples], callback=callback,
    )  # fmt: skip
    for number, query in enumerate(queries):
        of_query = [(example, near) for (its, example), near in zip(examples, found, strict=True) if its == number]
        for rank, (window, near, example) in enumerate(_merged(index, of_query, settings), 1):
            yield SimilarWindow(
                species=query.species, rank=rank, similarity=near.similarity, example=example.text,
                recording=known.described(window.recording), start_seconds=max(0.0, window.start_seconds),
                end_seconds=window.end_seconds, row_id=window.row_id,
            )  # fmt: skip


class _Recordings:
    """Where the embedded recordings are."""

    def __init__(self, index: EmbeddingIndex, settings: SimilarSettings) -> None:
        self._origin = settings.origin
        table = index.folder / RECORDINGS_NAME
        self._known = {}
        if table.is_file():
            self._known = {cells["recording"]: cells for _, cells in rows(table, RECORDINGS_COLUMNS)}
        self._paths = {name: Path(cells["path"]) for name, cells in self._known.items()}
        if settings.recordings:
            moved = find_recordings(settings.recordings)
            moved.require()
            found = {name: path for path, name in moved.names.items()}
            places = {name: found.get(name) or found.get(_without_channel(name)) for name in index.recordings}
            self._paths |= {name: path for name, path in places.items() if path is not None}
        self.names = {os.path.abspath(path): name for name, path in self._paths.items()}  # noqa: PTH100
        self._described: dict[str, Recording] = {}

    def described(self, name: str) -> Recording:
        """Describe a recording, by its name alone if it is not there."""
        if name not in self._described:
            cells, path = self._known.get(name, {}), self._paths.get(name, Path(name))
            is_one_of_channels = without_ending(path.name) != name.rpartition("/")[2]
            found = describe_recording(
                path, _without_channel(name) if is_one_of_channels else name, self._origin,
                seconds=seconds_of(cells.get("seconds", "")) or 0.0,
                sample_rate=whole_of(cells.get("sample_rate", "")) or 0,
            )  # fmt: skip
            channel = cells.get("channel", "")
            self._described[name] = replace(found, name=name, channel=int(channel) if channel.isdecimal() else None)
        return self._described[name]


def _without_channel(name: str) -> str:
    """The name of a recording's file where each channel is a recording of its own: ``a`` of ``a_ch1``."""
    return re.sub(r"_+ch\d+$", "", name)


def _check(settings: SimilarSettings) -> None:
    given = [*settings.sounds, *settings.row_ids, *filter(None, [settings.table])]
    if not given and settings.values is None:
        raise ConfigError("similar", "nothing to search for", "name a sound, --row-id or --queries")
    if settings.at_seconds and len(settings.sounds) != 1:
        raise ConfigError("--at", "is of one sound", "name one, or make a table of them for --queries")
    if (at := min(settings.at_seconds, default=0)) < 0:
        raise ConfigError("--at", f"is {at:g} s, needed are seconds from 0")
    for option, number in (("-k", settings.k), ("--per-file", settings.per_recording)):
        if number is not None and number < 1:
            raise ConfigError(option, f"is {number}, needed is at least 1")


def _queries(settings: SimilarSettings, index: EmbeddingIndex, known: _Recordings) -> Iterator[Query]:
    """All queries; those of one label are one."""
    read = QueryReader(index, Encoder(index.info, settings.bundle, settings.engine), known.names)
    found = [(label_of(path), read.of_sound(path, settings.at_seconds)) for path in map(Path, settings.sounds)]
    found += [(row_id.strip(), read.of_row(row_id.strip())) for row_id in settings.row_ids]
    if settings.values is not None:
        given = np.atleast_2d(np.asarray(settings.values, np.float32))
        found.append(("query", [Example(text=f"row {row}", values=values) for row, values in enumerate(given)]))
    queries = [
        Query(species=Species(check_label(settings.label or label)), examples=tuple(each)) for label, each in found
    ]
    if settings.table is not None:
        queries += read.of_table(settings.table, settings.label)
    together: dict[str, list[Query]] = {}
    for query in queries:
        together.setdefault(query.species.label, []).append(query)
    for same in together.values():
        yield Query(species=same[-1].species, examples=tuple(one for query in same for one in query.examples))


def _own_rows(index: EmbeddingIndex, query: Query) -> Index:
    """The rows of a query's examples, and of what is less than a window away from them."""
    near, windows = index.info.window_seconds, dict[str, list[IndexedWindow]]()
    found = set()
    for example in query.examples:
        if example.recording and example.recording not in windows:
            windows[example.recording] = index.windows_of(example.recording)
        for window in windows.get(example.recording, ()):
            if window.start_seconds < example.end_seconds + near and window.end_seconds > example.start_seconds - near:
                found.add(window.row)
    return np.array(sorted(found), np.intp)


def _merged(
    index: EmbeddingIndex, found: Sequence[tuple[Example, Sequence[Neighbour]]], settings: SimilarSettings
) -> Iterator[tuple[IndexedWindow, Neighbour, Example]]:
    """The nearest windows of several examples together: each window once, with the example that is nearest to it."""
    pairs = [(near, example) for example, neighbours in found for near in neighbours]
    pairs.sort(key=lambda pair: (-pair[0].similarity, pair[0].row))
    seen, times = set[int](), dict[str, int]()
    for near, example in pairs:
        if len(seen) == settings.k:
            return
        if near.row in seen:
            continue
        window = index.window(near.row)
        if settings.per_recording is not None and times.get(window.recording, 0) >= settings.per_recording:
            continue
        seen.add(near.row)
        times[window.recording] = times.get(window.recording, 0) + 1
        yield window, near, example


def _by_recording(found: Sequence[SimilarWindow]) -> Iterator[tuple[Recording, list[Detection]]]:
    """What was found as the page of detections takes it; its confidence is the similarity."""
    ordered = sorted(found, key=lambda each: (each.recording.name, each.start_seconds))
    for _, group in itertools.groupby(ordered, key=lambda each: each.recording.name):
        windows = list(group)
        yield windows[0].recording, [_detection(each) for each in windows]


def _detection(each: SimilarWindow) -> Detection:
    return Detection(
        recording=each.recording, species=each.species, start_seconds=each.start_seconds, end_seconds=each.end_seconds,
        confidence=min(1.0, max(0.0, each.similarity)), peak_seconds=each.start_seconds,
    )  # fmt: skip


def _cells(each: SimilarWindow) -> list[str]:
    recording = each.recording
    return [
        str(each.rank),
        f"{each.similarity:.6f}",
        *map(file_cell, (recording.name, recording.file)),
        *map(seconds_cell, (each.start_seconds, each.end_seconds)),
        file_cell(each.row_id),
        name_cell(each.example),
        clock_cell(_detection(each)),
        name_cell(recording.site),
    ]


def _description(settings: SimilarSettings, found: Sequence[SimilarWindow], info: EmbeddingInfo) -> bytes:
    """What was searched for; without the time of day, so that equal searches write equal bytes."""
    labels: Mapping[str, None] = dict.fromkeys(each.species.label for each in found)
    content = {
        "birdinfer": __version__, "embeddings": str(settings.embeddings), "bundle": info.bundle, "member": info.member,
        "graph_sha256": info.graph_sha256, "metric": settings.metric, "k": settings.k,
        "per_recording": settings.per_recording, "labels": list(labels),
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
