import csv
import io

import numpy as np
import pytest
from tiny_clips import LABELS

from birdinfer.evaluation.metrics import macro_roc_auc, padded_cmap
from birdinfer.species import Species
from birdinfer.training.data.clip import Clip
from birdinfer.training.evaluate import CLASS_COLUMNS, TAXON_COLUMNS, ClipScores, classes_table, score, taxa_table

SPECIES = [
    Species(LABELS[0], "Cuculus canorus", "Common Cuckoo", "Aves"),
    Species(LABELS[1], "Pica pica", 'Magpie, "Eurasian"', "Aves"),
    Species(LABELS[2], "Bufo bufo", "Common Toad", "Amphibia"),
    Species(LABELS[3]),
]
CLIPS = [
    Clip("a.ogg", None, LABELS[0], (LABELS[2],)),
    Clip("b.ogg", None, LABELS[0]),
    Clip("c.ogg", None, LABELS[1]),
    Clip("d.ogg", None, LABELS[2]),
]
PROBABILITIES = [[0.9, 0.1, 0.2, 0.0], [0.3, 0.2, 0.1, 0.0], [0.4, 0.8, 0.3, 0.0], [0.1, 0.3, 0.7, 0.1]]


def validation(clips=CLIPS):
    output = {index: np.array(PROBABILITIES[index], np.float32) for index in range(len(clips))}
    return score(clips, ClipScores(output, ()), SPECIES)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


class TestClassesTable:
    def test_each_species_is_scored_by_itself(self):
        table = rows(classes_table(validation(), SPECIES))
        assert tuple(table[0]) == CLASS_COLUMNS
        # Cuckoo: 0.9 beats both others, 0.3 one of two; precision 1/1 and 2/3. Toad: 0.7 beats both, 0.2 one of two.
        assert [row["n_clips"] for row in table] == ["2", "1", "2", "0"]
        assert [row["roc_auc"] for row in table] == ["0.750000", "1.000000", "0.750000", ""]
        assert [row["average_precision"] for row in table] == ["0.833333", "1.000000", "0.833333", ""]

    def test_names_come_back_as_they_are(self):
        table = rows(classes_table(validation(), SPECIES))
        assert [row["label"] for row in table] == list(LABELS)
        assert table[1]["common_name"] == 'Magpie, "Eurasian"'
        assert (table[2]["scientific_name"], table[2]["class_name"]) == ("Bufo bufo", "Amphibia")

    def test_of_no_clips_has_all_species_and_no_score(self):
        table = rows(classes_table(validation([]), SPECIES))
        assert [(row["n_clips"], row["roc_auc"], row["average_precision"]) for row in table] == [("0", "", "")] * 4

    def test_a_species_in_every_clip_has_a_precision_but_no_auc(self):
        table = rows(classes_table(validation(CLIPS[:1]), SPECIES))
        assert (table[0]["roc_auc"], table[0]["average_precision"]) == ("", "1.000000")


class TestTaxaTable:
    def test_each_taxon_is_scored_by_itself_in_the_species_order(self):
        table = rows(taxa_table(validation(), SPECIES))
        assert tuple(table[0]) == TAXON_COLUMNS
        assert [(row["class_name"], row["n_species"], row["n_clips"]) for row in table] == [
            ("Aves", "2", "3"), ("Amphibia", "1", "2"), ("", "1", "0"),
        ]  # fmt: skip
        assert [row["macro_auc"] for row in table] == ["0.875000", "0.750000", ""]

    def test_its_scores_are_those_of_its_columns(self):
        birds = rows(taxa_table(validation(), SPECIES))[0]
        present, given = np.array([[1, 0], [1, 0], [0, 1], [0, 0]]), np.array(PROBABILITIES, np.float32)[:, :2]
        assert float(birds["padded_cmap"]) == pytest.approx(padded_cmap(present, given), abs=1e-6)
        assert float(birds["macro_auc"]) == pytest.approx(macro_roc_auc(present, given), abs=1e-6)

    def test_one_taxon_scores_as_the_whole_does(self):
        species = [Species(label) for label in LABELS]
        (row,) = rows(taxa_table(validation(), species))
        assert float(row["macro_auc"]) == pytest.approx(validation().macro_auc, abs=1e-6)
        assert float(row["padded_cmap"]) == pytest.approx(validation().padded_cmap, abs=1e-6)

    def test_of_no_clips_has_all_taxa_and_no_score(self):
        table = rows(taxa_table(validation([]), SPECIES))
        assert [(row["n_clips"], row["macro_auc"], row["padded_cmap"]) for row in table] == [("0", "", "")] * 3
