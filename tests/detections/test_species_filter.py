from datetime import datetime
from pathlib import Path

import pytest
from location_models import LIST, SPECIES, write_model

from birdinfer.detections.recordings import Recording
from birdinfer.detections.species_filter import FilterSettings, SpeciesFilter, read_species_list
from birdinfer.errors import ConfigError, LabelError
from birdinfer.species import Species

BIRDS = (
    Species("blutit", "Cyanistes caeruleus", "Eurasian Blue Tit"),
    Species("eurbla", "Turdus merula", "Eurasian Blackbird"),
    Species("0012", "Strix aluco", "Tawny Owl"),
    Species("47158son16", "Insecta", "Insect son16"),
    Species("47158son17", "Insecta", "Insect son17"),
    Species("swathr", "Catharus ustulatus", "Swainson's Thrush"),
)


@pytest.fixture
def read(tmp_path):
    def write_and_read(text, name="list.txt", species=BIRDS):
        (tmp_path / name).write_text(text)
        return read_species_list(tmp_path / name, species)

    return write_and_read


class TestSpeciesList:
    @pytest.mark.parametrize(
        "text",
        [
            "eurbla\n0012\n",
            "turdus MERULA\n\n# an owl\nTawny_Owl\n",
            "Turdus merula_Amsel\nStrix aluco_Waldkauz\n",
            "Strix aluco\r\nTurdus merula\r\nStrix aluco\r\n",
            "\ufeffTurdus merula\nStrix aluco",
        ],
    )
    def test_labels_and_names_in_the_bundles_order(self, read, text):
        assert read(text).labels == ("eurbla", "0012")
        assert read(text).problem() == ""

    @pytest.mark.parametrize(
        "text",
        [
            "Scientific name,Common name,Count\nTurdus merula,Blackbird,3\nStrix aluco,,1\n",
            "primary_label\neurbla\n0012\n",
            "idx;sci_name\n57;Strix aluco\n\n12;Turdus merula\n12;Turdus merula\n",
            "Common Name\tState\nEurasian Blackbird\tx\nTawny Owl\ty\n",
        ],
    )
    def test_a_table_with_such_a_column(self, read, text):
        assert read(text, "list.csv").labels == ("eurbla", "0012")

    def test_a_name_that_several_share_means_all(self, read):
        assert read("Insecta\n").labels == ("47158son16", "47158son17")

    def test_unknown_names_are_listed_with_what_may_be_meant(self, read):
        found = read("Corvus corax\nTurdus merla\nSitta caeruleus\nEurBla\nSwainson's Thrush\nSwainsons Thrush\n")
        assert found.labels == ("swathr",)
        assert found.unknown == (
            "'Turdus merla' (perhaps 'Turdus merula')",
            "'Sitta caeruleus' (perhaps 'Cyanistes caeruleus')",
            "'EurBla' ('eurbla' but for case)",
            "'Swainsons Thrush' (perhaps \"Swainson's Thrush\")",
            "'Corvus corax'",
        )
        assert ": 5 of its names are no species of the bundle: 'Turdus merla' (perhaps" in found.problem()

    @pytest.mark.parametrize("text", ["Parus caeruleus", "Parus caeruleus_Blue Tit", "parus  Caeruleus"])
    def test_a_synonym_means_the_species(self, read, text):
        found = read(f"{text}\nCorvus corax\n")
        assert (found.labels, found.unknown) == (("blutit",), ("'Corvus corax'",))

    def test_a_newer_name_than_the_bundles_means_the_species(self, read):
        jackdaw = (Species("eurjac", "Corvus monedula"),)
        assert read("Coloeus monedula\n", species=jackdaw).labels == ("eurjac",)

    @pytest.mark.parametrize("text", ["Corvus corax\n", "# none\n", ""])
    def test_a_list_without_any_species_is_refused(self, read, text):
        with pytest.raises(LabelError):
            read(text)

    def test_a_gender_does_not_hide_a_synonym(self, read):
        species = [Species("gowwar", "Curruca cinerea"), *BIRDS]
        assert read("Sylvia cinereus\nblutit\n", species=species).unknown == (
            "'Sylvia cinereus' (perhaps 'Curruca cinerea')",
        )


def recording(**facts):
    return Recording(path=Path("a.wav"), name="a", file="a.wav", **facts)


class TestFilter:
    @pytest.fixture
    def model(self, tmp_path):
        (tmp_path / "labels.txt").write_text(LIST)
        return write_model(tmp_path / "m.onnx")

    def test_all_species_without_settings(self):
        found = SpeciesFilter(SPECIES, FilterSettings())
        assert found.allowed(recording()).all()
        assert found.labels == tuple(each.label for each in SPECIES)
        assert found.notes == ()

    def test_place_of_the_settings_and_date_of_the_recording(self, model):
        found = SpeciesFilter(SPECIES, FilterSettings(location_model=model, latitude=50, longitude=0))
        summer, winter = (recording(start=datetime(2026, month, 25), latitude=-50.0) for month in (6, 1))
        assert found.allowed(summer).tolist() == [True, False, True, True]
        assert found.allowed(winter).tolist() == [True, False, False, True]
        assert found.allowed(recording()).tolist() == [True, False, True, True]  # of the whole year

    def test_a_recordings_own_place(self, model):
        found = SpeciesFilter(SPECIES, FilterSettings(location_model=model, week=1))
        assert found.allowed(recording(latitude=-50.0, longitude=1.0)).tolist() == [False, True, False, True]
        assert found.place_problem() == ""
        assert found.allowed(recording()).all()
        assert found.allowed(recording()).all()
        assert "no position is known of 1 recordings" in found.place_problem()

    def test_list_and_place_together(self, model, tmp_path):
        (tmp_path / "list.txt").write_text("norbir\nfrog1\nnothing1\n")
        settings = FilterSettings(
            species_list=tmp_path / "list.txt", location_model=model, latitude=-50, longitude=0, week=1
        )
        found = SpeciesFilter(SPECIES, settings)
        assert found.labels == ("norbir", "frog1")
        assert found.allowed(recording()).tolist() == [False, False, False, True]
        assert len(found.notes) == 2

    def test_least_occurrence(self, model):
        def allowed(least):
            settings = FilterSettings(location_model=model, latitude=0, longitude=0, week=24, min_occurrence=least)
            return SpeciesFilter(SPECIES, settings).allowed(recording()).tolist()

        assert allowed(0.5) == [True, True, True, True]  # exactly 0.5 on the equator
        assert allowed(0.51) == [False, False, True, True]

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"latitude": 1.0, "longitude": 2.0}, "--lat: is for a location model, none is given"),
            ({"week": 3}, "--week: is for a location model"),
            ({"location_model": Path("m"), "longitude": 2.0}, "a position takes --lat and --lon"),
            ({"location_model": Path("m"), "min_occurrence": 3.0}, "--min-occurrence: is 3"),
        ],
    )
    def test_settings_that_do_not_fit(self, settings, text):
        with pytest.raises(ConfigError, match=text):
            SpeciesFilter(SPECIES, FilterSettings(**settings))
