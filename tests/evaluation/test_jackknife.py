import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.evaluation import confidence as jackknife
from birdinfer.evaluation.confidence import LabelledRows, jackknife_error, resampled_drops, student_half_width


def species_of_one_file_each(n_species, n_lost):
    """One row a file, a species a row: it stands above all others, and sinks below them for the first ``n_lost``."""
    truth = np.eye(n_species, dtype=bool)
    reference, found = truth.astype(float), truth.astype(float)
    found[np.arange(n_lost), np.arange(n_lost)] = -1
    return LabelledRows(truth, np.ones_like(truth), np.arange(n_species)), reference, found


class TestError:
    def test_by_hand(self):
        # Falls 1, 0, 0, 0. Without the first file 0, without another 1 / 3; their mean is 1 / 4.
        # 3 / 4 (1 / 16 + 3 / 144) = 1 / 16: as of four species drawn at random, whose variance is 1 / 4.
        assert jackknife_error(*species_of_one_file_each(4, 1)) == pytest.approx(0.25)

    def test_jackknife_is_wider_than_the_bootstrap_for_species_in_one_file_each(self):
        labelled, reference, found = species_of_one_file_each(40, 10)
        drops = resampled_drops(labelled, reference, found, 1000, np.random.default_rng(0))
        error = jackknife_error(labelled, reference, found)
        assert error == pytest.approx(math.sqrt(0.25 * 0.75 / 39))
        assert drops.std() < 0.85 * error

    def test_where_every_file_says_the_same_there_is_no_error(self):
        assert jackknife_error(*species_of_one_file_each(5, 5)) == pytest.approx(0, abs=1e-12)

    def test_many_files_are_left_out_in_groups(self, monkeypatch):
        # Six species, the first and the fourth drop; files 0 and 3, 1 and 4, 2 and 5 go together.
        labelled, reference, found = species_of_one_file_each(6, 1)
        found[3, 3] = -1
        monkeypatch.setattr(jackknife, "_MAX_GROUPS", 3)
        # Falls 0, 1 / 2, 1 / 2 of the four species left: 2 / 3 (1 / 9 + 2 / 36) = 1 / 9.
        assert jackknife_error(labelled, reference, found) == pytest.approx(1 / 3)

    def test_jackknife_is_undefined_without_the_only_file_of_a_species(self):
        labelled = LabelledRows(np.array([[True], [False], [False]]), np.ones((3, 1), bool), np.arange(3))
        assert math.isnan(jackknife_error(labelled, np.zeros((3, 1)), np.zeros((3, 1))))


class TestStudent:
    @pytest.mark.parametrize(
        ("coverage", "freedom", "reference"), [(0.5, 1, 1.0), (0.95, 1, 12.706), (0.95, 2, 4.3027), (0.95, 9, 2.2622),
                                            (0.95, 30, 2.0423), (0.99, 10, 3.1693), (0.998, 9, 4.2968)],
    )  # fmt: skip
    def test_as_printed_tables_have_it(self, coverage, freedom, reference):
        assert student_half_width(coverage, freedom) == pytest.approx(reference, rel=1e-4)

    @given(st.floats(0.01, 0.9999), st.integers(1, 400))
    def test_is_scipys(self, coverage, freedom):
        stats = pytest.importorskip("scipy.stats")
        reference = stats.t.ppf((1 + coverage) / 2, freedom)
        assert student_half_width(coverage, freedom) == pytest.approx(reference, rel=1e-6)

    def test_thousands_of_files_are_no_thousands_of_terms(self):
        assert student_half_width(0.95, 10**9) == pytest.approx(1.9600, rel=2e-3)
