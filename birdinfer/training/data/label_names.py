"""taxonomy.csv, or the labels of a table without one -> species; a label that has no column is refused with its row."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from birdinfer.errors import LabelError
from birdinfer.species import Species, check_labels, label_problem
from birdinfer.tables.cells import near_miss, plain_label
from birdinfer.training.data.train_table import NumberedRow, read_rows


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
        raise LabelError(path, what, "add the species there, or take its rows out")


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
