import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.evaluation import confidence as bootstrap
from birdinfer.evaluation.confidence import LabelledRows, auc_drops, percentile_interval, resampled_drops
from birdinfer.evaluation.metrics import macro_roc_auc, roc_auc_per_class

seeds = st.integers(0, 2**32 - 1)


def made(seed, n_rows=24, n_labels=3, n_clusters=6, levels=12):
    """Rows of a few files in any order, with scores of few levels, so that there are ties."""
    rng = np.random.default_rng(seed)
    clusters = np.concatenate([np.arange(n_clusters), rng.integers(0, n_clusters, n_rows - n_clusters)])
    truth = rng.random((n_rows, n_labels)) < 0.3
    reference, found = (rng.integers(0, levels, (n_rows, n_labels)) / levels for _ in range(2))
    return LabelledRows(truth, np.ones_like(truth), rng.permutation(clusters)), reference, found


def repeated(labelled, times):
    """Indices of the rows, those of each cluster as often as it counts."""
    return np.repeat(np.arange(len(labelled.clusters)), times[labelled.clusters])


class TestAucFalls:
    @given(seeds)
    def test_clusters_that_count_twice_do_what_repeating_their_rows_does(self, seed):
        labelled, reference, found = made(seed)
        times = np.random.default_rng(seed).integers(0, 4, (5, labelled.n_clusters))
        drops = auc_drops(labelled, reference, found, times.astype(float))
        for drop, each in zip(drops, times, strict=True):
            again = repeated(labelled, each)
            expected = [macro_roc_auc(labelled.truth[again], scores[again]) for scores in (reference, found)]
            assert drop == pytest.approx(expected[0] - expected[1], abs=1e-12, nan_ok=True)

    @given(seeds)
    def test_small_pieces_make_the_same_whole(self, seed):
        labelled, reference, found = made(seed)
        times = np.random.default_rng(seed).integers(0, 4, (5, labelled.n_clusters)).astype(float)
        whole = auc_drops(labelled, reference, found, times)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bootstrap, "_CELLS_AT_ONCE", 40)
            assert auc_drops(labelled, reference, found, times) == pytest.approx(whole, abs=1e-12, nan_ok=True)

    @given(seeds)
    def test_there_and_back_mirror_one_another(self, seed):
        labelled, reference, found = made(seed)
        times = np.ones((1, labelled.n_clusters))
        there, back = auc_drops(labelled, reference, found, times), auc_drops(labelled, found, reference, times)
        assert there == pytest.approx(-back, abs=1e-12, nan_ok=True)

    @given(seeds)
    def test_a_cell_that_is_not_known_counts_nowhere(self, seed):
        labelled, reference, found = made(seed)
        known = np.random.default_rng(seed).random(labelled.truth.shape) < 0.8
        (drop,) = auc_drops(labelled._replace(known=known), reference, found, np.ones((1, labelled.n_clusters)))
        columns = zip(labelled.truth.T, known.T, reference.T, found.T, strict=True)
        each = [
            [roc_auc_per_class(truth[seen, None], scores[seen, None])[0] for scores in (before, after)]
            for truth, seen, before, after in columns
        ]
        scored = [before - after for before, after in each if not np.isnan(before)]
        assert drop == pytest.approx(np.mean(scored) if scored else np.nan, abs=1e-12, nan_ok=True)

    def test_pairs_counted_by_hand(self):
        # Two files of a positive and a negative each; the second file's positive sinks below both negatives.
        labelled = LabelledRows(np.array([[1], [0], [1], [0]], bool), np.ones((4, 1), bool), np.array([0, 0, 1, 1]))
        reference, found = np.array([[4.0], [1], [3], [2]]), np.array([[4.0], [1], [0.5], [2]])
        # Both once: 2 of 4 pairs lost. The first twice: 1 x 3 of 9. The second alone: its only pair.
        drops = auc_drops(labelled, reference, found, np.array([[1.0, 1], [2, 1], [0, 1], [1, 0]]))
        assert drops == pytest.approx([2 / 4, 3 / 9, 1, 0])

    def test_a_tie_is_half_a_pair(self):
        labelled = LabelledRows(np.array([[1], [0]], bool), np.ones((2, 1), bool), np.array([0, 1]))
        assert auc_drops(labelled, np.array([[1.0], [0]]), np.zeros((2, 1)), np.ones((1, 2))).tolist() == [0.5]

    def test_a_resample_without_a_positive_is_undefined(self):
        labelled = LabelledRows(np.array([[1], [0]], bool), np.ones((2, 1), bool), np.array([0, 1]))
        values = np.zeros((2, 1))
        assert np.isnan(auc_drops(labelled, values, values, np.array([[0.0, 2], [1, 1]]))).tolist() == [True, False]

    def test_no_label_at_all_can_be_scored(self):
        labelled, reference, found = made(0)
        silent = labelled._replace(truth=np.zeros_like(labelled.truth))
        assert np.isnan(auc_drops(silent, reference, found, np.ones((2, labelled.n_clusters)))).all()


class TestResampledFalls:
    def test_the_seed_decides_and_memory_does_not(self, monkeypatch):
        labelled, reference, found = made(1)
        first, same, other = (
            resampled_drops(labelled, reference, found, 50, np.random.default_rng(seed)) for seed in (7, 7, 8)
        )
        assert first.tolist() == same.tolist() != other.tolist()
        monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 20)
        assert resampled_drops(labelled, reference, found, 50, np.random.default_rng(7)) == pytest.approx(first)

    def test_undefined_resamples_are_left_out(self):
        labelled = LabelledRows(np.array([[1], [0]], bool), np.ones((2, 1), bool), np.array([0, 1]))
        drops = resampled_drops(labelled, np.array([[1.0], [0]]), np.zeros((2, 1)), 400, np.random.default_rng(0))
        assert set(drops.tolist()) == {0.5}
        assert 120 < len(drops) < 280  # each file once: half of all draws

    def test_rows_of_one_file_do_not_narrow_the_interval(self):
        labelled, reference, found = made(3, n_rows=40, n_clusters=40)
        widths = []
        for copies in (1, 4):
            again = np.repeat(np.arange(40), copies)
            many = LabelledRows(*(field[again] for field in labelled))
            drops = resampled_drops(many, reference[again], found[again], 300, np.random.default_rng(0))
            low, high = percentile_interval(drops)
            widths.append(high - low)
        assert widths[1] == pytest.approx(widths[0])

    def test_an_interval_covers_the_true_difference_about_as_often_as_it_says(self):
        # A row's positive wins 0.8 of its pairs before and 0.5 after, whatever its file: the true drop is known.
        rng = np.random.default_rng(0)
        shift = 0.8416 * np.sqrt(2)  # where a normal beats another in 80 % of all pairs
        inside = 0
        for _ in range(60):
            truth = rng.random((120, 1)) < 0.4
            reference, found = rng.normal(size=(120, 1)) + shift * truth, rng.normal(size=(120, 1))
            labelled = LabelledRows(truth, np.ones_like(truth), np.repeat(np.arange(30), 4))
            low, high = percentile_interval(resampled_drops(labelled, reference, found, 200, rng))
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
    labelled = LabelledRows(truth, np.ones_like(truth), np.arange(1000) // 12)
    reference, found = (rng.random(truth.shape) + truth for _ in range(2))
    begin = time.process_time()
    assert len(resampled_drops(labelled, reference, found, 2000, np.random.default_rng(0))) == 2000
    assert time.process_time() - begin < 5
