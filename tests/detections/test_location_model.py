"""Where and when species occur, by a model made for the tests."""

from datetime import date, timedelta

import numpy as np
import pytest
from location_models import LIST, SPECIES, write_model

from birdinfer.detections.location_model import LocationModel, check_place, find_labels, week_of
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError, LabelError


@pytest.fixture
def model(tmp_path):
    (tmp_path / "places_labels.txt").write_text(LIST)
    return write_model(tmp_path / "places_fp32.onnx")


class TestOccurrence:
    def test_place_and_week_decide(self, model):
        found = LocationModel(model, SPECIES)
        north, south = found.occurrence(60, 10, 24), found.occurrence(-30, 10, 1)
        assert north[0] > 0.99 > 0.01 > south[0]
        assert south[1] > 0.99 > 0.01 > north[1]  # by its common name: the list has another scientific one
        assert north[2] > 0.9 > 0.01 > south[2]
        assert np.isnan(north[3])
        assert north.dtype == np.float32

    def test_a_year_is_its_highest_week(self, model):
        found = LocationModel(model, SPECIES)
        weeks = np.stack([found.occurrence(5, 0, week) for week in range(1, 49)])
        np.testing.assert_array_equal(found.occurrence(5, 0, None), weeks.max(axis=0))

    def test_species_that_it_does_not_know_are_counted(self, model):
        assert (
            LocationModel(model, SPECIES)
            .problem()
            .endswith("1 of 4 species are not in it, they are detected everywhere")
        )
        assert LocationModel(model, SPECIES[:3]).problem() == ""

    def test_of_two_columns_of_one_species_the_higher_counts(self, tmp_path):
        (tmp_path / "labels.txt").write_text("1\tBorealis avis\ta\n2\tBorealis avis\tb\n3\tx y\tz\n")
        found = LocationModel(write_model(tmp_path / "m.onnx"), SPECIES)
        assert found.occurrence(60, 0, 1)[0] > 0.99 < found.occurrence(-60, 0, 1)[0]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("labels.txt", "Borealis avis_Northern Bird\nAustralis avis_Southern Bird\nAestas avis_Summer Bird\n"),
            ("places.csv", "idx;sci_name;com_name\n0;Borealis avis;a\n1;Australis avis;b\n2;Aestas avis;c\n"),
        ],
    )
    def test_other_lists(self, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        found = LocationModel(write_model(tmp_path / "places.onnx"), SPECIES)
        assert np.isfinite(found.occurrence(0, 0, 1)).tolist() == [True, True, True, False]


class TestRefusals:
    def test_a_list_of_another_length(self, model):
        model.with_name("places_labels.txt").write_text(LIST[:40])
        with pytest.raises(LabelError, match=r"lists 2 species, places_fp32\.onnx has 3 - name its own list"):
            LocationModel(model, SPECIES)

    def test_a_list_of_other_species(self, model):
        with pytest.raises(LabelError, match="lists no species of the bundle"):
            LocationModel(model, SPECIES[3:])

    def test_no_list(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"no list of its species beside it \(m_labels"):
            LocationModel(write_model(tmp_path / "m.onnx"), SPECIES)

    def test_no_graph(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="no such file"):
            LocationModel(tmp_path / "m.onnx", SPECIES)

    def test_another_input(self, tmp_path):
        (tmp_path / "labels.txt").write_text(LIST)
        with pytest.raises(BundleError, match=r"does not take \[1, 3\]: latitude, longitude, week"):
            LocationModel(write_model(tmp_path / "m.onnx", sizes=(1, 4)), SPECIES)

    def test_no_probabilities(self, tmp_path):
        (tmp_path / "labels.txt").write_text(LIST)
        with pytest.raises(BundleError, match="needed are probabilities - export it with a sigmoid"):
            LocationModel(write_model(tmp_path / "m.onnx", "Identity"), SPECIES)

    @pytest.mark.parametrize(
        ("place", "text"),
        [
            ((91, 0, None), "--lat: is 91"),
            ((0, -181, None), "--lon: is -181"),
            ((None, None, 0), "--week: is 0, allowed are 1 to 48"),
            ((0, float("nan"), 1), "--lon: is nan"),
        ],
    )
    def test_a_place_off_the_globe(self, place, text):
        with pytest.raises(ConfigError, match=text):
            check_place(*place)


def test_week_of_each_day_grows_from_1_to_48():
    weeks = [week_of(date(2028, 1, 1) + timedelta(days)) for days in range(366)]
    assert weeks[0] == 1
    assert weeks[-1] == 48
    assert set(np.diff(weeks)) == {0, 1}


def test_find_labels_prefers_the_graphs_own_name_in_any_case(tmp_path):
    model = tmp_path / "Geomodel_V3.0_FP16.onnx"
    for name in ("labels.txt", "Geomodel_V3.0_Labels.txt"):
        (tmp_path / name).touch()
    assert find_labels(model).name == "Geomodel_V3.0_Labels.txt"
