"""Whether thresholds from reviews are as certain as they say: on simulated reviews, and on real sound with its truth.

``BIRDINFER_ESC10_BUNDLE=DIR`` names a bundle of ``train/esc10.toml`` for the second part, see test_ablation.py.
"""

import csv
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from simulated_reviews import simulate_reviews, true_threshold

from birdinfer.cli.app import main
from birdinfer.detections.events import Detection, find_events
from birdinfer.detections.recordings import Recording
from birdinfer.evaluation.calibrate import CalibrationSettings, calibrate_reviews
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.calibration import thresholds_of
from birdinfer.species import Species
from birdinfer.tables.csv import csv_text
from birdinfer.tables.scores import read_scores, rows_by_file
from bundles import SHARED_DATA

N_SIMULATIONS = 200
LEAST, MOST = 0.85, 0.95
N_SOUNDSCAPES = 120
SPREAD = 0.5
"""Standard deviation of the intercepts of a class's species, in logits."""
PRECISION = 0.8
ROW_SECONDS = 5.0


@pytest.mark.parametrize("precision", [0.75, 0.9])
@pytest.mark.parametrize(
    ("n_reviews", "n_recordings", "n_species"), [(50, 12, 1), (80, 20, 1), (150, 40, 1), (150, 20, 8), (400, 60, 30)]
)
def test_intervals_hold_the_known_threshold(n_reviews, n_recordings, n_species, precision, table):
    spread = 0.0 if n_species == 1 else SPREAD
    rng, true = np.random.default_rng(n_reviews), true_threshold(precision, spread)
    species = [Species(str(number), class_name="Aves") for number in range(n_species)]
    # Pooled: no species has enough reviews of its own.
    settings = CalibrationSettings(precision=precision, min_reviews=30 if n_species == 1 else n_reviews)
    covered, widths, n_refused = 0, [], 0
    for _ in range(N_SIMULATIONS):
        reviews = simulate_reviews(rng, n_reviews, n_recordings, n_species=n_species, spread=spread)
        made = calibrate_reviews(reviews, species, settings)
        fit = made.species.get("0") if n_species == 1 else made.classes.get("Aves")
        if fit is None:
            n_refused += 1
            continue
        low, high = (1.0 if end is None else end for end in fit.curve.threshold_interval)
        covered += low <= true <= high
        widths.append(high - low)
    share = covered / (N_SIMULATIONS - n_refused)
    of = "a species" if n_species == 1 else f"{n_species} species, pooled"
    table.append(
        {
            "what": f"coverage of 90 % intervals, {n_reviews} reviews of {of} in {n_recordings} recordings",
            "measured": f"{share:.3f}",
            "bound": f"{LEAST} to {MOST}",
            "detail": f"precision {precision:g} at {true:.3f}; median width {np.median(widths):.2f}; {n_refused} of "
            f"{N_SIMULATIONS} simulations refused",
        }
    )
    assert LEAST <= share <= MOST


def command(*words: object) -> None:
    """Run a command, which has to end well."""
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert not left.value.code


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a bundle that knows the ten classes of ESC-10."""
    kept = os.environ.get("BIRDINFER_ESC10_BUNDLE")
    if not kept:
        pytest.skip("needs BIRDINFER_ESC10_BUNDLE")
    return Path(shutil.copytree(kept, tmp_path_factory.mktemp("bundle") / "esc10"))


@pytest.fixture(scope="module")
def soundscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minutes of sounds of ESC-10 over a quiet forest, and when each of them sounds (events.csv)."""
    script, folder = SHARED_DATA / "soundscapes" / "make_soundscapes.py", tmp_path_factory.mktemp("soundscapes")
    if not script.is_file():
        pytest.skip("needs ../shared/data/soundscapes/make_soundscapes.py")
    numbers = ["--seed", "7", "--esc", str(N_SOUNDSCAPES), "--bird", "0"]
    subprocess.run([sys.executable, script, "--data", SHARED_DATA, "--out", folder, *numbers], check=True)
    return folder


def detections(scores: Path, bundle: Bundle, thresholds: np.ndarray) -> list[Detection]:
    """Events of a table of scores."""
    table = read_scores(scores)
    found = []
    for stem, rows in rows_by_file(table.row_ids, scores):
        recording = Recording(path=Path(stem), name=stem, file=f"{stem}.ogg", seconds=60.0)
        chunks = [(0, table.values[rows].astype(np.float32))]
        found += find_events(recording, chunks, bundle.manifest.species, thresholds, row_seconds=ROW_SECONDS)
    return found


def is_right(detection: Detection, events: dict[tuple[str, str], list[tuple[float, float]]]) -> bool:
    """Whether a quarter of a second of an event of its species lies in it."""
    stretches = events[detection.recording.name, detection.species.label]
    return any(min(end, detection.end_seconds) - max(on, detection.start_seconds) >= 0.25 for on, end in stretches)


def test_thresholds_of_reviews_made_from_truth_hold_on_other_recordings(bundle, soundscapes, tmp_path, table):
    loaded, scores = Bundle.load(bundle), tmp_path / "scores.csv"
    command("predict", soundscapes / "audio", "--bundle", bundle, "-o", scores)
    events = defaultdict(list)
    with (soundscapes / "events.csv").open() as text:
        for row in csv.DictReader(text):
            events[row["soundscape"], row["label"]].append((float(row["onset"]), float(row["offset"])))
    found = detections(scores, loaded, np.full(len(loaded.labels), 0.05, np.float32))
    half = {name for name in {one.recording.name for one in found} if int(name[4:7]) % 2}
    rows = [
        (one.recording.file, one.start_seconds, one.end_seconds, one.species.label, f"{one.confidence:.4f}",
         "right" if is_right(one, events) else "wrong")
        for one in found if one.recording.name in half
    ]  # fmt: skip
    reviews = tmp_path / "reviews.csv"
    reviews.write_text(csv_text(("file", "start", "end", "label", "confidence", "verdict"), rows))
    command("calibrate", reviews, "--bundle", bundle, "--precision", PRECISION, "--plot", tmp_path / "reliability.png")
    thresholds = thresholds_of(Bundle.load(bundle).manifest, np.inf)
    kept = [one for one in detections(scores, loaded, thresholds) if one.recording.name not in half]
    right = sum(is_right(one, events) for one in kept)
    table.append(
        {
            "what": f"share of detections that are right, {N_SOUNDSCAPES // 2} soundscapes that were not reviewed",
            "measured": f"{right / len(kept):.3f}",
            "bound": f">= {PRECISION:g} - 0.05",
            "detail": f"{right} of {len(kept)}; {len(rows)} reviews, {np.isfinite(thresholds).sum()} of "
            f"{len(thresholds)} species have a threshold",
        }
    )
    assert right / len(kept) >= PRECISION - 0.05
