from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import ParityError
from birdinfer.evaluation.metrics import macro_roc_auc
from birdinfer.export.acceptance.labelled import LabelledWindows
from birdinfer.export.acceptance.measure import compare, spearman_per_label
from birdinfer.inference.activation import softmax


def labelled(truth, known=None, recordings=None):
    truth = np.asarray(truth, bool)
    return LabelledWindows(
        inputs=np.zeros((len(truth), 1), np.float32),
        truth=truth,
        known=np.ones_like(truth) if known is None else np.asarray(known, bool),
        recordings=np.arange(len(truth)) if recordings is None else np.asarray(recordings),
    )


def made(seed, n_windows=24, n_labels=3, n_recordings=8, levels=12):
    """Windows of a few recordings, with logits of few levels, so that there are ties."""
    rng = np.random.default_rng(seed)
    windows = labelled(
        rng.random((n_windows, n_labels)) < 0.3,
        rng.random((n_windows, n_labels)) < 0.9,
        rng.integers(0, n_recordings, n_windows),
    )
    wanted, found = (rng.integers(-levels, levels, (n_windows, n_labels)).astype(np.float32) / 4 for _ in range(2))
    return windows, wanted, found


seeds = st.integers(0, 2**32 - 1)


class TestProperties:
    @given(seeds, st.sampled_from(["sigmoid", "softmax"]))
    def test_a_graph_that_says_the_same_has_lost_nothing(self, seed, activation):
        windows, logits, _ = made(seed)
        found = compare(logits, logits.copy(), windows, activation, n_resamples=40)
        assert found.macro_auc == found.macro_auc_fp32
        assert found.auc_drop in (0.0, None)
        assert found.auc_drop_interval in ((0.0, 0.0), None)
        assert found.least_spearman == found.mean_spearman == 1.0
        assert found.max_probability_difference == found.mean_probability_difference == 0.0

    @given(seeds, st.sampled_from([lambda x: 3 * x - 1, np.exp, lambda x: x**3, np.arctan]))
    def test_a_rising_change_of_logits_keeps_every_rank(self, seed, rising):
        windows, logits, _ = made(seed)
        found = compare(logits, rising(logits).astype(np.float32), windows, "sigmoid", n_resamples=40)
        assert found.auc_drop in (0.0, None)
        assert found.auc_drop_interval in ((0.0, 0.0), None)
        assert found.least_spearman == 1.0
        assert found.max_probability_difference > 0

    @given(seeds)
    def test_fall_and_gain_mirror_one_another(self, seed):
        windows, wanted, found = made(seed)
        there = compare(wanted, found, windows, "sigmoid", n_resamples=40)
        back = compare(found, wanted, windows, "sigmoid", n_resamples=40)
        assert there.auc_drop == pytest.approx(-back.auc_drop, abs=1e-12)
        assert there.auc_drop_interval == pytest.approx((-back.auc_drop_interval[1], -back.auc_drop_interval[0]))

    @given(seeds)
    def test_spearman_is_that_of_scipy(self, seed):
        stats = pytest.importorskip("scipy.stats")
        _, wanted, found = made(seed)
        expected = [stats.spearmanr(a, b).statistic for a, b in zip(wanted.T, found.T, strict=True)]
        assert spearman_per_label(wanted, found) == pytest.approx(expected, abs=1e-12)


class TestAucFall:
    TRUTH = ((1, 0), (1, 0), (0, 1), (0, 1))
    WANTED = np.array([[2, 0], [1, 0], [-1, 1], [-2, 2]], np.float32)
    """In perfect order."""

    def test_counts_pairs_out_of_order(self):
        found = self.WANTED.copy()
        found[2, 0] = 1.5
        agreement = compare(self.WANTED, found, labelled(self.TRUTH), "sigmoid")
        assert agreement.macro_auc_fp32 == 1.0
        assert agreement.macro_auc == pytest.approx((0.75 + 1) / 2)
        assert agreement.auc_drop == pytest.approx(0.125)
        low, high = agreement.auc_drop_interval
        assert low == 0.0 < 0.125 < high <= 0.5

    def test_a_cell_that_is_not_known_counts_nowhere(self):
        found = self.WANTED.copy()
        found[2, 0] = 1.5
        known = np.ones((4, 2), bool)
        known[2, 0] = False
        agreement = compare(self.WANTED, found, labelled(self.TRUTH, known), "sigmoid")
        assert agreement.macro_auc == 1.0
        assert agreement.auc_drop_interval == (0.0, 0.0)

    def test_a_label_with_no_negative_is_left_out(self):
        truth = np.array(self.TRUTH)
        truth[:, 1] = 1
        found = self.WANTED.copy()
        found[:, 1] = -found[:, 1]
        assert compare(self.WANTED, found, labelled(truth), "sigmoid").auc_drop == 0.0

    def test_without_any_known_cell_there_is_none(self):
        agreement = compare(self.WANTED, self.WANTED, labelled(self.TRUTH, np.zeros((4, 2))), "sigmoid")
        assert agreement.macro_auc is agreement.auc_drop is agreement.auc_drop_interval is None
        assert agreement.least_spearman == 1.0

    def test_a_single_recording_has_no_interval(self):
        agreement = compare(self.WANTED, self.WANTED, labelled(self.TRUTH, recordings=[7] * 4), "sigmoid")
        assert agreement.auc_drop == 0.0
        assert agreement.auc_drop_interval is None

    def test_two_recordings_of_which_each_has_one_class_have_an_interval_from_those_resamples_that_can_be_scored(self):
        windows = labelled([[1], [1], [0], [0]], recordings=[0, 0, 1, 1])
        agreement = compare(self.WANTED[:, :1], -self.WANTED[:, :1], windows, "sigmoid")
        assert agreement.auc_drop_interval == (1.0, 1.0)

    def test_alike_windows_of_a_recording_do_not_narrow_the_interval(self):
        windows, wanted, found = made(3, n_windows=40, n_recordings=40)
        windows = replace(windows, recordings=np.arange(40))
        widths = []
        for copies in (1, 4):
            again = np.repeat(np.arange(40), copies)
            names = ("inputs", "truth", "known", "recordings")
            many = LabelledWindows(**{name: getattr(windows, name)[again] for name in names})
            low, high = compare(wanted[again], found[again], many, "sigmoid").auc_drop_interval
            widths.append(high - low)
        assert widths[1] == pytest.approx(widths[0])

    def test_softmax_is_ranked_by_its_probabilities(self):
        windows, wanted, found = made(5)
        windows = replace(windows, known=np.ones_like(windows.known))
        agreement = compare(wanted, found, windows, "softmax", n_resamples=2)
        assert agreement.macro_auc == pytest.approx(macro_roc_auc(windows.truth, softmax(found.astype(float))))
        assert agreement.macro_auc != pytest.approx(macro_roc_auc(windows.truth, found))

    def test_probabilities_that_round_to_one_are_still_distinct(self):
        sure = np.array([[40], [39], [38], [37]], np.float32)
        assert compare(sure, -sure, labelled([[1], [1], [0], [0]]), "sigmoid").auc_drop == 1.0

    def test_the_seed_decides(self):
        windows, wanted, found = made(8)
        intervals = [
            compare(wanted, found, windows, "sigmoid", n_resamples=50, seed=seed).auc_drop_interval
            for seed in (0, 0, 1)
        ]
        assert intervals[0] == intervals[1] != intervals[2]


class TestSpearman:
    def test_a_label_that_never_changes_is_left_out(self):
        wanted = np.array([[1, 0], [1, 1], [1, 2]], np.float32)
        agreement = compare(wanted, wanted[::-1].copy(), labelled(np.zeros((3, 2))), "sigmoid", n_resamples=2)
        assert agreement.least_spearman == -1.0
        assert agreement.least_spearman_label_index == 1
        assert agreement.mean_spearman == -1.0

    def test_a_graph_that_always_says_the_same_agrees_with_nothing(self):
        wanted = np.array([[0], [1], [2]], np.float32)
        assert spearman_per_label(wanted, np.ones_like(wanted)).tolist() == [0.0]

    def test_of_one_window_there_is_none(self):
        one = np.ones((1, 2), np.float32)
        agreement = compare(one, one, labelled([[1, 0]]), "sigmoid", n_resamples=2)
        assert agreement.least_spearman is agreement.least_spearman_label_index is agreement.mean_spearman is None


class TestRefusal:
    def test_what_is_no_number_is_no_agreement(self):
        windows, wanted, found = made(0)
        found[3, 1] = np.nan
        with pytest.raises(ParityError, match=r"the other graph answers 1 of 24 windows with what is no number"):
            compare(wanted, found, windows, "sigmoid")

    @pytest.mark.parametrize("n_windows", [0, 23])
    def test_tables_of_different_windows(self, n_windows):
        windows, wanted, found = made(0)
        with pytest.raises(ParityError, match=r"have the shapes"):
            compare(wanted, found[:n_windows], windows, "sigmoid")

    def test_no_window_at_all(self):
        nothing = np.zeros((0, 2), np.float32)
        with pytest.raises(ParityError, match=r"have the shapes"):
            compare(nothing, nothing, labelled(np.zeros((0, 2))), "sigmoid")
