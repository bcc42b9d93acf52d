"""Reviews of which the curve is known: how often a confidence is right follows it, and a recording's reviews agree."""

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np

from birdinfer.inference.calibration import logits_of
from birdinfer.tables.csv import csv_text
from birdinfer.tables.reviews import ANSWER, Reviews

SLOPE, INTERCEPT = 1.0, -0.5


def true_threshold(precision: float, spread: float = 0.0) -> float:
    """The confidence from which on this share is right, on average over species of this spread."""
    confidences = np.linspace(0.001, 0.999, 9_981)
    intercepts = INTERCEPT + spread * np.array([NormalDist().inv_cdf(share) for share in np.arange(0.005, 1, 0.01)])
    right = 1 / (1 + np.exp(-(SLOPE * logits_of(confidences) + intercepts[:, None])))
    return float(np.interp(precision, right.mean(axis=0), confidences))


def simulate_reviews(
    rng: np.random.Generator,
    n_reviews: int,
    n_recordings: int,
    *,
    n_species: int = 1,
    alike: float = 0.2,
    slope: float = SLOPE,
    intercept: float = INTERCEPT,
    spread: float = 0.0,
) -> Reviews:
    """Review detections of every confidence from 0.1 to 0.99 evenly; some recordings and species have many of them.

    ``alike``: correlation within a recording of a normal variable that decides who is right (a Gaussian copula: the
    share that is right at a confidence is that of the curve whatever it is). ``spread``: standard deviation of the
    species' intercepts.
    """
    recordings = rng.choice(n_recordings, n_reviews, p=rng.dirichlet(np.full(n_recordings, 2.0)))
    species = rng.choice(n_species, n_reviews, p=rng.dirichlet(np.full(n_species, 2.0)))
    confidences = rng.uniform(0.1, 0.99, n_reviews).round(4)
    intercepts = intercept + spread * rng.normal(size=n_species)
    share = 1 / (1 + np.exp(-(slope * logits_of(confidences) + intercepts[species])))
    deciding = alike**0.5 * rng.normal(size=n_recordings)[recordings] + (1 - alike) ** 0.5 * rng.normal(size=n_reviews)
    right = deciding < np.vectorize(NormalDist().inv_cdf)(share)
    return Reviews(confidences=confidences, right=right, species=species, recordings=recordings)


def write_reviews(path: Path, reviews: Reviews, labels: Sequence[str]) -> Path:
    """Write reviews as the page exports them."""
    answers = np.where(reviews.right, "right", "wrong")
    columns = zip(reviews.recordings, reviews.species, reviews.confidences, answers, strict=True)
    rows = [
        (f"r{recording}.wav", 5 * number, 5 * number + 5, labels[column], confidence, answer)
        for number, (recording, column, confidence, answer) in enumerate(columns)
    ]
    path.write_text(csv_text(("file", "start", "end", "label", "confidence", ANSWER), rows))
    return path
