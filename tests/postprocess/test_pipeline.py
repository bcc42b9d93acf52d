"""Steps in a row, and the properties that hold for every kind of step and for all of them together."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.errors import ConfigError
from birdinfer.postprocess.base import Pipeline
from birdinfer.postprocess.calibration import Temperature
from birdinfer.postprocess.file_level import CutOff, FileBoost, FileContrast, FileMax, FileTopMean, LowRankPower
from birdinfer.postprocess.smoothing import (
    AdaptiveSmooth,
    FatTail,
    GaussianSmooth,
    LocalMax,
    Smooth,
    TaxonKernels,
    smooth,
)
from birdinfer.postprocess.taxonomy import ClassSmooth, GenusSmooth, MirrorGroups
from birdinfer.species import Species

SPECIES = (
    Species("a", "Turdus merula", class_name="Aves"),
    Species("b", "Turdus pilaris", class_name="Aves"),
    Species("c", "Boana raniceps", class_name="Amphibia"),
    Species("d", "Boana faber", class_name="Amphibia"),
    Species("e", class_name="Insecta"),
)
STEPS = [
    Smooth((0.1, 0.2, 0.4, 0.2, 0.1)),
    GaussianSmooth(1.0),
    FatTail(),
    AdaptiveSmooth(0.5),
    LocalMax(),
    TaxonKernels(),
    FileMax(),
    FileTopMean(),
    FileBoost(),
    FileContrast(),
    CutOff(0.7, 0.5),
    LowRankPower(2),
    GenusSmooth(0.5),
    ClassSmooth(0.5),
    MirrorGroups(groups=(("a", "e"),)),
    Temperature(2.0),
]

files = st.integers(1, 9).flatmap(
    lambda n_rows: hnp.arrays(np.float32, (n_rows, len(SPECIES)), elements=st.floats(0, 1, width=32))
)
pipelines = st.lists(st.sampled_from(STEPS), max_size=5)


def name(step):
    return type(step).__struct_config__.tag


def test_without_steps_the_very_input_comes_back():
    scores = np.random.default_rng(0).random((4, 5), np.float32)
    empty = Pipeline([], SPECIES)
    assert empty(scores, "any") is scores
    assert (empty.context_rows, empty.names) == (0, [])


def test_neutral_steps_are_left_out():
    scores = np.random.default_rng(0).random((4, 5), np.float32)
    idle = Pipeline([Smooth((1.0,)), FileMax(0.0), LocalMax(0.0, 50)], SPECIES)
    assert idle(scores, "any") is scores
    assert (idle.context_rows, idle.names) == (0, [])


def test_a_neutral_step_that_does_not_fit_is_refused_all_the_same():
    with pytest.raises(ConfigError, match="taxon_kernels"):
        Pipeline([TaxonKernels({"Reptilia": (1.0,)}, (1.0,))], SPECIES)


def test_steps_are_done_in_order_by_hand():
    """Smoothed to .75 and .25, then times .75; the other way round: times 1, then smoothed."""
    scores = np.float32([[1.0] * 5, [0.0] * 5])
    kernel = (0.25, 0.75, 0.0)
    smoothed_first = Pipeline([Smooth(kernel), FileMax(0.5), FileMax(1.0)], SPECIES)
    first = smooth(scores, kernel)
    first = first * first.max(axis=0) ** 0.5
    np.testing.assert_allclose(smoothed_first(scores, "any"), first * first.max(axis=0), rtol=1e-6)
    assert smoothed_first.names == ["smooth", "file_max", "file_max"]
    np.testing.assert_allclose(
        Pipeline([FileMax(), Smooth((0.2, 0.6, 0.2))], SPECIES)(scores, "any")[:, 0], [0.75, 0.25], rtol=1e-6
    )
    np.testing.assert_allclose(
        Pipeline([Smooth((0.2, 0.6, 0.2)), FileMax()], SPECIES)(scores, "any")[:, 0], [0.5625, 0.1875], rtol=1e-6
    )


def test_it_reaches_as_far_as_its_steps_together():
    assert Pipeline([Smooth(), LocalMax(0.5, 3), GenusSmooth(0.5)], SPECIES).context_rows == 1 + 3 + 0
    assert Pipeline([Smooth(), FileMax(), LocalMax()], SPECIES).context_rows is None


@pytest.mark.parametrize("step", STEPS, ids=name)
def test_a_file_without_rows_stays_without(step):
    assert Pipeline([step], SPECIES)(np.zeros((0, 5), np.float32), "any").shape == (0, 5)


@pytest.mark.parametrize("step", STEPS, ids=name)
def test_a_day_of_sound_takes_little_more_memory_than_its_scores(step):
    scores = np.random.default_rng(0).random((60_000, len(SPECIES)), np.float32)
    tracemalloc.start()
    try:
        Pipeline([step], SPECIES)(scores, "any")
        assert tracemalloc.get_traced_memory()[1] < 3 * scores.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("step", STEPS, ids=name)
@given(scores=files)
def test_every_step_keeps_to_0_and_1_and_leaves_its_input(step, scores):
    before = scores.copy()
    found = Pipeline([step], SPECIES)(scores, "any")
    assert (found.shape, found.dtype) == (scores.shape, np.float32)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.array_equal(scores, before)


@given(pipelines, files)
def test_a_pipeline_keeps_to_0_and_1_and_leaves_its_input(steps, scores):
    before = scores.copy()
    found = Pipeline(steps, SPECIES)(scores, "any")
    assert (found.shape, found.dtype) == (scores.shape, np.float32)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.array_equal(scores, before)


@given(pipelines, st.lists(files, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_pitfall_9_no_file_leaks_into_another_whatever_their_order(steps, all_files, chance):
    alone = [Pipeline(steps, SPECIES)(scores, f"file{index}") for index, scores in enumerate(all_files)]
    order = list(range(len(all_files)))
    chance.shuffle(order)
    together = Pipeline(steps, SPECIES)
    for index in order:
        assert np.array_equal(together(all_files[index], f"file{index}"), alone[index])


@given(st.lists(st.sampled_from([step for step in STEPS if step.context_rows is not None]), max_size=4), st.data())
def test_rows_beyond_the_reach_change_no_bit(steps, data):
    pipeline = Pipeline(steps, SPECIES)
    n_rows = 2 * pipeline.context_rows + data.draw(st.integers(2, 9))
    scores = np.random.default_rng(data.draw(st.integers(0, 99))).random((n_rows, 5), np.float32)
    cut = data.draw(st.integers(pipeline.context_rows + 1, n_rows))
    kept = cut - pipeline.context_rows
    assert np.array_equal(pipeline(scores[:cut], "any")[:kept], pipeline(scores, "any")[:kept])
