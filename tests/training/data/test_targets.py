import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_clips import LABELS

from birdinfer.errors import LabelError
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.targets import TargetMaker, truth
from birdinfer.training.outputs import Outputs
from birdinfer.training.recipe.schema import LabelConfig

ALONE = Clip("a.ogg", None, LABELS[1])
IN_CHORUS = Clip("b.ogg", None, LABELS[0], (LABELS[2], LABELS[3]))


def asked(clip, clips=(ALONE, IN_CHORUS), **config):
    values, weights, window_weight = TargetMaker(Outputs(tuple(LABELS)), LabelConfig(**config), clips)(clip)
    assert values.dtype == weights.dtype == np.float32
    return values.tolist(), weights.tolist(), window_weight


class TestTargetMaker:
    def test_the_primary_label_is_wanted_and_counts_in_full(self):
        assert asked(ALONE) == ([0, 1, 0, 0], [1, 1, 1, 1], 1.0)

    def test_secondary_labels_are_wanted_by_their_target_and_count_by_their_weight(self):
        asked_for = asked(IN_CHORUS, secondary_target=0.25, secondary_loss_weight=0.5)
        assert asked_for == ([1, 0, 0.25, 0.25], [1, 1, 0.5, 0.5], 1.0)

    @pytest.mark.parametrize("others", [{}, {"kind": "soft"}, {"smoothing": 0.4}, {"secondary_loss_weight": 0.5}])
    def test_masked_secondary_labels_are_as_certain_as_the_primary_one_and_weigh_nothing(self, others):
        """Mixed with a window that has one of them for its primary label, a tie: the weight of that one wins."""
        values, weights, _ = asked(IN_CHORUS, secondary="masked", **others)
        assert (values[2:], weights) == ([values[0]] * 2, [1, 1, 0, 0])

    def test_masked_labels_take_no_share_of_a_distribution(self):
        assert asked(IN_CHORUS, secondary="masked", kind="soft")[0][0] == 1

    def test_ignored_secondary_labels_are_absent(self):
        assert asked(IN_CHORUS, secondary="ignored") == ([1, 0, 0, 0], [1, 1, 1, 1], 1.0)
        assert asked(IN_CHORUS, secondary="ignored", secondary_loss_weight=0.5)[1] == [1, 1, 0.5, 0.5]

    def test_soft_targets_are_a_distribution(self):
        assert asked(IN_CHORUS, kind="soft", secondary_target=0.5)[0] == [0.5, 0, 0.25, 0.25]

    def test_smoothing_moves_targets_towards_an_even_guess(self):
        np.testing.assert_allclose(asked(ALONE, smoothing=0.2)[0], [0.05, 0.85, 0.05, 0.05], rtol=1e-6)

    def test_a_primary_label_named_again_as_secondary_stays_primary(self):
        clip = IN_CHORUS._replace(secondary_labels=(LABELS[0],))
        assert asked(clip, secondary="masked") == ([1, 0, 0, 0], [1, 1, 1, 1], 1.0)

    def test_a_label_without_a_column_is_refused_with_its_clip(self):
        stranger = Clip("c.ogg", None, LABELS[0], ("unknown",))
        with pytest.raises(LabelError, match=r"c\.ogg: label 'unknown' has no column among the 4"):
            TargetMaker(Outputs(tuple(LABELS)), LabelConfig(), [ALONE, stranger])

    @given(
        st.sampled_from(["target", "masked", "ignored"]), st.sampled_from(["hard", "soft"]),
        st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.99),
    )  # fmt: skip
    def test_values_and_weights_lie_between_0_and_1_and_soft_ones_sum_to_1(self, secondary, kind, target, weight, rest):
        config = {"secondary_target": target, "secondary_loss_weight": weight, "smoothing": rest}
        values, weights, _ = asked(IN_CHORUS, secondary=secondary, kind=kind, **config)
        assert min(values + weights) >= 0
        assert max(values + weights) <= 1 + 1e-6
        if kind == "soft" and secondary != "masked":
            assert sum(values) == pytest.approx(1, abs=1e-5)

    def test_goes_to_a_worker_and_answers_alike_there(self):
        maker = TargetMaker(Outputs(tuple(LABELS)), LabelConfig(rating_weight=1.0), [ALONE._replace(rating=4.0)])
        there = pickle.loads(pickle.dumps(maker))
        for here_part, there_part in zip(maker(IN_CHORUS), there(IN_CHORUS), strict=True):
            np.testing.assert_array_equal(here_part, there_part)


class TestRatings:
    CLIPS = (ALONE._replace(rating=5.0), ALONE._replace(rating=1.0), ALONE, ALONE._replace(rating=0.0))

    def weights(self, rating_weight):
        return [asked(clip, self.CLIPS, rating_weight=rating_weight)[2] for clip in self.CLIPS]

    def test_by_default_ratings_do_not_count(self):
        assert self.weights(0.0) == [1, 1, 1, 1]

    def test_in_proportion_unrated_clips_are_as_good_as_the_mean_of_the_rated(self):
        np.testing.assert_allclose(self.weights(1.0), [5 / 3, 1 / 3, 1, 1])

    def test_between_them_they_count_in_part(self):
        np.testing.assert_allclose(self.weights(0.3), [0.7 + 0.3 * 5 / 3, 0.7 + 0.3 / 3, 1, 1])

    def test_where_nothing_is_rated_all_count_alike(self):
        assert asked(ALONE, rating_weight=1.0)[2] == 1

    def test_the_rated_training_clips_weigh_1_on_average(self):
        assert np.mean(self.weights(0.8)[:2]) == pytest.approx(1)


class TestTruth:
    def test_primary_and_secondary_labels_are_there_and_nothing_else(self):
        assert truth([ALONE, IN_CHORUS], LABELS).tolist() == [[0, 1, 0, 0], [1, 0, 1, 1]]

    def test_no_clips(self):
        assert truth([], LABELS).shape == (0, 4)

    def test_a_label_without_a_column_is_refused(self):
        with pytest.raises(LabelError, match=r"a\.ogg: label '0012' has no column among the 1"):
            truth([ALONE], ["comcuc"])
