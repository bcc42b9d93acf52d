"""From sound files to submission.csv: birdinfer against the naive notebook, same weights, same soundscapes, one run."""

import statistics
import time

import numpy as np
import pandas as pd
import pytest

from birdinfer import Bundle, Predictor
from birdinfer.audio.find import find_recordings
from birdinfer.export.int8.qdq import native_target
from birdinfer.inference.autotune import autotune
from birdinfer.inference.engines import load_engine, parse_spec
from birdinfer.inference.engines.benchmark import speeds_in_turns
from birdinfer.inference.predictor import make_plan
from birdinfer.inference.results import Scheduler
from birdinfer.prediction.run import PredictionCallback, PredictionSettings, SubmissionTables, run_prediction
from birdinfer.prediction.writer import SubmissionWriter
from bundles import has_bf16, has_openvino
from naive_notebook import predict_naively

ROUNDS = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning:audioread", "ignore:.*slated for removal:DeprecationWarning"
    ),
]


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


CASES = {
    # our bundle, the notebook's networks, files; the bounds without and with AVX-512, VNNI and bf16
    "efficientnet_b0": ("b0", "b0", 28, 6.0, 8.0),
    "efficientnet_b0, ReLU, against the notebook with SiLU": ("relu_b0", "b0", 28, 8.0, 12.0),
    "eca_nfnet_l0": ("nfnet", "nfnet", 12, 4.0, 5.5),
    "five efficientnet_b0": ("five_b0", "five_b0", 12, 5.0, 6.5),
}
INT8_AGAINST_FP32 = (1.5, 2.0)


def is_wide():
    """Whether this processor has what the second bound of a benchmark needs."""
    return has_bf16() and native_target() == "vnni"


@pytest.mark.parametrize(("name", "theirs", "n_files", "avx2", "wide"), CASES.values(), ids=CASES)
@pytest.mark.timeout(3600)
def test_against_the_naive_notebook(
    name, theirs, n_files, avx2, wide, request, soundscapes, table, tmp_path, monkeypatch
):
    """The ReLU network is fitted, not trained: no gate is held, and only its speed counts.

    That it scores as well after a second training is measured in ``test_quantisation.py``.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured, naive = request.getfixturevalue(name), request.getfixturevalue(theirs)
    bound = wide if is_wide() else avx2
    bundle = Bundle.load(measured.folder)
    choice = autotune(bundle, soundscapes)
    predictor = Predictor(bundle, choice.plan)
    paths = soundscapes[:n_files]
    our_table, naive_table = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    # Warm up: librosa compiles on first use.
    predict_naively(naive.models, naive.frontend, paths[:1], naive_table)
    plan = choice.plan
    our_way = PredictionSettings(
        output=our_table, force=True, engine=str(plan.spec), workers=plan.workers, batch_size=plan.batch_size
    )
    predict(predictor, paths[:1], our_way)
    ratios, naive_seconds, our_seconds = [], [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        predict_naively(naive.models, naive.frontend, paths, naive_table)
        naive_seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        predict(predictor, paths, our_way)
        our_seconds.append(time.perf_counter() - began)
        ratios.append(naive_seconds[-1] / our_seconds[-1])
    if naive is not measured:  # the scores are held against those of the same network
        predict_naively(measured.models, measured.frontend, paths, naive_table)
    found, wanted = (pd.read_csv(path, index_col="row_id", dtype={"row_id": str}) for path in (our_table, naive_table))
    assert list(found.columns) == list(wanted.columns)
    differences = np.abs(found.loc[wanted.index].to_numpy() - wanted.to_numpy())
    spread, ratio, minutes = float(wanted.to_numpy().std()), statistics.median(ratios), len(paths)
    tolerance = bundle.manifest.tolerance
    held = "; speed alone, no gate" if naive is not measured else ""
    table.append(
        {
            "what": f"end to end against the naive notebook: {request.node.callspec.id}, "
            f"{measured.frontend.mel.n_mels} x {measured.frontend.frames_per_window}",
            "measured": f"{ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
            "bound": f">= {bound:g}x",
            "detail": f"{choice.plan}{held}; {1000 * statistics.median(naive_seconds) / minutes:.0f} against "
            f"{1000 * statistics.median(our_seconds) / minutes:.0f} ms per minute of sound, "
            f"{60 * minutes / statistics.median(our_seconds):.0f} x real time, {minutes} files; scores differ by "
            f"{differences.max():.1e} at most, {differences.mean():.1e} on average (standard deviation {spread:.2f})",
        }
    )
    assert spread > 0.05  # answers that differ: else any engine would agree
    assert differences.max() <= tolerance.max_probability_difference
    assert differences.mean() <= tolerance.mean_probability_difference
    assert ratio >= bound


def test_int8_of_silu_against_the_best_fp32(b0, table):
    """The graphs alone, all workers at once, in turns; each engine that has the precision."""
    engines = ["onnxruntime:fp32", "onnxruntime:int8"]
    engines += ["openvino:fp32", "openvino:int8"] * has_openvino() + ["openvino:bf16"] * has_bf16()
    plans = {engine: make_plan(parse_spec(engine)) for engine in engines}
    frontend = b0.frontend
    windows = np.random.default_rng(0).normal(0, 1, (24, 1, *frontend.input_shape)).astype(np.float32)
    paths = {"int8": b0.folder / "fold0.int8.onnx"}
    loaded = {
        engine: load_engine(
            plan, paths.get(plan.spec.precision, b0.folder / "fold0.onnx"), ["logits"], windows.shape[1:]
        )
        for engine, plan in plans.items()
    }
    rounds = speeds_in_turns([(loaded[each].run, plans[each]) for each in engines], windows, 2 * ROUNDS + 1, 1.0)
    ratios = []
    for speeds in rounds:
        by_precision = {precision: [] for precision in ("fp32", "int8", "bf16")}
        for engine, speed in zip(engines, speeds, strict=True):
            by_precision[plans[engine].spec.precision].append(speed)
        ratios.append(max(by_precision["int8"]) / max(by_precision["fp32"]))
    bound = INT8_AGAINST_FP32[is_wide()]
    medians = [statistics.median(each) for each in zip(*rounds, strict=True)]
    table.append(
        {
            "what": "INT8 of efficientnet_b0 with SiLU against the best fp32, the graph alone",
            "measured": f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
            "bound": f">= {bound:g}x",
            "detail": "windows a second: " + ", ".join(f"{e} {s:.0f}" for e, s in zip(engines, medians, strict=True)),
        }
    )
    assert statistics.median(ratios) >= bound
