"""Scientific names that mean one species: ``synonyms.csv``, moves of genus, splits and lumps of the last decades.

eBird, iNaturalist and BirdNET follow different lists of different years: the jackdaw is Corvus monedula in one and
Coloeus monedula in another. A row of the table names two genera and the epithets that moved, with the new spelling
behind ``>``, and who published it (``since``): ``same`` is another name of the species, ``part`` a species that others
hold for a part of the second one. Facts; the second name is the newer one.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Synonyms(NamedTuple):
    """Both kinds of rows, by full names in lower case."""

    newer: dict[str, str]
    """Older name -> newer name of the same species."""
    wider: dict[str, str]
    """Newest name of a species -> that of the species that it is a part of for others."""


@cache
def synonyms() -> Synonyms:
    """Read the table."""
    found = Synonyms({}, {})
    with Path(__file__).with_name("synonyms.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            names = found.newer if row["kind"] == "same" else found.wider
            for epithet in row["epithets"].split():
                old, _, new = epithet.partition(">")
                names[f"{row['old_genus']} {old}".lower()] = f"{row['new_genus']} {new or old}".lower()
    return found


def newest_name(scientific_name: str) -> str:
    """Return the newest name of a species, in lower case; the name itself if no newer one is known.

    >>> newest_name("Corvus monedula")
    'coloeus monedula'
    """
    name = " ".join(scientific_name.split()).lower()
    return synonyms().newer.get(name, name)


def wider_name(scientific_name: str) -> str:
    """Return the newest name of the species that this one is a part of for others; "" if there is none.

    >>> wider_name("Pica hudsonia")
    'pica pica'
    """
    return synonyms().wider.get(newest_name(scientific_name), "")
