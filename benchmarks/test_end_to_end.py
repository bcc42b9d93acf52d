"""From sound files to submission.csv: birdinfer against the naive notebook, same weights, same soundscapes, one run."""

import statistics
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from b0_bundle import make_b0
from birdinfer import Bundle, Predictor
from birdinfer.cli.predict import predict_to_submission
from naive_notebook import predict_naively

ROUNDS = 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning:audioread", "ignore:.*slated for removal:DeprecationWarning")
def test_efficientnet_b0_against_the_naive_notebook(b0, soundscapes, table, tmp_path):
    model = make_b0()
    model.load_state_dict(load_file(b0.parent / "weights.safetensors"))
    model.eval()
    predictor = Predictor(Bundle.load(b0))
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    predict_naively(model, soundscapes[:1], theirs)  # warm up: librosa compiles on first use
    predict_to_submission(predictor, soundscapes[:1], ours, quiet=True)
    ratios, naive_seconds, our_seconds = [], [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        predict_naively(model, soundscapes, theirs)
        naive_seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        predict_to_submission(predictor, soundscapes, ours, quiet=True)
        our_seconds.append(time.perf_counter() - began)
        ratios.append(naive_seconds[-1] / our_seconds[-1])
    found, wanted = (pd.read_csv(path, index_col="row_id", dtype={"row_id": str}) for path in (ours, theirs))
    assert list(found.columns) == list(wanted.columns)
    difference = float(np.abs(found.loc[wanted.index].to_numpy() - wanted.to_numpy()).max())
    spread = float(wanted.to_numpy().std())
    ratio, minutes = statistics.median(ratios), len(soundscapes)
    table.append(
        {
            "what": "end to end, efficientnet_b0 256x320, against the naive notebook",
            "measured": f"{ratio:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
            "bound": ">= 3x",
            "detail": f"{1000 * statistics.median(naive_seconds) / minutes:.0f} against "
            f"{1000 * statistics.median(our_seconds) / minutes:.0f} ms per minute of sound, "
            f"{60 * minutes / statistics.median(our_seconds):.0f} x real time, {minutes} files",
        }
    )
    table.append(
        {
            "what": "largest difference of a score from the naive notebook's",
            "measured": f"{difference:.1e}",
            "bound": "<= 1e-3",
            "detail": f"standard deviation of the scores {spread:.2f}",
        }
    )
    assert spread > 0.1
    assert difference <= 1e-3
    assert ratio >= 3
