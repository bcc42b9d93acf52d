import pytest

from birdinfer.errors import ConfigError
from birdinfer.kaggle.competitions import COMPETITIONS, competition
from birdinfer.prediction.writer import YEARS


def test_every_year_that_birdinfer_writes_is_there_under_its_own_slug():
    assert tuple(each.year for each in COMPETITIONS.values()) == YEARS
    assert all(slug == each.slug == f"birdclef-{each.year}" for slug, each in COMPETITIONS.items())


def test_a_notebook_of_2026_has_ninety_minutes_for_ten_hours_of_sound():
    found = competition("birdclef-2026")
    assert (found.minutes_limit, found.hidden_seconds) == (90, 600 * 60)
    assert (found.test_folder, found.train_folder) == ("test_soundscapes", "train_soundscapes")


def test_each_year_asks_for_the_species_of_its_file():
    found = {each.year: each.n_species for each in COMPETITIONS.values()}
    assert found == {2021: 397, 2022: 21, 2023: 264, 2024: 182, 2025: 206, 2026: 234}


def test_the_hidden_tests_have_rows_in_whole_windows_of_five_seconds():
    assert all(each.hidden_file_seconds % 5 == 0 for each in COMPETITIONS.values())


@pytest.mark.parametrize(
    ("asked", "near"),
    [("birdclef-2205", "birdclef-2025"), ("birdclef2024", "birdclef-2024"), ("plantclef", "birdclef-")],
)
def test_an_unknown_competition_is_refused_with_the_nearest(asked, near):
    with pytest.raises(ConfigError, match=f"'{asked}' is not known - did you mean {near}"):
        competition(asked)
