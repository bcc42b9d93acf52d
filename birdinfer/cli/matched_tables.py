"""A submission and its truth, matched by the names of rows and columns -> where in one stands what the other asks for.

What the truth asks for must be there; what it does not ask for stays in the submission and is passed over.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from birdinfer.tables.score_table import ScoreTable

_NAMED_ROWS = 3
_NAMED_COLUMNS = 5


class MatchedTables(NamedTuple):
    """Two tables, and where the cells of the truth stand in the other."""

    given: "ScoreTable"
    truth: "ScoreTable"
    """Its values are 0 or 1."""
    rows: "npt.NDArray[np.intp]"
    """Of ``given``, in the order of the truth's rows."""
    columns: "npt.NDArray[np.intp]"

    @property
    def scores(self) -> "npt.NDArray[np.float64]":
        """The cells that the truth asks for, in its order [rows, labels]."""
        return self.given.values[self.rows][:, self.columns]


def read_matched(submission: Path, truth: Path) -> MatchedTables:
    """Read both tables.

    Raises:
        InputNotFoundError: a table is not there.
        MetadataError: a table is not as needed, the submission lacks rows or columns of the truth, or the truth holds
            something else than 0 or 1.
    """
    import numpy as np

    from birdinfer.tables.score_table import check_truth, read_scores

    wanted, given = read_scores(truth), read_scores(submission)
    check_truth(wanted)
    pairs = (
        ("rows", wanted.row_ids, given.row_ids, _NAMED_ROWS),
        ("columns", wanted.labels, given.labels, _NAMED_COLUMNS),
    )
    rows, columns = (
        np.array(_places(given, wanted, kind, names, among, named), np.intp) for kind, names, among, named in pairs
    )
    return MatchedTables(given, wanted, rows, columns)


def _places(
    given: "ScoreTable", wanted: "ScoreTable", kind: str, names: list[str], among: list[str], named: int
) -> list[int]:
    """Where each of the names stands among others."""
    from birdinfer.errors import MetadataError

    place_of = {name: index for index, name in enumerate(among)}
    missing = [name for name in names if name not in place_of]
    if missing:
        first = ", ".join(missing[:named]) + (", ..." if len(missing) > named else "")
        raise MetadataError(given.path, f"lacks {len(missing)} of {len(names)} {kind} of {wanted.path}: {first}")
    return [place_of[name] for name in names]
