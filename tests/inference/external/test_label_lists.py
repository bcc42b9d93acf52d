import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import InputNotFoundError, LabelError
from birdinfer.inference.external.label_lists import ListedLabel, read_label_list

WORDS = (
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=';,\t"'), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
    .map(lambda text: f"x{text}")
)
LABELS = st.lists(WORDS, min_size=1, max_size=12, unique=True)


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

    def test_quotes_are_part_of_a_label(self, read):
        assert labels_of(read('"Frog\nBird\n')) == ['"Frog', "Bird"]

    def test_commas_are_part_of_a_label(self, read):
        assert labels_of(read("Frog, toad\nBird\n")) == ["Frog, toad", "Bird"]


class TestTables:
    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
    @pytest.mark.parametrize("end", ["\n", "\n,,\n,,\n"])
    def test_as_spreadsheets_write_them(self, read, encoding, end):
        text = "primary_label,scientific_name,,\na,Rana x,,\nb,Rana y,,"
        assert labels_of(read((text + end).encode(encoding), "taxonomy.csv")) == ["a", "b"]

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
    ("name", "text", "problem"),
    [
        ("labels.txt", "", "there is no label"),
        ("labels.txt", "\ufeff\n \n", "there is no label"),
        ("labels.txt", "a\n\nb\n", "line 2 has no label"),
        ("labels.txt", "a\nb\na\n", "'a' stands twice, in lines 1 and 3"),
        ("labels.txt", b"a\n\xff\xfe\n", "row 2 holds what is no UTF-8"),
        ("labels.csv", "label\n", "there is no label below its header"),
        ("labels.csv", "label\na\n\nb\n", "line 3 has no label"),
        ("labels.csv", "label,scientific_name\na\n", "row 2 has 1 cells, the header 2"),
        ("labels.csv", "label,scientific_name\na,x\n\nb,y\n", "line 3 has no label"),
        ("labels.csv", "label,label\na,b\n", "column 'label' stands twice"),
        ("labels.csv", "red,green\na,b\n", "has no column that names labels"),
        ("labels.csv", 'label,common\na,"b"c\n', "row 2 is not one of a CSV table"),
        ("labels.csv", "ebird_code\nno_ebird_code\n", "line 2 has no label"),
        ("labels.csv", "idx;sci_name\n0;a\n5;b\n", "line 3 has index 5, expected is 1"),
    ],
)
def test_a_list_that_is_not_right_is_refused_with_its_line(read, name, text, problem):
    with pytest.raises(LabelError, match=problem) as caught:
        read(text, name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_list(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        read_label_list(tmp_path / "gone.txt")


PUBLISHED = {
    "Perch v2": (
        "labels.csv",
        "inat2024_fsd50k\nTurdus merula\nAcoustic_guitar\n",
        ["Turdus merula", "Acoustic_guitar"],
    ),
    "Perch v2, eBird": (
        "perch_v2_ebird_classes.csv",
        "ebird2021\neurbla\nno_ebird_code\ngretit1\nno_ebird_code\n",
        ["eurbla", "no_ebird_code", "gretit1", "no_ebird_code"],
    ),
    "BirdNET 2.4, Japanese": (
        "BirdNET_GLOBAL_6K_V2.4_Labels_ja.txt",
        "Turdus merula_クロウタドリ\nParus major_シジュウカラ\nNoise_Noise\n",
        ["Turdus merula_クロウタドリ", "Parus major_シジュウカラ", "Noise_Noise"],
    ),
    "BirdNET 3.0": (
        "BirdNET+_V3.0-preview3_Global_11K_Labels.csv",
        "\ufeffidx;id;sci_name;com_name;class;order\n0;12;Turdus merula;Eurasian Blackbird;Aves;Passeriformes\n"
        "1;40;Rana temporaria;Common Frog;Amphibia;Anura\n",
        ["Turdus merula", "Rana temporaria"],
    ),
    "BirdNET-Analyzer's classifier": (
        "CustomClassifier_Labels.txt",
        "Turdus merula_Eurasian Blackbird\nNoise_Noise\nParus major_Great Tit\n",
        ["Turdus merula_Eurasian Blackbird", "Noise_Noise", "Parus major_Great Tit"],
    ),
    "BirdNET-Analyzer for Raven": (
        "label_names.csv",
        'Turd1,Turdus merula_Eurasian Blackbird\nOws2,"Ow stra_Owl, strange"\nParu3,Parus major_Great Tit\n',
        ["Turdus merula_Eurasian Blackbird", "Ow stra_Owl, strange", "Parus major_Great Tit"],
    ),
    "BirdNET-Analyzer for Raven, classes": (
        "classes.csv",
        "Turd1,0.25,0,15000,False\nParu2,0.25,0,15000,False\n",
        ["Turd1", "Paru2"],
    ),
    "HawkEars": (
        "classes.csv",
        "Name,Code,AltName,AltCode\nMarsh Wren,MAWR,Cistothorus palustris,marwre\nNoise,Noise,Noise,Noise\n",
        ["MAWR", "Noise"],
    ),
    "id2label": ("config.json", '{"model": 1, "id2label": {"1": "gretit1", "0": "eurbla"}}', ["eurbla", "gretit1"]),
    "id2label alone": ("id2label.json", '{"0": "Turdus merula", "1": "1161364"}', ["Turdus merula", "1161364"]),
    "JSON list": ("classes.json", '["eurbla", "gretit1"]', ["eurbla", "gretit1"]),
}
"""The forms in which models' lists are published."""


@pytest.mark.parametrize("form", PUBLISHED)
def test_lists_are_read_as_they_are_published(read, form):
    name, text, labels = PUBLISHED[form]
    assert labels_of(read(text, name)) == labels


class TestPublished:
    def test_birdnet_has_names_in_any_language(self, read):
        name, text, _ = PUBLISHED["BirdNET 2.4, Japanese"]
        assert [(each.scientific_name, each.common_name) for each in read(text, name)][:2] == [
            ("Turdus merula", "クロウタドリ"),
            ("Parus major", "シジュウカラ"),
        ]

    def test_birdnet_analyzers_names_are_split(self, read):
        name, text, _ = PUBLISHED["BirdNET-Analyzer for Raven"]
        assert [each.scientific_name for each in read(text, name)] == ["Turdus merula", "Ow stra", "Parus major"]

    def test_hawkears_has_common_scientific_and_ebirds_name(self, read):
        name, text, _ = PUBLISHED["HawkEars"]
        wren = read(text, name)[0]
        assert (wren.scientific_name, wren.common_name) == ("Cistothorus palustris", "Marsh Wren")
        assert "marwre" in wren.codes

    def test_birdnet_3_has_classes(self, read):
        name, text, _ = PUBLISHED["BirdNET 3.0"]
        assert [each.class_name for each in read(text, name)] == ["Aves", "Amphibia"]

    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            ("a.json", "{", "is no JSON"),
            ("a.json", '{"0": "a", "2": "b"}', r"its numbers are not 0, 1, 2 \.\.\. to the end"),
            ("a.json", '{"id2label": 7}', "is no list of labels"),
            ("a.json", '["a", 7]', "is no list of labels"),
            ("a.json", "[]", "there is no label"),
            ("a.json", '["a", "a"]', "'a' stands twice"),
            ("classes.csv", "Turd1,0.25,0,15000,False\nParu3,0.25,0,15000,False\n", "has no column that names labels"),
        ],
    )
    def test_what_is_not_such_a_list_is_refused(self, read, name, text, problem):
        with pytest.raises(LabelError, match=problem):
            read(text, name)


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
