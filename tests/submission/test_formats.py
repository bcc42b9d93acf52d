"""What stands in a cell of each year, and whose shape a table has."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_mutations import mutated

from birdinfer.errors import ConfigError, MetadataError
from birdinfer.submission.formats import (
    YEARS,
    check_shape,
    detected,
    guess_year,
    is_detected,
    list_cell,
    number_cells,
    read_sample,
    truth_cell,
    value_names,
)

probabilities = st.floats(0, 1, width=32)


def test_cells_by_hand():
    assert list_cell(("a", "nocall", "b"), (True, True, True)) == "a b"
    assert list_cell(("a", "nocall", "b"), (False, True, False)) == "nocall"
    assert (truth_cell(True), truth_cell(False)) == ("True", "False")
    assert number_cells(np.array([0.1, 1 / 3, 1e-9], np.float32)) == ["0.1", "0.3333333", "1e-9"]


def test_seven_digits_decide_what_is_detected():
    just_below = np.float32(0.5) - np.float32(3e-8)
    assert just_below < 0.5
    assert number_cells(np.array([just_below])) == ["0.5"]
    assert is_detected(float(just_below), 0.5)
    assert not is_detected(0.4999999, 0.5)


@given(st.lists(probabilities, min_size=1, max_size=8), probabilities | st.sampled_from([0.1, 0.3, 0.5, 0.6]))
def test_a_table_agrees_with_the_scores_it_was_written_from(values, threshold):
    scores = np.array(values, np.float32)
    written = np.array([float(cell) for cell in number_cells(scores)])
    assert detected(scores, threshold).tolist() == detected(written, threshold).tolist()
    assert detected(scores, threshold).tolist() == [is_detected(float(score), threshold) for score in scores]


@pytest.mark.parametrize("year", YEARS)
def test_a_table_has_its_own_years_shape(year):
    columns = value_names(year, ("a", "b"))
    check_shape(columns, ["x_5"], year, Path("sample.csv"))
    assert (guess_year(columns, ["x_5"]) == year) == (year in (2021, 2022, 2026))


def test_the_number_of_species_or_the_row_ids_identify_the_year():
    columns = [str(index) for index in range(206)]
    assert guess_year(columns, ["soundscape_1_5"]) == guess_year(columns, ["1_5"]) == guess_year(columns, []) == 2025
    assert guess_year(columns, ["PLOT7_20250227_010002_5"]) == 2026  # recordings of one's own
    assert guess_year(["a"], ["soundscape_1_5", "soundscape_2_5"]) == 2025
    assert guess_year(["a"], ["soundscape_1_5", "x_5"]) == 2026
    assert guess_year(["a"], []) == 2026


def test_another_years_shape_is_refused():
    for columns, year in ((("birds",), 2022), (("target",), 2021), (("a",), 2021), (("birds",), 2026)):
        with pytest.raises(MetadataError, match=rf"sample\.csv: its columns are not those of {year} \(row_id,"):
            check_shape(columns, ["x_5"], year, Path("sample.csv"))
    with pytest.raises(ConfigError, match="--year: 2027 is not known"):
        check_shape(("a",), ["x_5"], 2027, Path("sample.csv"))


SAMPLE = [
    ["row_id", "dog", "0012", "1161364"],
    *[[f"soundscape_7_{end}", "0.5", "0.25", "0"] for end in (5, 10, 15)],
    ["soundscape_42_5", "", "", "0"],
]


@given(seed=st.integers(0, 2**32 - 1))
def test_a_mutated_sample_is_read_as_meant_or_refused_with_its_row(tmp_path, seed):
    check_mutation(tmp_path / "sample.csv", seed)


def check_mutation(path, seed):
    mutant = mutated(SAMPLE, seed)
    path.write_bytes(mutant.content)
    if mutant.row is None:
        found = read_sample(path)
        assert ["row_id", *found.columns] == SAMPLE[0], mutant
        assert list(found.row_ids) == [row[0] for row in SAMPLE[1:]], mutant
    else:
        with pytest.raises(MetadataError, match=rf": row {mutant.row} "):
            read_sample(path)


def test_a_row_of_a_sample_without_its_id_is_refused(tmp_path):
    (tmp_path / "sample.csv").write_text("row_id,a\nx_5,0\n\n,0\n")
    with pytest.raises(MetadataError, match="row 4 has no row_id"):
        read_sample(tmp_path / "sample.csv")
