import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.errors import MetadataError
from birdinfer.evaluation.metrics import average_precision_per_class, macro_roc_auc, padded_cmap, roc_auc_per_class

# Worked by hand. Class 0: positives 0.9 and 0.4, negatives 0.4 and 0.1; pairs won 1, 1, 0.5, 1 of 4 -> 0.875.
# Class 1: one positive at 0.2 among 0.2, 0.3, 0.1; pairs won 0.5, 0, 1 of 3 -> 0.5. Class 2 has no positive.
TRUTH = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]])
SCORES = np.array([[0.9, 0.2, 0.5], [0.4, 0.2, 0.6], [0.4, 0.3, 0.1], [0.1, 0.1, 0.0]])


@st.composite
def tables(draw):
    """Truth and integer scores (many ties) of one shape; a class may lack positives or negatives."""
    shape = draw(st.tuples(st.integers(1, 25), st.integers(1, 4)))
    truth = draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 1)))
    scores = draw(hnp.arrays(np.int32, shape, elements=st.integers(-8, 8)))
    return truth, scores


def random_tables(seed, levels):
    rng = np.random.default_rng(seed)
    truth = rng.random((300, 7)) < rng.uniform(0.02, 0.6, 7)
    truth[0], truth[1] = True, False
    scores = rng.integers(0, levels, truth.shape) / levels + 0.2 * truth
    return truth, np.round(scores / 1.2, 6)


class TestMacroRocAuc:
    def test_golden_value(self):
        np.testing.assert_allclose(roc_auc_per_class(TRUTH, SCORES), [0.875, 0.5, np.nan])
        assert macro_roc_auc(TRUTH, SCORES) == pytest.approx((0.875 + 0.5) / 2)

    @pytest.mark.parametrize("levels", [2, 5, 50, 10_000])
    def test_agrees_with_sklearn_also_with_ties(self, levels):
        from sklearn.metrics import roc_auc_score

        truth, scores = random_tables(levels, levels)
        assert macro_roc_auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores, average="macro"), abs=1e-12)
        np.testing.assert_allclose(roc_auc_per_class(truth, scores), roc_auc_score(truth, scores, average=None))

    def test_keeps_only_columns_with_a_positive_as_the_official_scorer(self):
        from sklearn.metrics import roc_auc_score

        truth, scores = random_tables(1, 20)
        truth[:, [2, 5]] = False
        kept = truth.sum(axis=0) > 0
        official = roc_auc_score(truth[:, kept], scores[:, kept], average="macro")
        assert macro_roc_auc(truth, scores) == pytest.approx(official, abs=1e-12)

    def test_a_class_without_a_negative_is_left_out(self):
        truth, scores = random_tables(2, 20)
        truth[:, 0] = True
        assert np.isnan(roc_auc_per_class(truth, scores)[0])
        assert macro_roc_auc(truth, scores) == pytest.approx(macro_roc_auc(truth[:, 1:], scores[:, 1:]))

    @pytest.mark.parametrize("shape", [(0, 3), (4, 0), (3, 2)])
    def test_is_nan_where_nothing_is_scorable(self, shape):
        assert np.isnan(macro_roc_auc(np.zeros(shape), np.zeros(shape)))
        assert roc_auc_per_class(np.zeros(shape), np.zeros(shape)).shape == shape[1:]

    @pytest.mark.parametrize(("scores", "auc"), [([0.1, 0.9], 1.0), ([0.9, 0.1], 0.0), ([0.3, 0.3], 0.5)])
    def test_perfect_reversed_and_constant(self, scores, auc):
        assert macro_roc_auc([[0], [1]], np.array(scores)[:, None]) == auc

    def test_float32_scores_tie_as_they_are(self):
        close = np.array([[0.1], [np.nextafter(np.float32(0.1), np.float32(1))]], np.float32)
        assert macro_roc_auc([[0], [1]], close) == 1.0

    @given(tables())
    def test_is_invariant_under_monotone_maps(self, table):
        truth, scores = table
        mapped = np.exp(scores / 4.0) + 3.0 * scores
        np.testing.assert_array_equal(roc_auc_per_class(truth, scores), roc_auc_per_class(truth, mapped))

    @given(tables())
    def test_reversed_scores_give_the_complement(self, table):
        truth, scores = table
        np.testing.assert_allclose(
            roc_auc_per_class(truth, -scores), 1 - roc_auc_per_class(truth, scores), rtol=0, atol=1e-12
        )

    @given(tables())
    def test_swapped_truth_gives_the_complement(self, table):
        truth, scores = table
        np.testing.assert_allclose(
            roc_auc_per_class(1 - truth, scores), 1 - roc_auc_per_class(truth, scores), rtol=0, atol=1e-12
        )


class TestPaddedCmap:
    def test_golden_value(self):
        # Class 0 with 5 ones on top: thresholds 1 (5/5), 0.9 (6/6), 0.4 (7 of 8): (5 + 1 + 7/8) / 7.
        # Class 1: 5/5, 0.3 is a miss, then 0.2 brings 1 hit among 8 rows: (5 + 6/8) / 6. Class 2: 1.
        expected = ((6 + 7 / 8) / 7 + (5 + 6 / 8) / 6 + 1) / 3
        assert padded_cmap(TRUTH, SCORES) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("padding", [0, 1, 5, 20])
    @pytest.mark.parametrize("levels", [2, 5, 10_000])
    def test_agrees_with_sklearn_also_with_ties(self, padding, levels):
        from sklearn.metrics import average_precision_score

        truth, scores = random_tables(levels + padding, levels)
        ones = np.ones((padding, truth.shape[1]))
        official = average_precision_score(np.vstack([truth, ones]), np.vstack([scores, ones]), average="macro")
        assert padded_cmap(truth, scores, padding) == pytest.approx(official, abs=1e-12)

    def test_scores_of_exactly_one_tie_with_the_padding(self):
        from sklearn.metrics import average_precision_score

        truth, scores = np.array([[0], [1]]), np.array([[1.0], [0.5]])
        ones = np.ones((5, 1))
        official = average_precision_score(np.vstack([truth, ones]), np.vstack([scores, ones]))
        assert padded_cmap(truth, scores) == pytest.approx(official) == pytest.approx((5 * 5 / 6 + 6 / 7) / 6)

    def test_every_class_without_a_positive_is_still_scored(self):
        assert padded_cmap(np.zeros((3, 2)), np.full((3, 2), 0.4)) == 1.0

    def test_a_class_without_a_positive_is_0_without_padding(self):
        assert padded_cmap([[1, 0], [0, 0]], [[0.9, 0.9], [0.1, 0.1]], padding=0) == 0.5

    def test_is_nan_without_a_class(self):
        assert np.isnan(padded_cmap(np.zeros((2, 0)), np.zeros((2, 0))))

    def test_refuses_negative_padding(self):
        with pytest.raises(MetadataError, match="padding: is -1"):
            padded_cmap(TRUTH, SCORES, padding=-1)

    @given(tables())
    def test_is_invariant_under_monotone_maps_that_keep_one(self, table):
        truth, scores = table
        probabilities = (scores + 8) / 17
        np.testing.assert_allclose(padded_cmap(truth, probabilities), padded_cmap(truth, probabilities**3), atol=1e-12)


class TestAveragePrecisionPerClass:
    def test_golden_value(self):
        # Class 0: a hit at 0.9 (1/1), then a hit and a miss at 0.4 (2 of 3); class 1: a miss at 0.3, then at 0.2 one
        # hit among 3 rows; class 2 has no positive.
        np.testing.assert_allclose(average_precision_per_class(TRUTH, SCORES), [(1 + 2 / 3) / 2, 1 / 3, np.nan])

    @pytest.mark.parametrize("levels", [2, 5, 10_000])
    def test_agrees_with_sklearn_also_with_ties(self, levels):
        from sklearn.metrics import average_precision_score

        truth, scores = random_tables(levels, levels)
        official = average_precision_score(truth, scores, average=None)
        np.testing.assert_allclose(average_precision_per_class(truth, scores), official, atol=1e-12)

    @given(tables())
    def test_is_no_lower_than_the_share_of_positives_where_scores_are_perfect_or_constant(self, table):
        truth, _ = table
        occurs = truth.any(axis=0)
        np.testing.assert_allclose(average_precision_per_class(truth, truth)[occurs], 1.0)
        shares = truth.mean(axis=0)[occurs]
        np.testing.assert_allclose(average_precision_per_class(truth, np.zeros_like(truth))[occurs], shares)

    @given(tables())
    def test_is_nan_for_classes_without_a_positive_alone(self, table):
        per_class = average_precision_per_class(*table)
        np.testing.assert_array_equal(np.isnan(per_class), ~table[0].any(axis=0))

    def test_refuses_scores_that_are_not_finite(self):
        with pytest.raises(MetadataError, match="scores: row 0, column 0 holds nan"):
            average_precision_per_class([[1]], [[np.nan]])


METRICS = [macro_roc_auc, padded_cmap]


@pytest.mark.parametrize("metric", METRICS)
class TestBoth:
    @given(data=st.data())
    def test_order_of_rows_and_columns_does_not_matter(self, metric, data):
        truth, scores = data.draw(tables())
        rows = np.array(data.draw(st.permutations(range(len(truth)))))
        columns = np.array(data.draw(st.permutations(range(truth.shape[1]))))
        shuffled = metric(truth[rows][:, columns], scores[rows][:, columns])
        np.testing.assert_allclose(shuffled, metric(truth, scores), atol=1e-12)

    @given(data=st.data())
    def test_stays_within_0_and_1(self, metric, data):
        truth, scores = data.draw(tables())
        value = metric(truth, (scores + 8) / 16)
        assert np.isnan(value) or 0 <= value <= 1

    @pytest.mark.parametrize("truth_type", [bool, np.int64, np.float32])
    def test_takes_truth_as_bool_integer_or_float(self, metric, truth_type):
        assert metric(TRUTH.astype(truth_type), SCORES) == metric(TRUTH, SCORES)

    @pytest.mark.parametrize(
        ("truth", "scores", "message"),
        [
            (TRUTH, SCORES[:3], r"scores: have shape \(3, 3\) and truth \(4, 3\)"),
            ([0, 1], [0.1, 0.2], r"scores: have shape \(2,\) and truth \(2,\)"),
            ([[0], [2]], [[0.1], [0.2]], "truth: row 1, column 0 holds 2, needed is 0 or 1"),
            ([[0.0, np.nan]], [[0.1, 0.2]], "truth: row 0, column 1 holds nan, needed is 0 or 1"),
            ([[0], [1]], [[0.1], [np.nan]], "scores: row 1, column 0 holds nan, needed are finite"),
            ([[0], [1]], [[-np.inf], [0.1]], "scores: row 0, column 0 holds -inf, needed are finite"),
            ([["a"]], [[0.1]], "truth: has values of type <U1, needed are numbers"),
            ([[1]], [["0.1"]], "scores: has values of type <U3, needed are numbers"),
        ],
    )
    def test_refuses_what_it_cannot_use(self, metric, truth, scores, message):
        with pytest.raises(MetadataError, match=message):
            metric(truth, scores)
