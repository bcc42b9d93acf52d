"""Species that a sample submission asks for and a bundle lacks -> columns of the bundle that are of their genus.

Their names stand in ``taxonomy.csv`` beside the sample, as BirdCLEF ships it; a label may be a scientific name itself.
"""

from collections.abc import Sequence
from pathlib import Path

from birdinfer.errors import ConfigError
from birdinfer.inference.external.label_lists import ListedLabel, read_label_list
from birdinfer.inference.external.label_matching import genus_columns, species_of
from birdinfer.species import Species

Columns = tuple[int, ...]


def relatives_of(missing: Sequence[str], sample: Path, species: Sequence[Species]) -> tuple[Columns, ...]:
    """Find for each missing label the columns of a bundle's species of its genus; () where there is none.

    Raises:
        ConfigError: there is no taxonomy beside the sample, and no label has a genus by itself.
        LabelError: the taxonomy cannot be read.
    """
    taxonomy = sample.with_name("taxonomy.csv")
    there = taxonomy.is_file()
    named = {each.label: each for each in (species_of(read_label_list(taxonomy), taxonomy) if there else ())}
    own = [ListedLabel(at, each.label, each.scientific_name, each.common_name, each.class_name)
           for at, each in enumerate(species)]  # fmt: skip
    found = genus_columns([named.get(label, Species(label)) for label in missing], own, {})
    if missing and not found and not there:
        what = "genus, and nothing says of which genus its species are"
        raise ConfigError("--missing-species", what, f"put taxonomy.csv beside {sample}, or give prior or zero")
    return tuple(found.get(label, ()) for label in missing)
