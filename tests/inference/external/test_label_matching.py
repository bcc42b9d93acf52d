from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import LabelError
from birdinfer.inference.external.label_lists import ListedLabel, read_label_list
from birdinfer.inference.external.label_matching import match_labels, species_of
from birdinfer.species import Species

HERE = Path("labels.txt")


@pytest.fixture
def read(tmp_path):
    """``read("a\\nb\\n")`` -> the labels of a file of that text."""

    def read(text, name="labels.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_label_list(path)

    return read


def labels_of(listed):
    return [each.label for each in listed]


class TestMatching:
    def test_label_then_scientific_then_common_name(self):
        species = [
            Species("comcuc", "Cuculus canorus", "Common Cuckoo"),
            Species("eurbla", "Turdus merula", "Eurasian Blackbird"),
            Species("1161364", "Rana nova", "New Frog"),
            Species("nothing", "Nihil nihil", "Nothing"),
        ]
        listed = [
            ListedLabel(1, "x", "Rana vetus", "new  FROG"),
            ListedLabel(2, "y", "turdus Merula", "Amsel"),
            ListedLabel(3, "comcuc", "Cuculus optatus", "Kuckuck"),
        ]
        matches = match_labels(species, listed, HERE)
        assert {label: (match.column, match.rule) for label, match in matches.items()} == {
            "comcuc": (2, "label"),
            "eurbla": (1, "scientific name"),
            "1161364": (0, "common name"),
        }
        assert list(matches) == ["comcuc", "eurbla", "1161364"]

    def test_a_code_is_as_good_as_a_label(self):
        matches = match_labels([Species("24321")], [ListedLabel(2, "Rana x", codes=("ranx", "24321"))], HERE)
        assert matches["24321"].rule == "label"

    def test_names_against_bare_labels(self):
        bare = match_labels([Species("eurbla", "Turdus merula")], [ListedLabel(1, "Turdus merula")], HERE)
        assert bare["eurbla"].rule == "scientific name"
        named = match_labels([Species("turdus merula")], [ListedLabel(1, "eurbla", "Turdus merula")], HERE)
        assert named["turdus merula"].rule == "scientific name"

    @pytest.mark.parametrize(
        ("species", "listed", "problem"),
        [
            (
                [Species("a", "X y")],
                [ListedLabel(1, "p", "X y"), ListedLabel(2, "q", "x Y")],
                r"lines 1 and 2 \('p', 'q'\) both mean label 'a' of the bundle by their scientific name 'x y'",
            ),
            (
                [Species("a", "X y"), Species("b", "X y")],
                [ListedLabel(1, "p", "X y")],
                r"line 1 \('p'\) means both 'a' and 'b' of the bundle by its scientific name 'x y'",
            ),
            (
                [Species("a"), Species("b")],
                [ListedLabel(1, "p", codes=("a", "b"))],
                r"line 1 \('p'\) means both 'a' and 'b'",
            ),
            (
                [Species(each) for each in "abcd"],
                [ListedLabel(1, "p"), ListedLabel(2, "q")],
                r"none of 'p', 'q' is a label of the bundle, which are 'a', 'b', 'c' \.\.\.",
            ),
        ],
    )
    def test_ambiguity_and_strangers_are_refused_with_names(self, species, listed, problem):
        with pytest.raises(LabelError, match=problem):
            match_labels(species, listed, HERE)

    def test_what_a_better_rule_has_settled_is_not_ambiguous(self):
        """Subspecies share a common name; the eBird code distinguishes them."""
        species = [Species("rocpig", "Columba livia", "Rock Pigeon")]
        listed = [ListedLabel(1, "rocpig", "Columba livia", "Pigeon"), ListedLabel(2, "x", "Columba l.", "Rock Pigeon")]
        assert match_labels(species, listed, HERE)["rocpig"].column == 0

    @pytest.mark.parametrize(
        ("own", "listed", "rule"),
        [
            (("Coloeus monedula", ""), ("Corvus monedula", ""), "synonym"),
            (("Carduelis spinus", ""), ("Spinus spinus", ""), "synonym"),
            (("Pica hudsonia", ""), ("Pica pica", ""), "wider species"),
            (("Accipiter gentilis", ""), ("Astur atricapillus", ""), "narrower species"),
            (("Nova cinerea", "Ashy Plover"), ("Vetus cinereus", "Grey Plover"), "other genus"),
            (("Nova cinerea", ""), ("Vetus cinereus", ""), "other genus"),
            (("Phylloscopus trochilus", ""), ("Phyloscopus trochilus", ""), "spelling"),
            (("Poecile montanus", ""), ("Poecile montana", ""), "spelling"),
        ],
    )
    def test_names_of_other_years_and_spellings(self, own, listed, rule):
        strangers = [ListedLabel(1, "Strix aluco"), ListedLabel(2, "Aves nihil")]
        matches = match_labels([Species("x", *own)], [*strangers, ListedLabel(3, "y", *listed)], HERE)
        assert matches["x"][::2] == (2, rule)
        assert matches["x"].is_guess == (rule != "synonym")

    @pytest.mark.parametrize(
        ("own", "listed"),
        [
            (("Hyla cinerea", "Tree Frog"), [("Ardea cinerea", "Grey Heron")]),  # an epithet of many
            (("Hyla nova", ""), [("Ardea nova", ""), ("Hyla vetus", "")]),  # the list has the genus, not the species
            (("Rara nova", ""), [("Ardea nova", ""), ("Turdus nova", "")]),  # two could be meant
            (("Pica hudsonia", ""), [("Pica serica", "")]),  # both are parts of a third
            (("Parus ater", ""), [("Parus afer", "")]),  # too short to be a misspelling
        ],
    )
    def test_no_guess_where_two_species_may_be_meant(self, own, listed):
        graph = [ListedLabel(1, "known"), *(ListedLabel(2 + at, f"y{at}", *each) for at, each in enumerate(listed))]
        assert list(match_labels([Species("known"), Species("x", *own)], graph, HERE)) == ["known"]

    def test_a_guess_takes_no_column_that_a_name_has(self):
        species = [Species("a", "Pica hudsonia"), Species("b", "Pica pica")]
        matches = match_labels(species, [ListedLabel(1, "y", "Pica pica")], HERE)
        assert [*matches] == ["b"]

    def test_a_bundle_of_ones_own_matches_itself(self, read):
        listed = read("Cuculus canorus_Common Cuckoo\nTurdus merula_Eurasian Blackbird\n")
        matches = match_labels(species_of(listed, HERE), listed, HERE)
        assert [match.column for match in matches.values()] == [0, 1]


WORDS = (
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=';,\t"'), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
    .map(lambda text: f"x{text}")
)
LABELS = st.lists(WORDS, min_size=1, max_size=12, unique=True)


@given(labels=LABELS, data=st.data())
def test_order_never_matters_to_matching(labels, data):
    """Whatever the order and the strangers, a label gets its own column, and no column serves two."""
    listed = [ListedLabel(line, label) for line, label in enumerate(data.draw(st.permutations(labels)), 1)]
    asked = data.draw(st.permutations(labels).map(lambda order: order[: max(1, len(order) // 2)]))
    species = [Species(label) for label in [*asked, "\x00stranger"]]
    # Names that differ in case or spaces only would be ambiguous for the stranger alone, which has neither.
    matches = match_labels(species, listed, HERE)
    assert list(matches) == list(asked)
    assert all(listed[match.column].label == label for label, match in matches.items())


def test_columns_without_a_label_are_left_out(tmp_path):
    """Perch's list of eBird codes: 5,089 of its classes have none."""
    path = tmp_path / "perch_v2_ebird_classes.csv"
    path.write_text("ebird2021\nno_ebird_code\neurbla\nno_ebird_code\ngretit1\n")
    listed = read_label_list(path)
    species = species_of(listed, path)
    assert [each.label for each in species] == ["eurbla", "gretit1"]
    assert {label: match.column for label, match in match_labels(species, listed, path).items()} == {
        "eurbla": 1,
        "gretit1": 3,
    }


def test_a_common_name_that_no_label_can_hold_gives_way_to_the_scientific(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("Turdus merula_Amsel, Schwarzdrossel\nParus major_Kohlmeise\n", encoding="utf-8")
    listed = read_label_list(path)
    species = species_of(listed, path)
    assert [each.label for each in species] == ["Turdus merula", "Parus major_Kohlmeise"]
    assert [match.column for match in match_labels(species, listed, path).values()] == [0, 1]
