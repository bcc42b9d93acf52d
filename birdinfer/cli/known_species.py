"""What is known of a table's columns: its labels, and a bundle or a taxonomy.csv -> species, for steps that ask.

``birdinfer blend`` and ``birdinfer score --ablate`` both have the options ``--bundle`` and ``--taxonomy``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birdinfer.labels import Species


def check_one_source(bundle: Path | None, taxonomy: Path | None) -> None:
    """Refuse two sources of the same.

    Raises:
        ConfigError: both are given.
    """
    from birdinfer.errors import ConfigError

    if bundle and taxonomy:
        raise ConfigError("--taxonomy", "says what --bundle says", "give one of them")


def known_species(labels: Sequence[str], bundle: Path | None, taxonomy: Path | None) -> "tuple[Species, ...]":
    """The species of these columns; without a bundle and a taxonomy, their labels.

    Raises:
        InputNotFoundError, BundleError, LabelError: the bundle or the taxonomy is not there, or is none.
        MetadataError: it lacks one of the labels.
    """
    from birdinfer.bundle import Bundle
    from birdinfer.labels import Species
    from birdinfer.table_blend import species_of_columns
    from birdinfer.tables.label_lists import read_label_list, species_of

    if bundle:
        return species_of_columns(labels, Bundle.load(bundle).manifest.species, bundle)
    if taxonomy:
        return species_of_columns(labels, species_of(read_label_list(taxonomy)), taxonomy)
    return tuple(Species(label) for label in labels)
