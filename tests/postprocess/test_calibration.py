import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.postprocess.calibration import (
    HistogramMatch,
    Temperature,
    _Curves,
    match_histogram,
    quantiles_of,
    temper,
)
from birdinfer.species import Species
from birdinfer.tables.step_tables import Quantiles, write_quantiles

SPECIES = (Species("a", "", "", "Aves"), Species("b", "", "", "Insecta"), Species("0012"))

scores = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(0, 1, width=32))
temperatures = st.floats(0.01, 100)
quantiles = st.lists(st.floats(0, 1), min_size=5, max_size=5).map(sorted)


def run(step, probabilities, species=SPECIES):
    return step.bind(species)(probabilities, "any")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "quantiles.csv"
    known = {"0012": ([0.2, 0.6], [0.4, 0.5]), "a": ([0.0, 1.0], [0.5, 1.0]), "other": ([0.1], [0.1])}
    write_quantiles(path, {label: Quantiles(*map(np.array, both)) for label, both in known.items()})
    return str(path)


class TestTemperature:
    def test_by_hand(self):
        """Odds of .8 are 4, and 4^(1/2) = 2 has p = 2/3; odds of .2 are 1/4, and (1/4)^2 = 1/16 has p = 1/17."""
        found = temper(np.float32([[0.8, 0.2, 0.2]]), [2.0, 0.5, 1.0])
        np.testing.assert_allclose(found, [[2 / 3, 1 / 17, 0.2]], rtol=1e-6)

    @given(scores, temperatures)
    def test_stays_within_0_and_1_and_keeps_what_is_certain(self, probabilities, t):
        probabilities[0] = (0, 0.5, 1)
        before = probabilities.copy()
        found = temper(probabilities, t)
        assert found.dtype == np.float32
        assert ((found >= 0) & (found <= 1)).all()
        assert found[0].tolist() == [0, 0.5, 1]
        assert np.array_equal(probabilities, before)

    @given(scores)
    def test_1_changes_no_bit(self, probabilities):
        assert Temperature().is_neutral
        assert Temperature(1, {"Aves": 1}).is_neutral
        assert not Temperature(1, {"Aves": 2}).is_neutral
        assert np.array_equal(run(Temperature(), probabilities), probabilities)

    @given(scores, temperatures)
    def test_keeps_the_order_of_every_species(self, probabilities, t):
        ranked = np.sort(probabilities, axis=0)
        assert (np.diff(temper(ranked, t), axis=0) >= 0).all()

    @given(scores, st.floats(1, 10))
    def test_above_1_all_moves_towards_the_middle_and_back_with_the_inverse(self, probabilities, t):
        mild = temper(probabilities, t)
        assert (np.abs(mild - 0.5) <= np.abs(probabilities - 0.5) + 1e-7).all()
        inner = probabilities.clip(1e-3, 1 - 1e-3)
        np.testing.assert_allclose(temper(temper(inner, t), 1 / t), inner, atol=1e-4)

    @given(scores, temperatures, st.permutations(range(3)))
    def test_each_class_has_its_own_in_whatever_order(self, probabilities, t, order):
        step = Temperature(2.0, {"Insecta": t})
        found = run(step, probabilities)
        np.testing.assert_array_equal(found, temper(probabilities, [2.0, t, 2.0]))
        shuffled = run(step, probabilities[:, order], [SPECIES[index] for index in order])
        np.testing.assert_array_equal(shuffled, found[:, order])

    @given(scores, temperatures)
    def test_a_row_has_the_same_bits_alone_and_in_company(self, probabilities, t):
        assert Temperature(t).context_rows == 0
        alone = np.concatenate([temper(row[None], t) for row in probabilities])
        assert np.array_equal(temper(probabilities, t), alone)

    def test_a_class_that_no_species_has_is_named(self):
        with pytest.raises(
            ConfigError, match=r"^temperature: no species is of class 'aves' - their classes: Aves, Ins"
        ):
            Temperature(by_class={"aves": 2}).bind(SPECIES)
        with pytest.raises(ConfigError, match=r"their classes: none"):
            Temperature(by_class={"Aves": 2}).bind([Species("a")])

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"t": 0}, "t is 0.0, allowed are 0.01 to 100"),
            ({"t": 101}, "t is 101.0, allowed are 0.01 to 100"),
            ({"by_class": {"Aves": -1}}, "by_class Aves is -1.0, allowed are 0.01 to 100"),
        ],
    )
    def test_refuses_what_is_no_temperature(self, fields, message):
        with pytest.raises(msgspec.ValidationError, match=message):
            msgspec.convert(fields | {"step": "temperature"}, Temperature)


class TestQuantilesOf:
    def test_by_hand(self):
        """Five steps over 0 .. 1 in quarters of [0, .1, .2, .9] lie at 0, .75, 1.5, 2.25 and 3."""
        np.testing.assert_allclose(quantiles_of([0.9, 0, 0.2, 0.1], 5), [0, 0.075, 0.15, 0.375, 0.9])

    @given(scores, st.integers(2, 20))
    def test_ascend_from_the_lowest_to_the_highest_in_any_order_of_the_values(self, values, n):
        found = quantiles_of(values, n)
        assert len(found) == n
        assert (found[0], found[-1]) == (values.min(), values.max())
        assert (np.diff(found) >= 0).all()
        assert np.array_equal(found, quantiles_of(values[::-1], n))


class TestMatchHistogram:
    def test_by_hand(self):
        """Through (0, 0), (.2, .4), (.6, .5), (1, 1): .1 -> .2, .4 -> .45, .8 -> .75."""
        found = match_histogram([0, 0.1, 0.2, 0.4, 0.6, 0.8, 1], [0.2, 0.6], [0.4, 0.5])
        np.testing.assert_allclose(found, [0, 0.2, 0.4, 0.45, 0.5, 0.75, 1])

    def test_equal_sources_take_the_mean_of_their_references(self):
        """Half of the source is 0: the references 0 and .2 become .1; then (.5, .6) and (1, 1)."""
        np.testing.assert_allclose(match_histogram([0, 0.25, 0.75], [0, 0, 0.5], [0, 0.2, 0.6]), [0.1, 0.35, 0.8])

    @given(scores, quantiles)
    def test_changes_nothing_where_source_and_reference_are_the_same(self, values, source):
        assert np.array_equal(match_histogram(values, source, source).astype(np.float32), values)

    @given(st.lists(st.floats(0, 1), min_size=2, max_size=30), quantiles, quantiles)
    def test_is_monotone_and_stays_within_0_and_1(self, values, source, reference):
        found = match_histogram(np.sort(values), source, reference)
        assert (np.diff(found) >= 0).all()
        assert ((found >= 0) & (found <= 1)).all()

    @given(st.lists(st.integers(1, 10_000), min_size=5, max_size=40, unique=True), quantiles)
    def test_matched_values_have_the_quantiles_of_the_reference(self, values, reference):
        source = np.array(values) / 10_001
        knots = quantiles_of(source, 5)
        np.testing.assert_allclose(match_histogram(knots, knots, reference), reference, atol=1e-12)

    @pytest.mark.parametrize(
        ("source", "reference", "message"),
        [
            ([], [], "the source's quantiles are no list of numbers"),
            ([[0.1]], [0.1], "the source's quantiles are no list of numbers"),
            ([0.1, 0.2], [0.1], "2 quantiles of the source, 1 of the reference"),
            ([0.2, 0.1], [0.1, 0.2], "the source's quantiles do not ascend within 0 to 1"),
            ([0.1, 0.2], [0.1, 1.2], "the reference's quantiles do not ascend within 0 to 1"),
            ([0.1, float("nan")], [0.1, 0.2], "the source's quantiles do not ascend within 0 to 1"),
        ],
    )
    def test_refuses_what_are_no_quantiles(self, source, reference, message):
        with pytest.raises(ConfigError, match=f"^match_histogram: {message}$"):
            match_histogram([0.5], source, reference)


class TestHistogramMatch:
    def test_by_hand(self, table):
        """a: .5 + p / 2; b is not in the table; 0012 as above: .1 -> .2; with half a share half the way."""
        probabilities = np.float32([[0.5, 0.3, 0.1]])
        np.testing.assert_allclose(run(HistogramMatch(table=table), probabilities), [[0.75, 0.3, 0.2]], rtol=1e-6)
        half = run(HistogramMatch(table=table, share=0.5), probabilities)
        np.testing.assert_allclose(half, [[0.625, 0.3, 0.15]], rtol=1e-6)

    @given(scores, st.floats(0, 1), st.permutations(range(3)))
    def test_is_bounded_monotone_and_blind_to_the_order_of_rows_and_columns(self, table, probabilities, share, order):
        step = HistogramMatch(table=table, share=share)
        assert step.context_rows == 0
        before = probabilities.copy()
        found = run(step, probabilities)
        assert found.dtype == np.float32
        assert ((found >= 0) & (found <= 1)).all()
        assert np.array_equal(probabilities, before)
        assert (np.diff(run(step, np.sort(probabilities, axis=0)), axis=0) >= 0).all()
        assert np.array_equal(run(step, probabilities[::-1]), found[::-1])
        shuffled = run(step, probabilities[:, order], [SPECIES[index] for index in order])
        assert np.array_equal(shuffled, found[:, order])

    @given(st.lists(quantiles, min_size=3, max_size=3), scores)
    def test_all_species_at_once_are_as_one_by_one(self, sources, probabilities):
        references = [np.sqrt(source) for source in sources]
        found = _Curves([Quantiles(*both) for both in zip(sources, references, strict=True)])(probabilities)
        for column, both in enumerate(zip(sources, references, strict=True)):
            assert np.array_equal(found[:, column], match_histogram(probabilities[:, column], *both))

    def test_a_long_file_is_matched_piece_by_piece_to_the_same_bits(self, table, monkeypatch):
        probabilities = np.random.default_rng(0).random((50, 3), np.float32)
        whole = run(HistogramMatch(table=table), probabilities)
        monkeypatch.setattr("birdinfer.postprocess.calibration._ROWS_AT_ONCE", 7)
        assert np.array_equal(run(HistogramMatch(table=table), probabilities), whole)

    @given(scores)
    def test_a_share_of_0_changes_no_bit(self, table, probabilities):
        step = HistogramMatch(table=table, share=0)
        assert step.is_neutral
        assert np.array_equal(run(step, probabilities), probabilities)
        assert not HistogramMatch(table=table).is_neutral

    def test_refuses_a_table_of_other_species_and_one_that_is_not_there(self, table, tmp_path):
        with pytest.raises(ConfigError, match=r"^histogram_match: .*quantiles.csv knows none of the species"):
            HistogramMatch(table=table).bind([Species("b")])
        with pytest.raises(InputNotFoundError, match=r"none.csv: no such file"):
            HistogramMatch(table=str(tmp_path / "none.csv")).bind(SPECIES)

    def test_refuses_a_share_that_is_none(self):
        with pytest.raises(msgspec.ValidationError, match=r"share is 1.1, allowed are 0 to 1"):
            msgspec.convert({"step": "histogram_match", "table": "x.csv", "share": 1.1}, HistogramMatch)
