"""A validation, species by species and taxon by taxon: which are recognised, which are weak, on how many clips.

In: a :class:`~birdinfer.training.evaluate.Validation` and the species of its columns. Out: text of classes.csv and
taxa.csv. A clip counts for its secondary labels, too, as it does in the validation's scores. An empty cell is a score
that cannot be computed.
"""

from collections.abc import Sequence

import numpy as np

from birdinfer.labels import Species
from birdinfer.metrics import average_precision_per_class, macro_roc_auc, padded_cmap, roc_auc_per_class
from birdinfer.tables.csv_files import csv_text
from birdinfer.training.evaluate import Validation
from birdinfer.training.targets import truth

CLASS_COLUMNS = ("label", "scientific_name", "common_name", "class_name", "n_clips", "roc_auc", "average_precision")
TAXON_COLUMNS = ("class_name", "n_species", "n_clips", "macro_auc", "padded_cmap")


def classes_table(validation: Validation, species: Sequence[Species]) -> str:
    """Each species in the order of the columns: its names, clips it is heard in, ROC-AUC and average precision.

    Both are 0 to 1; ROC-AUC wants clips with and without the species, average precision wants one with it.
    """
    present = truth(validation.clips, [one.label for one in species])
    scores = zip(
        present.sum(axis=0, dtype=int),
        roc_auc_per_class(present, validation.probabilities),
        average_precision_per_class(present, validation.probabilities),
        strict=True,
    )
    rows = (
        (one.label, one.scientific_name, one.common_name, one.class_name, n_clips, _cell(auc), _cell(precision))
        for one, (n_clips, auc, precision) in zip(species, scores, strict=True)
    )
    return csv_text(CLASS_COLUMNS, rows)


def taxa_table(validation: Validation, species: Sequence[Species]) -> str:
    """Each taxon (class_name, "" for species of none), in the order of its first species, scored by itself.

    Columns: its species; clips in which one of them is heard; macro ROC-AUC and padded cmAP over its species, 0 to 1.
    """
    present = truth(validation.clips, [one.label for one in species])
    taxa = np.array([one.class_name for one in species], dtype=np.str_)
    rows = []
    for taxon in dict.fromkeys(taxa.tolist()):
        own = taxa == taxon
        wanted, given = present[:, own], validation.probabilities[:, own]
        cmap = padded_cmap(wanted, given) if len(wanted) else np.nan
        n_clips = int(wanted.any(axis=1).sum())
        rows.append((taxon, int(own.sum()), n_clips, _cell(macro_roc_auc(wanted, given)), _cell(cmap)))
    return csv_text(TAXON_COLUMNS, rows)


def _cell(score: float) -> str:
    return "" if np.isnan(score) else f"{score:.6f}"
