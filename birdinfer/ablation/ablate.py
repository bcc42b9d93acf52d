"""Does a step of post-processing help? Scores without it, and truth -> each step's gain, how sure it is, a verdict.

In: a table of probabilities that nothing was done to, with its truth (:class:`Subject`), and what to try
(:class:`Attempt`). Out: :class:`Ablation`, a :class:`Trial` for each attempt. Pure functions; no file.

Conventions
-----------
* A gain is macro ROC-AUC with the step less that without it: above 0 the step helps.
* Its interval of 95 % is that of the bootstrap over files (:mod:`birdinfer.bootstrap`), all trials on the same
  resamples, and never narrower than that of leaving out one file after another (:mod:`birdinfer.jackknife`), for the
  bootstrap believes too much where files are few or species are heard in one file each.
* Of 20 useless steps one looks useful at 95 %. So a step is taken only if its interval excludes zero after Bonferroni's
  correction, too: 1 - 0.05 / trials instead of 95 % (Dunn 1961, "Multiple Comparisons among Means").
* An attempt that leaves the rows of every species in their order cannot change the metric: it is no chance taken, and
  does not count among the trials.
* Few files carry few trials. Files that all agree do so by chance in 1 of 2^(files - 1) cases (the sign test), so where
  that is more than 0.05 / trials nothing is taken, however narrow an interval is. Files in which nothing is heard do
  not count there: they agree with all.
"""

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.bootstrap import Judged, percentile_interval, resampled_falls
from birdinfer.errors import ConfigError, MetadataError
from birdinfer.jackknife import jackknife_error, student_half_width
from birdinfer.labels import Species
from birdinfer.metrics import roc_auc_per_class
from birdinfer.postprocess.pipeline import Pipeline
from birdinfer.postprocess.step import Step
from birdinfer.tables.score_files import FileRows, apply_by_file

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Interval = tuple[float, float]

How = Literal["alone", "last", "whole"]
"""A step by itself; put into the whole that lacks it; all steps together."""

ROUGH_BELOW_FILES = 10
"""With fewer files an interval is rough."""
_ABLATION = 41
"""First element of the bootstrap's seed."""
_ERROR = 0.05
_LEAST_BEYOND = 2
"""Resamples outside a corrected interval: one at either end."""


class Verdict(StrEnum):
    """What to do with a step."""

    take = "take"
    promising = "promising"
    """Its interval excludes zero alone, not among all that were tried."""
    no_evidence = "leave: no evidence"
    no_change = "leave: changes no order"
    """The rows of every species stay in their order, and so does their ROC-AUC."""
    worse = "leave: worse"
    untold = "cannot be told"
    """There is no interval: all that is heard is of one file, which cannot be resampled."""


class Subject(NamedTuple):
    """Scores without post-processing, and what is known of them."""

    scores: Float32
    """[rows, species], 0 to 1; rows and species without truth too, for steps look at them."""
    species: tuple[Species, ...]
    files: Sequence[FileRows]
    """Of the rows."""
    rows: Index
    """Those with truth: places in ``scores``, in the order of ``judged``."""
    columns: Index
    """As ``rows``, of the species with truth."""
    judged: Judged


class Attempt(NamedTuple):
    """What is to be tried: one or more steps, and what is left when they are taken away."""

    name: str
    how: How
    steps: tuple[Step, ...]
    without: tuple[Step, ...] = ()


class Trial(NamedTuple):
    """An attempt, measured and judged."""

    name: str
    how: How
    macro_auc: float
    """With it, 0 to 1."""
    gain: float
    """``macro_auc`` less that without it."""
    interval: Interval | None
    """Of the gain, 95 %; None where it cannot be told."""
    corrected_interval: Interval | None
    """Of the gain, as wide as so many trials ask for."""
    better: float
    """Share of the scored species whose ROC-AUC it raises, 0 to 1."""
    worse: float
    """Share of those whose ROC-AUC it lowers."""
    ms_per_thousand_rows: float
    """What all of ``steps`` cost."""
    verdict: Verdict


class Ablation(NamedTuple):
    """All that was tried."""

    macro_auc: float
    """Of the scores as they are, 0 to 1."""
    n_rows: int
    """With truth."""
    n_scored: int
    """Species with a positive and a negative row."""
    n_files: int
    """Files, or recordings, that were resampled."""
    n_telling: int
    """Of them, those in which a scored species is heard; or not heard, if those are fewer."""
    n_counted: int
    """Trials that the correction counts: those that change the order of any rows."""
    trials: tuple[Trial, ...]


class _Bench(NamedTuple):
    """What all trials of an ablation share."""

    judged: Judged
    n_telling: int
    n_counted: int
    n_resamples: int
    seed: int


class _Processed(NamedTuple):
    """What steps make of the scores, where there is truth."""

    values: Float64
    """[rows, species]."""
    auc: Float64
    """Of each species, [species]; nan where it cannot be scored."""
    ms_per_thousand_rows: float


def ablate(subject: Subject, attempts: Sequence[Attempt], n_resamples: int = 2000, seed: int = 0) -> Ablation:
    """Try steps. 25 of them on 1,000 rows of 200 species take a few seconds.

    Args:
        subject: what to try them on.
        attempts: at least one.
        n_resamples: of the bootstrap; at least 40 for each attempt, for one has to lie beyond each end of an interval.
        seed: of the bootstrap.

    Raises:
        ConfigError: a step does not fit the species, or the resamples are too few.
        MetadataError: no species has both a positive and a negative row.
    """
    made: dict[bytes, _Processed] = {}
    for steps in [(), *(steps for each in attempts for steps in (each.without, each.steps))]:
        key = _key(steps)
        made[key] = made.get(key) or _processed(subject, steps)
    plain = made[_key(())].auc
    if np.isnan(plain).all():
        raise MetadataError("truth", "no species has both a positive and a negative row", "nothing can be compared")
    pairs = [(made[_key(each.without)], made[_key(each.steps)]) for each in attempts]
    n_counted = sum(not _same_order(before.values, after.values) for before, after in pairs)
    _check_resamples(n_counted, n_resamples)
    scored, judged = ~np.isnan(plain), subject.judged
    n_telling = telling_files(judged, scored)
    bench = _Bench(judged, n_telling, n_counted, n_resamples, seed)
    trials = tuple(_trial(bench, each, before, after) for each, (before, after) in zip(attempts, pairs, strict=True))
    macro_auc, n_scored = float(np.nanmean(plain)), int(scored.sum())
    return Ablation(macro_auc, len(subject.rows), n_scored, judged.n_clusters, n_telling, n_counted, trials)


def most_attempts(n_files: int) -> int:
    """How many attempts so many files carry: files that all agree have to be rarer by chance than 0.05 / attempts.

    6 of 8 files, 25 of 10; 0 where even one attempt is too many.
    """
    return int(_ERROR * 2.0 ** min(n_files - 1, 62))


def telling_files(judged: Judged, scored: npt.NDArray[np.bool_]) -> int:
    """In how many files one of the scored species is heard, or is not heard if those are fewer.

    Args:
        judged: the rows.
        scored: [species].
    """
    truth, known = judged.truth[:, scored], judged.known[:, scored]
    return min(len(np.unique(judged.clusters[cells.any(axis=1)])) for cells in (truth & known, ~truth & known))


def least_resamples(n_attempts: int) -> int:
    """How many resamples so many attempts ask for: the corrected interval leaves one beyond each of its ends."""
    return round(_LEAST_BEYOND * n_attempts / _ERROR)


def judged_rows(truth: npt.NDArray[np.bool_], names: Sequence[str]) -> Judged:
    """Rows of which all is known, [rows, species], with the name of the file or recording that each is from."""
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return Judged(truth, np.ones_like(truth), np.array([number[name] for name in names], np.intp))


def _processed(subject: Subject, steps: Sequence[Step]) -> _Processed:
    pipeline = Pipeline(steps, subject.species)
    began = time.perf_counter()
    scores = apply_by_file(subject.scores, subject.files, pipeline)
    seconds = time.perf_counter() - began
    values = scores[np.ix_(subject.rows, subject.columns)].astype(np.float64)
    auc = roc_auc_per_class(subject.judged.truth, values)
    return _Processed(values, auc, 1e6 * seconds / len(scores))


def _trial(bench: _Bench, attempt: Attempt, before: _Processed, after: _Processed) -> Trial:
    change = (after.auc - before.auc)[~np.isnan(before.auc)]
    gain = float(change.mean())
    interval, corrected = _intervals(bench, gain, before.values, after.values)
    trial = Trial(
        attempt.name,
        attempt.how,
        macro_auc=float(np.nanmean(after.auc)),
        gain=gain,
        interval=interval,
        corrected_interval=corrected,
        better=float((change > 0).mean()),
        worse=float((change < 0).mean()),
        ms_per_thousand_rows=after.ms_per_thousand_rows,
        verdict=Verdict.no_change,
    )
    if _same_order(before.values, after.values):
        return trial
    return trial._replace(verdict=_verdict(trial, bench.n_counted <= most_attempts(bench.n_telling)))


def _intervals(bench: _Bench, gain: float, before: Float64, after: Float64) -> list[Interval | None]:
    """Of 95 %, and corrected for the number of trials; None where all that is heard is of one file."""
    # With the step first: what would be lost without it.
    error = jackknife_error(bench.judged, after, before) if bench.n_telling > 1 else float("nan")
    if np.isnan(error):
        return [None, None]
    rng = np.random.default_rng((_ABLATION, bench.seed))
    gains = resampled_falls(bench.judged, after, before, bench.n_resamples, rng)
    coverages = 1 - _ERROR, 1 - _ERROR / max(1, bench.n_counted)
    return [_interval(gains, gain, error, coverage, bench.n_telling - 1) for coverage in coverages]


def _interval(gains: Float64, gain: float, error: float, coverage: float, freedom: int) -> Interval | None:
    """The wider of the bootstrap's and the jackknife's, at either end."""
    resampled = percentile_interval(gains, coverage)
    half_width = student_half_width(coverage, freedom) * error
    return resampled and (min(resampled[0], gain - half_width), max(resampled[1], gain + half_width))


def _verdict(trial: Trial, enough_files: bool) -> Verdict:
    if trial.interval is None or trial.corrected_interval is None:
        return Verdict.untold
    (low, high), (lowest, _) = trial.interval, trial.corrected_interval
    if low > 0:
        return Verdict.take if lowest > 0 and enough_files else Verdict.promising
    return Verdict.worse if high < 0 else Verdict.no_evidence


def _same_order(before: Float64, after: Float64) -> bool:
    """Whether the rows of every species stand in the same order, ties included; both [rows, species]."""
    order = np.argsort(before, axis=0, kind="stable")
    was, now = (np.sign(np.diff(np.take_along_axis(values, order, axis=0), axis=0)) for values in (before, after))
    return bool(np.array_equal(was, now))


def _key(steps: Sequence[Step]) -> bytes:
    """What tells pipelines apart: steps may hold tables, which have no hash."""
    return msgspec.json.encode(list(steps))


def _check_resamples(n_attempts: int, n_resamples: int) -> None:
    least = least_resamples(n_attempts)
    if n_resamples < least:
        what = f"{n_resamples} resamples cannot tell {n_attempts} attempts apart from chance"
        raise ConfigError("--resamples", what, f"at least {least} are needed")
