"""From sound files to submission.csv: birdinfer against the naive notebook, same weights, same soundscapes, one run."""

import statistics
import time

import numpy as np
import pandas as pd
import pytest

from birdinfer import Bundle, Predictor
from birdinfer.audio.find import find_recordings
from birdinfer.inference.autotune import autotune
from birdinfer.inference.results import Scheduler
from birdinfer.prediction.run import PredictionCallback, PredictionSettings, SubmissionTables, run_prediction
from birdinfer.prediction.writer import SubmissionWriter
from naive_notebook import predict_naively

ROUNDS = 3

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:audioread", "ignore:.*slated for removal:DeprecationWarning"
)


class LoadedModels(SubmissionTables):
    """The tables of a run whose models are loaded already, as the notebook's are."""

    predictor: Predictor

    def make_scheduler(self, bundle, make_predictor):
        """Give all files to the predictor that is there."""
        return Scheduler(self.predictor)


def predict(predictor, paths, settings):
    """All of ``predict_to_csv`` but loading the models."""
    bundle, found = predictor.bundle, find_recordings(paths)
    manifest = bundle.manifest
    writer = SubmissionWriter(bundle.labels, manifest.fallback_probabilities, manifest.rows, names=found.names)
    tables = LoadedModels(settings.output, writer, paths, force=True)
    tables.predictor = predictor
    run_prediction(bundle, found, settings, PredictionCallback(), tables)


@pytest.mark.parametrize(
    ("name", "n_files", "bound"),
    [("b0", 28, 6.0), ("nfnet", 12, 4.5), ("five_b0", 12, 5.0)],
    ids=["efficientnet_b0", "eca_nfnet_l0", "five efficientnet_b0"],
)
@pytest.mark.timeout(3600)
def test_against_the_naive_notebook(name, n_files, bound, request, soundscapes, table, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = request.getfixturevalue(name)
    bundle = Bundle.load(measured.folder)
    choice = autotune(bundle, soundscapes)
    predictor = Predictor(bundle, choice.plan)
    paths = soundscapes[:n_files]
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    predict_naively(measured.models, measured.frontend, paths[:1], theirs)  # warm up: librosa compiles on first use
    plan = choice.plan
    our_way = PredictionSettings(
        output=ours, force=True, engine=str(plan.spec), workers=plan.workers, batch_size=plan.batch_size
    )
    predict(predictor, paths[:1], our_way)
    ratios, naive_seconds, our_seconds = [], [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        predict_naively(measured.models, measured.frontend, paths, theirs)
        naive_seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        predict(predictor, paths, our_way)
        our_seconds.append(time.perf_counter() - began)
        ratios.append(naive_seconds[-1] / our_seconds[-1])
    found, wanted = (pd.read_csv(path, index_col="row_id", dtype={"row_id": str}) for path in (ours, theirs))
    assert list(found.columns) == list(wanted.columns)
    differences = np.abs(found.loc[wanted.index].to_numpy() - wanted.to_numpy())
    spread, ratio, minutes = float(wanted.to_numpy().std()), statistics.median(ratios), len(paths)
    tolerance = bundle.manifest.tolerance
    table.append(
        {
            "what": f"end to end against the naive notebook: {request.node.callspec.id}, "
            f"{measured.frontend.mel.n_mels} x {measured.frontend.frames_per_window}",
            "measured": f"{ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
            "bound": f">= {bound:g}x",
            "detail": f"{choice.plan}; {1000 * statistics.median(naive_seconds) / minutes:.0f} against "
            f"{1000 * statistics.median(our_seconds) / minutes:.0f} ms per minute of sound, "
            f"{60 * minutes / statistics.median(our_seconds):.0f} x real time, {minutes} files; scores differ by "
            f"{differences.max():.1e} at most, {differences.mean():.1e} on average (standard deviation {spread:.2f})",
        }
    )
    assert spread > 0.05  # answers that differ: else any engine would agree
    assert differences.max() <= tolerance.max_probability_difference
    assert differences.mean() <= tolerance.mean_probability_difference
    assert ratio >= bound
