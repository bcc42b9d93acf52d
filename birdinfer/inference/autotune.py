"""Find the fastest engine, precision, batch size and number of workers for a bundle on this machine, by measurement.

This is ``--engine auto``. In: a bundle and sound files. Out: an :class:`AutotuneResult` with the plan to use and all
measurements. Each candidate runs the bundle's own graphs for a moment on real windows of the input, with as many
workers as it would use. A candidate whose probabilities differ too much from fp32 is refused, however fast it is. The
result is cached for this machine, bundle and versions, so that the next run starts at once.
"""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from birdinfer.audio.windows import WindowBatch
from birdinfer.errors import BirdinferError, BundleError, ConfigError, MissingExtraError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.engines import SUPPORTED, EnginePlan, EngineSpec
from birdinfer.inference.engines.benchmark import windows_per_second
from birdinfer.inference.member_group import MemberScores, members_of_equal_cost
from birdinfer.inference.precision_limits import Limit, compare_with_fp32, limit_of
from birdinfer.inference.predictor import Predictor, make_plan, members_in, share_in
from birdinfer.system.cpu import available_cores, one_thread_per_worker, physical_cores
from birdinfer.system.files import cache_path, write_atomic
from birdinfer.typing import Float32
from birdinfer.version import __version__

MEASURE_SECONDS = 0.4
"""How long a candidate runs; a slow network runs for at least two batches on each worker."""
MOST_SECONDS = 120.0
"""After which no other candidate is begun: with the one that runs, 3 % of a notebook's 90 minutes."""
MOST_GPU_WINDOWS = 1024
"""In a batch on a GPU."""
N_ROWS = 12
"""Rows of real sound that candidates are compared on: a minute."""
OTHER_BATCH_SIZES = (1, 6)
"""Measured for the fastest engine, besides :data:`birdinfer.inference.predictor.BATCH_SIZE`."""
_ACCEPTED_AT_EXPORT = "more than the bundle's tolerance, but its AUC and ranks passed when it was exported"
"""Added to the reason of a result whose limit is what the export measured."""


class Measurement(msgspec.Struct, frozen=True):
    """One candidate and its figures."""

    plan: EnginePlan
    rows_per_second: float = 0.0
    """Rows of the whole ensemble, all workers together, without decoding and front end."""
    max_probability_difference: float = 0.0
    mean_probability_difference: float = 0.0
    refused: str = ""
    """Why it cannot be used, "" if it can."""


class AutotuneResult(msgspec.Struct, frozen=True):
    """The plan to use, and all measurements."""

    plan: EnginePlan
    reason: str
    measurements: tuple[Measurement, ...] = msgspec.field(name="trials")
    is_from_cache: bool = False


def autotune(
    bundle: Bundle,
    paths: Sequence[Path],
    workers: int | None = None,
    batch_size: int | None = None,
    report: Callable[[Measurement], None] = lambda measurement: None,
) -> AutotuneResult:
    """Find how to run a bundle on this machine; ``workers`` and ``batch_size`` are fixed, if given.

    The first of ``paths`` that can be read gives the windows; ConfigError if none can. MissingExtraError without any
    engine, BundleError if none runs the fp32 graphs.
    """
    key = cache_key(bundle, workers, batch_size)
    known = read_cache().get(key)
    if known is not None:
        return msgspec.structs.replace(known, is_from_cache=True)
    result = _Autotuner(bundle, paths, workers, batch_size, report).run()
    write_cache({**read_cache(), key: result})
    return result


def candidate_specs(bundle: Bundle) -> list[EngineSpec]:
    """List engine and precision of all that could run here, fp32 first: installed, and a member has a graph for it."""
    specs = [
        EngineSpec(engine, precision)
        for engine, precisions in SUPPORTED.items()
        if _is_installed(engine)
        for precision in precisions
        if members_in(bundle, precision) and (precision != "bf16" or _has_bf16())
    ]
    return sorted(specs, key=lambda spec: spec.precision != "fp32")


class _Autotuner:
    def __init__(
        self,
        bundle: Bundle,
        paths: Sequence[Path],
        workers: int | None,
        batch_size: int | None,
        report: Callable[[Measurement], None],
    ) -> None:
        self._bundle, self._paths, self._report = bundle, paths, report
        self._workers, self._batch_size = workers, batch_size
        kinds = members_of_equal_cost(bundle.manifest.members)
        self._counts = {member.name: len(kind) for kind in kinds for member in kind[0]}
        self._small = bundle.with_members(self._counts)
        """The first member of each kind: the others cost the same."""
        self._inputs: list[tuple[WindowBatch, Float32]] = []
        self._reference: dict[str, Float32] | None = None
        self._measurements: list[Measurement] = []
        self._began = time.monotonic()

    def run(self) -> AutotuneResult:
        specs = candidate_specs(self._bundle)
        if not specs:
            raise MissingExtraError("onnxruntime", "cpu")
        with one_thread_per_worker():
            for spec in specs:
                self._try(make_plan(spec, self._workers, self._batch_size))
            best = self._fastest()
            if best.plan.spec.engine == "cuda":
                self._try_gpu_batches(best)
            else:
                for plan in self._variants(best.plan):
                    self._try(plan)
            best = self._confirmed()
        return AutotuneResult(best.plan, self._reason(best), tuple(self._measurements))

    def _variants(self, plan: EnginePlan) -> Iterator[EnginePlan]:
        """The fastest engine on the CPU again, with other batches and, if threads share a core, half the workers."""
        if self._batch_size is None:
            for batch_size in OTHER_BATCH_SIZES:
                yield EnginePlan(plan.spec, plan.workers, batch_size)
        if self._workers is None and physical_cores() < plan.workers:
            yield EnginePlan(plan.spec, physical_cores(), plan.batch_size)

    def _try_gpu_batches(self, best: Measurement) -> None:
        """Double the batch while that is faster, else halve it: at some size a GPU's rate falls to a part of it.

        A network that others measured gave 667 windows a second in batches of 192, and 104 in batches of 256.
        """
        if self._batch_size is not None:
            return
        first = best
        for factor in (2.0, 0.5):
            while 1 <= (size := int(best.plan.batch_size * factor)) <= MOST_GPU_WINDOWS:
                other = self._try(EnginePlan(best.plan.spec, best.plan.workers, size))
                if other is None or other.refused or other.rows_per_second <= best.rows_per_second:
                    break
                best = other
            if best is not first:
                return

    def _try(self, plan: EnginePlan) -> Measurement | None:
        """Measure a candidate; None if there is no time left for it."""
        if time.monotonic() - self._began > MOST_SECONDS and any(not each.refused for each in self._measurements):
            return None
        try:
            predictor = Predictor(self._small, plan)
        except (BundleError, ConfigError, MissingExtraError) as error:
            measurement = Measurement(plan, refused=error.what)
        else:
            # Made once: every candidate, and at last the whole ensemble, gets the same windows.
            self._inputs = self._inputs or self._make_inputs(predictor)
            measurement = self._measure(predictor)
        self._measurements.append(measurement)
        self._report(measurement)
        return measurement

    def _measure(self, predictor: Predictor) -> Measurement:
        try:
            measurement = self._compared(predictor.plan, _probabilities(predictor, self._inputs))
            if measurement.refused:
                return measurement
            return msgspec.structs.replace(measurement, rows_per_second=self._rows_per_second(predictor))
        except Exception as error:  # of the engines' own kinds; no memory left on a GPU must not end the run
            return Measurement(predictor.plan, refused="fails: " + " ".join(str(error).split()))

    def _make_inputs(self, predictor: Predictor) -> list[tuple[WindowBatch, Float32]]:
        min_seconds = N_ROWS * self._bundle.manifest.rows.window_seconds
        groups = predictor.member_groups
        for path in self._paths:
            inputs, seconds = [], 0.0
            try:
                with predictor.open(path) as reader:
                    for batch in reader.batches():
                        inputs.append((batch, groups[batch.member_group].make_input(batch)))
                        seconds += predictor.sound_seconds_of(batch)
                        if seconds >= min_seconds and len({each.member_group for each, _ in inputs}) == len(groups):
                            break
            except (BirdinferError, OSError):
                continue  # its problem is reported when it is predicted
            return inputs
        raise ConfigError(
            "--engine auto", f"none of {len(self._paths)} files can be read", "there is nothing to measure"
        )

    def _compared(self, plan: EnginePlan, probabilities: dict[str, Float32]) -> Measurement:
        """The candidate's differences from the first that ran in fp32; refused if they exceed the limit."""
        if self._reference is None:
            if plan.spec.precision != "fp32":
                return Measurement(plan, refused="no fp32 engine to compare it with")
            self._reference = probabilities
        return Measurement(plan, 0.0, *compare_with_fp32(self._reference, probabilities, self._limits(plan)))

    def _limits(self, plan: EnginePlan) -> dict[str, Limit]:
        manifest = self._bundle.manifest
        return {member.name: limit_of(member, plan.spec.precision, manifest.tolerance) for member in manifest.members}

    def _rows_per_second(self, predictor: Predictor) -> float:
        """Throughput of all workers at once, as in a run; members of one kind count as often as there are."""
        seconds_per_row = 0.0
        for index, group in enumerate(predictor.member_groups):
            inputs = np.concatenate([inputs for batch, inputs in self._inputs if batch.member_group == index])
            windows_per_row = group.grid.row_samples / group.grid.stride_samples
            engines = {id(loaded.graph.engine): loaded.graph.engine for loaded in group.members}
            for key, engine in engines.items():
                counts = [self._counts[one.member.name] for one in group.members if id(one.graph.engine) == key]
                speed = windows_per_second(engine.run, inputs, predictor.plan, MEASURE_SECONDS)
                seconds_per_row += sum(counts) / len(counts) * windows_per_row / speed
        return 1 / seconds_per_row

    def _fastest(self) -> Measurement:
        usable = [measurement for measurement in self._measurements if not measurement.refused]
        if not usable:
            raise BundleError(self._bundle.folder, f"no engine can run it ({self._measurements[0].refused})")
        return max(usable, key=lambda measurement: measurement.rows_per_second)

    def _confirmed(self) -> Measurement:
        """The fastest whose whole ensemble, not only one member of each kind, is within the limits."""
        if len(self._small.manifest.members) == len(self._bundle.manifest.members):
            return self._fastest()
        first = self._first_usable()
        reference = _probabilities(Predictor(self._bundle, first.plan), self._inputs)
        while True:
            best = self._fastest()
            if best.plan.spec == first.plan.spec:
                return best
            candidate = _probabilities(Predictor(self._bundle, best.plan), self._inputs)
            compared = compare_with_fp32(reference, candidate, self._limits(best.plan))
            checked = Measurement(best.plan, best.rows_per_second, *compared)
            self._measurements[self._measurements.index(best)] = checked
            if not checked.refused:
                return checked
            self._report(checked)

    def _first_usable(self) -> Measurement:
        return next(measurement for measurement in self._measurements if not measurement.refused)

    def _reason(self, best: Measurement) -> str:
        first = self._first_usable()
        if best.plan == first.plan:
            return f"nothing that keeps the tolerance is faster than {first.plan.spec}"
        share, tolerance = share_in(self._bundle, best.plan.spec.precision), self._bundle.manifest.tolerance
        is_beyond = (
            best.max_probability_difference > tolerance.max_probability_difference
            or best.mean_probability_difference > tolerance.mean_probability_difference
        )
        return (
            f"{best.rows_per_second / first.rows_per_second:.2f} times as fast as {first.plan}; "
            + (f"{share}; " if share else "")
            + f"largest difference of a probability {best.max_probability_difference:.1e}"
            + (f" ({_ACCEPTED_AT_EXPORT})" if is_beyond else "")
        )


def _probabilities(predictor: Predictor, inputs: Sequence[tuple[WindowBatch, Float32]]) -> dict[str, Float32]:
    found: dict[str, list[Float32]] = {}
    sequences = predictor.file_sequences("")
    known: list[MemberScores] = []
    for batch, batch_inputs in inputs:
        known += sequences.add(predictor.member_groups[batch.member_group].score(batch.first, batch_inputs))
    for scores in (*known, *sequences.finish()):
        flat = [np.ravel(each) for each in (scores.clip, scores.frames) if each is not None]
        found.setdefault(predictor.bundle.manifest.members[scores.member].name, []).extend(flat)
    return {member: np.concatenate(flat) for member, flat in found.items()}


def _is_installed(engine: str) -> bool:
    if engine == "cuda":
        from birdinfer.inference.engines.cuda import has_cuda

        return has_cuda()
    return find_spec(engine) is not None


def _has_bf16() -> bool:
    from birdinfer.inference.engines.openvino import has_bf16

    return has_bf16()


# ---- Cache of results


def cache_key(bundle: Bundle, workers: int | None, batch_size: int | None) -> str:
    """Make a key that changes with the machine, the versions of what runs, and the bundle."""
    facts = (
        platform.node(), _processor(), available_cores(), __version__,
        *(_version(name) for name in ("onnxruntime", "onnxruntime-gpu", "openvino", "numpy")),
        bundle.sha256(), workers, batch_size,
    )  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def read_cache() -> dict[str, AutotuneResult]:
    """Read all cached results; none if they cannot be read, since they can be measured again."""
    try:
        return msgspec.json.decode(cache_path().read_bytes(), type=dict[str, AutotuneResult])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def write_cache(results: dict[str, AutotuneResult]) -> None:
    """Store the last hundred; a cache that cannot be written costs a few seconds next time, not this run."""
    kept = dict(list(results.items())[-100:])
    try:
        cache_path().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache_path(), msgspec.json.encode(kept))
    except OSError:
        return


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
