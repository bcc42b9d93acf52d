"""Sequence heads: a second graph that scores the windows of a file together, from the embeddings of a member's first.

In: embeddings [windows, numbers] of a file, batch by batch and in any order. Out: probabilities [windows, labels] as
:class:`~birdinfer.inference.member_group.MemberScores`, each window once.

A head takes a fixed number of neighbouring windows, a sequence. A file is cut into sequences that begin every half of
one; of each the middle half counts, of the first also its begin, of the last, which ends with the file, also its end. A
file with fewer windows is repeated until it fills one. So a score depends on the windows around it in the file alone,
neither on batch nor worker, and of a long file no more than a sequence is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from birdinfer.audio.windows import WindowGrid
from birdinfer.errors import BundleError
from birdinfer.inference.activation import activate
from birdinfer.inference.bundle import Bundle, labels_sha256
from birdinfer.inference.engines import LABELS_KEY, Engine, EnginePlan, EngineSpec, load_engine
from birdinfer.inference.manifest import Member, SequenceHead
from birdinfer.inference.member_group import LoadedMember, MemberGroup, MemberScores
from birdinfer.tables.recording_names import hour_at, parse_name
from birdinfer.typing import Float32, Index

UNKNOWN_HOUR = 24


class Span(NamedTuple):
    """A sequence of a file's windows, and those of them whose scores count."""

    start: int
    """First window of the sequence; where the file has fewer windows than it, they are repeated."""
    begin: int
    end: int
    """Windows whose scores count, from begin to before end."""


def spans(n_windows: int, length: int, *, is_whole: bool = True, done: int = 0) -> Iterator[Span]:
    """Cut the windows of a file into sequences of ``length``.

    ``is_whole``: the file has no further windows; if it may have some, only what these cannot change is yielded.
    ``done``: windows that need no score again: the end of a span before.

    >>> list(spans(20, 8))
    [Span(start=0, begin=0, end=6), Span(start=4, begin=6, end=10), Span(start=8, begin=10, end=14), \
Span(start=12, begin=14, end=20)]
    """
    counting = length - length // 4
    start = max(0, done - counting + length // 2)
    while n_windows > start + length:
        yield Span(start, done, start + counting)
        done, start = start + counting, start + length // 2
    if is_whole and done < n_windows:
        yield Span(max(0, n_windows - length), done, n_windows)


def sequence_input(embeddings: Float32, sites: Index, hours: Index, start: int, length: int) -> Float32:
    """Make what a head takes [length, numbers + 2]: embeddings, and as the last two columns site and hour of each.

    ``embeddings``: of neighbouring windows [n, numbers]; ``start``: the first of them that the sequence has.
    """
    at = np.arange(start, start + length) % len(embeddings)
    return np.concatenate([embeddings[at], sites[at, np.newaxis], hours[at, np.newaxis]], axis=1, dtype=np.float32)


def site_and_hours(name: str, sites: Sequence[str], middles_seconds: Sequence[float]) -> tuple[int, list[int]]:
    """Read site (1 for the first of ``sites``, 0 unknown) and hour of each window (24 unknown) from a recording's name.

    >>> site_and_hours("plot7/20250227_235958", ["plot7"], [0.0, 5.0]), site_and_hours("song", ["plot7"], [2.5])
    ((1, [23, 0]), (0, [24]))
    """
    parsed = parse_name(name)
    site = sites.index(parsed.site) + 1 if parsed.site in sites else 0
    hours = (hour_at(parsed, seconds) for seconds in middles_seconds)
    return site, [UNKNOWN_HOUR if hour is None else hour for hour in hours]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSequence:
    """A member's head, ready to run."""

    loaded: LoadedMember
    head: SequenceHead
    engine: Engine
    grid: WindowGrid


def load_sequences(bundle: Bundle, groups: Sequence[MemberGroup], plan: EnginePlan) -> list[LoadedSequence]:
    """Load the heads of all members that have one; in fp32 on the CPU, whatever the plan is for the members.

    Raises BundleError for a graph that is no such head.
    """
    engine = "openvino" if plan.spec.engine == "openvino" else "onnxruntime"
    of_head = EnginePlan(EngineSpec(engine, "fp32"), plan.workers, 1)
    return [
        LoadedSequence(loaded=loaded, head=head, grid=group.grid, engine=_load(bundle, loaded.member, head, of_head))
        for group in groups
        for loaded in group.members
        if (head := loaded.member.sequence) is not None
    ]


def _load(bundle: Bundle, member: Member, head: SequenceHead, plan: EnginePlan) -> Engine:
    path, labels = bundle.graph_path(head.graph), labels_sha256(bundle.labels)
    engine = load_engine(plan, path, [head.output], (head.n_windows, head.n_numbers + 2))
    _, *sizes = engine.facts.input_shape
    if sizes != [head.n_windows, head.n_numbers + 2]:
        what = f"takes {sizes}, the manifest states [{head.n_windows}, {head.n_numbers + 2}]"
        raise BundleError(path, what, "fit the head again")
    if member.label_columns is None and engine.facts.metadata.get(LABELS_KEY, labels) != labels:
        raise BundleError(path, "was made with other labels than the manifest lists", "fit the head again")
    return engine


class FileSequences:
    """Scores the windows of one file with the heads of all members that have one. Not thread-safe."""

    def __init__(self, sequences: Sequence[LoadedSequence], name: str) -> None:
        """Start a file; ``name`` is the recording's, for site and hour."""
        self._of = {each.loaded.index: _Windows(each, name) for each in sequences}

    def add(self, member_scores: Sequence[MemberScores]) -> list[MemberScores]:
        """Take the scores of a batch; return those that can be known now, of other members as they are."""
        ready = []
        for scores in member_scores:
            windows = self._of.get(scores.member)
            ready += [scores] if windows is None else windows.add(scores)
        return ready

    def finish(self) -> list[MemberScores]:
        """End the file, and return the scores of its last windows."""
        return [scores for windows in self._of.values() for scores in windows.score(is_whole=True)]


class _Windows:
    """A member's embeddings of a file, as far as they are needed."""

    def __init__(self, sequence: LoadedSequence, name: str) -> None:
        self._sequence, self._name = sequence, name
        self._early: dict[int, Float32] = {}
        self._held = np.zeros((0, sequence.head.n_numbers), np.float32)
        self._first = 0
        """Window of the file that is the first of those held."""
        self._done = 0

    def add(self, scores: MemberScores) -> list[MemberScores]:
        member = self._sequence.loaded.member.name
        if scores.embeddings is None or scores.embeddings.shape[1:] != self._held.shape[1:]:
            raise BundleError(member, "gives other embeddings than its head takes", "fit the head again")
        self._early[scores.first] = scores.embeddings
        while (following := self._early.pop(self._first + len(self._held), None)) is not None:
            self._held = np.concatenate([self._held, following])
        return self.score(is_whole=False)

    def score(self, *, is_whole: bool) -> list[MemberScores]:
        found = []
        n_windows = self._first + len(self._held)
        for span in spans(n_windows, self._sequence.head.n_windows, is_whole=is_whole, done=self._done):
            found.append(self._scored(span))
            self._done = span.end
        # What the next sequence begins with, wherever the file ends.
        keep = max(0, self._done - self._sequence.head.n_windows)
        self._held, self._first = self._held[keep - self._first :].copy(), keep
        return found

    def _scored(self, span: Span) -> MemberScores:
        head, grid, loaded = self._sequence.head, self._sequence.grid, self._sequence.loaded
        windows = self._first + np.arange(len(self._held))
        middles = [(grid.begin(window) + grid.window_samples / 2) / grid.sample_rate for window in windows.tolist()]
        site, hours = site_and_hours(self._name, head.sites, middles)
        inputs = sequence_input(
            self._held, np.full(len(windows), site), np.array(hours), span.start - self._first, head.n_windows
        )
        logits = self._sequence.engine.run(inputs[np.newaxis])[head.output][0]
        counting = logits[span.begin - span.start : span.end - span.start]
        clip = activate(counting, loaded.member.outputs.activation, loaded.graph_columns)
        if clip.ndim != 2 or not np.isfinite(clip).all():
            raise BundleError(loaded.member.name, "its head returns NaN, or no row for each window", "fit it again")
        return MemberScores(member=loaded.index, first=span.begin, clip=clip, frames=None)
