"""The hot path: a run of windows through the stations in order.

Run of windows -> log-mel (once for all members that hear the same) -> members -> probabilities; then, on a sheet for
each file (:mod:`birdinfer.file_scores`), rows -> ensemble -> post-processing. One :class:`Predictor` serves all lanes:
they share the graphs' weights.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.bundle import Bundle
from birdinfer.config import PostConfig
from birdinfer.cores import available_cores
from birdinfer.engines import FROM_FP32_GRAPHS, EnginePlan, EngineSpec, parse_spec
from birdinfer.ensemble import make_blend
from birdinfer.errors import ConfigError
from birdinfer.file_scores import FileScores, Finisher, join_pieces
from birdinfer.listener import Listener, Opinion, load_listeners
from birdinfer.manifest import Member, Precision
from birdinfer.postprocess.pipeline import Pipeline
from birdinfer.postprocess.step_tables import TableStep, resolved
from birdinfer.postprocess.steps import AnyStep
from birdinfer.reader import HeardRun, SoundscapeReader
from birdinfer.timeline import Timeline

Float32 = npt.NDArray[np.float32]

BATCH_SIZE = 3
"""Windows per call of a graph: convolutions are fastest while a batch's activations stay in a core's cache, and 12
windows of a minute are four times three."""

GPU_BATCH_SIZE = 64
"""Windows per call on a GPU, which are gathered over files."""

RUN_ROWS = 6
"""Rows read ahead at a time: half a minute of sound, so that two lanes share even a file of one minute."""


class Predictor:
    """A bundle, loaded and ready; may be shared by threads."""

    def __init__(
        self,
        bundle: Bundle,
        engine: str | EnginePlan = "onnxruntime",
        post: PostConfig | None = None,
    ):
        """Load every member.

        Args:
            bundle: what predicts.
            engine: ``onnxruntime``, ``openvino:bf16`` ..., or a plan that also says lanes and batch size.
            post: what is done to the scores, instead of the bundle's own; a relative table lies in the bundle's folder.

        Raises:
            BundleError: a graph cannot be loaded, its labels are not the bundle's, or a table lies outside the bundle.
            ConfigError: there is no such engine, this machine cannot run it, no member has a graph for it, the members
                cannot be blended as the bundle says, or a step of the post-processing does not fit the species.
            MissingExtraError: the engine is not installed.
        """
        self.bundle = bundle
        self.labels = bundle.labels
        self.plan = engine if isinstance(engine, EnginePlan) else make_plan(engine)
        _refuse_missing_graphs(bundle, self.plan.spec)
        self.rows = bundle.manifest.rows
        self.post = bundle.manifest.post if post is None else post
        steps = [_with_table(step, bundle.folder) for step in self.post.all_steps]
        self._pipeline = Pipeline(steps, bundle.manifest.species)
        self.listeners: Sequence[Listener] = load_listeners(bundle, self.plan)
        known = {loaded.index: loaded.labels for listener in self.listeners for loaded in listener.members}
        members = bundle.manifest.members
        self._columns = [known[index] for index in range(len(members))]
        self._blend = make_blend(
            bundle.manifest.blend,
            [member.name for member in members],
            [member.weight for member in members],
            self._columns,
            bundle.manifest.fallback_probabilities,
        )

    def open(self, path: Path) -> SoundscapeReader:
        """Open a file, to be cut as the members want it.

        Raises:
            AudioError: it is not sound.
        """
        placements = [listener.placement for listener in self.listeners]
        batch = self.plan.batch_size
        per_run = [max(1, RUN_ROWS * place.row_samples // place.stride_samples) for place in placements]
        # Whole batches: an engine of fixed shape would fill up the rest with zeros.
        return SoundscapeReader(path, placements, [-(-most // batch) * batch for most in per_run])

    def score_run(self, heard: HeardRun) -> list[Opinion]:
        """What the members say of a run of windows."""
        listener = self.listeners[heard.listener]
        return listener.opinions(heard.run.first, listener.hear(heard.run))

    def share_of_clock(self, heard: HeardRun) -> float:
        """Seconds of sound that a run stands for; over all runs of all listeners they add up to the file's length."""
        place = self.listeners[heard.listener].placement
        return heard.run.n_windows * place.stride_samples / place.sample_rate / len(self.listeners)

    def gather(self, path: Path) -> FileScores:
        """An empty sheet for the opinions on this file."""
        timelines = {
            loaded.index: Timeline(listener.placement, loaded.member.timeline, self._n_known(loaded.index))
            for listener in self.listeners
            for loaded in listener.members
        }
        in_order = [timelines[index] for index in range(len(timelines))]
        return FileScores(in_order, self._blend, Finisher(self._pipeline, path.stem, len(self.labels)))

    def predict(self, path: str | Path) -> Float32:
        """Probabilities [rows, species] of one sound file, on the calling thread.

        Raises:
            AudioError: the file yields no sound.
        """
        path = Path(path)
        scores = self.gather(path)
        with self.open(path) as reader:
            for heard in reader.runs():
                scores.add(self.score_run(heard))
            scores.close(reader.n_rows)
        return join_pieces(scores.take(), len(self.labels))

    def _n_known(self, member: int) -> int:
        columns = self._columns[member]
        return len(self.labels) if columns is None else len(columns)


def _with_table(step: AnyStep, folder: Path) -> AnyStep:
    """The step, its table found: one told on a command line says where; the bundle's own lies in its folder."""
    is_told = isinstance(step, TableStep) and Path(step.table).is_absolute()
    return step if is_told else resolved(step, folder)


def members_in(bundle: Bundle, precision: Precision) -> list[Member]:
    """Members that a plan of this precision runs in it; the others lack a graph of it and are run in fp32."""
    members = bundle.manifest.members
    return [member for member in members if precision in FROM_FP32_GRAPHS or precision in member.graphs]


def share_in(bundle: Bundle, precision: Precision) -> str:
    """How much of the ensemble a plan runs in its precision, as ``4 of 5 members in int8``; "" where all of it."""
    n_members, n_in_it = len(bundle.manifest.members), len(members_in(bundle, precision))
    return "" if n_in_it == n_members else f"{n_in_it} of {n_members} members in {precision}, the others in fp32"


def _refuse_missing_graphs(bundle: Bundle, spec: EngineSpec) -> None:
    """Refuse to run all in fp32 what was to run in another precision: only the time would show the difference."""
    if members_in(bundle, spec.precision):
        return
    first, *others = bundle.manifest.members
    there = ", ".join(known for known in first.graphs if all(known in member.graphs for member in others))
    raise ConfigError(
        "--engine", f"{spec}, but no member has {spec.precision} graphs, only {there}",
        f"choose {spec.engine}:fp32, or auto",
    )  # fmt: skip


def make_plan(engine: str | EngineSpec, lanes: int | None = None, batch_size: int | None = None) -> EnginePlan:
    """``"openvino:bf16"`` -> a plan for this machine.

    Args:
        engine: an engine, with or without its precision.
        lanes: one for each core if None; twice as many before a GPU, which work while others wait for it.
        batch_size: :data:`BATCH_SIZE` if None; :data:`GPU_BATCH_SIZE` on a GPU.

    Raises:
        ConfigError: there is no such engine.
    """
    spec = engine if isinstance(engine, EngineSpec) else parse_spec(engine)
    on_gpu = spec.engine == "cuda"
    return EnginePlan(
        spec,
        lanes or available_cores() * (2 if on_gpu else 1),
        batch_size or (GPU_BATCH_SIZE if on_gpu else BATCH_SIZE),
    )
