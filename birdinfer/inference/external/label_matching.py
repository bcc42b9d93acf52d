"""Match the columns of an external model to the labels of a bundle.

In: its list of labels (:mod:`birdinfer.inference.external.label_lists`), and a bundle's species. Out: :class:`Match` by
the bundle's label.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from birdinfer.errors import LabelError
from birdinfer.inference.external.label_lists import NO_CODE, ListedLabel
from birdinfer.species import Species, label_problem

Rule = Literal["label", "scientific name", "common name"]
Item = TypeVar("Item")

_EXAMPLES = 3


class Match(NamedTuple):
    """A label of the bundle that a graph knows."""

    column: int
    """Of the graph."""
    listed: str
    rule: Rule
    """What is equal in both."""


def species_of(listed: Sequence[ListedLabel], path: Path) -> tuple[Species, ...]:
    """Turn the labels into the species of a bundle of their own; LabelError for one that cannot be a label there.

    Columns without a label are left out. Where a common name cannot be in a label (it has a comma), the scientific name
    is the label.
    """
    species = []
    taken = {each.label for each in listed}
    for each in listed:
        if each.label == NO_CODE:
            continue
        label, problem = each.label, label_problem(each.label)
        if problem and each.scientific_name not in taken and not label_problem(each.scientific_name):
            label, problem = each.scientific_name, ""
            taken.add(label)
        if problem:
            raise LabelError(path, f"line {each.line}: label {each.label!r} {problem}", "rename it")
        species.append(Species(label, each.scientific_name, each.common_name, each.class_name))
    return tuple(species)


def match_labels(species: Sequence[Species], listed: Sequence[ListedLabel], path: Path) -> dict[str, Match]:
    """Match the columns of a graph to the labels of a bundle.

    By equal label or code, else scientific name, else common name; case and spacing of names are ignored. If a list or
    a bundle has no names, its labels are compared instead.

    Raises:
        LabelError: a name is ambiguous, or nothing matches.

    >>> bundle = [Species("eurbla", "Turdus merula"), Species("gretit1", "Parus major")]
    >>> graph = [ListedLabel(1, "parus MAJOR"), ListedLabel(2, "Strix aluco")]
    >>> match_labels(bundle, graph, Path("labels.txt"))
    {'gretit1': Match(column=0, listed='parus MAJOR', rule='scientific name')}
    """
    found: dict[str, Match] = {}
    unnamed = {column for column, each in enumerate(listed) if each.label == NO_CODE}
    for rule, own_name, listed_names in _RULES:
        taken = unnamed | {match.column for match in found.values()}
        columns = _group(
            (name, column) for column, each in enumerate(listed) if column not in taken for name in listed_names(each)
        )
        labels = _group((own_name(each), each.label) for each in species if each.label not in found)
        for name in [name for name in labels if name in columns]:
            _check_unambiguous(path, rule, name, labels[name], [listed[column] for column in columns[name]])
            column = columns[name][0]
            found[labels[name][0]] = Match(column, listed[column].label, rule)
        _check_one_label_each(path, found, listed)
    if not found:
        raise LabelError(path, f"none of {_examples(listed)} is a label of the bundle, which are {_examples(species)}")
    return {each.label: found[each.label] for each in species if each.label in found}


def _fold(name: str) -> str:
    return " ".join(name.split()).casefold()


_RULES: tuple[tuple[Rule, Callable[[Species], str], Callable[[ListedLabel], tuple[str, ...]]], ...] = (
    ("label", lambda own: own.label, lambda each: (each.label, *each.codes)),
    (
        "scientific name",
        lambda own: _fold(own.scientific_name or own.label),
        lambda each: (_fold(each.scientific_name or each.label),),
    ),
    (
        "common name",
        lambda own: _fold(own.common_name or own.label),
        lambda each: (_fold(each.common_name or each.label),),
    ),
)


def _group(pairs: Iterable[tuple[str, Item]]) -> dict[str, list[Item]]:
    grouped: dict[str, dict[Item, None]] = defaultdict(dict)
    for name, item in pairs:
        grouped[name][item] = None
    return {name: list(items) for name, items in grouped.items()}


def _check_unambiguous(
    path: Path, rule: Rule, name: str, labels: Sequence[str], columns: Sequence[ListedLabel]
) -> None:
    """Refuse a name that several labels of the bundle, or several columns of the graph, share."""
    hint = "distinguish them in that file, in a column label or primary_label"
    if len(columns) > 1:
        one, other = columns[0], columns[1]
        what = f"lines {one.line} and {other.line} ({one.label!r}, {other.label!r}) both mean label {labels[0]!r}"
        raise LabelError(path, f"{what} of the bundle by their {rule} {name!r}", hint)
    if len(labels) > 1:
        what = f"line {columns[0].line} ({columns[0].label!r}) means both {labels[0]!r} and {labels[1]!r}"
        raise LabelError(path, f"{what} of the bundle by its {rule} {name!r}", hint)


def _check_one_label_each(path: Path, found: dict[str, Match], listed: Sequence[ListedLabel]) -> None:
    """Refuse a column that matches several labels of the bundle by several codes."""
    owners: dict[int, str] = {}
    for label, match in found.items():
        owner = owners.setdefault(match.column, label)
        if owner != label:
            line = listed[match.column].line
            raise LabelError(
                path,
                f"line {line} ({match.listed!r}) means both {owner!r} and {label!r} of the bundle",
                "keep one code",
            )


def _examples(labels: Sequence[Species] | Sequence[ListedLabel]) -> str:
    shown = ", ".join(repr(each.label) for each in labels[:_EXAMPLES])
    return shown + (" ..." if len(labels) > _EXAMPLES else "")
