"""Predict files into one table: the whole command, with resume, deadline, tables and the choice of an engine.

What is on disk is valid at every moment: rows are stored as they are finished, a table is written whole or not at all,
and with a time budget a table exists from the beginning and is renewed while the run continues. Ctrl-C and SIGTERM end
the run at once before the first file and after the last table; in between they wait until the rows are saved. What
touches a sound file or a graph runs in other threads: a call that does not return holds neither signal nor deadline.

While anything is wrong with a file, its run is kept beside the table, so that ``resume`` repeats it: a disk that was
gone is back, a file was copied again. A new run replaces one that has ended like this; one that was stopped is replaced
by ``force`` alone.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from birdinfer.audio.channels import EACH, MEAN, check_channel, split_channel
from birdinfer.audio.find import Found, find_recordings
from birdinfer.audio.status import Status
from birdinfer.callbacks import Callback
from birdinfer.detections.recordings import timed_name
from birdinfer.errors import ConfigError, OutputError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.embeddings import EmbeddingWriter
from birdinfer.inference.engines import EnginePlan, EngineSpec, parse_spec
from birdinfer.inference.engines.cuda import find_gpu, has_cuda
from birdinfer.inference.predictor import Predictor, make_plan, share_in
from birdinfer.inference.results import Scheduler, SoundscapeResult
from birdinfer.inference.soundscapes import header_seconds, predict_soundscapes, recordings_of_channels
from birdinfer.inference.voice import detector_version, speech_finders
from birdinfer.postprocess.priors import PriorShift
from birdinfer.prediction.identity import RunIdentity
from birdinfer.prediction.ranks import rank_blender_of
from birdinfer.prediction.run_tables import SubmissionTables as SubmissionTables
from birdinfer.prediction.run_tables import Tables as Tables
from birdinfer.prediction.run_tables import group_tables
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.settings import PredictionCallback as PredictionCallback
from birdinfer.prediction.settings import PredictionOutcome as PredictionOutcome
from birdinfer.prediction.settings import PredictionSettings as PredictionSettings
from birdinfer.prediction.settings import RunSettings as RunSettings
from birdinfer.prediction.store import RunStore
from birdinfer.prediction.writer import SubmissionWriter, Written
from birdinfer.submission.formats import read_sample
from birdinfer.system.signals import StopRequest, leaving_at_sigterm
from birdinfer.system.threads import attended
from birdinfer.system.timing import format_duration

if TYPE_CHECKING:
    from birdinfer.inference.autotune import AutotuneResult, Measurement

_MEASURED_SHARE = 0.05  # share of a time budget that the search for the fastest engine may take
_EXIT_SECONDS = 0.5  # from the last byte of the tables until the process has ended: engines free their memory
_LATE_SECONDS = 0.5  # by which a worker may miss the moment when only finishing is left, before it is left behind
_HEADER_SHARE, _HEADER_SECONDS = 0.1, 2.0  # share of a time budget, at least so long, that reading headers may take
_UNFINISHED = frozenset({Status.skipped_by_budget, Status.stopped})


def predict_to_csv(
    bundle: Bundle,
    inputs: Sequence[str | Path],
    settings: PredictionSettings | None = None,
    callback: PredictionCallback | None = None,
) -> PredictionOutcome:
    """Predict soundscapes of any number and length, or folders that are searched for them, and write one table.

    Raises:
        BirdinferError: the run cannot be done as asked; nothing was changed but an older table if there is a budget. Or
            it had to end: no model works, the disk of the inputs is gone; the tables hold what is done, and
            ``resume`` continues.
        KeyboardInterrupt: stopped with Ctrl-C; finished files are kept for ``resume``.
        SystemExit: 143, stopped with SIGTERM; finished files are kept.
    """
    settings, callback = settings or PredictionSettings(), callback or PredictionCallback()
    sample = read_sample(settings.sample_submission) if settings.sample_submission else None
    blend = bundle.manifest.blend
    if settings.group_tables and blend.how != "rank":
        what = f"are those of a blend by rank, and the bundle's is {blend.how}"
        raise ConfigError("--group-tables", what, "give --blend rank, too")
    found = find_inputs(inputs, callback, may_be_none=sample is not None, channel=settings.channel)
    manifest = bundle.manifest
    writer = SubmissionWriter(
        bundle.labels, manifest.fallback_probabilities, manifest.rows, year=settings.year, sample=sample,
        threshold=settings.threshold, missing_species=settings.missing_species, names=found.names,
        skips_speech=settings.voice == "skip", ranks=rank_blender_of(bundle) if blend.how == "rank" else None,
        species=manifest.species,
    )  # fmt: skip
    paths = list(found.names)
    writer.check_names(paths)
    sample_files = [settings.sample_submission] if settings.sample_submission else []
    used = [*files_of(found), *sample_files, *bundle.files]
    groups = {} if settings.group_tables is None else group_tables(settings.group_tables, blend)
    tables = SubmissionTables(settings.output, writer, used, settings.force, groups)
    for line in filter(None, (writer.missing_problem(), writer.sample_problem(paths))):
        callback.on_warning(line)
    outcome = run_prediction(bundle, found, settings, callback, tables)
    if outcome.written.rows_past_end:
        what = f"{outcome.written.rows_past_end} rows end where their recording has no window, they hold the fallback"
        callback.on_warning(f"{settings.sample_submission}: {what}")
    return outcome


def run_prediction(
    bundle: Bundle, found: Found, settings: RunSettings, callback: PredictionCallback, tables: Tables
) -> PredictionOutcome:
    """Predict recordings that were found into tables that can be written; errors as of :func:`predict_to_csv`."""
    if settings.resume and settings.force:
        raise ConfigError("--force", "starts again, and --resume continues", "give one of them")
    if settings.embeddings and settings.budget_seconds is not None:
        raise ConfigError("--embeddings", "needs all windows, and --time-budget may leave some out", "give one of them")
    with (
        leaving_at_sigterm(),
        RunStore(
            tables.output, bundle.manifest.blend.n_columns(len(bundle.labels)), found.names, kept_from=tables.kept_from
        ) as store,
    ):
        if not settings.force and store.mend():
            callback.on_warning(f"{store.folder} was damaged: what can be read of it, {store.n_done()} files, is kept")
        n_done = 0 if settings.resume or settings.force or store.has_ended() else store.n_done()
        if n_done:
            problem = f"a stopped run has left {n_done} finished files in {store.folder}"
            raise OutputError(tables.output, problem, "continue with --resume, or start again with --force")
        tables.remove_leftovers()
        return _Prediction(bundle, found, settings, callback, tables, store).run()


def find_inputs(
    inputs: Sequence[str | Path], callback: PredictionCallback, *, may_be_none: bool = False, channel: str = MEAN
) -> Found:
    """Find the recordings, and report what was passed over; InputNotFoundError if there are none.

    ``may_be_none``: a sample has the rows, as in Kaggle's public run. With the channel ``each``, every channel of a
    file is a recording of its own.
    """
    check_channel(channel, EACH)
    found = attended(lambda: find_recordings([Path(each) for each in inputs]))
    if channel == EACH:
        whole = found.names
        found = replace(found, names=attended(lambda: recordings_of_channels(whole)))
    if not may_be_none:
        hint = "name a sound file, or a folder that holds some; with --sample-submission its rows would be written"
        found.require(hint)
    for line in found.notes():
        callback.on_message(line)
    return found


def files_of(found: Found) -> list[Path]:
    """List the files that were found, also those that cannot be opened."""
    return [*(split_channel(path)[0] for path in found.names), *(path for path, _ in found.unopened)]


class _Prediction:
    """One run; its methods in the order in which they are called."""

    def __init__(
        self,
        bundle: Bundle,
        found: Found,
        settings: RunSettings,
        callback: PredictionCallback,
        tables: Tables,
        store: RunStore,
    ) -> None:
        self._bundle, self._settings, self._callback = bundle, settings, callback
        self._names, self._paths = found.names, list(found.names)
        self._step_names = step_names(bundle, self._names)
        self._unopened = [SoundscapeResult(path, Status.not_opened, problem=why) for path, why in found.unopened]
        self._tables, self._store = tables, store
        # With ``each`` the recordings name their channel, and those of one channel are averaged over it.
        self._channel = MEAN if settings.channel == EACH else settings.channel
        self._speech = speech_finders(settings.voice) if settings.voice else None
        used, folder = [*files_of(found), *bundle.files], settings.embeddings
        self._embeddings = EmbeddingWriter(folder, bundle, self._names, used) if folder else None
        self._results: dict[Path, SoundscapeResult] = {}
        self._done_before: frozenset[Path] = frozenset()
        self._lengths: dict[Path, float | None] = {}

    def run(self) -> PredictionOutcome:
        stop = StopRequest()
        if self._settings.budget_seconds is not None:
            self._write_prior_table()
        plan = attended(self._choose_plan)
        self._open_store(plan.spec)
        outcome = self._outcome(self._predict_and_write(plan, stop), plan)
        if self._embeddings is not None:
            self._embeddings.write_index(outcome.results)
        self._callback.on_tables(outcome)
        stop.check()
        self._tables.finish(self._store.scores, outcome.results, self._callback)
        self._callback.on_end(outcome, self._store.scores)
        if outcome.is_complete:
            self._store.discard()
        elif not outcome.n_left_out:
            self._store.end()
        return outcome

    def _write_prior_table(self) -> None:
        """Fill all rows with the prior, unless that would replace the table of a run that may continue."""
        self._lengths = self._read_headers()
        if self._settings.resume and self._tables.output.exists():
            return
        n_columns = self._bundle.manifest.blend.n_columns(len(self._bundle.labels))
        written = self._tables.write(ScoreStore(n_columns), self._all_results())
        self._tables.add_seconds(written)

    def _read_headers(self) -> dict[Path, float | None]:
        """Read the lengths of the files; those that are not known in time are unknown."""
        lengths: dict[Path, float | None] = dict.fromkeys(self._paths)

        def read() -> None:
            for path in self._paths:
                lengths[path] = header_seconds(path)

        with contextlib.suppress(_TooLateError):
            attended(read, self._check_time(_HEADER_SHARE, _HEADER_SECONDS))
        return dict(lengths)

    def _check_time(self, share: float, least_seconds: float = 0.0) -> Callable[[], None]:
        """Return what raises once this share of the time budget has passed; not without a budget."""
        budget_seconds = self._settings.budget_seconds
        until = perf_counter() + (math.inf if budget_seconds is None else max(least_seconds, share * budget_seconds))

        def check() -> None:
            if perf_counter() > until:
                raise _TooLateError

        return check

    def _choose_plan(self) -> EnginePlan:
        """Choose what runs the graphs; a run that continues keeps its engine unless another one is asked for."""
        settings, engine = self._settings, self._settings.engine
        before = self._store.identity() if settings.resume else None
        if before is not None and engine in ("auto", None):
            return make_plan(parse_spec(before.engine), settings.workers, settings.batch_size)
        if engine == "auto":
            return self._autotune()
        return make_plan(engine or default_engine(self._callback), settings.workers, settings.batch_size)

    def _autotune(self) -> EnginePlan:
        """Measure the engines; where there is nothing to measure with, or no time, use the default one."""
        from birdinfer.inference.autotune import autotune  # which costs every other start 20 ms

        settings, check = self._settings, self._check_time(_MEASURED_SHARE)

        def report(trial: "Measurement") -> None:
            self._callback.on_engine_trial(trial)
            check()  # so that no other one begins

        def measure() -> "AutotuneResult":
            return autotune(self._bundle, self._paths, settings.workers, settings.batch_size, report)

        try:
            choice = attended(measure, check)
        except _TooLateError:
            most = format_duration(_MEASURED_SHARE * (settings.budget_seconds or 0))
            plan = make_plan(default_engine(self._callback), settings.workers, settings.batch_size)
            self._callback.on_warning(f"--engine auto: measuring takes longer than {most}; continuing with {plan}")
            return plan
        except ConfigError as error:
            plan = make_plan(default_engine(self._callback), settings.workers, settings.batch_size)
            self._callback.on_warning(f"{error}; continuing with {plan}")
            return plan
        self._callback.on_engine_choice(choice)
        return choice.plan

    def _open_store(self, spec: EngineSpec) -> None:
        voice, channel = self._settings.voice, check_channel(self._settings.channel, EACH)
        detector = f"{voice} by silero-vad {detector_version()}" if voice else ""
        identity = RunIdentity.of(
            self._bundle, spec, self._tables.kept_from, channel=channel, voice=detector,
            embeddings=self._embeddings.identity if self._embeddings else "",
        )  # fmt: skip
        if not self._settings.resume:
            self._store.begin(identity)
            self._begin_embeddings()
            return
        self._results = attended(lambda: self._store.resume(identity, self._paths))
        self._begin_embeddings()
        self._done_before = frozenset(self._results)
        n_tried = len(self._store.tried)
        repeated = f", {n_tried} of them are not well and are repeated" if n_tried else ""
        n_known = len(self._results) + n_tried
        self._callback.on_message(f"{n_known} of {len(self._paths)} files are done already{repeated}")
        if self._settings.budget_seconds is not None and not self._tables.is_own:
            self._write()  # the time that writing takes is a part of the budget

    def _begin_embeddings(self) -> None:
        if self._embeddings is not None:
            self._embeddings.begin()

    def _predict_and_write(self, plan: EnginePlan, stop: StopRequest) -> Written:
        """Predict the files that are not done; from the first of them to the last table a signal has to wait."""
        left = [path for path in self._paths if path not in self._results]
        # What failed before comes last: should it end the run again, all others are done.
        paths = sorted(left, key=lambda path: path in self._store.tried)
        scheduler = attended(lambda: self._scheduler(plan, paths)) if paths else None
        with stop:
            if scheduler is not None:
                try:
                    self._predict(scheduler, paths, stop)
                except Exception:
                    self._save()
                    raise
                finally:
                    if self._embeddings is not None:
                        self._embeddings.close()
            if stop.requested:
                self._save()
                stop.leave()
            return self._write()

    def _scheduler(self, plan: EnginePlan, paths: Sequence[Path]) -> Scheduler:
        if self._settings.budget_seconds is None:
            embeddings = self._embeddings is not None
            return self._tables.make_scheduler(
                self._bundle,
                lambda bundle: Predictor(
                    bundle, plan, channel=self._channel, speech=self._speech, embeddings=embeddings
                ),
            )
        from birdinfer.prediction.budget import Budget  # which costs every other start 8 ms
        from birdinfer.prediction.fallback_levels import fallback_levels

        return Budget(
            fallback_levels(self._bundle), {path: self._lengths[path] for path in paths},
            budget_seconds=self._settings.budget_seconds, started=self._settings.started, workers=plan.workers,
            make_predictor=lambda bundle: Predictor(bundle, plan, channel=self._channel, speech=self._speech),
            finish_seconds=lambda: self._tables.write_seconds + _EXIT_SECONDS,
        )  # fmt: skip

    def _predict(self, scheduler: Scheduler, paths: Sequence[Path], stop: StopRequest) -> None:
        def poll() -> bool:
            for line in scheduler.news():
                self._callback.on_message(line)
            if self._settings.budget_seconds is not None and self._tables.is_stale():
                self._write()
            return stop.requested or scheduler.seconds_left() < -_LATE_SECONDS

        sizes = attended(lambda: {path: _size_bytes(path) for path in paths})
        total = max(1, sum(sizes.values()))

        def on_progress(path: Path, share: float, seconds: float) -> None:
            self._callback.on_sound(share * sizes[path] / total, seconds)

        self._callback.on_start(len(paths))
        for result in predict_soundscapes(
            scheduler, paths, on_progress, self._store, poll, self._step_names,
            has_worked=any(result.n_rows for result in self._results.values()), embeddings=self._embeddings,
        ):  # fmt: skip
            # A file of which less was read than before, since its disk is gone, keeps what it had.
            self._results[result.path] = self._store.tried.get(result.path, result)
            self._callback.on_file(result)
        if not stop.requested:  # all are done, unless calls that do not return have used up the time
            for path in paths:
                unreached = SoundscapeResult(path, Status.skipped_by_budget, expected_seconds=self._lengths.get(path))
                self._results.setdefault(path, unreached)

    def _write(self) -> Written:
        return self._tables.write(self._store.scores, self._all_results())

    def _outcome(self, written: Written, plan: EnginePlan) -> PredictionOutcome:
        results, share = self._all_results(), share_in(self._bundle, plan.spec.precision)
        return PredictionOutcome(
            results=results, names=self._names, written=written, output=self._tables.output,
            side_table=self._tables.side_table,
            n_windows=sum(self._store.scores.n_rows(path) or 0 for path in self._paths),
            sound_seconds=sum(result.seconds for result in results if result.path not in self._done_before),
            seconds=perf_counter() - self._settings.started, engine=f"{plan}; {share}" if share else str(plan),
        )  # fmt: skip

    def _all_results(self) -> list[SoundscapeResult]:
        """Results in the order of the inputs; a file that is not done is ``stopped``. Then what cannot be opened."""
        results = [
            self._results.get(path)
            or self._store.tried.get(path)
            or SoundscapeResult(path, Status.stopped, expected_seconds=self._lengths.get(path), problem="not reached")
            for path in self._paths
        ]
        return results + self._unopened

    def _save(self) -> None:
        """Save what is done by a run that ends too early, into a table as well unless an older one would be lost."""
        results = self._all_results()
        n_finished = sum(result.status not in _UNFINISHED for result in results)
        n_failed = sum(result.status is Status.failed for result in results)
        n_done = min(n_finished, self._store.n_done())  # without files that hung, or were not there
        self._store.sync()
        is_same_run = self._tables.is_own or self._done_before or self._store.tried
        keeps_older = not is_same_run and self._tables.output.exists()
        if self._results and not keeps_older:
            self._write()
        if n_failed and not any(result.n_rows for result in results):
            self._store.end()  # a run with a mended model has nothing to lose
            self._callback.on_warning(f"{n_done} of {len(self._paths)} files were tried, none could be scored")
        elif n_done:
            older = f" ({self._tables.output} is as it was)" if keeps_older else ""
            how = "; --resume continues" if self._settings.keeps_progress else ", none is kept with -o -"
            failed = f", {n_failed} of them failed" if n_failed else ""
            self._callback.on_warning(f"{n_done} of {len(self._paths)} files are done{failed}{how}{older}")


def step_names(bundle: Bundle, names: Mapping[Path, str]) -> Mapping[Path, str]:
    """Return the names of recordings as a bundle's post-processing needs them: with the time, if a step asks for it."""
    by_time = any(isinstance(step, PriorShift) and step.depends_on_time for step in bundle.manifest.post.steps)
    return _TimedNames(names) if by_time else names


class _TimedNames(dict[Path, str]):
    """Names of recordings from which a step reads the time; the metadata of a file are read when it is opened."""

    def get(self, path: Path, default: str | None = None) -> str | None:  # type: ignore[override]
        name = super().get(path)
        return default if name is None else timed_name(split_channel(path)[0], name)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is gone, which the worker that opens it reports
        return 0


def default_engine(callback: Callback) -> str:
    """Return the engine that runs in fp32 if none is asked for: the GPU's if there is one, else the CPU's."""
    if not find_spec("onnxruntime") and find_spec("openvino"):
        return "openvino"
    if not has_cuda():
        return "onnxruntime"
    problem = find_gpu()
    if not problem:
        return "cuda"
    callback.on_warning(f"no GPU is used: {problem}; continuing with the CPU")
    return "onnxruntime"


class _TooLateError(Exception):
    """The share of a time budget is used up."""
