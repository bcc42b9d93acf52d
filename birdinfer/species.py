"""Species in column order, and what a label is.

A label is always text, also where it looks like a number: eBird codes (``comcuc``), iNaturalist numbers
(``1161364``) and sonotypes (``47158son16``) stand side by side, and a table reader that guesses types would
turn ``0012`` into 12.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from birdinfer.errors import LabelError

SEPARATORS = ",;|"
"""Characters between the labels of one cell, as in secondary_labels."""
RESERVED = "row_id"
NO_CALL = "nocall"
"""The label of sound in which no species is: BirdCLEF's word since 2021."""
_SHOWN = 60


class Species(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of the scores."""

    label: str
    """The column's name: ``primary_label`` of BirdCLEF."""
    scientific_name: str = ""
    common_name: str = ""
    class_name: str = ""
    """Aves, Amphibia, Insecta, Mammalia, Reptilia ... ("" if unknown)."""

    @property
    def name(self) -> str:
        """The common name, or the scientific one, or the label: what a text calls it."""
        return self.common_name or self.scientific_name or self.label


def label_problem(label: str) -> str:
    """Say why a text cannot be a label; "" if it can.

    A label is a table's column and one of several in a cell, so it must come back from both as it was written: it is
    not empty, has no space at its ends, no character that cannot be printed (control characters, line breaks, tabs,
    invisible ones), none that separates labels in a cell (``,`` ``;`` ``|``), is not ``row_id``, and is written in
    Unicode's composed form (NFC).

    >>> label_problem("47158son16"), label_problem("Turdus merula_Eurasian Blackbird")
    ('', '')
    >>> label_problem("comcuc;eurbla")
    "holds ';', which separates labels"
    """
    if not label.strip():
        return "is empty"
    if label != label.strip():
        return "has a space at its start or end"
    if not label.isprintable() or any(sign in label for sign in SEPARATORS):
        sign = next(sign for sign in label if not sign.isprintable() or sign in SEPARATORS)
        if sign in SEPARATORS:
            return f"holds {sign!r}, which separates labels"
        return f"holds a character that cannot be printed (U+{ord(sign):04X})"
    if label.casefold() == RESERVED:
        return "is the name of the column of row ids"
    if not unicodedata.is_normalized("NFC", label):
        return f"is written in parts (letter and accent), needed is {unicodedata.normalize('NFC', label)!r} in NFC"
    return ""


def check_labels(labels: Iterable[str], where: str, hint: str = "rename it") -> tuple[str, ...]:
    """Check that there are labels, each as :func:`label_problem` wants it and none repeated; return them as a tuple.

    ``hint``: what to do about one that is no label.

    Raises:
        LabelError: there is none, one is no label, or one occurs twice.
    """
    checked = tuple(labels)
    if not checked:
        raise LabelError(where, "there is no label")
    seen: set[str] = set()
    for number, label in enumerate(checked, 1):
        if problem := label_problem(label):
            # Only the start of one that is a whole file by mistake.
            name = f"label {number} ({label[:_SHOWN]!r})" if label.strip() else f"label {number}"
            raise LabelError(where, f"{name} {problem}", hint)
        if label in seen:
            raise LabelError(where, f"label {label!r} stands twice")
        seen.add(label)
    return checked


class SpeciesNames:
    """The names of species, to find the one that a text means: by its label, scientific or common name."""

    def __init__(self, species: Sequence[Species]) -> None:
        self.labels = tuple(each.label for each in species)
        self.texts = frozenset(
            name for each in species for name in (each.label, each.scientific_name, each.common_name) if name.strip()
        )
        """Labels and names as they are spelled."""
        self._labels = frozenset(self.labels)
        self._named: dict[str, dict[str, None]] = defaultdict(dict)
        for each in species:
            for name in (each.scientific_name, each.common_name):
                if name.strip():
                    self._named[fold_name(name)][each.label] = None

    def find(self, text: str) -> tuple[str, ...]:
        """List the labels of the species that a text means: none, one, or several that share the name.

        Labels are compared as they are, names without regard to case, spaces and underscores.

        >>> SpeciesNames([Species("eurbla", "Turdus merula")]).find("turdus  Merula")
        ('eurbla',)
        """
        return (text,) if text in self._labels else tuple(self._named.get(fold_name(text), ()))


def fold_name(name: str) -> str:
    """Spell a scientific or common name as names are compared.

    >>> fold_name("Swainson's_Thrush ")
    "swainson's thrush"
    """
    return " ".join(name.replace("_", " ").split()).casefold()
