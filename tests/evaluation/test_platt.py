import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.evaluation.platt import (
    Answers,
    effective_number,
    expanded_interval,
    fit_curves,
    resample_curves,
    widest_interval,
)

seeds = st.integers(0, 2**32 - 1)


def made(seed, n=40, n_clusters=8, slope=1.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, n)
    clusters = np.concatenate([np.arange(n_clusters), rng.integers(0, n_clusters, n - n_clusters)])
    return Answers(logits, rng.random(n) < 1 / (1 + np.exp(-slope * logits)), clusters)


def penalised(slope, intercept, answers, weights):
    """Firth's log likelihood, as it stands in the paper."""
    line = slope * answers.logits + intercept
    share = 1 / (1 + np.exp(-line))
    design = np.column_stack([np.ones_like(line), answers.logits])
    information = design.T @ (design * (weights * share * (1 - share))[:, None])
    likelihood = weights @ (answers.right * line - np.logaddexp(0, line))
    return likelihood + 0.5 * np.linalg.slogdet(information)[1]


class TestFitCurves:
    @given(seeds, st.sampled_from([0.0, 1.0, -2.0]))
    def test_no_neighbouring_curve_is_likelier(self, seed, slope):
        answers = made(seed, slope=slope)
        times = np.random.default_rng(seed).integers(0, 3, (3, 8)).astype(float) + np.eye(3, 8)
        for curve, each in zip(fit_curves(answers, times), times, strict=True):
            best = penalised(*curve, answers, each[answers.clusters])
            for step in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
                assert penalised(*(curve + step), answers, each[answers.clusters]) <= best + 1e-9

    @given(seeds)
    def test_a_cluster_that_counts_twice_does_what_repeating_its_reviews_does(self, seed):
        answers = made(seed)
        times = np.random.default_rng(seed).integers(1, 4, 8)
        again = np.repeat(np.arange(40), times[answers.clusters])
        repeated = Answers(*(each[again] for each in answers))
        expected = fit_curves(repeated, np.ones((1, 8)))
        assert fit_curves(answers, times[None].astype(float)) == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("right", [lambda x: x > 0, lambda x: x < 0, lambda x: x > -99, lambda x: x > 99])
    def test_is_finite_where_right_and_wrong_do_not_overlap(self, right):
        answers = made(1)
        ((slope, intercept),) = fit_curves(answers._replace(right=right(answers.logits)), np.ones((1, 8)))
        assert abs(slope) < 100
        assert abs(intercept) < 100

    def test_is_undefined_of_one_confidence(self):
        answers = Answers(np.zeros(4), np.array([True, False, True, True]), np.array([0, 0, 1, 1]))
        assert np.isnan(fit_curves(answers, np.ones((1, 2)))).all()

    def test_finds_the_curve_of_many_reviews(self):
        assert fit_curves(made(3, n=20_000), np.ones((1, 8)))[0] == pytest.approx([1, 0], abs=0.06)

    def test_blocks_make_the_same_whole(self, monkeypatch):
        answers, times = made(5), np.random.default_rng(5).integers(1, 4, (9, 8)).astype(float)
        whole = fit_curves(answers, times)
        monkeypatch.setattr("birdinfer.evaluation.platt._CELLS_AT_ONCE", 80)
        assert fit_curves(answers, times) == pytest.approx(whole, abs=1e-9)


class TestIntervals:
    def test_resamples_differ_and_are_reproducible(self):
        answers = made(2)
        first, again = (resample_curves(answers, 50, np.random.default_rng(0)).curves for _ in range(2))
        assert first.shape == (50, 2)
        np.testing.assert_array_equal(first, again)
        assert first[:, 0].std() > 0.05

    def test_is_wider_than_the_percentiles_with_few_clusters_and_alike_with_many(self):
        values = np.arange(10_001.0)
        few, many = (expanded_interval(values, np.arange(n)) for n in (6, 2000))
        assert few[0] < 200
        assert few[1] > 9_800
        assert many == pytest.approx((500, 9_500), abs=10)

    def test_an_end_beyond_all_confidences_stays_infinite(self):
        values = np.concatenate([np.arange(80.0), np.full(20, np.inf)])
        assert expanded_interval(values, np.arange(100))[1] == np.inf

    def test_the_widest_of_several_is_taken(self):
        answers = made(4, n=60, n_clusters=12)
        pairs = answers._replace(clusters=answers.clusters // 4)
        both = [resample_curves(each, 100, np.random.default_rng(0)) for each in (answers, pairs)]
        widest = widest_interval(both, lambda curves: curves[:, 0])
        each = [expanded_interval(curves[:, 0], clusters) for curves, clusters in both]
        assert widest == max(each, key=lambda ends: ends[1] - ends[0])
        assert each[0] != each[1]

    @given(st.lists(st.integers(1, 9), min_size=2, max_size=9))
    def test_effective_clusters_are_at_most_those_there_are(self, sizes):
        effective = effective_number(np.repeat(np.arange(len(sizes)), sizes))
        assert 1 <= effective <= len(sizes) + 1e-9
        assert effective_number(np.arange(len(sizes))) == pytest.approx(len(sizes))
