"""Match the columns of an external model to the labels of a bundle.

In: its list of labels (:mod:`birdinfer.inference.external.label_lists`), and a bundle's species. Out: :class:`Match` by
the bundle's label.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from birdinfer.errors import LabelError
from birdinfer.inference.external.label_lists import NO_CODE, ListedLabel
from birdinfer.inference.external.synonyms import newest_name, wider_name
from birdinfer.postprocess.taxonomy import genus_of
from birdinfer.species import NO_CALL, Species, label_problem

Rule = Literal[
    "label", "scientific name", "synonym", "common name", "wider species", "narrower species", "other genus", "spelling"
]
GUESSES: frozenset[Rule] = frozenset({"wider species", "narrower species", "other genus", "spelling"})
"""Rules that may be wrong: what they match has to be shown."""
Item = TypeVar("Item")

_EXAMPLES = 3


class Match(NamedTuple):
    """A label of the bundle that a graph knows."""

    column: int
    """Of the graph."""
    listed: str
    rule: Rule
    """What is equal in both."""

    @property
    def is_guess(self) -> bool:
        """Whether it may be wrong."""
        return self.rule in GUESSES


def species_of(listed: Sequence[ListedLabel], path: Path) -> tuple[Species, ...]:
    """Turn the labels into the species of a bundle of their own; LabelError for one that cannot be a label there.

    Columns without a label are left out, and ``nocall``, which is none. Where a common name cannot be in a label (it
    has a comma), the scientific name is the label.
    """
    species = []
    taken = {each.label for each in listed}
    for each in listed:
        if each.label == NO_CODE or each.label.casefold() == NO_CALL:
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

    By equal label or code, else scientific name, else a synonym (:mod:`birdinfer.inference.external.synonyms`), else
    common name; case and spacing of names are ignored. If a list or a bundle has no names, its labels are compared
    instead. What is left is guessed (:data:`GUESSES`) where one column and one label fit no other.

    Raises:
        LabelError: a label or name is ambiguous, or nothing matches.

    >>> bundle = [Species("eurjac", "Coloeus monedula"), Species("gretit1", "Parus major")]
    >>> graph = [ListedLabel(1, "parus MAJOR"), ListedLabel(2, "Corvus monedula")]
    >>> {label: (match.column, match.rule) for label, match in match_labels(bundle, graph, Path("labels.txt")).items()}
    {'eurjac': (1, 'synonym'), 'gretit1': (0, 'scientific name')}
    """
    found: dict[str, Match] = {}
    unnamed = {column for column, each in enumerate(listed) if each.label == NO_CODE}
    for rule, own_name, listed_names in (*_RULES, *_guesses(species, listed)):
        taken = unnamed | {match.column for match in found.values()}
        columns = _group(
            (name, column)
            for column, each in enumerate(listed)
            if column not in taken
            for name in listed_names(each)
            if name
        )
        labels = _group((own_name(each), each.label) for each in species if each.label not in found)
        for name in [name for name in labels if name in columns]:
            if rule in _EXACT:
                _check_unambiguous(path, rule, name, labels[name], [listed[column] for column in columns[name]])
            elif len(labels[name]) > 1 or len(columns[name]) > 1:
                continue
            column = columns[name][0]
            found[labels[name][0]] = Match(column, listed[column].label, rule)
        _check_one_label_each(path, found, listed)
    if not found:
        raise LabelError(path, f"none of {_examples(listed)} is a label of the bundle, which are {_examples(species)}")
    return {each.label: found[each.label] for each in species if each.label in found}


def genus_columns(
    species: Sequence[Species], listed: Sequence[ListedLabel], matches: Mapping[str, Match]
) -> dict[str, tuple[int, ...]]:
    """Find the columns of a graph that have the genus of a label, for the labels that match none themselves.

    >>> graph = [ListedLabel(1, "Turdus merula"), ListedLabel(2, "Turdus iliacus"), ListedLabel(3, "Strix aluco")]
    >>> genus_columns([Species("rinouz1", "Turdus torquatus")], graph, {})
    {'rinouz1': (0, 1)}
    """
    columns = _group((_genus(each), column) for column, each in enumerate(listed) if each.label != NO_CODE)
    found = {each.label: _genus(each) for each in species if each.label not in matches}
    return {label: tuple(columns[genus]) for label, genus in found.items() if genus and genus in columns}


def _genus(each: Species | ListedLabel) -> str:
    """Of the newest name; "" for what is no name of a species."""
    scientific = _scientific(each)
    named = newest_name(scientific) if len(scientific.split()) > 1 else ""
    return genus_of(Species(each.label, named, class_name=each.class_name))


def _fold(name: str) -> str:
    return " ".join(name.split()).casefold()


def _scientific(each: Species | ListedLabel) -> str:
    return _fold(each.scientific_name or each.label)


_Rule = tuple[Rule, Callable[[Species], str], Callable[[ListedLabel], tuple[str, ...]]]
_EXACT: frozenset[Rule] = frozenset({"label", "scientific name", "common name"})
_RULES: tuple[_Rule, ...] = (
    ("label", lambda own: own.label, lambda each: (each.label, *each.codes)),
    ("scientific name", _scientific, lambda each: (_scientific(each),)),
    ("synonym", lambda own: newest_name(_scientific(own)), lambda each: (newest_name(_scientific(each)),)),
    (
        "common name",
        lambda own: _fold(own.common_name or own.label),
        lambda each: (_fold(each.common_name or each.label),),
    ),
    ("wider species", lambda own: wider_name(_scientific(own)), lambda each: (newest_name(_scientific(each)),)),
    ("narrower species", lambda own: newest_name(_scientific(own)), lambda each: (wider_name(_scientific(each)),)),
)


def _guesses(species: Sequence[Species], listed: Sequence[ListedLabel]) -> Iterator[_Rule]:
    """The rules that compare parts of scientific names."""
    genera = {genus for each in listed if (genus := _binomial(each)[0])}

    def moved(each: Species | ListedLabel) -> str:
        """The epithet without its ending, and the last word of the common name: "monedul jackdaw"."""
        epithet, common = _binomial(each)[1], each.common_name.casefold().split()
        return f"{_stem(epithet)} {common[-1]}" if epithet and common else ""

    def moved_with_genus(own: Species) -> str:
        """The epithet without its ending, of a genus that the list does not have at all."""
        genus, epithet = _binomial(own)
        return _stem(epithet) if epithet and genus not in genera else ""

    names = {_scientific(each) for each in species if _binomial(each)[0]}
    by_part = _group((part, name) for name in names for part in name.split())

    def misspelled(each: ListedLabel) -> tuple[str, ...]:
        """The names of the bundle with the same genus or epithet, whose other word is a letter off."""
        name, (genus, epithet) = _scientific(each), _binomial(each)
        near = {*by_part.get(genus, ()), *by_part.get(epithet, ())} if genus else set()
        return tuple(other for other in sorted(near) if other != name and _is_misspelled(name, other))

    yield "spelling", _scientific, misspelled
    yield "other genus", moved, lambda each: (moved(each),)
    if any(each.common_name for each in species) and any(each.common_name for each in listed):
        return  # their common names say better which is which
    stems = Counter(_stem(_binomial(each)[1]) for each in listed)
    yield (
        "other genus",
        moved_with_genus,
        lambda each: (stem,) if stems[stem := _stem(_binomial(each)[1])] == 1 else (),
    )


def _binomial(each: Species | ListedLabel) -> tuple[str, str]:
    """Genus and epithet; "" for what is no name of two words."""
    words = _scientific(each).split()
    return (words[0], words[1]) if len(words) == 2 else ("", "")


def _stem(epithet: str) -> str:
    """An epithet without the ending that follows its genus' gender, or the way its author is spelled."""
    return _ENDING.sub("", epithet)


_LETTERS = 6
"""A word that is shorter is not misspelled but another."""
_ENDING = re.compile(r"(us|um|a|is|e|os|on|ii|i)$")


def _is_misspelled(one: str, other: str) -> bool:
    """Whether names differ in a letter that is changed, left out or exchanged with the next, or in an ending alone.

    >>> _is_misspelled("phylloscopus trochilus", "phyloscopus trochilus"), _is_misspelled("parus ater", "parus afer")
    (True, False)
    """
    if one.split()[0] == other.split()[0] and _stem(one) == _stem(other):
        return True
    if any(len(a) < _LETTERS for a, b in zip(one.split(), other.split(), strict=True) if a != b):
        return False  # Parus ater and Parus afer are two
    short, long = sorted((one, other), key=len)
    begin = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return len(long) - len(short) == 1 and short[begin:] == long[begin + 1 :]
    swapped = long[:begin] + long[begin : begin + 2][::-1] + long[begin + 2 :]
    return short[begin + 1 :] == long[begin + 1 :] or short == swapped


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
