"""The hot path: one file's windows -> rows of probabilities.

    file -> WindowBatch -> MemberGroup -> MemberScores -> ScoreAggregator -> rows -> ensemble -> post-processing
            `------- score_batch, any thread -------'    `-------------- FileScores, one per file --------------'

A :class:`Predictor` holds what all files share (loaded graphs, blend, steps) and may be used by several threads. A
:class:`FileScores` holds what one file needs: it takes the scores of window batches in any order and gives back
finished rows, float32 [rows, species], as soon as nothing can change them, so that a day's scores are never held at
once. :func:`make_plan` chooses engine, workers and batch size for this machine.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from birdinfer.audio.channels import MEAN, check_channel
from birdinfer.audio.find import recording_name
from birdinfer.audio.reader import SoundscapeReader
from birdinfer.audio.speech import SpeechFinder
from birdinfer.audio.stream import AudioStream
from birdinfer.audio.windows import WindowBatch
from birdinfer.errors import ConfigError
from birdinfer.inference.aggregation import ScoreAggregator
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.engines import FROM_FP32_GRAPHS, EnginePlan, EngineSpec, parse_spec
from birdinfer.inference.ensemble import Blender, make_blend
from birdinfer.inference.manifest import Member, Precision
from birdinfer.inference.member_group import MemberGroup, MemberScores, load_member_groups
from birdinfer.inference.sequence import FileSequences, load_sequences
from birdinfer.postprocess.base import Pipeline, TableStep, with_table_in
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.steps import AnyStep
from birdinfer.system.cpu import available_cores
from birdinfer.typing import Float32

BATCH_SIZE = 3
"""Windows per call of a graph: convolutions are fastest while a batch's activations stay in a core's cache, and 12
windows of a minute are four times three."""
GPU_BATCH_SIZE = 64
"""Windows per call on a GPU, collected over files."""
READ_AHEAD_ROWS = 6
"""Rows in a window batch: half a minute of sound, so that two workers share even a file of one minute."""
CHUNK_ROWS = 1024
"""The least rows in a chunk, except for a file's last: 85 minutes, 0.8 MB for 206 species. Nearly all files are one."""


class Predictor:
    """A loaded bundle that predicts; may be shared by threads.

    >>> from birdinfer.inference.bundle import demo_bundle_path
    >>> from birdinfer.synthetic.soundscapes import write_soundscapes
    >>> truth = write_soundscapes(Path("demo"), n_files=1, duration_seconds=10)
    >>> predictor = Predictor(Bundle.load(demo_bundle_path()))
    >>> predictor.predict("demo/synthetic_S01_20260501_053000.ogg").shape  # two rows of 5 s, eight species
    (2, 8)
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str | EnginePlan = "onnxruntime",
        post: PostConfig | None = None,
        *,
        channel: str = MEAN,
        speech: Callable[[], SpeechFinder] | None = None,
        embeddings: bool = False,
    ) -> None:
        """Load every member.

        Args:
            bundle: what predicts.
            engine: ``onnxruntime``, ``openvino:bf16`` ..., or a plan that also states workers and batch size.
            post: post-processing in place of the bundle's own; a relative table lies in the bundle's folder.
            channel: ``mean`` of a file's channels, the number of one from 1, or ``loudest``: the loudest that works.
            speech: makes what finds, and perhaps silences, human speech in a file
                (:func:`birdinfer.inference.voice.speech_finders`).
            embeddings: take these, too, from the members that have some.

        Raises:
            BundleError: a graph cannot be loaded, its labels are not the bundle's, or a table lies outside the bundle.
            ConfigError: there is no such engine or channel, this machine cannot run the engine, no member has a graph
                for it, the members cannot be blended as the manifest states, or a step of post-processing does not fit
                the species.
            MissingExtraError: the engine is not installed.
        """
        self.bundle = bundle
        self.labels = bundle.labels
        self._speech = speech
        self.plan = engine if isinstance(engine, EnginePlan) else make_plan(engine)
        self.channel = check_channel(channel)
        _check_precision(bundle, self.plan.spec)
        self.rows = bundle.manifest.rows
        self.post = bundle.manifest.post if post is None else post
        steps = [_with_table(step, bundle.folder) for step in self.post.all_steps]
        pipeline = Pipeline(steps, bundle.manifest.species)
        blend = bundle.manifest.blend
        self.n_columns = blend.n_columns(len(self.labels))
        """Of the scores: species, or for a blend by rank those of one group behind those of the other."""
        self._pipeline = GroupPipeline(pipeline, len(blend.groups)) if blend.how == "rank" else pipeline
        self.member_groups: Sequence[MemberGroup] = load_member_groups(bundle, self.plan, embeddings=embeddings)
        self.call_windows = max(group.call_windows(self.plan) for group in self.member_groups)
        """Windows that a call of the graphs computes, however few it is given; 1: those it is given."""
        self._sequences = load_sequences(bundle, self.member_groups, self.plan)
        known = {loaded.index: loaded.labels for group in self.member_groups for loaded in group.members}
        members = bundle.manifest.members
        self._columns = [known[index] for index in range(len(members))]
        self._blend = make_blend(
            blend,
            [member.name for member in members],
            [member.weight for member in members],
            self._columns,
            bundle.manifest.fallback_probabilities,
        )

    def predict(self, path: str | Path) -> Float32:
        """Predict one sound file on the calling thread: probabilities [rows, species]; AudioError without sound.

        For a blend by rank, [rows, groups * species]: ranks need the rows of all files.
        """
        path = Path(path)
        scores = self.file_scores(path)
        with self.open(path) as reader:
            for batch in reader.batches():
                scores.add(self.score_batch(batch))
            scores.finish(reader.n_rows)
        return join_chunks(scores.take(), self.n_columns)

    def embed(self, path: str | Path) -> dict[str, Float32]:
        """Embed one sound file on the calling thread: by member [windows, numbers]; AudioError without sound.

        Needs ``embeddings``; empty if no member has some.
        """
        names = [member.name for member in self.bundle.manifest.members]
        found: dict[str, list[Float32]] = {}
        with self.open(Path(path)) as reader:
            for batch in reader.batches():
                for scores in self.score_batch(batch):
                    if scores.embeddings is not None:
                        found.setdefault(names[scores.member], []).append(scores.embeddings)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def open(self, path: Path) -> SoundscapeReader:
        """Open a file, to be cut into window batches for each member group; AudioError if it is not sound."""
        return self.read(AudioStream(path, self.member_groups[0].grid.sample_rate, self.channel))

    def read(self, stream: AudioStream) -> SoundscapeReader:
        """Do as :meth:`open` with sound that is open, or in memory."""
        grids = [group.grid for group in self.member_groups]
        size = self.plan.batch_size
        per_batch = [max(1, READ_AHEAD_ROWS * grid.row_samples // grid.stride_samples) for grid in grids]
        # Multiples of the engine's batch size: a fixed shape would be filled up with zeros.
        return self._reader(stream, [-(-most // size) * size for most in per_batch])

    def read_live(self, stream: AudioStream) -> SoundscapeReader:
        """Do as :meth:`read` with a live source: every window is a batch, so that none waits for others."""
        return self._reader(stream, [1] * len(self.member_groups))

    def _reader(self, stream: AudioStream, batch_windows: Sequence[int]) -> SoundscapeReader:
        grids = [group.grid for group in self.member_groups]
        return SoundscapeReader(stream, grids, batch_windows, None if self._speech is None else self._speech())

    def score_batch(self, batch: WindowBatch) -> list[MemberScores]:
        """Score a batch of windows with every member of its group."""
        group = self.member_groups[batch.member_group]
        return group.score(batch.first, group.make_input(batch))

    def score_batches(self, batches: Sequence[WindowBatch]) -> list[list[MemberScores]]:
        """Do as :meth:`score_batch` with several batches of one group, as if they were one."""
        group = self.member_groups[batches[0].member_group]
        scores = group.score(0, np.concatenate([group.make_input(batch) for batch in batches]))
        ends = np.cumsum([batch.n_windows for batch in batches])
        return [
            [each.part(batch.first, slice(end - batch.n_windows, end)) for each in scores]
            for batch, end in zip(batches, ends.tolist(), strict=True)
        ]

    def sound_seconds_of(self, batch: WindowBatch) -> float:
        """Seconds of sound that a batch stands for; over all batches of all groups they sum to the file's length."""
        grid = self.member_groups[batch.member_group].grid
        return batch.n_windows * grid.stride_samples / grid.sample_rate / len(self.member_groups)

    def file_scores(self, path: Path, name: str | None = None) -> "FileScores":
        """Make the accumulator for the scores of a file; from its name post-processing reads site and hour."""
        aggregators = {
            loaded.index: ScoreAggregator(group.grid, loaded.member.aggregation, self._n_labels_of(loaded.index))
            for group in self.member_groups
            for loaded in group.members
        }
        in_order = [aggregators[index] for index in range(len(aggregators))]
        name = name or recording_name(path)
        postprocessor = StreamingPostprocessor(self._pipeline, name, self.n_columns)
        return FileScores(in_order, self._blend, postprocessor, self.file_sequences(name))

    def file_sequences(self, name: str) -> FileSequences:
        """Make what scores the windows of a recording of this name by the heads of members that have one."""
        return FileSequences(self._sequences, name)

    @property
    def whole_file_steps(self) -> list[str]:
        """The steps of post-processing that need all rows of a file before they give any."""
        return self._pipeline.whole_file_steps

    def _n_labels_of(self, member: int) -> int:
        columns = self._columns[member]
        return len(self.labels) if columns is None else len(columns)


class FileScores:
    """Accumulates the scores of one file and emits finished rows. Not thread-safe."""

    def __init__(
        self,
        aggregators: Sequence[ScoreAggregator],
        blend: Blender,
        postprocessor: "StreamingPostprocessor",
        sequences: FileSequences | None = None,
    ) -> None:
        self._aggregators, self._blend, self._postprocessor = aggregators, blend, postprocessor
        self._sequences = sequences or FileSequences([], "")
        self._waiting: list[list[Float32]] = [[] for _ in aggregators]
        """Rows of each member that wait for those of another member."""
        self._blended = [np.zeros((0, postprocessor.n_labels), np.float32)]
        self._n_blended = 0
        self._n_emitted = 0
        self._finished: list[Float32] = []

    def add(self, member_scores: Sequence[MemberScores]) -> None:
        """Add the members' scores of a batch of windows."""
        self._aggregate(self._sequences.add(member_scores))
        self._blend_complete_rows()
        if self._n_blended - self._n_emitted > CHUNK_ROWS:
            # All except one: where members work at several rates, rounding may make a last row the file does not have.
            self._emit(self._n_blended - 1)

    def flush(self, n_unsure: int) -> None:
        """Emit without waiting for a chunk, except for the last ``n_unsure`` rows, which the file may not have."""
        if self._n_blended - n_unsure > self._n_emitted:
            self._emit(self._n_blended - n_unsure)

    def finish(self, n_rows: int) -> None:
        """End the file: no more scores come, and the rest of its ``n_rows`` rows can be taken."""
        self._aggregate(self._sequences.finish())
        for aggregator in self._aggregators:
            aggregator.finish(n_rows)
        self._blend_complete_rows()
        self._emit(min(n_rows, self._n_blended))
        self._finished.append(self._postprocessor.finish())

    def finish_early(self) -> None:
        """End the file though more sound follows: with the last row for which all members have scores."""
        self._aggregate(self._sequences.finish())
        self._blend_complete_rows()
        self._emit(self._n_blended)
        self._finished.append(self._postprocessor.finish())

    def take(self) -> list[Float32]:
        """Return the chunks [rows, species] finished since the last call, in the file's order."""
        taken = [chunk for chunk in self._finished if len(chunk)]
        self._finished.clear()
        return taken

    def _aggregate(self, member_scores: Sequence[MemberScores]) -> None:
        for scores in member_scores:
            self._aggregators[scores.member].add(scores.first, scores.clip, scores.frames)

    def _blend_complete_rows(self) -> None:
        for aggregator, waiting in zip(self._aggregators, self._waiting, strict=True):
            rows = aggregator.take()
            if len(rows):
                waiting.append(rows)
        n_complete = min(sum(map(len, waiting)) for waiting in self._waiting)
        if not n_complete:
            return
        ready = []
        for waiting in self._waiting:
            rows = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            ready.append(rows[:n_complete])
            waiting[:] = [rows[n_complete:]] if len(rows) > n_complete else []
        self._blended.append(self._blend(ready))
        self._n_blended += n_complete

    def _emit(self, end: int) -> None:
        """Post-process the rows up to this one; those behind it stay."""
        rows = np.concatenate(self._blended)
        n_rows = end - self._n_emitted
        self._blended = [rows[n_rows:].copy()]
        self._n_emitted = end
        self._finished.append(self._postprocessor.push(rows[:n_rows]))


class GroupPipeline:
    """Runs the steps of post-processing on each group of a blend by rank, as if it were alone."""

    def __init__(self, pipeline: Pipeline, n_groups: int) -> None:
        self._pipeline, self._n_groups = pipeline, n_groups
        self.context_rows, self.whole_file_steps = pipeline.context_rows, pipeline.whole_file_steps

    def __call__(self, scores: Float32, file_id: str) -> Float32:
        """Post-process one file's [rows, groups * species]; a group without scores, NaN, stays so."""
        groups = np.split(scores, self._n_groups, axis=1)
        done = [each if np.isnan(each).all() else self._pipeline(each, file_id) for each in groups]
        return np.concatenate(done, axis=1)


class StreamingPostprocessor:
    """Post-processes a file's rows as they come, with the same bits as the pipeline on all of them at once."""

    def __init__(self, pipeline: Pipeline | GroupPipeline, file_id: str, n_labels: int) -> None:
        self.n_labels = n_labels
        self._pipeline, self._file_id = pipeline, file_id
        self._held = [np.zeros((0, n_labels), np.float32)]
        """Rows that are not finished yet, preceded by those they depend on."""
        self._n_finished = 0
        """Of the rows that are held."""

    def push(self, rows: Float32) -> Float32:
        """Take the next rows [n, species] and return the rows [m, species] whose neighbours are all known."""
        self._held.append(rows)
        context = self._pipeline.context_rows
        if context is None:
            return np.zeros((0, self.n_labels), np.float32)
        held = np.concatenate(self._held)
        end = max(self._n_finished, len(held) - context)
        if end == self._n_finished:  # as for most of a short file
            self._held = [held]
            return np.zeros((0, self.n_labels), np.float32)
        finished = self._pipeline(held, self._file_id)[self._n_finished : end].copy()
        keep = max(0, end - context)
        self._held, self._n_finished = [held[keep:].copy()], end - keep
        return finished

    def finish(self) -> Float32:
        """Return the last rows [m, species]; no more come."""
        held = np.concatenate(self._held)
        self._held.clear()
        return self._pipeline(held, self._file_id)[self._n_finished :]


def join_chunks(chunks: list[Float32], n_labels: int) -> Float32:
    """Join chunks of :meth:`FileScores.take` to all rows [rows, species]; the list is empty afterwards."""
    rows, begin = np.empty((sum(map(len, chunks)), n_labels), np.float32), 0
    while chunks:  # each is freed at once, or a day's scores would be held twice
        chunk = chunks.pop(0)
        rows[begin : begin + len(chunk)] = chunk
        begin += len(chunk)
    return rows


def make_plan(engine: str | EngineSpec, workers: int | None = None, batch_size: int | None = None) -> EnginePlan:
    """Plan how this machine runs an engine such as ``"openvino:bf16"``.

    ``workers``: one for each core if None; twice the cores with a GPU, where some work while others wait for it.
    ``batch_size``: :data:`BATCH_SIZE` if None; :data:`GPU_BATCH_SIZE` on a GPU.

    >>> str(make_plan("onnxruntime", workers=2, batch_size=4))
    'onnxruntime:fp32, 2 workers, batch 4'
    """
    spec = engine if isinstance(engine, EngineSpec) else parse_spec(engine)
    on_gpu = spec.engine == "cuda"
    return EnginePlan(
        spec,
        workers or available_cores() * (2 if on_gpu else 1),
        batch_size or (GPU_BATCH_SIZE if on_gpu else BATCH_SIZE),
    )


def members_in(bundle: Bundle, precision: Precision) -> list[Member]:
    """Return the members that run in this precision; the others lack a graph for it and run in fp32."""
    members = bundle.manifest.members
    return [member for member in members if precision in FROM_FP32_GRAPHS or precision in member.graphs]


def share_in(bundle: Bundle, precision: Precision) -> str:
    """How much of the ensemble runs in a precision, as ``4 of 5 members in int8``; "" if all of it does."""
    n_members, n_in_it = len(bundle.manifest.members), len(members_in(bundle, precision))
    return "" if n_in_it == n_members else f"{n_in_it} of {n_members} members in {precision}, the others in fp32"


def _check_precision(bundle: Bundle, spec: EngineSpec) -> None:
    """Refuse a precision that no member has: the run would be fp32, and only its time would show it."""
    if members_in(bundle, spec.precision):
        return
    first, *others = bundle.manifest.members
    there = ", ".join(known for known in first.graphs if all(known in member.graphs for member in others))
    raise ConfigError(
        "--engine", f"{spec}, but no member has {spec.precision} graphs, only {there}",
        f"choose {spec.engine}:fp32, or auto",
    )  # fmt: skip


def _with_table(step: AnyStep, folder: Path) -> AnyStep:
    """Find a step's table: a command line names an absolute path, a manifest a file in the bundle's folder."""
    is_absolute = isinstance(step, TableStep) and Path(step.table).is_absolute()
    return step if is_absolute else with_table_in(step, folder)
