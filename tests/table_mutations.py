"""Mutations of a table: what spreadsheets, other programs, cuts and bit rot make of a good one.

:func:`mutated` gives the bytes of a table that is to be read as the good one (``row`` is None) or to be refused with
the row that is wrong.
"""

import csv
import io
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

Table = list[list[str]]
"""Rows of cells, the header first."""


class Mutated(NamedTuple):
    name: str
    content: bytes
    row: int | None
    """The row to be named (the header's is 1), None if the table is to be read as the good one."""


def as_text(
    table: Sequence[Sequence[str]], separator: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL
) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=quoting).writerows(table)
    return buffer.getvalue()


def read_alike(table: Table, rng: random.Random) -> tuple[str, bytes]:
    """A table that means the same: a layout of rows, the way cells are written, and an encoding."""
    table = [list(row) for row in table]
    names = []

    def layout(name: str, change: Callable[[], None]) -> None:
        if rng.random() < 0.3:
            names.append(name)
            change()

    def trailing() -> None:
        n = rng.randint(1, 3)
        table[0] += [""] * rng.choice([0, n])
        table[1:] = [row + [""] * n for row in table[1:]]

    def empty_rows() -> None:
        for _ in range(rng.randint(1, 5)):
            table.insert(rng.randint(1, len(table)), [rng.choice(["", " "])] * rng.choice([0, 1, len(table[0])]))

    def spaces() -> None:
        table[0] = [rng.choice(["", " "]) + name + rng.choice(["", " "]) for name in table[0]]

    layout("trailing separators", trailing)
    layout("empty rows", empty_rows)
    layout("spaces around names", spaces)
    separator, end = rng.choice(",,;\t|"), rng.choice(["\n", "\r\n", "\r"])
    has_line_ends = any("\n" in cell for row in table for cell in row)
    text = as_text(table, separator, end, csv.QUOTE_ALL if has_line_ends or rng.random() < 0.3 else csv.QUOTE_MINIMAL)
    if rng.random() < 0.3:
        names.append("no last line end")
        text = text.removesuffix(end)
    if rng.random() < 0.2:
        names.append("sep=")
        text = f"sep={separator}{end}" + text
    elif rng.random() < 0.1:
        names.append("blank first line")
        text = end + text
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
    return " + ".join([*names, repr(separator), repr(end), encoding]), text.encode(encoding)


def _short_row(table: Table, row: int, rng: random.Random) -> bytes:
    del table[row - 1][rng.randrange(len(table[row - 1]))]
    return as_text(table).encode()


def _long_row(table: Table, row: int, rng: random.Random) -> bytes:
    table[row - 1].insert(rng.randrange(len(table[row - 1])), "x")
    return as_text(table).encode()


def _cut(table: Table, row: int, rng: random.Random) -> bytes:
    """Within the row, before its last cell begins."""
    text = as_text([table[row - 1][:-1]])[:-1]
    kept = text[: rng.randint(1, len(text))]
    return (as_text(table[: row - 1]) + (kept if kept.strip('", ') else "x")).encode()


def _zeros(table: Table, row: int, rng: random.Random) -> bytes:
    """A machine that loses its power leaves zeros where the rest of a file should be."""
    content = as_text(table).encode()
    keep = len(as_text(table[: row - 1]).encode())
    return content[:keep] + bytes(len(content) - keep)


def _latin(table: Table, row: int, rng: random.Random) -> bytes:
    table[row - 1][rng.randrange(len(table[0]))] += "\xe9\xfc"
    return b"".join(as_text([cells]).encode("latin-1" if at == row else "utf-8") for at, cells in enumerate(table, 1))


def _open_quote(table: Table, row: int, rng: random.Random) -> bytes:
    before, after = as_text(table[: row - 1]), as_text(table[row - 1 :])
    return (before + '"' + after.replace('"', "")).encode()


def _behind_quote(table: Table, row: int, rng: random.Random) -> bytes:
    return as_text(table[: row - 1]).encode() + b'"a"b' + as_text(table[row - 1 :]).encode()


REFUSED = {
    "short row": _short_row,
    "long row": _long_row,
    "cut file": _cut,
    "zeros at the end": _zeros,
    "Latin-1": _latin,
    "quote that is not closed": _open_quote,
    "text behind a quote": _behind_quote,
}


def mutated(table: Table, seed: int) -> Mutated:
    """Mutate a table of two columns or more and one row or more, as a pure function of the seed."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        name, content = read_alike(table, rng)
        return Mutated(name, content, None)
    name = rng.choice(list(REFUSED))
    row = rng.randint(2, len(table))
    return Mutated(name, REFUSED[name]([list(cells) for cells in table], row, rng), row)
