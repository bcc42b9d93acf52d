"""Members that hear the same thing, together: a run of windows -> what each of them says of every window.

Members with equal front end and placement share one spectrogram. A foreign member takes the waveform itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer import mel
from birdinfer.bundle import Bundle, labels_sha256, sharing
from birdinfer.config import FrontEndConfig, Hearing
from birdinfer.engines import Engine, EnginePlan, GraphWanted, LoadedGraph, load_together
from birdinfer.errors import BundleError
from birdinfer.manifest import Graph, Member
from birdinfer.scores import activate
from birdinfer.stopwatch import Stopwatch
from birdinfer.windows import Placement, WindowRun, place

Float32 = npt.NDArray[np.float32]


class Opinion(NamedTuple):
    """What one member says of a run of windows: probabilities of the labels that it knows."""

    member: int
    """Index in the bundle."""
    first: int
    """First window."""
    clip: Float32 | None
    """[windows, labels]."""
    frames: Float32 | None
    """[windows, frames, labels]."""


@dataclass(frozen=True, slots=True)
class LoadedMember:
    """A member and the engine that runs it."""

    index: int
    member: Member
    graph: LoadedGraph
    graph_columns: npt.NDArray[np.intp] | None
    """Columns of the graph in the order of ``labels``; None: all of them, as they are."""
    labels: npt.NDArray[np.intp] | None
    """Columns of the bundle that this member knows; None: all."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Members that share their windows."""

    hearing: Hearing
    placement: Placement
    members: tuple[LoadedMember, ...]
    watch: Stopwatch = field(default_factory=Stopwatch, compare=False, repr=False)
    """What its time is spent on: its hearing (that is the part's name), and its members, by name."""

    def hear(self, run: WindowRun) -> Float32:
        """What the graphs take: log-mel [windows, 1, n_mels, frames] or waveform [windows, (1,) samples]."""
        with self.watch.timing(self.hearing):
            return self._input_of(run)

    def _input_of(self, run: WindowRun) -> Float32:
        if isinstance(self.hearing, FrontEndConfig):
            return mel.windows_to_input(run.samples, run.n_windows, self.hearing, self.placement.stride_samples)
        every = np.lib.stride_tricks.sliding_window_view(run.samples, self.placement.window_samples)
        windows = np.ascontiguousarray(every[:: self.placement.stride_samples][: run.n_windows], np.float32)
        if self.hearing.peak is not None:
            windows = _to_peak(windows, self.hearing.peak)
        return windows[:, np.newaxis] if self.hearing.has_channel_axis else windows

    def opinions(self, first: int, heard: Float32) -> list[Opinion]:
        """What each member says.

        Args:
            first: index of the first window.
            heard: from :meth:`hear`.
        """
        answers = {}
        for engine, asked in self._by_engine():
            with self.watch.timing(*(loaded.member.name for loaded in asked)):
                answers[id(engine)] = engine.run(heard)
        return [_opinion(loaded, first, answers[id(loaded.graph.engine)]) for loaded in self.members]

    def _by_engine(self) -> list[tuple[Engine, list[LoadedMember]]]:
        """Each engine once, and whose graphs it runs: perhaps those of several members at once."""
        asked: dict[int, tuple[Engine, list[LoadedMember]]] = {}
        for loaded in self.members:
            asked.setdefault(id(loaded.graph.engine), (loaded.graph.engine, []))[1].append(loaded)
        return list(asked.values())


def load_listeners(bundle: Bundle, plan: EnginePlan) -> tuple[Listener, ...]:
    """Load every member of a bundle, and put those together that hear the same.

    Raises:
        BundleError: a graph cannot be loaded, or does not fit the manifest.
        ConfigError: this machine cannot run the plan.
        MissingExtraError: the engine is not installed.
    """
    return tuple(
        Listener(hearing, placement, _load_members(bundle, indices, plan))
        for (hearing, placement), indices in listening(bundle).items()
    )


def listening(bundle: Bundle) -> dict[tuple[Hearing, Placement], list[int]]:
    """What its listeners will hear and how their windows lie -> indices of the members that do; in their order."""
    together: dict[tuple[Hearing, Placement], list[int]] = {}
    for index, member in enumerate(bundle.manifest.members):
        placement = place(member.hearing, member.timeline, bundle.manifest.rows)
        together.setdefault((member.hearing, placement), []).append(index)
    return together


def graph_for(member: Member, plan: EnginePlan) -> Graph:
    """The member's graph that a plan runs: of the plan's precision, or fp32 where it has none or needs none."""
    return member.graphs.get(plan.spec.precision, member.graphs["fp32"])


def _load_members(bundle: Bundle, indices: Sequence[int], plan: EnginePlan) -> tuple[LoadedMember, ...]:
    """Load members that hear the same."""
    members = [bundle.manifest.members[index] for index in indices]
    paths = [bundle.graph_path(graph_for(member, plan)) for member in members]
    wanted = [
        GraphWanted(path, _outputs(member), _sample_shape(member)) for path, member in zip(paths, members, strict=True)
    ]
    graphs = load_together(plan, wanted)
    return tuple(_bound(bundle, index, path, graph) for index, path, graph in zip(indices, paths, graphs, strict=True))


def _outputs(member: Member) -> tuple[str, ...]:
    return tuple(name for name in (member.outputs.clip, member.outputs.frames) if name is not None)


def _bound(bundle: Bundle, index: int, path: Path, graph: LoadedGraph) -> LoadedMember:
    """A member with its graph, once it is certain that the graph's columns are those of the manifest."""
    member = bundle.manifest.members[index]
    n_columns = len(bundle.labels)
    graph_columns = labels = None
    if member.label_columns is not None:
        known = [(column, label) for column, label in enumerate(bundle.labels) if label in member.label_columns]
        labels = np.array([column for column, _ in known])
        graph_columns = np.array([member.label_columns[label] for _, label in known])
        n_columns = int(graph_columns.max()) + 1
    remedy = "members of one bundle need one taxonomy"
    for name in _outputs(member):
        width = graph.facts.outputs[name][-1]
        exact = member.label_columns is None
        if width is not None and (width != n_columns if exact else width < n_columns):
            raise BundleError(path, f"scores {width} labels, the manifest lists {n_columns}", remedy)
    stamped = graph.facts.metadata.get("labels_sha256", "")
    if member.label_columns is None and stamped and stamped != labels_sha256(bundle.labels):
        # It would answer, in the wrong columns.
        raise BundleError(path, "was exported with other labels than the manifest lists", remedy)
    return LoadedMember(index, member, graph, graph_columns, labels)


def _sample_shape(member: Member) -> tuple[int, ...]:
    if member.frontend is not None:
        return (1, *member.frontend.input_shape)
    assert member.waveform is not None  # Member sees to it
    n_samples = member.waveform.window_samples
    return (1, n_samples) if member.waveform.has_channel_axis else (n_samples,)


def _to_peak(windows: Float32, peak: float) -> Float32:
    """Each window [samples] about its mean, with this as its largest magnitude; digital silence stays silent."""
    centred = windows - windows.mean(axis=1, keepdims=True)
    loudest = np.abs(centred).max(axis=1, keepdims=True)
    return np.asarray(centred * np.where(loudest > 0, peak / np.where(loudest > 0, loudest, 1), 0), np.float32)


def _opinion(loaded: LoadedMember, first: int, answers: dict[str, Float32]) -> Opinion:
    """What a member says of windows from ``first`` on.

    Raises:
        BundleError: it says NaN.
    """
    outputs = loaded.member.outputs

    def probabilities(name: str | None) -> Float32 | None:
        if name is None:
            return None
        found = activate(answers[loaded.graph.output_names[name]], outputs.activation, loaded.graph_columns)
        if not np.isfinite(found).all():
            # A submission with one such cell is refused as a whole, and a network that answers so is broken.
            raise BundleError(loaded.member.name, "answers with what is no number (NaN)", "was it trained to an end?")
        return found

    return Opinion(loaded.index, first, probabilities(outputs.clip), probabilities(outputs.frames))


def members_alike(members: Sequence[Member]) -> list[list[list[Member]]]:
    """Kinds of members that cost the same: one network, one input. Measuring the first of each kind is enough.

    Returns:
        Of each kind, what runs at once: one member, or all that share a graph, for an engine computes the whole graph
        whichever of them is asked.
    """
    kinds: dict[tuple[object, ...], list[list[Member]]] = {}
    for together in sharing(members):
        kinds.setdefault(tuple(_cost(member) for member in together), []).append(together)
    return list(kinds.values())


def _cost(member: Member) -> tuple[object, ...]:
    """Equal for members that cost the same."""
    return (member.backbone or member.name, member.hearing, member.timeline, tuple(sorted(member.graphs)))
