"""Members that take the same input: a batch of windows -> the scores that each of them gives every window.

Members with equal front end and window grid form a :class:`MemberGroup`: their spectrogram is computed once. External
members take the waveform itself. In: :class:`~birdinfer.audio.windows.WindowBatch`, waveform in [-1, 1]. Out:
:class:`MemberScores`, probabilities [windows, labels] and [windows, frames, labels], and embeddings if asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from birdinfer.audio.windows import WindowBatch, WindowGrid, make_grid
from birdinfer.config import FrontEndConfig, InputConfig, SpectrogramConfig
from birdinfer.errors import BundleError
from birdinfer.features import log_mel as mel
from birdinfer.features import spectrogram
from birdinfer.inference.activation import activate
from birdinfer.inference.bundle import Bundle, labels_sha256, sharing
from birdinfer.inference.engines import Engine, EnginePlan, GraphRequest, LoadedGraph, load_engines
from birdinfer.inference.last_layer import cut_columns
from birdinfer.inference.manifest import Graph, Member, columns_of
from birdinfer.system.timing import Stopwatch
from birdinfer.typing import Float32, Index

_ROUNDING = 1e-3
"""A graph that computes its own probabilities, in 16 bits perhaps, may leave 0 to 1 by so much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberScores:
    """One member's probabilities for a batch of windows, of the labels that it knows."""

    member: int
    first: int
    clip: Float32 | None
    """[windows, labels]."""
    frames: Float32 | None
    """[windows, frames, labels]."""
    embeddings: Float32 | None = None
    """[windows, numbers], if they were asked for and it has some."""

    def part(self, first: int, windows: slice) -> "MemberScores":
        """Return the scores of some of the windows, the first of which has this index in its file."""
        clip, frames, embeddings = (
            None if each is None else each[windows] for each in (self.clip, self.frames, self.embeddings)
        )
        return MemberScores(member=self.member, first=first, clip=clip, frames=frames, embeddings=embeddings)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedMember:
    """A member and the engine that runs it."""

    index: int
    member: Member
    graph: LoadedGraph
    graph_columns: Index | None
    """Columns of the graph in the order of ``labels``; None: all of them, as they are."""
    pools: Index | None
    """Where each label's columns begin in ``graph_columns``, if one has several; its highest score counts."""
    labels: Index | None
    """Columns of the bundle that this member knows; None: all."""
    n_columns: int
    """Labels that the graph has to score; with ``graph_columns`` it may score more."""


@dataclass(frozen=True, slots=True)
class MemberGroup:
    """Members that take the same input from the same windows."""

    input_config: InputConfig
    grid: WindowGrid
    members: tuple[LoadedMember, ...]
    watch: Stopwatch = field(default_factory=Stopwatch, compare=False, repr=False)
    """Time spent on the input (by ``input_config``) and on each member (by name)."""

    def make_input(self, batch: WindowBatch) -> Float32:
        """Make what the graphs take: log-mel [windows, 1, n_mels, frames], waveform [windows, (1,) samples] ..."""
        with self.watch.timing(self.input_config):
            if isinstance(self.input_config, FrontEndConfig):
                return mel.windows_to_input(batch.samples, batch.n_windows, self.input_config, self.grid.stride_samples)
            every = np.lib.stride_tricks.sliding_window_view(batch.samples, self.grid.window_samples)
            windows = np.ascontiguousarray(every[:: self.grid.stride_samples][: batch.n_windows], np.float32)
            if isinstance(self.input_config, SpectrogramConfig):
                return spectrogram.windows_to_input(windows, self.input_config)
            if self.input_config.peak is not None:
                windows = _to_peak(windows, self.input_config.peak)
            return windows[:, np.newaxis] if self.input_config.has_channel_axis else windows

    def score(self, first: int, inputs: Float32) -> list[MemberScores]:
        """Score the windows of :meth:`make_input` with every member; BundleError if one has no valid answer."""
        outputs = {}
        for engine, members in self._by_engine():
            names = [loaded.member.name for loaded in members]
            with self.watch.timing(*names):
                outputs[id(engine)] = _run(engine, inputs, ", ".join(names))
        n_windows = len(inputs)
        return [_probabilities(loaded, first, n_windows, outputs[id(loaded.graph.engine)]) for loaded in self.members]

    def call_windows(self, plan: EnginePlan) -> int:
        """Return how many windows a call computes at least: those of a fixed batch, which only some engines need."""
        any_number = 1 if plan.spec.engine == "onnxruntime" else plan.batch_size
        return max(loaded.graph.facts.input_shape[0] or any_number for loaded in self.members)

    def _by_engine(self) -> list[tuple[Engine, list[LoadedMember]]]:
        """Each engine once, with the members whose graphs it runs: perhaps several at once."""
        members: dict[int, tuple[Engine, list[LoadedMember]]] = {}
        for loaded in self.members:
            members.setdefault(id(loaded.graph.engine), (loaded.graph.engine, []))[1].append(loaded)
        return list(members.values())


def load_member_groups(bundle: Bundle, plan: EnginePlan, *, embeddings: bool = False) -> tuple[MemberGroup, ...]:
    """Load every member of a bundle, grouped by input; raises as :func:`birdinfer.inference.engines.load_engine`.

    ``embeddings``: take these, too, from the members that have some.
    """
    return tuple(
        MemberGroup(input_config, grid, _load_members(bundle, indices, plan, embeddings=embeddings))
        for (input_config, grid), indices in members_by_input(bundle).items()
    )


def members_by_input(bundle: Bundle) -> dict[tuple[InputConfig, WindowGrid], list[int]]:
    """Map each input and window grid to the indices of the members that take it; in the order of the groups."""
    groups: dict[tuple[InputConfig, WindowGrid], list[int]] = {}
    for index, member in enumerate(bundle.manifest.members):
        grid = make_grid(member.input_config, member.aggregation, bundle.manifest.rows)
        groups.setdefault((member.input_config, grid), []).append(index)
    return groups


def graph_for(member: Member, plan: EnginePlan) -> Graph:
    """Return the member's graph that a plan runs: in its precision, or fp32 if there is none or none is needed."""
    return member.graphs.get(plan.spec.precision, member.graphs["fp32"])


def members_of_equal_cost(members: Sequence[Member]) -> list[list[list[Member]]]:
    """Group members that cost the same: one network, one input. Measuring the first of each kind is enough.

    Returns for each kind its units of work: one member, or all that share a graph, since an engine computes the whole
    graph whichever of them is needed.
    """
    kinds: dict[tuple[object, ...], list[list[Member]]] = {}
    for together in sharing(members):
        kinds.setdefault(tuple(_cost(member) for member in together), []).append(together)
    return list(kinds.values())


def _cost(member: Member) -> tuple[object, ...]:
    return (member.backbone or member.name, member.input_config, member.aggregation, tuple(sorted(member.graphs)))


def _load_members(
    bundle: Bundle, indices: Sequence[int], plan: EnginePlan, *, embeddings: bool
) -> tuple[LoadedMember, ...]:
    members = [bundle.manifest.members[index] for index in indices]
    # Graphs of other precisions are made for scores alone.
    graphs_of = [
        member.graphs["fp32"] if embeddings and member.outputs.embedding else graph_for(member, plan)
        for member in members
    ]
    paths = [bundle.graph_path(graph) for graph in graphs_of]
    requests = []
    for place, (member, path) in enumerate(zip(members, paths, strict=True)):
        is_own = paths.count(path) == 1 and plan.spec.engine == "onnxruntime"
        members[place], content = _with_fewer_labels(bundle, member, path) if is_own else (member, None)
        names = _output_names(member, embeddings=embeddings)
        requests.append(GraphRequest(path, names, sample_shape(member.input_config), member.batch, content))
    graphs = load_engines(plan, requests)
    loaded = zip(indices, members, paths, graphs, strict=True)
    return tuple(_loaded_member(bundle, *each) for each in loaded)


def _with_fewer_labels(bundle: Bundle, member: Member, path: Path) -> tuple[Member, bytes | None]:
    """Return a member that scores no other labels than it is asked for, and its graph; None if that stays whole."""
    outputs, columns = member.outputs, member.label_columns
    if columns is None or outputs.clip is None or outputs.frames is not None or outputs.activation == "softmax":
        return member, None
    known = [label for label in bundle.labels if label in columns]
    needed = list(dict.fromkeys(column for label in known for column in columns_of(columns[label])))
    content = cut_columns(path.read_bytes(), outputs.clip, needed)
    if content is None:
        return member, None
    place = {column: at for at, column in enumerate(needed)}
    left = {label: tuple(place[column] for column in columns_of(columns[label])) for label in known}
    return msgspec.structs.replace(member, label_columns=left), content


def _output_names(member: Member, *, embeddings: bool) -> tuple[str, ...]:
    outputs = member.outputs
    names = (outputs.clip, outputs.frames, outputs.embedding if embeddings or outputs.is_encoder else None)
    return tuple(name for name in names if name is not None)


def _loaded_member(bundle: Bundle, index: int, member: Member, path: Path, graph: LoadedGraph) -> LoadedMember:
    """Pair a member with its graph; refuse a graph whose columns are not those of the manifest."""
    n_columns = len(bundle.labels)
    graph_columns = labels = pools = None
    if member.label_columns is not None:
        known = [(column, label) for column, label in enumerate(bundle.labels) if label in member.label_columns]
        labels = np.array([column for column, _ in known])
        columns = [columns_of(member.label_columns[label]) for _, label in known]
        graph_columns = np.array([column for each in columns for column in each])
        if len(graph_columns) > len(columns):
            pools = np.cumsum([0, *map(len, columns[:-1])])
        n_columns = int(graph_columns.max()) + 1
    hint = "members of one bundle need one taxonomy"
    for name in filter(None, (member.outputs.clip, member.outputs.frames)):
        width = (graph.facts.outputs[name] or (None,))[-1]  # an output without a shape, or a scalar
        exact = member.label_columns is None
        if width is not None and (width != n_columns if exact else width < n_columns):
            raise BundleError(path, f"scores {width} labels, the manifest lists {n_columns}", hint)
    stored = graph.facts.metadata.get("labels_sha256", "")
    if member.label_columns is None and stored and stored != labels_sha256(bundle.labels):
        # It would run and fill the wrong columns.
        raise BundleError(path, "was exported with other labels than the manifest lists", hint)
    return LoadedMember(
        index=index,
        member=member,
        graph=graph,
        graph_columns=graph_columns,
        pools=pools,
        labels=labels,
        n_columns=n_columns,
    )


def sample_shape(input_config: InputConfig) -> tuple[int, ...]:
    """Return the shape of one window of a graph's input."""
    if isinstance(input_config, FrontEndConfig):
        return input_config.sample_shape
    if isinstance(input_config, SpectrogramConfig):
        return input_config.input_shape
    n_samples = input_config.window_samples
    return (1, n_samples) if input_config.has_channel_axis else (n_samples,)


def _to_peak(windows: Float32, peak: float) -> Float32:
    """Remove each window's mean and scale it to this largest magnitude; digital silence stays silent."""
    centered = windows - windows.mean(axis=1, keepdims=True)
    loudest = np.abs(centered).max(axis=1, keepdims=True)
    return np.asarray(centered * np.where(loudest > 0, peak / np.where(loudest > 0, loudest, 1), 0), np.float32)


def _run(engine: Engine, inputs: Float32, names: str) -> dict[str, Float32]:
    try:
        return engine.run(inputs)
    except BundleError:
        raise
    except Exception as error:  # engines share no base class but Exception
        what = "there is not enough memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
        raise BundleError(names, f"cannot be computed ({what})") from error


def _probabilities(loaded: LoadedMember, first: int, n_windows: int, outputs: dict[str, Float32]) -> MemberScores:
    means = loaded.member.outputs

    def activated(name: str | None, n_axes: int) -> Float32 | None:
        if name is None:
            return None
        raw = outputs[loaded.graph.output_names[name]]
        _check_shape(loaded, name, raw.shape, n_windows, n_axes)
        scores = activate(raw, means.activation, loaded.graph_columns, slope=means.slope, intercept=means.intercept)
        return _checked(loaded, scores if loaded.pools is None else np.maximum.reduceat(scores, loaded.pools, axis=-1))

    clip, frames = activated(means.clip, 2), activated(means.frames, 3)
    if means.is_encoder and loaded.member.sequence is None:
        clip = np.zeros((n_windows, loaded.n_columns), np.float32)
    asked = loaded.graph.output_names.get(means.embedding or "")
    embeddings = None if asked is None else _checked_embeddings(loaded, outputs[asked], n_windows)
    return MemberScores(member=loaded.index, first=first, clip=clip, frames=frames, embeddings=embeddings)


def _check_shape(loaded: LoadedMember, name: str, shape: tuple[int, ...], n_windows: int, n_axes: int) -> None:
    """Refuse an answer that is not a row of labels for each window, and for each of its frames."""
    n_labels, is_exact = loaded.n_columns, loaded.graph_columns is None
    is_right = len(shape) == n_axes and shape[0] == n_windows and 0 not in shape
    if not is_right or (shape[-1] != n_labels if is_exact else shape[-1] < n_labels):
        problem = f"returns {name} of shape {shape} for {n_windows} windows and {n_labels} labels"
        raise BundleError(loaded.member.name, problem, "export it again")


def _checked_embeddings(loaded: LoadedMember, embeddings: Float32, n_windows: int) -> Float32:
    if embeddings.ndim == 3 and embeddings.shape[1]:
        embeddings = embeddings.mean(axis=1)
    if embeddings.ndim != 2 or len(embeddings) != n_windows or not np.isfinite(embeddings).all():
        what = f"returns embeddings of shape {embeddings.shape} for {n_windows} windows, or numbers that are not finite"
        raise BundleError(loaded.member.name, what, "export it again")
    return embeddings


def _checked(loaded: LoadedMember, scores: Float32) -> Float32:
    """Refuse what is no probability: a submission with one such cell is refused as a whole."""
    low, high = float(scores.min()), float(scores.max())
    if not np.isfinite(low + high):
        raise BundleError(loaded.member.name, "returns NaN", "was it trained to an end?")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        problem = f"returns scores from {low:.3g} to {high:.3g}, needed are probabilities"
        raise BundleError(loaded.member.name, problem, "give its outputs the activation that they need")
    return scores if low >= 0 and high <= 1 else np.clip(scores, 0, 1)
