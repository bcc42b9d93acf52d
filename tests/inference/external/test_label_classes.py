import pytest
from external_graphs import write_list

from birdinfer.errors import InputNotFoundError
from birdinfer.inference.external.known_models import find_model
from birdinfer.inference.external.label_classes import with_classes
from birdinfer.species import Species


def classes_of(species):
    return [each.class_name for each in species]


@pytest.fixture
def taxonomy(tmp_path):
    rows = ["inat_id,sci_name,order", "1,Hyla cinerea,Anura", "2,Turdus merula,Passeriformes", "3,Mixta una,Anura"]
    return write_list(tmp_path / "taxonomy.csv", *rows, "4,Mixta altera,Rodentia")


def test_with_classes_by_name_synonym_and_genus(taxonomy):
    species = [
        Species("a", "Turdus merula"),
        Species("b", "Dryophytes cinereus"),
        Species("c", "Turdus iliacus"),
        Species("d", "Mixta tertia"),
        Species("e", "Turdus pilaris", class_name="Own"),
    ]
    assert classes_of(with_classes(species, taxonomy)) == ["Aves", "Amphibia", "Aves", "", "Own"]


def test_with_classes_takes_a_label_for_a_scientific_name_if_it_is_one(taxonomy):
    named = with_classes([Species("Turdus merula"), Species("Acoustic_guitar"), Species("turmer1")], taxonomy)
    assert [(each.scientific_name, each.class_name) for each in named] == [
        ("Turdus merula", "Aves"),
        ("", ""),
        ("", ""),
    ]


def test_with_classes_of_birdnet_need_no_taxonomy():
    names = ["Turdus merula", "Acris gryllus", "Gryllus rubens", "Canis lupus", "Human vocal", "Dog", "Power tools"]
    species = with_classes([Species(name, name) for name in names], None, find_model("birdnet-2.4"))
    assert classes_of(species) == ["Aves", "Amphibia", "Insecta", "Mammalia", "", "", ""]


def test_with_classes_of_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"taxonomy\.csv of BirdCLEF"):
        with_classes([Species("a")], tmp_path / "gone.csv")
