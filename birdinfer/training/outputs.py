"""What a network learns besides species, by ``labels.taxon`` and ``labels.nocall``: its columns, and their targets.

In training a network has a logit for each species, then one for each taxon (a genus, say) of at least two species, then
one for no species at all. In validation and in the exported graph ``models/merge.py`` makes them into those of the
species, so that what is validated, exported and predicted has the columns of the taxonomy, and no engine, metric or
submission knows more.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from birdinfer.species import NO_CALL, Species
from birdinfer.training.recipe.data_config import LabelConfig
from birdinfer.typing import Float32, Index

GENUS = "genus"
"""A taxon that scientific names begin with."""
_HALF = 0.5
"""From here on a species counts as present, which settles its taxon and that there is a call."""


class Outputs(NamedTuple):
    """The columns of a network's logits in training."""

    species: tuple[str, ...]
    """Labels."""
    taxa: tuple[str, ...] = ()
    taxon_of: tuple[int, ...] = ()
    """Of each species the number of its taxon, -1 for none; empty without taxa."""
    general: tuple[tuple[str, int], ...] = ()
    """Labels that mean some species of a taxon, and the taxon's number."""
    has_nocall: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of each column; not those of the species are no labels."""
        return output_names(self.species, self.taxa, self.has_nocall)

    def clips_per_output(self, primary_labels: Iterable[str]) -> list[int]:
        """Count the clips that have each column's label as their primary one."""
        counts = Counter(primary_labels)
        of_species = [counts[label] for label in self.species]
        of_taxa = [0] * len(self.taxa)
        for taxon, count in (
            *zip(self.taxon_of, of_species, strict=False),
            *((taxon, counts[label]) for label, taxon in self.general if label not in self.species),
        ):
            if taxon >= 0:
                of_taxa[taxon] += count
        return [*of_species, *of_taxa, *([counts[""]] if self.has_nocall else [])]


def outputs_of(species: Sequence[Species], taxa: Sequence[str], config: LabelConfig) -> Outputs:
    """List a network's columns.

    Args:
        species: of the scores.
        taxa: the taxon of each species, "" where unknown; empty without ``labels.taxon``.
        config: what is learned.
    """
    labels = tuple(one.label for one in species)
    if not config.taxon:
        return Outputs(labels, has_nocall=config.nocall)
    names = shared_taxa(taxa)
    number = {name: index for index, name in enumerate(names)}
    taxon_of = tuple(number.get(name, -1) for name in taxa)
    # A column whose scientific name is that of its taxon is a label at the rank of a genus.
    of_rank = [
        (one.label, taxon)
        for one, taxon in zip(species, taxon_of, strict=True)
        if taxon >= 0 and one.scientific_name == names[taxon]
    ]
    return Outputs(labels, names, taxon_of, (*number.items(), *of_rank), config.nocall)


def shared_taxa(taxa: Iterable[str]) -> tuple[str, ...]:
    """The taxa of two species or more, in the order of their first one; the only ones that are learned."""
    return tuple(name for name, n in Counter(taxa).items() if name and n > 1)


def output_names(labels: Sequence[str], taxa: Sequence[str], has_nocall: bool) -> tuple[str, ...]:
    """Name each column of a network's logits, so that none has the name of another."""
    # A separator that no label may hold.
    return (*labels, *(f"taxon;{name}" for name in taxa), *([f"{NO_CALL};"] if has_nocall else []))


# ---- Targets


class TaxonTargets:
    """Targets of species -> those of species and taxa; small, and ready to be sent to workers."""

    def __init__(self, outputs: Outputs) -> None:
        """Remember which species a taxon has."""
        self._of: Index = np.array(outputs.taxon_of, np.intp)
        self._in_one: Index = np.flatnonzero(self._of >= 0)
        self._n, self._general = len(outputs.taxa), dict(outputs.general)

    @property
    def labels(self) -> Collection[str]:
        """Labels that mean some species of a taxon."""
        return self._general.keys()

    def __call__(
        self, values: Float32, weights: Float32, labels: Sequence[str], certain: float
    ) -> tuple[Float32, Float32]:
        """Add the columns of taxa.

        A taxon is there as much as the species of it that is there most. Where some of its species are masked and none
        is there, the taxon is masked, too. A label that means some species of a taxon teaches the taxon, and masks its
        species.

        Args:
            values: of species, [species], 0 to 1.
            weights: of these cells, [species]; 0 is masked.
            labels: primary labels of the window's clips.
            certain: the value of what is surely there.

        Returns:
            Values and weights, [species + taxa].
        """
        values, weights = values.copy(), weights.copy()
        named = [self._general[label] for label in labels if label in self._general]
        for taxon in named:
            unknown = (self._of == taxon) & (values < _HALF)
            values[unknown], weights[unknown] = certain, 0.0
        of, own, known = self._of[self._in_one], values[self._in_one], weights[self._in_one] > 0
        present, doubtful = np.zeros(self._n, np.float32), np.zeros(self._n, np.bool_)
        np.maximum.at(present, of[known], own[known])
        doubtful[of[~known]] = True
        is_masked = doubtful & (present < _HALF)
        of_taxa, counts = np.where(is_masked, np.float32(certain), present), (~is_masked).astype(np.float32)
        of_taxa[named], counts[named] = certain, 1.0
        return np.concatenate([values, of_taxa]).astype(np.float32), np.concatenate([weights, counts])
