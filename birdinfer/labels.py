"""Species in column order: the one place that says what a label is.

A label is always text, also where it looks like a number: eBird codes (``comcuc``), iNaturalist numbers
(``1161364``) and sonotypes (``47158son16``) stand side by side, and a table reader that guesses types would
turn ``0012`` into 12.
"""

from collections.abc import Iterable

import msgspec

from birdinfer.errors import LabelError


class Species(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of the scores."""

    label: str
    """The column's name: ``primary_label`` of BirdCLEF."""
    scientific_name: str = ""
    common_name: str = ""
    class_name: str = ""
    """Aves, Amphibia, Insecta, Mammalia, Reptilia ... ("" if unknown)."""


def check_labels(labels: Iterable[str], where: str) -> tuple[str, ...]:
    """The labels as a tuple.

    Raises:
        LabelError: there is none, one is empty, or one stands twice.
    """
    checked = tuple(labels)
    if not checked:
        raise LabelError(where, "there is no label")
    if any(not label.strip() for label in checked):
        raise LabelError(where, f"label {checked.index(next(x for x in checked if not x.strip())) + 1} is empty")
    seen: set[str] = set()
    for label in checked:
        if label in seen:
            raise LabelError(where, f"label {label!r} stands twice")
        seen.add(label)
    return checked
