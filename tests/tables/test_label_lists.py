import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import InputNotFoundError, LabelError
from birdinfer.labels import Species
from birdinfer.tables.label_lists import ListedLabel, match_labels, read_label_list, species_of

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


class TestPlainText:
    @pytest.mark.parametrize(
        "text", ["a\n0012\nc c", "a\r\n0012\r\nc c\r\n", "\ufeffa\n0012\nc c\n\n", "a\r0012\r c c \r"]
    )
    def test_a_label_a_line(self, read, text):
        assert labels_of(read(text)) == ["a", "0012", "c c"]

    def test_birdnet_names_are_split(self, read):
        assert read("Cuculus canorus_Common Cuckoo\nDog_Dog\nTurdus merula_Eurasian Blackbird\n")[0] == ListedLabel(
            1, "Cuculus canorus_Common Cuckoo", "Cuculus canorus", "Common Cuckoo"
        )

    def test_an_underscore_alone_makes_no_species(self, read):
        (guitar, _) = read("Acoustic_guitar\nTurdus merula\n")
        assert guitar == ListedLabel(1, "Acoustic_guitar")

    def test_commas_are_part_of_a_label(self, read):
        assert labels_of(read("Frog, toad\nBird\n")) == ["Frog, toad", "Bird"]


class TestTables:
    def test_perch_has_one_column(self, read):
        assert labels_of(read("inat2024_fsd50k\nTurdus merula\n1161364\n", "labels.csv")) == [
            "Turdus merula",
            "1161364",
        ]

    def test_one_column_of_any_name(self, read):
        assert labels_of(read("whatever\na\nb\n", "labels.csv")) == ["a", "b"]

    def test_birdnet_3_has_semicolons_and_an_index(self, read):
        header = "\ufeffidx;id;sci_name;com_name;class;order\n"
        (one,) = read(header + "0;3;Abeillia abeillei;Emerald-chinned Hummingbird;Aves;Apodiformes\n")
        assert one == ListedLabel(2, "Abeillia abeillei", "Abeillia abeillei", "Emerald-chinned Hummingbird", "Aves")

    def test_birdclef_taxonomy(self, read):
        text = 'primary_label,inat_taxon_id,scientific_name,common_name,class_name\n0012,77,Rana x,"Frog, x",Amphibia\n'
        assert read(text, "taxonomy.csv") == [ListedLabel(2, "0012", "Rana x", "Frog, x", "Amphibia", ("77",))]

    def test_the_number_of_a_row_is_no_inat_number(self, read):
        assert read("id,scientific_name\n47158,Turdus merula\n", "labels.csv")[0].codes == ()

    def test_no_ebird_code_is_no_code(self, read):
        (one,) = read("label,ebird_code\nAcoustic_guitar,no_ebird_code\n", "labels.csv")
        assert one.codes == ()


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("labels.txt", "", "there is no label"),
        ("labels.txt", "\ufeff\n \n", "there is no label"),
        ("labels.txt", "a\n\nb\n", "line 2 has no label"),
        ("labels.txt", "a\nb\na\n", "'a' stands twice, in lines 1 and 3"),
        ("labels.txt", b"a\n\xff\xfe\n", "is not UTF-8 text"),
        ("labels.csv", "label\n", "there is no label below its header"),
        ("labels.csv", "label\na\n\nb\n", "line 3 has no label"),
        ("labels.csv", "label,scientific_name\na\n", "line 2 has 1 cells, the header has 2"),
        ("labels.csv", "label,scientific_name\na,x\n\nb,y\n", "line 3 has 1 cells, the header has 2"),
        ("labels.csv", "label,label\na,b\n", "column 'label' stands twice"),
        ("labels.csv", "red,green\na,b\n", "has no column that names labels"),
        ("labels.csv", 'label,common\na,"b"c\n', "line 2 is not a row of a table"),
        ("labels.csv", "ebird_code\nno_ebird_code\n", "line 2 has no label"),
        ("labels.csv", "idx;sci_name\n0;a\n5;b\n", "line 3 has index 5, expected is 1"),
    ],
)
def test_a_list_that_is_not_right_is_refused_with_its_line(read, name, text, complaint):
    with pytest.raises(LabelError, match=complaint) as caught:
        read(text, name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_list(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        read_label_list(tmp_path / "gone.txt")


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
        ("species", "listed", "complaint"),
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
    def test_ambiguity_and_strangers_are_refused_with_names(self, species, listed, complaint):
        with pytest.raises(LabelError, match=complaint):
            match_labels(species, listed, HERE)

    def test_what_a_better_rule_has_settled_is_not_ambiguous(self):
        """Subspecies share a common name; the eBird code tells them apart."""
        species = [Species("rocpig", "Columba livia", "Rock Pigeon")]
        listed = [ListedLabel(1, "rocpig", "Columba livia", "Pigeon"), ListedLabel(2, "x", "Columba l.", "Rock Pigeon")]
        assert match_labels(species, listed, HERE)["rocpig"].column == 0

    def test_a_bundle_of_ones_own_matches_itself(self, read):
        listed = read("Cuculus canorus_Common Cuckoo\nTurdus merula_Eurasian Blackbird\n")
        matches = match_labels(species_of(listed), listed, HERE)
        assert [match.column for match in matches.values()] == [0, 1]


WORDS = (
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=';,\t"'), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
    .map(lambda text: f"x{text}")
)
LABELS = st.lists(WORDS, min_size=1, max_size=12, unique=True)


@given(
    labels=LABELS,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
    blank=st.integers(0, 3),
    last=st.booleans(),
)
def test_plain_text_comes_back_as_it_was(tmp_path_factory, labels, end, bom, blank, last):
    path = tmp_path_factory.getbasetemp() / "plain.txt"
    text = end.join(labels) + (end if last or blank else "") + end * blank
    path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    assert labels_of(read_label_list(path)) == labels


@given(labels=LABELS, names=st.data(), delimiter=st.sampled_from(";,\t"), bom=st.booleans())
def test_a_table_comes_back_as_it_was(tmp_path_factory, labels, names, delimiter, bom):
    commons = [names.draw(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)).strip() for _ in labels]
    written = io.StringIO()
    writer = csv.writer(written, delimiter=delimiter)
    writer.writerow(["Common Name", "notes", "Primary label"])
    writer.writerows([common, "", label] for label, common in zip(labels, commons, strict=True))
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes(written.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    listed = read_label_list(path)
    assert labels_of(listed) == labels
    assert [each.common_name for each in listed] == commons


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
