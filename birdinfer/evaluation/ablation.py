"""Test which steps of post-processing help: scores without them, and truth -> gain, interval and conclusion of each.

* A gain is macro ROC-AUC with the step minus that without it: above 0 the step helps.
* Its 95 % interval is that of the bootstrap over files, with the same resamples for all trials, and never narrower than
  that of the jackknife (both in :mod:`birdinfer.evaluation.confidence`): the bootstrap's is too narrow where files are
  few or each species occurs in one file.
* Of 20 useless steps one looks useful at 95 %. So a step is taken only if its interval excludes zero after Bonferroni's
  correction, too: 1 - 0.05 / trials instead of 95 % (Dunn 1961, "Multiple Comparisons among Means").
* An attempt that keeps the order of rows of every species cannot change the metric, and is not counted as a trial.
* Few files allow few trials. Files agree by chance in 1 of 2^(files - 1) cases (the sign test), so if that is more than
  0.05 / trials nothing is taken, however narrow an interval is. Files without any species do not count here: they
  agree with everything.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from birdinfer.errors import ConfigError, InputNotFoundError, MetadataError
from birdinfer.evaluation.confidence import (
    LabelledRows,
    jackknife_error,
    percentile_interval,
    resampled_drops,
    student_half_width,
)
from birdinfer.evaluation.metrics import roc_auc_per_class
from birdinfer.postprocess.base import Pipeline, Step
from birdinfer.postprocess.steps import AnyStep, catalogue, parse_step, write_step
from birdinfer.species import Species, check_labels
from birdinfer.tables.cells import numbers_of
from birdinfer.tables.csv import csv_rows, numbered
from birdinfer.tables.scores import FileRows, apply_by_file
from birdinfer.typing import Bool, Float32, Float64, Index

Interval = tuple[float, float]

How = Literal["alone", "last", "whole"]
"""A step by itself; added last to the other steps of a pipeline; all steps together."""

ROUGH_BELOW_FILES = 10
"""With fewer files an interval is rough."""
_ABLATION = 41
"""First element of the bootstrap's seed."""
_ERROR = 0.05
_MIN_BEYOND = 2
"""Resamples outside a corrected interval: one at either end."""


class Conclusion(StrEnum):
    """What the trial of a step shows."""

    take = "take"
    promising = "promising"
    no_evidence = "leave: no evidence"
    no_change = "leave: changes no order"
    """The rows of every species stay in their order, and so does their ROC-AUC."""
    worse = "leave: worse"
    undetermined = "cannot be determined"
    """There is no interval: all positives are in one file, which cannot be resampled."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Scores without post-processing, and their truth."""

    scores: Float32
    """[rows, species], 0 to 1; including rows and species without truth, since steps use them."""
    species: tuple[Species, ...]
    files: Sequence[FileRows]
    rows: Index
    """Those with truth: indices into ``scores``, in the order of ``labelled``."""
    columns: Index
    """As ``rows``, of the species with truth."""
    labelled: LabelledRows


class Attempt(NamedTuple):
    """One or more steps to try, and the steps without them to compare with."""

    name: str
    how: How
    steps: tuple[Step, ...]
    without: tuple[Step, ...] = ()


class Trial(msgspec.Struct, frozen=True):
    """An attempt with its figures."""

    name: str
    how: How
    macro_auc: float
    """With it, 0 to 1."""
    gain: float
    """``macro_auc`` minus that without it."""
    interval: Interval | None
    """Of the gain, 95 %; None if it cannot be determined."""
    corrected_interval: Interval | None
    """Of the gain, corrected for the number of trials."""
    better: float
    """Share of the scored species whose ROC-AUC it raises, 0 to 1."""
    worse: float
    """Share of those whose ROC-AUC it lowers."""
    ms_per_thousand_rows: float
    """Cost of all ``steps``."""
    conclusion: Conclusion = msgspec.field(name="verdict")


class Ablation(msgspec.Struct, frozen=True):
    """All trials, and the data they were made on."""

    macro_auc: float
    """Of the scores as they are, 0 to 1."""
    n_rows: int
    """With truth."""
    n_scored: int
    """Species with a positive and a negative row."""
    n_files: int
    """Files, or recordings, that were resampled."""
    n_informative: int = msgspec.field(name="n_telling")
    """Of them, those with a positive of a scored species; or with a negative, if those are fewer."""
    n_counted: int
    """Trials counted by the correction: those that change the order of any rows."""
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class _Bench:
    labelled: LabelledRows
    n_informative: int
    n_counted: int
    n_resamples: int
    seed: int


class Processed(NamedTuple):
    """Scores with some processing, of the rows and species with truth."""

    values: Float64
    """[rows, species]."""
    auc: Float64
    """Of each species, [species]; nan where it cannot be scored."""
    ms_per_thousand_rows: float


class Comparison(NamedTuple):
    """Scores without and with what is tried."""

    name: str
    how: How
    before: Processed
    after: Processed


def ablate(subject: Subject, attempts: Sequence[Attempt], n_resamples: int = 2000, seed: int = 0) -> Ablation:
    """Try steps. 25 of them on 1,000 rows of 200 species take a few seconds.

    ``n_resamples``: at least 40 for each attempt, one has to lie beyond each end of an interval; else ConfigError.
    MetadataError if no species has both a positive and a negative row.
    """
    processed: dict[bytes, Processed] = {}
    for steps in [(), *(steps for each in attempts for steps in (each.without, each.steps))]:
        key = _key(steps)
        processed[key] = processed.get(key) or _processed(subject, steps)
    trials = [
        Comparison(each.name, each.how, processed[_key(each.without)], processed[_key(each.steps)]) for each in attempts
    ]
    return compare(subject.labelled, processed[_key(())], trials, n_resamples, seed)


def compare(
    labelled: LabelledRows, plain: Processed, trials: Sequence[Comparison], n_resamples: int, seed: int
) -> Ablation:
    """Conclude from scores with and without what is tried; ``plain`` are those that nothing was done to.

    Raises as :func:`ablate`.
    """
    if np.isnan(plain.auc).all():
        raise MetadataError("truth", "no species has both a positive and a negative row", "nothing can be compared")
    n_counted = sum(not _same_order(each.before.values, each.after.values) for each in trials)
    _check_resamples(n_counted, n_resamples)
    scored = ~np.isnan(plain.auc)
    n_informative = informative_files(labelled, scored)
    bench = _Bench(labelled, n_informative, n_counted, n_resamples, seed)
    concluded = tuple(_trial(bench, each) for each in trials)
    macro_auc, n_scored = float(np.nanmean(plain.auc)), int(scored.sum())
    return Ablation(macro_auc, len(plain.values), n_scored, labelled.n_clusters, n_informative, n_counted, concluded)


def max_attempts(n_files: int) -> int:
    """Compute how many attempts a number of files allows: all files agree by chance in less than 0.05 / attempts.

    >>> max_attempts(8), max_attempts(10), max_attempts(2)
    (6, 25, 0)
    """
    return int(_ERROR * 2.0 ** min(n_files - 1, 62))


def informative_files(labelled: LabelledRows, scored: Bool) -> int:
    """Count the files with a positive of a scored species, or with a negative if those are fewer."""
    truth, known = labelled.truth[:, scored], labelled.known[:, scored]
    return min(len(np.unique(labelled.clusters[cells.any(axis=1)])) for cells in (truth & known, ~truth & known))


def min_resamples(n_attempts: int) -> int:
    """Compute how many resamples a number of attempts needs, to leave one beyond each end of the corrected interval."""
    return round(_MIN_BEYOND * n_attempts / _ERROR)


def labelled_rows(truth: Bool, names: Sequence[str]) -> LabelledRows:
    """Make rows whose truth [rows, species] is completely known, with the name of each row's file or recording."""
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return LabelledRows(truth, np.ones_like(truth), np.array([number[name] for name in names], np.intp))


def _processed(subject: Subject, steps: Sequence[Step]) -> Processed:
    pipeline = Pipeline(steps, subject.species)
    began = time.perf_counter()
    scores = apply_by_file(subject.scores, subject.files, pipeline)
    seconds = time.perf_counter() - began
    values = scores[np.ix_(subject.rows, subject.columns)].astype(np.float64)
    auc = roc_auc_per_class(subject.labelled.truth, values)
    return Processed(values, auc, 1e6 * seconds / len(scores))


def _trial(bench: _Bench, comparison: Comparison) -> Trial:
    name, how, before, after = comparison
    change = (after.auc - before.auc)[~np.isnan(before.auc)]
    gain = float(change.mean())
    interval, corrected = _intervals(bench, gain, before.values, after.values)
    trial = Trial(
        name,
        how,
        macro_auc=float(np.nanmean(after.auc)),
        gain=gain,
        interval=interval,
        corrected_interval=corrected,
        better=float((change > 0).mean()),
        worse=float((change < 0).mean()),
        ms_per_thousand_rows=after.ms_per_thousand_rows,
        conclusion=Conclusion.no_change,
    )
    if _same_order(before.values, after.values):
        return trial
    return msgspec.structs.replace(
        trial, conclusion=_conclusion(trial, bench.n_counted <= max_attempts(bench.n_informative))
    )


def _intervals(bench: _Bench, gain: float, before: Float64, after: Float64) -> list[Interval | None]:
    """95 %, and corrected for the number of trials; None if all positives are in one file."""
    # The step's scores are the reference: a drop without it is its gain.
    error = jackknife_error(bench.labelled, after, before) if bench.n_informative > 1 else float("nan")
    if np.isnan(error):
        return [None, None]
    rng = np.random.default_rng((_ABLATION, bench.seed))
    gains = resampled_drops(bench.labelled, after, before, bench.n_resamples, rng)
    coverages = 1 - _ERROR, 1 - _ERROR / max(1, bench.n_counted)
    return [_interval(gains, gain, error, coverage, bench.n_informative - 1) for coverage in coverages]


def _interval(gains: Float64, gain: float, error: float, coverage: float, freedom: int) -> Interval | None:
    """The wider of the bootstrap's and the jackknife's, at either end."""
    resampled = percentile_interval(gains, coverage)
    half_width = student_half_width(coverage, freedom) * error
    return resampled and (min(resampled[0], gain - half_width), max(resampled[1], gain + half_width))


def _conclusion(trial: Trial, enough_files: bool) -> Conclusion:
    if trial.interval is None or trial.corrected_interval is None:
        return Conclusion.undetermined
    (low, high), (lowest, _) = trial.interval, trial.corrected_interval
    if low > 0:
        return Conclusion.take if lowest > 0 and enough_files else Conclusion.promising
    return Conclusion.worse if high < 0 else Conclusion.no_evidence


def _same_order(before: Float64, after: Float64) -> bool:
    order = np.argsort(before, axis=0, kind="stable")
    was, now = (np.sign(np.diff(np.take_along_axis(values, order, axis=0), axis=0)) for values in (before, after))
    return bool(np.array_equal(was, now))


def _key(steps: Sequence[Step]) -> bytes:
    """A key for steps, which have no hash if they hold tables."""
    return msgspec.json.encode(list(steps))


def _check_resamples(n_attempts: int, n_resamples: int) -> None:
    least = min_resamples(n_attempts)
    if n_resamples < least:
        what = f"{n_resamples} resamples cannot distinguish {n_attempts} attempts from chance"
        raise ConfigError("--resamples", what, f"at least {least} are needed")


# ---- What to try

ALL_STEPS = "all steps"
_OTHER_STRENGTHS = ("smooth:kernel=0.1/0.8/0.1", "smooth:kernel=0.333/0.334/0.333", "smooth:kernel=0.1/0.2/0.4/0.2/0.1")
"""Kernels of winners of 2025 and 2026 beside the catalogue's default: weak, even, and over five rows."""


class Standard(NamedTuple):
    """Steps that are tried if none are named."""

    steps: tuple[AnyStep, ...]
    left_out: tuple[str, ...]
    """Kinds of steps that have no default or do not fit the species, one line each."""


def standard_steps(species: Sequence[Species]) -> Standard:
    """List every kind of step with its defaults, and kernels of winners."""
    steps: list[AnyStep] = []
    left_out: list[str] = []
    fields = {name: msgspec.structs.fields(kind) for name, kind in catalogue().items()}
    all_required = {name: [one.encode_name for one in each if one.required] for name, each in fields.items()}
    required = {name: keys for name, keys in all_required.items() if keys}
    left_out += [f"{name}: has no default for {', '.join(keys)}" for name, keys in required.items()]
    for text in (*(name for name in catalogue() if name not in required), *_OTHER_STRENGTHS):
        try:
            step = parse_step(text)
            step.bind(species)
        except ConfigError as error:
            left_out.append(f"{text}: {error.what}")
        else:
            steps += [] if step.is_neutral or step in steps else [step]
            left_out += [f"{text}: changes nothing at its defaults"] if step.is_neutral else []
    return Standard(tuple(steps), tuple(left_out))


def each_alone(steps: Sequence[AnyStep]) -> list[Attempt]:
    """Make attempts of alternative steps: each by itself."""
    return [Attempt(write_step(step), "alone", (step,)) for step in steps]


def pipeline_parts(steps: Sequence[AnyStep]) -> list[Attempt]:
    """Make attempts of a pipeline: each step by itself, each added last to the others, and the whole.

    A single step is all three at once and is tried once. A step that occurs in the pipeline twice is left out at one
    position at a time, and tried alone once.
    """
    whole = tuple(steps)
    if len(whole) == 1:
        return each_alone(whole)
    alone: list[AnyStep] = []
    for step in whole:
        alone += [] if step in alone else [step]
    last = [Attempt(write_step(step), "last", whole, whole[:at] + whole[at + 1 :]) for at, step in enumerate(whole)]
    return [*each_alone(alone), *last, Attempt(ALL_STEPS, "whole", whole)]


# ---- Out-of-fold scores of a run: ``runs/NAME/fold*/oof.csv``

_KEYS = ("filename", "primary_label")
_HINT = "birdinfer train makes it"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutOfFold:
    """Clips, each scored by the fold that was not trained on it."""

    filenames: tuple[str, ...]
    groups: tuple[str, ...]
    """Recording of each clip; its own file name if that is unknown."""
    primary_labels: tuple[str, ...]
    labels: tuple[str, ...]
    """The columns."""
    probabilities: Float32
    """[clips, labels], 0 to 1."""

    @property
    def truth(self) -> Bool:
        """[clips, labels]: whether the label is the clip's primary one."""
        truth: Bool = np.array(self.primary_labels)[:, np.newaxis] == np.array(self.labels)
        return truth


class _Clip(NamedTuple):
    filename: str
    primary_label: str
    probabilities: Float32


def read_out_of_fold(run_dir: Path) -> OutOfFold:
    """Read the out-of-fold tables of all folds of a run.

    Raises InputNotFoundError, MetadataError or LabelError, as where folds are damaged or have different columns.
    """
    tables = sorted(run_dir.glob("fold*/oof.csv"))
    if not tables:
        why = "holds no fold*/oof.csv" if run_dir.is_dir() else "no such folder"
        raise InputNotFoundError(run_dir, why, "name the folder of a trained run, runs/NAME")
    labels = _labels(tables[0])
    clips = _once(run_dir, [clip for table in tables for clip in _read(table, labels)])
    groups = _read_groups(run_dir / "folds.csv")
    return OutOfFold(
        filenames=tuple(clip.filename for clip in clips),
        groups=tuple(groups.get(clip.filename) or clip.filename for clip in clips),
        primary_labels=tuple(clip.primary_label for clip in clips),
        labels=labels,
        probabilities=np.stack([clip.probabilities for clip in clips]),
    )


def _labels(path: Path) -> tuple[str, ...]:
    with csv_rows(path) as rows:
        header = next(rows, [])
    if len(header) <= len(_KEYS):
        raise MetadataError(path, "has no column for any label", _HINT)
    return check_labels(header[len(_KEYS) :], str(path))


def _read(path: Path, labels: Sequence[str]) -> Iterator[_Clip]:
    for line, header, cells in _lines(path, _KEYS):
        if tuple(header[len(_KEYS) :]) != tuple(labels):
            raise MetadataError(path, "has other columns than the fold before", "the folds are of different runs")
        yield _Clip(cells[0], cells[1], _probabilities(f"{path}, line {line}", cells[len(_KEYS) :]))


def _probabilities(where: str, cells: Sequence[str]) -> Float32:
    values = numbers_of(cells).astype(np.float32)
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if wrong.size:
        raise MetadataError(where, f"holds {cells[wrong[0]]!r}", "a probability from 0 to 1 is needed")
    return values


def _once(run_dir: Path, clips: Sequence[_Clip]) -> list[_Clip]:
    """Each clip once; one of a source that every fold holds out has the mean of all folds' probabilities."""
    if not clips:
        raise MetadataError(run_dir, "its folds validated no clip", "nothing can be compared")
    found: dict[str, list[_Clip]] = {}
    for clip in clips:
        found.setdefault(clip.filename, []).append(clip)
    for name, same in found.items():
        if len(same) > 1 and not name.startswith("@"):  # as ``data.sources`` names its clips
            raise MetadataError(run_dir, f"clip {name!r} stands in two rows of fold*/oof.csv", "one is needed")
    return [
        same[0]._replace(probabilities=np.mean([clip.probabilities for clip in same], axis=0, dtype=np.float32))
        if len(same) > 1
        else same[0]
        for same in found.values()
    ]


def _read_groups(path: Path) -> Mapping[str, str]:
    """The group of each clip that has one; none if there is no folds.csv, or no such column in it."""
    if not path.is_file():
        return {}
    rows = [dict(zip(header, cells, strict=True)) for _, header, cells in _lines(path, ("filename",))]
    return {row["filename"]: row.get("group", "") for row in rows}


def _lines(path: Path, first: Sequence[str]) -> Iterator[tuple[int, list[str], list[str]]]:
    """Yield each row's number, the header, which has to begin like ``first``, and cells; blank lines are skipped."""
    with csv_rows(path, needed=first) as rows:
        header = next(rows, [])
        if header[: len(first)] != list(first):
            raise MetadataError(path, f"does not begin with the columns {', '.join(first)}", _HINT)
        for number, cells in numbered(rows):
            yield number, header, cells
