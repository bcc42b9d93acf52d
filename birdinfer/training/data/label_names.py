"""taxonomy.csv, or the labels of a table without one -> species; a label that has no column is refused with its row."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from birdinfer.errors import ConfigError, LabelError
from birdinfer.species import NO_CALL, Species, check_labels, label_problem
from birdinfer.tables.cells import is_blank, near_miss, plain_label
from birdinfer.training.data.train_table import NumberedRow, read_rows
from birdinfer.training.outputs import GENUS, shared_taxa


def read_taxonomy(path: Path) -> dict[str, Species]:
    """Read taxonomy.csv: species by label, in its order; none if there is no such file.

    Raises:
        MetadataError, LabelError: it is no such table, or a label is none.
    """
    if not path.is_file():
        return {}
    names = ("scientific_name", "common_name", "class_name")
    rows = read_rows(path, ["primary_label"])
    for number, row in rows:
        check_label(path, number, row["primary_label"])
    check_labels((row["primary_label"] for _, row in rows), str(path))
    species = (Species(row["primary_label"], *(row.get(name, "") for name in names)) for _, row in rows)
    return {one.label: one for one in species}


def read_taxa(path: Path, species: Sequence[Species], taxon: str) -> tuple[str, ...]:
    """Read the taxon of each species.

    Args:
        path: taxonomy.csv, which may be missing.
        species: of the scores.
        taxon: a column of it; ``genus`` may be missing, and is then the first word of the scientific name.

    Returns:
        Of each species its taxon, "" where unknown.

    Raises:
        ConfigError: there is no such column, or no taxon has two species.
    """
    rows = read_rows(path, ["primary_label"]) if path.is_file() else []
    if rows and taxon in rows[0][1]:
        of_label = {row["primary_label"]: row[taxon].strip() for _, row in rows if not is_blank(row[taxon])}
        taxa = tuple(of_label.get(one.label, "") for one in species)
    elif taxon == GENUS:
        taxa = tuple(one.scientific_name.partition(" ")[0] for one in species)
    else:
        known = f"its columns are {', '.join(rows[0][1])}" if rows else "there is no taxonomy.csv"
        raise ConfigError("labels.taxon", f"is {taxon!r}, no column of {path}", known)
    if not shared_taxa(taxa):
        raise ConfigError("labels.taxon", f"is {taxon!r}, of which no one has two species in {path}", "leave it out")
    return taxa


def species_of_table(path: Path, rows: Iterable[NumberedRow]) -> tuple[Species, ...]:
    """The primary labels of a table without a taxonomy.

    Raises:
        LabelError: two are spellings of one.
    """
    first: dict[str, NumberedRow] = {}
    for row in rows:
        label = row[1]["primary_label"]
        number, other = first.setdefault(plain_label(label), row)
        if label != other["primary_label"]:
            same = near_miss(label, [other["primary_label"]])
            what = f"row {row[0]} has the label {label!r}, which is row {number}'s {same}"
            raise LabelError(path, what, "write them alike, or list both in taxonomy.csv")
        check_label(path, row[0], label)
    labels = check_labels(sorted(row["primary_label"] for _, row in first.values()), str(path))
    return tuple(Species(label) for label in labels)


def check_labels_known(path: Path, rows: Sequence[NumberedRow], labels: Collection[str]) -> None:
    """Refuse rows whose primary label has no column; LabelError names the first one."""
    unknown = {row["primary_label"]: number for number, row in reversed(rows) if row["primary_label"] not in labels}
    in_order = sorted((number, label) for label, number in unknown.items())
    for number, label in in_order:
        refuse_near_miss(path, number, label, labels)
    for number, label in in_order[:1]:
        others = f", nor are {len(unknown) - 1} others" if len(unknown) > 1 else ""
        what = f"row {number} has the label {label!r}, which is not in taxonomy.csv{others}"
        hint = "add the species there, or take its rows out"
        raise LabelError(path, what, "set labels.nocall=true to learn it" if label == NO_CALL else hint)


def check_label(path: Path, number: int, label: str) -> None:
    """Refuse what no label may be; LabelError."""
    problem = label_problem(label)
    if problem:
        raise LabelError(path, f"row {number}: label {label!r} {problem}", "rename it")


def refuse_near_miss(path: Path, number: int, label: str, labels: Collection[str]) -> None:
    """Refuse a label that is another one spelled otherwise; LabelError."""
    same = "" if label in labels else near_miss(label, labels)
    if same:
        raise LabelError(path, f"row {number} has the label {label!r}, which is {same}", "write it as in taxonomy.csv")
