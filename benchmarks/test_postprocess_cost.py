"""What a minute's post-processing costs beside the run that made its scores: each step below 1 %, on one thread."""

import time

import numpy as np
import pytest

from birdinfer import Bundle, Predictor
from birdinfer.audio.windows import make_grid
from birdinfer.config import AggregationConfig, FrontEndConfig
from birdinfer.inference.aggregation import ScoreAggregator
from birdinfer.postprocess.base import Pipeline
from birdinfer.postprocess.calibration import HistogramMatch, Temperature
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.priors import PriorShift
from birdinfer.postprocess.smoothing import FatTail, GaussianSmooth, LocalMax, Smooth
from birdinfer.postprocess.steps import catalogue
from birdinfer.postprocess.taxonomy import MirrorGroups
from birdinfer.species import Species
from birdinfer.system.cpu import one_thread_per_worker
from birdinfer.tables.step_tables import Occasion, PriorTable, Quantiles, write_priors, write_quantiles
from bundles import LABELS

ROUNDS, MINUTES = 40, 4
N_ROWS = 12
CLASSES = ("Aves", "Aves", "Aves", "Amphibia", "Insecta")
SPECIES = tuple(
    Species(label, f"Genus{index // 3} epithet{index}", class_name=CLASSES[index % len(CLASSES)])
    for index, label in enumerate(LABELS)
)
MOST_SORTS = 250
"""Of the scores of a day: what the slowest step may take."""
STEM = "BC2026_Test_0001_S05_20250227_010002"


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Every kind as it stands in the catalogue; kernels of as many taps as anybody used, tables of every species."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    shares = np.linspace(0, 1, 101)
    write_quantiles(folder / "q.csv", {label: Quantiles(shares**2, shares) for label in LABELS})
    occasions = tuple(Occasion(f"S{site:02d}", hour) for site in range(10) for hour in range(24))
    windows = np.full(len(occasions), 48)
    counts = rng.integers(0, 48, (len(occasions), len(LABELS)))
    write_priors(folder / "p.csv", PriorTable(labels=LABELS, occasions=occasions, windows=windows, present=counts))
    pairs = tuple(LABELS[index : index + 2] for index in range(0, 40, 2))
    special = [
        Smooth((0.1, 0.2, 0.4, 0.2, 0.1)), GaussianSmooth(2.0), FatTail(1.0, 12), LocalMax(0.5, 2),
        MirrorGroups(groups=pairs), Temperature(1.5), HistogramMatch(table=str(folder / "q.csv")),
        PriorShift(table=str(folder / "p.csv")),
    ]  # fmt: skip
    made = {type(step): step for step in special}
    return {name: made.get(kind) or kind() for name, kind in catalogue().items()}


def least_seconds(*works):
    """The least of each, taken in turns, so that a busy machine is busy for all of them."""
    times = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, spent in zip(works, times, strict=True):
            began = time.perf_counter()
            work()
            spent.append(time.perf_counter() - began)
    return [min(spent) for spent in times]


@pytest.mark.timeout(1200)
def test_every_step_costs_less_than_a_hundredth_of_the_run(b0, soundscapes, table, steps):
    predictor = Predictor(Bundle.load(b0.folder), post=PostConfig((1.0,)))
    scores = np.random.default_rng(0).random((N_ROWS, len(LABELS)), np.float32) ** 4
    pipelines = {name: Pipeline([step], SPECIES) for name, step in steps.items()}
    pipelines["all of them"] = Pipeline(list(steps.values()), SPECIES)
    with one_thread_per_worker():
        minutes = []
        for path in soundscapes[:MINUTES]:
            began = time.perf_counter()
            n_rows = len(predictor.predict(path))
            minutes.append((time.perf_counter() - began) * N_ROWS / n_rows)
        run = min(minutes)
        spent = least_seconds(*(lambda each=each: each(scores, STEM) for each in pipelines.values()))
    for name, seconds in zip(pipelines, spent, strict=True):
        row = {"what": f"post-processing of a minute: {name}", "measured": f"{100 * seconds / run:.3f} % of the run"}
        table.append(row | {"bound": "< 1 %", "detail": f"{1e6 * seconds:.0f} us of {1e3 * run:.0f} ms on one thread"})
    for name, seconds in zip(pipelines, spent, strict=True):
        if name in steps:
            assert seconds < 0.01 * run, name


def test_a_day_of_rows_against_sorting_it(table, steps):
    """17,280 rows at once, as a step that looks at the whole file gets them; numpy sorts the same in the meantime."""
    scores = np.random.default_rng(0).random((17_280, len(LABELS)), np.float32) ** 4
    slowest, slowest_seconds = "", 0.0
    (sort,) = least_seconds(lambda: np.sort(scores, axis=0))
    for name, step in steps.items():
        began = time.perf_counter()
        Pipeline([step], SPECIES)(scores, STEM)
        seconds = time.perf_counter() - began
        if seconds > slowest_seconds:
            slowest, slowest_seconds = name, seconds
    table.append({"what": "post-processing of a day: the slowest step",
                  "measured": f"{slowest_seconds / sort:.0f} sorts",
                  "bound": f"< {MOST_SORTS}", "detail": f"{slowest}, {slowest_seconds:.2f} s"})  # fmt: skip
    assert slowest_seconds < MOST_SORTS * sort


def test_rows_of_a_day(table):
    """A file of 24 hours whose rows are windows: aggregation hands each score on."""
    input_config, config = FrontEndConfig(), AggregationConfig()
    grid = make_grid(input_config, config, input_config.window)
    scores = np.random.default_rng(0).random((17_280, 200), np.float32)

    def aggregate():
        aggregator = ScoreAggregator(grid, config, scores.shape[1])
        for first in range(0, len(scores), N_ROWS):
            aggregator.add(first, scores[first : first + N_ROWS], None)
            aggregator.take()
        aggregator.finish(len(scores))

    seconds, copies = least_seconds(aggregate, lambda: np.cumsum(scores, axis=0, dtype=np.float64))
    table.append(
        {
            "what": "windows to rows, a day of sound",
            "measured": f"{seconds / copies:.2f} of a cumulated sum",
            "bound": "< 1",
            "detail": f"{1e3 * seconds:.0f} ms",
        }
    )
    assert seconds < copies
