"""Tables meet by name, keep the first one's order, and are blended as a bundle would blend its members."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.errors import ConfigError, MetadataError
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.rank_blend import rank_per_class
from birdinfer.species import Species
from birdinfer.submission.blend_tables import (
    align_tables,
    blend_probabilities,
    blend_ranks,
    match_to_first,
    species_of_columns,
    write_scores,
)
from birdinfer.tables.scores import ScoreTable, read_scores

pairs_of_tables = st.tuples(st.integers(1, 9), st.integers(1, 3)).flatmap(
    lambda shape: hnp.arrays(np.float64, (2, *shape), elements=st.floats(0, 1, width=16))
)


def table(name, row_ids, labels, values):
    return ScoreTable(path=Path(name), row_ids=row_ids, labels=labels, values=np.array(values, np.float64))


FIRST = table("one.csv", ["a_5", "a_10"], ["0012", "x"], [[0.1, 0.2], [0.3, 0.4]])


class TestAligning:
    def test_rows_and_columns_are_matched_by_name(self):
        other = table("two.csv", ["a_10", "a_5"], ["x", "0012"], [[4, 3], [2, 1]])
        first, second = align_tables([FIRST, other])
        assert np.array_equal(first, FIRST.values)
        assert second.tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize(
        ("row_ids", "labels", "problem"),
        [
            (["a_5", "b_5"], ["0012", "x"], "two.csv: lacks 1 of 2 rows of one.csv, first 'a_10'"),
            (["a_5"], ["0012", "x"], "two.csv: lacks 1 of 2 rows of one.csv, first 'a_10'"),
            (["a_5", "a_10", "a_15"], ["0012", "x"], "two.csv: has 1 rows that one.csv lacks, first 'a_15'"),
            (["a_5", "a_10"], ["12", "x"], "two.csv: lacks 1 of 2 columns of one.csv, first '0012'"),
            (["a_5", "a_10"], ["0012", "x", "y"], "two.csv: has 1 columns that one.csv lacks, first 'y'"),
        ],
    )
    def test_other_rows_or_columns_are_refused_and_named(self, row_ids, labels, problem):
        other = table("two.csv", row_ids, labels, np.zeros((len(row_ids), len(labels))))
        with pytest.raises(MetadataError, match=re.escape(problem)):
            align_tables([FIRST, other])


class TestBlending:
    def test_a_gate_is_by_a_tables_number(self):
        found = blend_probabilities(
            [np.array([[0.8]]), np.array([[0.1]]), np.array([[0.4]])], Blend("gate", "2", 0.4), [3, 1, 1]
        )
        np.testing.assert_allclose(found, [[0.7 / 4]], rtol=1e-6)

    def test_ranks_by_hand(self):
        """Ranks of the first: 2/3, 0, 1/3; of the second, two share 0 and 1/3: 1/6, 2/3, 1/6."""
        values = [np.array([[9.0], [-1.0], [2.0]]), np.array([[0.1], [0.2], [0.1]])]
        found = blend_ranks(values, [3, 1])
        np.testing.assert_allclose(found.ravel(), [(3 * 2 / 3 + 1 / 6) / 4, 2 / 3 / 4, (3 / 3 + 1 / 6) / 4])

    @given(pairs_of_tables, st.floats(0.1, 5), st.floats(0.1, 5))
    def test_blended_ranks_lie_between_the_tables_and_stay_below_1(self, values, a, b):
        ranks = [rank_per_class(each) for each in values]
        found = blend_ranks(list(values), [a, b])
        assert (found >= np.minimum(*ranks) - 1e-12).all()
        assert (found <= np.maximum(*ranks) + 1e-12).all()
        assert (found < 1).all()

    @pytest.mark.parametrize("weights", [[1, -1], [0, 0], [1]])
    def test_weights_without_sense_are_refused(self, weights):
        with pytest.raises(ConfigError, match="weights"):
            blend_ranks([FIRST.values, FIRST.values], weights)


class TestMatching:
    def test_by_hand(self):
        """The second table's order, the first one's values: what is least becomes the least, and so on."""
        first, second = np.array([[0.1], [0.5], [0.7]]), np.array([[0.02], [0.03], [0.01]])
        found = match_to_first([first, second])
        assert np.array_equal(found[0], first)
        np.testing.assert_allclose(found[1].ravel(), [0.5, 0.7, 0.1], rtol=1e-9)

    def test_each_class_has_a_distribution_of_its_own(self):
        chance = np.random.default_rng(0)
        first, second = chance.random((50, 3)) * [0.1, 0.5, 1], chance.random((50, 3))
        matched = match_to_first([first, second])[1]
        np.testing.assert_allclose(np.sort(matched, axis=0), np.sort(first, axis=0), atol=1e-12)
        assert np.array_equal(rank_per_class(matched), rank_per_class(second))

    @given(pairs_of_tables)
    def test_order_is_kept_and_probabilities_stay_probabilities(self, values):
        matched = match_to_first(list(values))[1]
        assert ((matched >= 0) & (matched <= 1)).all()
        for before, after in zip(values[1].T, matched.T, strict=True):
            assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()

    @given(pairs_of_tables)
    def test_a_table_of_the_same_distribution_stays_as_it_is(self, values):
        np.testing.assert_allclose(match_to_first([values[0], values[0]])[1], values[0], atol=1e-12)


class TestSpecies:
    KNOWN = (Species("x", "Xus albus", class_name="Aves"), Species("y"), Species("0012", class_name="Insecta"))

    def test_columns_get_what_is_known_of_them(self):
        assert species_of_columns(["0012", "x"], self.KNOWN, Path("b")) == (self.KNOWN[2], self.KNOWN[0])

    def test_other_species_are_refused(self):
        with pytest.raises(MetadataError, match=r"b: lacks 1 of 2 columns of the table, first '12'"):
            species_of_columns(["x", "12"], self.KNOWN, Path("b"))


def test_a_written_table_is_read_back_with_seven_digits(tmp_path):
    values = np.random.default_rng(0).random((4, 2)).astype(np.float32)
    values[0] = [0, 1]
    path = tmp_path / "deep" / "scores.csv"
    write_scores(path, ["a_5", "a_10", "b,c_5", "d_5"], ["0012", "x"], values)
    found = read_scores(path)
    assert found.row_ids == ["a_5", "a_10", "b,c_5", "d_5"]
    assert found.labels == ["0012", "x"]
    np.testing.assert_allclose(found.values, values, rtol=5e-7)
    assert path.read_text().splitlines()[1] == "a_5,0,1"
