"""Fill in what a list of labels does not say of its species: scientific names, classes (Aves, Amphibia ...).

In: species as a list of labels names them. Out: the same with a class where a taxonomy, or what is known of a public
model, has one, so that smoothing by taxon, priors and thresholds by class work. The genus is in the scientific name.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from birdinfer.inference.external.known_models import KnownModel
from birdinfer.inference.external.label_lists import read_names
from birdinfer.inference.external.synonyms import newest_name
from birdinfer.species import Species

_SPECIES = re.compile(r"[A-Z][a-z]+ [a-z][a-z-]{2,}")
_HINT = "it lists species with their class: taxonomy.csv of BirdCLEF, or BirdNET 3.0's labels"


def with_classes(
    species: Sequence[Species], taxonomy: Path | None = None, known: KnownModel | None = None
) -> tuple[Species, ...]:
    """Return species with scientific names where the label is one, and with classes where they had none.

    Args:
        species: of a list of labels.
        taxonomy: a table with ``scientific_name`` and ``class_name`` (or an order); a genus whose species are all of
            one class stands for its other species.
        known: the public model whose labels they are.

    Raises:
        InputNotFoundError: there is no such table.
        LabelError: it is none.
    """
    named = [each if each.scientific_name else _named(each) for each in species]
    classes = _classes_of(taxonomy) if taxonomy else {}
    genera = {} if known is None else {genus: name for name, all in known.genera.items() for genus in all.split()}
    return tuple(each if each.class_name else _with_class(each, classes, genera, known) for each in named)


def _named(species: Species) -> Species:
    is_name = _SPECIES.fullmatch(species.label) is not None
    return msgspec.structs.replace(species, scientific_name=species.label) if is_name else species


def _with_class(
    species: Species, classes: Mapping[str, str], genera: Mapping[str, str], known: KnownModel | None
) -> Species:
    newest = newest_name(species.scientific_name)
    found = classes.get(newest) or classes.get(newest.partition(" ")[0], "")
    if not found and known is not None and _SPECIES.fullmatch(species.scientific_name):
        found = genera.get(species.scientific_name.partition(" ")[0], known.other_genera)
    return msgspec.structs.replace(species, class_name=found) if found else species


def _classes_of(taxonomy: Path) -> dict[str, str]:
    """The class of each scientific name in its newest spelling, and of each genus of one class."""
    found: dict[str, str] = {}
    of_genus: dict[str, set[str]] = {}
    for each in read_names(taxonomy, _HINT):
        name = newest_name(each.scientific_name or each.label)
        if each.class_name and name:
            found[name] = each.class_name
            of_genus.setdefault(name.partition(" ")[0], set()).add(each.class_name)
    return {**{genus: next(iter(of)) for genus, of in of_genus.items() if len(of) == 1}, **found}
