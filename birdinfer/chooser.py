"""``--engine auto``: the fastest engine, precision, batch and lanes for this bundle on this machine, by measurement.

Each candidate runs the bundle's own graphs for a moment on real windows of the input, on as many lanes as it would use.
One whose probabilities lie too far from fp32 (``limits.py``) is thrown out, however fast it is. What was found is kept
for this machine, this bundle and these versions, so that the next run begins at once.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.bundle import Bundle
from birdinfer.choices import Choice, Trial, cache_key, read_cache, write_cache
from birdinfer.cores import one_thread_per_lane, physical_cores
from birdinfer.engines import SUPPORTED, EnginePlan, EngineSpec
from birdinfer.errors import BirdinferError, BundleError, ConfigError, MissingExtraError
from birdinfer.limits import Limit, hold, limit_of
from birdinfer.listener import members_alike
from birdinfer.predictor import Predictor, make_plan, members_in, share_in
from birdinfer.reader import HeardRun
from birdinfer.throughput import windows_per_second

Float32 = npt.NDArray[np.float32]

PASSED_THE_GATE = "more than the bundle's tolerance, but its AUC and ranks passed when it was exported"
"""Said of a choice whose limit is what the gate measured."""
MEASURE_SECONDS = 0.4
"""How long a candidate runs; a slow network runs for two windows a lane at least."""
N_ROWS = 12
"""Rows of real sound that candidates are compared on: a minute."""
OTHER_BATCH_SIZES = (1, 6)
"""Tried for the fastest engine, besides :data:`birdinfer.predictor.BATCH_SIZE`."""


def choose(
    bundle: Bundle,
    paths: Sequence[Path],
    lanes: int | None = None,
    batch_size: int | None = None,
    report: Callable[[Trial], None] = lambda trial: None,
) -> Choice:
    """Choose how to run a bundle on this machine.

    Args:
        bundle: what predicts.
        paths: sound files; the first that can be read gives the windows.
        lanes: not to be chosen, if given.
        batch_size: not to be chosen, if given.
        report: is told of each trial as it ends.

    Raises:
        MissingExtraError: no engine is installed.
        BundleError: the bundle's fp32 graphs cannot be run by any engine.
        ConfigError: no file can be read.
    """
    key = cache_key(bundle, lanes, batch_size)
    known = read_cache().get(key)
    if known is not None:
        return msgspec.structs.replace(known, is_from_cache=True)
    choice = _Measurement(bundle, paths, lanes, batch_size, report).choose()
    write_cache({**read_cache(), key: choice})
    return choice


def candidate_specs(bundle: Bundle) -> list[EngineSpec]:
    """Engine and precision of all that could run here, fp32 first: installed, and a member has a graph for it."""
    specs = [
        EngineSpec(engine, precision)
        for engine, precisions in SUPPORTED.items()
        if _is_installed(engine)
        for precision in precisions
        if members_in(bundle, precision) and (precision != "bf16" or _has_bf16())
    ]
    return sorted(specs, key=lambda spec: spec.precision != "fp32")


class _Measurement:
    """One choice in the making."""

    def __init__(
        self,
        bundle: Bundle,
        paths: Sequence[Path],
        lanes: int | None,
        batch_size: int | None,
        report: Callable[[Trial], None],
    ) -> None:
        self._bundle, self._paths, self._report = bundle, paths, report
        self._lanes, self._batch_size = lanes, batch_size
        kinds = members_alike(bundle.manifest.members)
        self._counts = {member.name: len(kind) for kind in kinds for member in kind[0]}
        self._small = bundle.with_members(self._counts)
        self._heard: list[tuple[HeardRun, Float32]] = []
        self._reference: dict[str, Float32] | None = None
        self._trials: list[Trial] = []

    def choose(self) -> Choice:
        specs = candidate_specs(self._bundle)
        if not specs:
            raise MissingExtraError("onnxruntime", "cpu")
        with one_thread_per_lane():
            for spec in specs:
                self._try(make_plan(spec, self._lanes, self._batch_size))
            best = self._fastest()
            for plan in self._variants(best.plan):
                self._try(plan)
            best = self._confirmed()
        return Choice(best.plan, self._reason(best), tuple(self._trials))

    def _variants(self, plan: EnginePlan) -> Iterator[EnginePlan]:
        """The fastest engine again, with other batches and, where cores are shared by two threads, half the lanes."""
        if plan.spec.engine == "cuda":
            return
        if self._batch_size is None:
            for batch_size in OTHER_BATCH_SIZES:
                yield EnginePlan(plan.spec, plan.lanes, batch_size)
        if self._lanes is None and physical_cores() < plan.lanes:
            yield EnginePlan(plan.spec, physical_cores(), plan.batch_size)

    def _try(self, plan: EnginePlan) -> None:
        try:
            predictor = Predictor(self._small, plan)
        except (BundleError, ConfigError, MissingExtraError) as error:
            trial = Trial(plan, refused=error.what)
        else:
            # Heard once: every candidate, and at last the whole ensemble, gets the same windows.
            self._heard = self._heard or self._hear(predictor)
            trial = self._measure(predictor)
        self._trials.append(trial)
        self._report(trial)

    def _measure(self, predictor: Predictor) -> Trial:
        try:
            trial = self._hold_against_fp32(predictor.plan, _probabilities(predictor, self._heard))
            if trial.refused:
                return trial
            return msgspec.structs.replace(trial, rows_per_second=self._rows_per_second(predictor))
        except Exception as error:  # of the engines' own kinds; no memory left on a GPU must not cost the run
            return Trial(predictor.plan, refused="fails: " + " ".join(str(error).split()))

    def _hear(self, predictor: Predictor) -> list[tuple[HeardRun, Float32]]:
        """What each listener hears of the first minute of the first file that can be read."""
        wanted_seconds = N_ROWS * self._bundle.manifest.rows.window_seconds
        for path in self._paths:
            heard, seconds = [], 0.0
            try:
                with predictor.open(path) as reader:
                    for run in reader.runs():
                        heard.append((run, predictor.listeners[run.listener].hear(run.run)))
                        seconds += predictor.share_of_clock(run)
                        if seconds >= wanted_seconds and len({run.listener for run, _ in heard}) == len(
                            predictor.listeners
                        ):
                            break
            except (BirdinferError, OSError):
                continue  # it will be named when it is predicted
            return heard
        raise ConfigError(
            "--engine auto", f"none of {len(self._paths)} files can be read", "there is nothing to measure"
        )

    def _hold_against_fp32(self, plan: EnginePlan, found: dict[str, Float32]) -> Trial:
        """The trial, refused if it leaves the tolerance from the first that ran in fp32."""
        if self._reference is None:
            if plan.spec.precision != "fp32":
                return Trial(plan, refused="no fp32 engine to hold it against")
            self._reference = found
        return Trial(plan, 0.0, *hold(self._reference, found, self._limits(plan)))

    def _limits(self, plan: EnginePlan) -> dict[str, Limit]:
        """Member -> how far it may lie from fp32 under a plan."""
        tolerance = self._bundle.manifest.tolerance
        return {
            member.name: limit_of(member, plan.spec.precision, tolerance) for member in self._bundle.manifest.members
        }

    def _rows_per_second(self, predictor: Predictor) -> float:
        """All lanes at once, as in a run; members of one kind count as often as there are."""
        seconds_per_row = 0.0
        for listener_index, listener in enumerate(predictor.listeners):
            inputs = np.concatenate([batch for run, batch in self._heard if run.listener == listener_index])
            windows_per_row = listener.placement.row_samples / listener.placement.stride_samples
            engines = {id(loaded.graph.engine): loaded.graph.engine for loaded in listener.members}
            for key, engine in engines.items():
                counts = [self._counts[one.member.name] for one in listener.members if id(one.graph.engine) == key]
                speed = windows_per_second(engine.run, inputs, predictor.plan, MEASURE_SECONDS)
                seconds_per_row += sum(counts) / len(counts) * windows_per_row / speed
        return 1 / seconds_per_row

    def _fastest(self) -> Trial:
        usable = [trial for trial in self._trials if not trial.refused]
        if not usable:
            raise BundleError(self._bundle.folder, f"no engine can run it ({self._trials[0].refused})")
        return max(usable, key=lambda trial: trial.rows_per_second)

    def _confirmed(self) -> Trial:
        """The fastest whose whole ensemble, not only a member of each kind, keeps the tolerance."""
        if len(self._small.manifest.members) == len(self._bundle.manifest.members):
            return self._fastest()
        first = next(trial for trial in self._trials if not trial.refused)
        reference = _probabilities(Predictor(self._bundle, first.plan), self._heard)
        while True:
            best = self._fastest()
            if best.plan.spec == first.plan.spec:
                return best
            found = _probabilities(Predictor(self._bundle, best.plan), self._heard)
            checked = Trial(best.plan, best.rows_per_second, *hold(reference, found, self._limits(best.plan)))
            self._trials[self._trials.index(best)] = checked
            if not checked.refused:
                return checked
            self._report(checked)

    def _reason(self, best: Trial) -> str:
        first = next(trial for trial in self._trials if not trial.refused)
        if best.plan == first.plan:
            return f"nothing that keeps the tolerance is faster than {first.plan.spec}"
        share = share_in(self._bundle, best.plan.spec.precision)
        return (
            f"{best.rows_per_second / first.rows_per_second:.2f} times as fast as {first.plan}; "
            + (f"{share}; " if share else "")
            + f"largest difference of a probability {best.max_probability_difference:.1e}"
            + (f" ({PASSED_THE_GATE})" if self._leaves_the_tolerance(best) else "")
        )

    def _leaves_the_tolerance(self, trial: Trial) -> bool:
        tolerance = self._bundle.manifest.tolerance
        return (
            trial.max_probability_difference > tolerance.max_probability_difference
            or trial.mean_probability_difference > tolerance.mean_probability_difference
        )


def _probabilities(predictor: Predictor, heard: Sequence[tuple[HeardRun, Float32]]) -> dict[str, Float32]:
    """What each member, by name, says of all that was heard, in one row."""
    said: dict[str, list[Float32]] = {}
    for run, batch in heard:
        for opinion in predictor.listeners[run.listener].opinions(run.run.first, batch):
            scores = [np.ravel(each) for each in (opinion.clip, opinion.frames) if each is not None]
            said.setdefault(predictor.bundle.manifest.members[opinion.member].name, []).extend(scores)
    return {member: np.concatenate(scores) for member, scores in said.items()}


def _is_installed(engine: str) -> bool:
    if engine == "cuda":
        from birdinfer.engines.cuda import has_cuda

        return has_cuda()
    from importlib.util import find_spec

    return find_spec(engine) is not None


def _has_bf16() -> bool:
    from birdinfer.engines.openvino import has_bf16

    return has_bf16()
