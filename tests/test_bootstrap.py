import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinfer import bootstrap
from birdinfer.bootstrap import Judged, auc_falls, percentile_interval, resampled_falls
from birdinfer.metrics import macro_roc_auc, roc_auc_per_class

seeds = st.integers(0, 2**32 - 1)


def made(seed, n_rows=24, n_labels=3, n_clusters=6, levels=12):
    """Rows of a few files in any order, with scores of few levels, so that there are ties."""
    rng = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(n_clusters), rng.integers(0, n_clusters, n_rows - n_clusters)])
    truth = rng.random((n_rows, n_labels)) < 0.3
    wanted, found = (rng.integers(0, levels, (n_rows, n_labels)) / levels for _ in range(2))
    return Judged(truth, np.ones_like(truth), rng.permutation(clusters)), wanted, found


def repeated(judged, times):
    """Indices of the rows, those of each cluster as often as it counts."""
    return np.repeat(np.arange(len(judged.clusters)), times[judged.clusters])


class TestAucFalls:
    @given(seeds)
    @settings(max_examples=40, deadline=None)
    def test_clusters_that_count_twice_do_what_repeating_their_rows_does(self, seed):
        judged, wanted, found = made(seed)
        times = np.random.default_rng(seed).integers(0, 4, (5, judged.n_clusters))
        falls = auc_falls(judged, wanted, found, times.astype(float))
        for fall, each in zip(falls, times, strict=True):
            again = repeated(judged, each)
            expected = [macro_roc_auc(judged.truth[again], scores[again]) for scores in (wanted, found)]
            assert fall == pytest.approx(expected[0] - expected[1], abs=1e-12, nan_ok=True)

    @given(seeds)
    @settings(max_examples=25, deadline=None)
    def test_small_pieces_make_the_same_whole(self, seed):
        judged, wanted, found = made(seed)
        times = np.random.default_rng(seed).integers(0, 4, (5, judged.n_clusters)).astype(float)
        whole = auc_falls(judged, wanted, found, times)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bootstrap, "_CELLS_AT_ONCE", 40)
            assert auc_falls(judged, wanted, found, times) == pytest.approx(whole, abs=1e-12, nan_ok=True)

    @given(seeds)
    @settings(max_examples=25, deadline=None)
    def test_there_and_back_mirror_one_another(self, seed):
        judged, wanted, found = made(seed)
        times = np.ones((1, judged.n_clusters))
        there, back = auc_falls(judged, wanted, found, times), auc_falls(judged, found, wanted, times)
        assert there == pytest.approx(-back, abs=1e-12, nan_ok=True)

    @given(seeds)
    @settings(max_examples=25, deadline=None)
    def test_a_cell_that_is_not_known_counts_nowhere(self, seed):
        judged, wanted, found = made(seed)
        known = np.random.default_rng(seed).random(judged.truth.shape) < 0.8
        (fall,) = auc_falls(judged._replace(known=known), wanted, found, np.ones((1, judged.n_clusters)))
        columns = zip(judged.truth.T, known.T, wanted.T, found.T, strict=True)
        each = [
            [roc_auc_per_class(truth[seen, None], scores[seen, None])[0] for scores in (before, after)]
            for truth, seen, before, after in columns
        ]
        told = [before - after for before, after in each if not np.isnan(before)]
        assert fall == pytest.approx(np.mean(told) if told else np.nan, abs=1e-12, nan_ok=True)

    def test_pairs_counted_by_hand(self):
        # Two files of a positive and a negative each; the second file's positive sinks below both negatives.
        judged = Judged(np.array([[1], [0], [1], [0]], bool), np.ones((4, 1), bool), np.array([0, 0, 1, 1]))
        wanted, found = np.array([[4.0], [1], [3], [2]]), np.array([[4.0], [1], [0.5], [2]])
        # Both once: 2 of 4 pairs lost. The first twice: 1 x 3 of 9. The second alone: its only pair.
        falls = auc_falls(judged, wanted, found, np.array([[1.0, 1], [2, 1], [0, 1], [1, 0]]))
        assert falls == pytest.approx([2 / 4, 3 / 9, 1, 0])

    def test_a_tie_is_half_a_pair(self):
        judged = Judged(np.array([[1], [0]], bool), np.ones((2, 1), bool), np.array([0, 1]))
        assert auc_falls(judged, np.array([[1.0], [0]]), np.zeros((2, 1)), np.ones((1, 2))).tolist() == [0.5]

    def test_a_resample_without_a_positive_tells_nothing(self):
        judged = Judged(np.array([[1], [0]], bool), np.ones((2, 1), bool), np.array([0, 1]))
        values = np.zeros((2, 1))
        assert np.isnan(auc_falls(judged, values, values, np.array([[0.0, 2], [1, 1]]))).tolist() == [True, False]

    def test_no_label_at_all_can_be_scored(self):
        judged, wanted, found = made(0)
        silent = judged._replace(truth=np.zeros_like(judged.truth))
        assert np.isnan(auc_falls(silent, wanted, found, np.ones((2, judged.n_clusters)))).all()


class TestResampledFalls:
    def test_the_seed_decides_and_memory_does_not(self, monkeypatch):
        judged, wanted, found = made(1)
        first, same, other = (
            resampled_falls(judged, wanted, found, 50, np.random.default_rng(seed)) for seed in (7, 7, 8)
        )
        assert first.tolist() == same.tolist() != other.tolist()
        monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 20)
        assert resampled_falls(judged, wanted, found, 50, np.random.default_rng(7)) == pytest.approx(first)

    def test_resamples_that_tell_nothing_are_left_out(self):
        judged = Judged(np.array([[1], [0]], bool), np.ones((2, 1), bool), np.array([0, 1]))
        falls = resampled_falls(judged, np.array([[1.0], [0]]), np.zeros((2, 1)), 400, np.random.default_rng(0))
        assert set(falls.tolist()) == {0.5}
        assert 120 < len(falls) < 280  # each file once: half of all draws

    def test_rows_of_one_file_do_not_narrow_what_the_file_tells(self):
        judged, wanted, found = made(3, n_rows=40, n_clusters=40)
        widths = []
        for copies in (1, 4):
            again = np.repeat(np.arange(40), copies)
            many = Judged(*(field[again] for field in judged))
            falls = resampled_falls(many, wanted[again], found[again], 300, np.random.default_rng(0))
            low, high = percentile_interval(falls)
            widths.append(high - low)
        assert widths[1] == pytest.approx(widths[0])

    def test_an_interval_covers_the_true_difference_about_as_often_as_it_says(self):
        # A row's positive wins 0.8 of its pairs before and 0.5 after, whatever its file: the true fall is known.
        rng = np.random.default_rng(0)
        shift = 0.8416 * np.sqrt(2)  # where a normal beats another in 80 % of all pairs
        inside = 0
        for _ in range(60):
            truth = rng.random((120, 1)) < 0.4
            wanted, found = rng.normal(size=(120, 1)) + shift * truth, rng.normal(size=(120, 1))
            judged = Judged(truth, np.ones_like(truth), np.repeat(np.arange(30), 4))
            low, high = percentile_interval(resampled_falls(judged, wanted, found, 200, rng))
            inside += low <= 0.3 <= high
        assert inside >= 50


class TestPercentileInterval:
    def test_leaves_as_many_values_below_as_above(self):
        assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))

    def test_of_no_values_there_is_none(self):
        assert percentile_interval(np.array([])) is None


def test_a_competitions_table_takes_a_fraction_of_a_second():
    rng = np.random.default_rng(0)
    truth = rng.random((1000, 200)) < 0.01
    judged = Judged(truth, np.ones_like(truth), np.arange(1000) // 12)
    wanted, found = (rng.random(truth.shape) + truth for _ in range(2))
    begin = time.process_time()
    assert len(resampled_falls(judged, wanted, found, 2000, np.random.default_rng(0))) == 2000
    assert time.process_time() - begin < 5
