"""Calibrate confidences by reviews: who was right -> a curve, its threshold and their interval for species and classes.

* A species with enough reviews has its own curve (:mod:`birdinfer.evaluation.platt`), the other species of a class that
  of all its reviews.
* The threshold is where the curve reaches the wanted precision: a detection there is right with this probability, one
  above it with a higher one. So the precision of all that is kept is at least the wanted one, however confidences are
  spread (Wood and Kahl 2024, "Guidelines for appropriate use of BirdNET scores and other detector outputs").
* A threshold is never below the lowest confidence that was reviewed: what is there is not known.
* The interval of a species' threshold is that of a bootstrap over recordings. For a class it is the wider of this one
  and that of a bootstrap over its species, which may differ more from each other than recordings do.
* Reviews that show no threshold make no curve: too few, (nearly) all right or all wrong, of few recordings, or as
  often right at low as at high confidences.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np

from birdinfer.errors import ConfigError
from birdinfer.evaluation.platt import (
    Answers,
    Resampled,
    expanded_interval,
    fit_curves,
    resample_curves,
    widest_interval,
)
from birdinfer.inference.bundle import Bundle, store_settings
from birdinfer.inference.calibration import EDGE, logits_of, share_right
from birdinfer.inference.manifest import Calibration, Curve, Manifest, scores_sha256
from birdinfer.species import Species
from birdinfer.tables.reviews import Reviews
from birdinfer.typing import Bool, Float64, Index

MIN_EACH = 5
"""Right reviews, wrong ones, and recordings that a curve needs."""
MIN_SPECIES = 3
"""With a review, that the curve of a class needs."""
_SEED = 59
_UNLIKE = 3.0
"""Standard errors by which the right reviews of a species differ from those that its class expects."""
_WIDE = 1.5
"""Length of a threshold's interval in logits: from 0.5 to 0.82, from 0.9 to 0.98."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSettings:
    """What is wanted, and what it takes."""

    precision: float = 0.9
    """Share of detections at the threshold that are right, above 0 and below 1."""
    min_reviews: int = 30
    """That a curve needs, at least 10."""
    n_resamples: int = 1000
    """For the intervals, at least 100."""
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, is_good, needed in (
            ("--precision", self.precision, EDGE < self.precision < 1 - EDGE, "a share above 0 and below 1"),
            ("--min-reviews", self.min_reviews, self.min_reviews >= 2 * MIN_EACH, f"{2 * MIN_EACH} or more"),
            ("--resamples", self.n_resamples, self.n_resamples >= 100, "100 or more"),
        ):
            if not is_good:
                raise ConfigError(option, f"is {value}", f"{needed} is needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The reviews of a species or class, [reviews] each."""

    confidences: Float64
    right: Bool
    species: Index
    recordings: Index
    """From 0; no number up to the highest is left out."""

    @property
    def n_recordings(self) -> int:
        """Number of recordings."""
        return int(self.recordings.max()) + 1


class Fit(NamedTuple):
    """The curve of a species or class."""

    curve: Curve
    sample: Sample
    resampled: tuple[Resampled, ...]
    """By recording; of a class by species, too."""
    next_step: str
    """What to review for a narrower interval; "" if it is narrow."""


class Refusal(NamedTuple):
    """Why there is no curve, and what to review for one."""

    reason: str
    next_step: str
    n_reviews: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """Curves and refusals of all species and classes that were reviewed."""

    precision: float
    """Wanted."""
    species: dict[str, Fit]
    """By label."""
    classes: dict[str, Fit]
    """By class_name; "" is that of species whose class is not known."""
    refused_species: dict[str, Refusal]
    refused_classes: dict[str, Refusal]
    unlike_class: tuple[str, ...]
    """Species without a curve whose reviews do not fit that of their class."""


def calibrate_reviews(reviews: Reviews, species: Sequence[Species], settings: CalibrationSettings) -> Calibrated:
    """Fit the curves of the species and classes that were reviewed."""
    rng = np.random.default_rng((_SEED, settings.seed))
    class_names = np.array([each.class_name for each in species], object)
    class_of = class_names[reviews.species]
    own = {
        species[column].label: _fit(_chosen(reviews, reviews.species == column), settings, rng)
        for column in np.unique(reviews.species).tolist()
    }
    pooled = {
        name: _fit_class(_chosen(reviews, class_of == name), settings, rng)
        for name in dict.fromkeys(class_names.tolist())
        if (class_of == name).any()
    }
    classes = {name: fit for name, fit in pooled.items() if isinstance(fit, Fit)}
    refused = {label: fit for label, fit in own.items() if isinstance(fit, Refusal)}
    unlike = [
        each.label
        for column, each in enumerate(species)
        if each.label in refused
        and each.class_name in classes
        and _is_unlike(_chosen(reviews, reviews.species == column), classes[each.class_name].curve)
    ]
    return Calibrated(
        precision=settings.precision,
        species={label: fit for label, fit in own.items() if isinstance(fit, Fit)},
        classes=classes,
        refused_species=refused,
        refused_classes={name: fit for name, fit in pooled.items() if isinstance(fit, Refusal)},
        unlike_class=tuple(unlike),
    )


def calibration_of(calibrated: Calibrated, manifest: Manifest) -> Calibration:
    """Make what is stored of it in the manifest of the bundle whose detections were reviewed."""
    return Calibration(
        precision=calibrated.precision, scores_sha256=scores_sha256(manifest),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        species={label: fit.curve for label, fit in calibrated.species.items()},
        classes={name: fit.curve for name, fit in calibrated.classes.items()},
        unlike_class=calibrated.unlike_class,
    )  # fmt: skip


def store_calibration(
    bundle: Bundle, calibrated: Calibrated, on_wait: Callable[[str], None] = lambda line: None
) -> Bundle:
    """Store thresholds in the bundle whose detections were reviewed; errors as of :func:`store_settings`."""
    calibration = calibration_of(calibrated, bundle.manifest)

    def change(stored: Bundle) -> Bundle:
        return Bundle(stored.folder, msgspec.structs.replace(stored.manifest, calibration=calibration))

    return store_settings(bundle.folder, change, on_wait)


def _chosen(reviews: Reviews, chosen: Bool) -> Sample:
    return Sample(
        confidences=reviews.confidences[chosen], right=reviews.right[chosen], species=reviews.species[chosen],
        recordings=np.unique(reviews.recordings[chosen], return_inverse=True)[1],
    )  # fmt: skip


def _fit_class(sample: Sample, settings: CalibrationSettings, rng: np.random.Generator) -> Fit | Refusal:
    n_species = len(np.unique(sample.species))
    if n_species < MIN_SPECIES:
        reason = f"reviews of {_counted(n_species, 'species')}, {MIN_SPECIES} are needed for a class"
        return Refusal(reason, f"review {MIN_SPECIES - n_species} other species", len(sample.right))
    return _fit(sample, settings, rng)


def _fit(sample: Sample, settings: CalibrationSettings, rng: np.random.Generator) -> Fit | Refusal:
    refusal = _refusal(sample, settings.min_reviews)
    if refusal:
        return refusal
    confidences, right, recordings = sample.confidences, sample.right, sample.recordings
    answers = Answers(logits_of(confidences), right, recordings)
    ((slope, intercept),) = fit_curves(answers, np.ones((1, sample.n_recordings)))
    resampled = [resample_curves(answers, settings.n_resamples, rng)]
    if expanded_interval(resampled[0].curves[:, 0], recordings)[0] <= 0:
        low, high = np.quantile(confidences, (0.1, 0.9))
        reason = "low confidences are right as often as high ones"
        return Refusal(reason, f"review more below {low:.2f} and above {high:.2f}", len(right))
    wanted = float(np.log(settings.precision / (1 - settings.precision)))
    lowest = float(confidences.min())
    of_species = np.unique(sample.species, return_inverse=True)[1]
    if of_species.any():
        resampled.append(resample_curves(answers._replace(clusters=of_species), settings.n_resamples, rng))
    begin, end = widest_interval(resampled, lambda curves: _crossings(curves, wanted))
    curve = Curve(
        slope=float(slope), intercept=float(intercept),
        threshold=_confidence((wanted - intercept) / slope, lowest),
        threshold_interval=(_confidence(begin, lowest), _confidence(end, lowest)),
        reviewed=(lowest, float(confidences.max())),
        n_right=int(right.sum()), n_wrong=int((~right).sum()), n_files=sample.n_recordings,
    )  # fmt: skip
    return Fit(curve, sample, tuple(resampled), _next_step(curve))


def _crossings(curves: Float64, wanted: float) -> Float64:
    """The logit at which each curve [resamples, 2] reaches a logit; infinite for one that does not rise."""
    slope, intercept = curves.T
    crossings: Float64 = np.divide(wanted - intercept, slope, out=np.full_like(slope, np.inf), where=slope > 0)
    return crossings


def _confidence(logit: float, lowest: float) -> float | None:
    """A threshold as a confidence, at least the lowest reviewed; None: beyond all."""
    if logit > logits_of(1.0):
        return None
    return max(lowest, EDGE, float(0.5 + 0.5 * np.tanh(0.5 * logit)))


def _refusal(sample: Sample, min_reviews: int) -> Refusal | None:
    """What a curve needs that is not there."""
    n, n_right, n_recordings = len(sample.right), int(sample.right.sum()), sample.n_recordings
    n_wrong = n - n_right
    low, high = np.quantile(sample.confidences, (0.25, 0.75))
    reason = hint = ""
    if n < min_reviews:
        reason, hint = f"{_counted(n, 'review')}, {min_reviews} are needed", f"review {min_reviews - n} more"
    elif n_wrong < MIN_EACH:
        reason = f"all {f'but {n_wrong} ' if n_wrong else ''}of {n} reviews are right, {MIN_EACH} wrong ones are needed"
        hint = f"review more below {low:.2f}"
    elif n_right < MIN_EACH:
        reason = f"all {f'but {n_right} ' if n_right else ''}of {n} reviews are wrong, {MIN_EACH} right ones are needed"
        hint = f"review more above {high:.2f}"
    elif n_recordings < MIN_EACH:
        reason = f"all reviews are of {_counted(n_recordings, 'recording')}, {MIN_EACH} are needed"
        hint = f"review {MIN_EACH - n_recordings} other recordings"
    elif sample.confidences.min() == sample.confidences.max():
        reason, hint = f"all reviews have the confidence {low:.2f}", "review other confidences"
    return Refusal(reason, hint, n) if reason else None


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 or what == "species" else f"{n} {what}s"


def _is_unlike(sample: Sample, curve: Curve) -> bool:
    """Whether the reviews of a species contradict the curve of its class: by more than one review and chance do."""
    expected = share_right(curve, sample.confidences)
    difference = float(sample.right.sum() - expected.sum())
    return abs(difference) > _UNLIKE * float(np.sqrt(1 + (expected * (1 - expected)).sum()))


def _next_step(curve: Curve) -> str:
    low, high = curve.threshold_interval
    if low is None or (high is not None and logits_of(high) - logits_of(low) <= _WIDE):
        return ""
    return f"review more from {low:.2f} to {1.0 if high is None else high:.2f}"
