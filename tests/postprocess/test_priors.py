import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.postprocess.base import with_table_in
from birdinfer.postprocess.priors import (
    RATE_FLOOR,
    PriorShift,
    logit_difference,
    shrunk_rates,
    with_neighbours,
)
from birdinfer.species import Species
from birdinfer.tables.step_tables import Occasion, PriorTable, write_priors

SPECIES = (Species("a"), Species("0012"), Species("stranger"))
COUNTS = PriorTable(
    labels=("0012", "a", "elsewhere"),
    occasions=(Occasion("S05", 1), Occasion("S05", 2), Occasion("S08", 1), Occasion(None, None)),
    windows=np.array([10, 10, 40, 40]),
    present=np.array([[0, 6, 1], [0, 2, 0], [20, 1, 0], [0, 1, 0]]),
)
"""a: 8 of 20 windows at S05, 7 of 50 at 1 o'clock, 2 of 10 at 2 o'clock, 10 of 100 in all; 0012: 20 of 100 in all."""

STEMS = ["S05_20250227_010002", "S05_20250227_015950", "S08_20250227_020000", "S99_20250227_010000", "soundscape_7"]

scores = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(0, 1, width=32))
stems = st.sampled_from(STEMS)
strengths = st.floats(0, 2)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "prior.csv"
    write_priors(path, COUNTS)
    return str(path)


def run(step, probabilities, file_id=STEMS[0], species=SPECIES):
    return step.bind(species)(probabilities, file_id)


def logit(p):
    return math.log(p / (1 - p))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


class TestShrunkRates:
    def test_by_hand(self):
        """8 of 20 windows, 5 windows' doubt, .1 overall: .8 * .4 + .2 * .1 = .34."""
        found = shrunk_rates(np.array([[8.0]]), np.array([20.0]), np.array([0.1]), 5)
        np.testing.assert_allclose(found, [[0.34]])

    @given(st.integers(0, 100), st.integers(0, 100), st.floats(0, 1), st.floats(0, 1e9))
    def test_lies_between_the_observed_and_the_overall_rate(self, windows, count, overall, k):
        count = min(count, windows)
        found = shrunk_rates(np.array([[float(count)]]), np.array([float(windows)]), np.array([overall]), k)[0, 0]
        if windows == 0:
            assert found == overall
        else:
            low, high = sorted((overall, count / windows))
            assert low - 1e-12 <= found <= high + 1e-12
        if windows and k == 0:
            assert found == pytest.approx(count / windows, abs=1e-12)


class TestLogitDifference:
    def test_by_hand(self):
        """Odds 1 and 1/4 differ by the factor 4."""
        np.testing.assert_allclose(logit_difference(np.array([[0.5]]), np.array([0.2])), [[math.log(4)]])

    def test_rates_of_0_and_1_are_kept_finite(self):
        found = logit_difference(np.array([[0.0, 1.0, 0.0]]), np.array([0.5, 0.5, 0.0]))
        np.testing.assert_allclose(found, [[logit(RATE_FLOOR), -logit(RATE_FLOOR), 0]])


class TestWithNeighbours:
    def test_by_hand_over_midnight(self):
        """Six windows at 23: with a radius of 2 they count 6 at 23, 4 at 22 and 0, 2 at 21 and 1."""
        counts = np.zeros(24)
        counts[23] = 6
        found = with_neighbours(counts, 2)
        np.testing.assert_allclose(found[[20, 21, 22, 23, 0, 1, 2]], [0, 2, 4, 6, 4, 2, 0])

    @given(hnp.arrays(np.float64, (24, 2), elements=st.integers(0, 1000)), st.integers(0, 11), st.integers(0, 23))
    def test_every_hour_is_treated_alike(self, counts, radius, turn):
        found = with_neighbours(counts, radius)
        np.testing.assert_allclose(found.sum(axis=0), counts.sum(axis=0) * (radius + 1))
        np.testing.assert_allclose(with_neighbours(np.roll(counts, turn, 0), radius), np.roll(found, turn, 0))

    def test_a_radius_of_0_changes_nothing(self):
        assert np.array_equal(with_neighbours(np.arange(24.0), 0), np.arange(24.0))


class TestPriorShift:
    def test_by_hand(self, table):
        """k = 5, no neighbouring hours; S05: a (.8 * .4 + .2 * .1) = .34; at 1: 50/55 * .14 + 5/55 * .1 = .15/1.1.

        0012 never occurs at S05: .2 * .2 = .04; at 1 o'clock in 20 of 50: 50/55 * .4 + 5/55 * .2 = .42/1.1.
        """
        step = PriorShift(table=table, site_strength=0.5, hour_strength=1, shrinkage_windows=5, hour_radius=0)
        a = logit(0.3) + 0.5 * (logit(0.34) - logit(0.1)) + (logit(0.15 / 1.1) - logit(0.1))
        b = logit(0.6) + 0.5 * (logit(0.04) - logit(0.2)) + (logit(0.42 / 1.1) - logit(0.2))
        found = run(step, np.float32([[0.3, 0.6, 0.9]]))
        np.testing.assert_allclose(found, [[sigmoid(a), sigmoid(b), 0.9]], rtol=1e-6)

    def test_each_row_has_the_hour_in_which_it_begins(self, table):
        """From 01:59:50 on rows of 5 s lie in hours 1, 1, 2, 2; a occurs at 2 more often than at 1."""
        step = PriorShift(table=table, site_strength=0, hour_radius=0)
        probabilities = np.full((4, 3), 0.3, np.float32)
        found = run(step, probabilities, "S05_20250227_015950")
        np.testing.assert_array_equal(found[:2], run(step, probabilities[:2], "S05_20250227_010000"))
        np.testing.assert_array_equal(found[2:], run(step, probabilities[:2], "S05_20250227_020000"))
        assert found[2, 0] > found[1, 0]
        minutes = PriorShift(table=table, site_strength=0, hour_radius=0, row_seconds=600)
        assert np.array_equal(run(minutes, probabilities, "S05_20250227_015950")[1:], found[[2, 2, 2]])

    def test_months_and_a_site_at_an_hour_by_hand(self, tmp_path):
        """k = 10. In May a in 6 of 10 windows, in all in 8 of 40: .5 * .6 + .5 * .2 = .4.

        At S1 it is in 6 of 20, at 1 o'clock in 6 of 20, too, at S1 at 1 o'clock in 6 of 10.
        """
        occasions = (Occasion("S1", 1, 5), Occasion("S1", 2, 6), Occasion("S2", 1, 6), Occasion("S2", 2, 7))
        counts = np.array([[6], [0], [0], [2]])
        write_priors(
            tmp_path / "p.csv",
            PriorTable(labels=("a",), occasions=occasions, windows=np.full(4, 10), present=counts),
        )
        alone = {"site_strength": 0, "hour_strength": 0, "hour_radius": 0, "month_radius": 0, "shrinkage_windows": 10}
        step = PriorShift(table=str(tmp_path / "p.csv"), month_strength=1, **alone)
        shift = logit(0.4) - logit(0.2)
        found = run(step, np.float32([[0.3]]), "S1_20250527_010000", SPECIES[:1])
        np.testing.assert_allclose(found, [[sigmoid(logit(0.3) + shift)]], rtol=1e-6)
        step = PriorShift(table=str(tmp_path / "p.csv"), site_hour_strength=0.5, **alone)
        of_each = logit(2 / 3 * 0.3 + 1 / 3 * 0.2) - logit(0.2)
        expected = sigmoid(logit(0.2) + 2 * of_each)
        shift = 0.5 * (logit(0.5 * 0.6 + 0.5 * expected) - logit(expected))
        found = run(step, np.float32([[0.3]]), "S1_20250527_010000", SPECIES[:1])
        np.testing.assert_allclose(found, [[sigmoid(logit(0.3) + shift)]], rtol=1e-6)
        for elsewhere in ("S1_20250527_050000", "S3_20250527_010000", "S1_x"):
            assert run(step, np.float32([[0.3]]), elsewhere, SPECIES[:1]).tolist() == [[np.float32(0.3)]]

    def test_a_table_without_months_cannot_be_weighed_by_month(self, table):
        with pytest.raises(ConfigError, match=r"counts no months, which month_strength weighs - birdinfer prior makes"):
            PriorShift(table=table, month_strength=0.5).bind(SPECIES)

    @pytest.mark.parametrize(
        ("file_id", "alike"), [("S99_20250227_010000", "site"), ("S05_x", "both"), ("S05_20250227", "hour")]
    )
    def test_a_name_without_site_and_hour_shifts_nothing(self, table, file_id, alike):
        probabilities = np.full((2, 3), 0.3, np.float32)
        of_site = run(PriorShift(table=table, hour_strength=0), probabilities, file_id)
        of_hour = run(PriorShift(table=table, site_strength=0), probabilities, file_id)
        assert np.array_equal(of_site, probabilities) == (alike in {"site", "both"})
        assert np.array_equal(of_hour, probabilities) == (alike in {"hour", "both"})

    def test_an_hour_of_which_nothing_is_known_shifts_nothing(self, table):
        probabilities = np.full((1, 3), 0.3, np.float32)
        step = PriorShift(table=table, site_strength=0, shrinkage_windows=0, hour_radius=0)
        assert np.array_equal(run(step, probabilities, "S05_20250227_120000"), probabilities)
        assert not np.array_equal(run(step, probabilities), probabilities)

    def test_the_more_doubt_the_less_of_a_shift(self, table):
        probabilities = np.full((1, 3), 0.3, np.float32)
        found = [run(PriorShift(table=table, shrinkage_windows=k), probabilities)[0, 0] for k in (0, 5, 100, 1e9)]
        assert found == sorted(found, reverse=True)
        assert found[0] > found[1] > found[2] > 0.3
        assert found[3] == pytest.approx(0.3)

    @given(scores, stems, strengths, strengths, strengths)
    def test_is_bounded_and_monotone(self, table, probabilities, file_id, site, hour, both):
        step = PriorShift(
            table=table, site_strength=site, hour_strength=hour, site_hour_strength=both, shrinkage_windows=0
        )
        found = run(step, probabilities, file_id)
        assert found.dtype == np.float32
        assert ((found >= 0) & (found <= 1)).all()
        raised = np.maximum(probabilities, probabilities[::-1])
        assert (run(step, raised, file_id) >= found).all()

    @given(scores, stems)
    def test_without_strength_no_bit_changes(self, table, probabilities, file_id):
        step = PriorShift(table=table, site_strength=0, hour_strength=0)
        assert step.is_neutral
        assert np.array_equal(run(step, probabilities, file_id), probabilities)
        assert not PriorShift(table=table, site_strength=0).is_neutral
        assert not PriorShift(table=table, hour_strength=0).is_neutral

    @given(st.lists(st.tuples(stems, scores), min_size=2, max_size=4), st.randoms(use_true_random=False))
    def test_no_file_leaves_a_trace_in_another(self, table, files, random):
        bound = PriorShift(table=table).bind(SPECIES)
        alone = [run(PriorShift(table=table), probabilities, file_id) for file_id, probabilities in files]
        order = list(range(len(files)))
        random.shuffle(order)
        for index in order:
            file_id, probabilities = files[index]
            assert np.array_equal(bound(probabilities, file_id), alone[index])

    @given(scores, stems, st.permutations(range(3)))
    def test_the_order_of_the_columns_does_not_matter(self, table, probabilities, file_id, order):
        step = PriorShift(table=table)
        shuffled = run(step, probabilities[:, order], file_id, [SPECIES[index] for index in order])
        np.testing.assert_allclose(shuffled, run(step, probabilities, file_id)[:, order], rtol=1e-6)

    @given(scores, stems)
    def test_without_hours_a_file_may_come_row_by_row(self, table, probabilities, file_id):
        step = PriorShift(table=table, hour_strength=0)
        assert step.context_rows == 0
        rows = [run(step, row[None], file_id) for row in probabilities]
        assert np.array_equal(run(step, probabilities, file_id), np.concatenate(rows))

    def test_with_hours_it_wants_the_whole_file(self, table):
        assert PriorShift(table=table).context_rows is None

    def test_refuses_a_table_of_other_species_and_one_that_is_not_there(self, table, tmp_path):
        with pytest.raises(ConfigError, match=r"^prior_shift: .*prior.csv knows none of the species"):
            PriorShift(table=table).bind([Species("b")])
        with pytest.raises(InputNotFoundError, match=r"none.csv: no such file - birdinfer prior makes one"):
            PriorShift(table=str(tmp_path / "none.csv")).bind(SPECIES)

    def test_its_table_lies_in_the_bundle(self, tmp_path):
        write_priors(tmp_path / "prior.csv", COUNTS)
        assert run(with_table_in(PriorShift(table="prior.csv"), tmp_path), np.float32([[0.3] * 3])).shape == (1, 3)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("site_strength", 2.5, "site_strength is 2.5, allowed are 0 to 2"),
            ("hour_strength", -1, "hour_strength is -1.0, allowed are 0 to 2"),
            ("shrinkage_windows", -0.1, "shrinkage_windows is -0.1, allowed are 0 to 1e.09"),
            ("hour_radius", 12, "hour_radius is 12, allowed are 0 to 11"),
            ("row_seconds", 0, "row_seconds is 0.0, allowed are 0.1 to 3600"),
            ("k", 1, "unknown field `k`"),
        ],
    )
    def test_refuses_parameters_that_make_no_sense(self, field, value, message):
        with pytest.raises(msgspec.ValidationError, match=message):
            msgspec.convert({"step": "prior_shift", "table": "x.csv", field: value}, PriorShift)
