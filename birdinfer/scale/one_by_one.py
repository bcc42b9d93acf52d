"""``python -m birdinfer.scale.one_by_one PLAN UNIT FOLDER INDEX...``: files of a unit, by their places, one by one.

Each leaves its tables and, last, its record in the folder. See :mod:`birdinfer.scale.alone`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from birdinfer.scale.marker import parquet_bytes
from birdinfer.scale.unit import Worker
from birdinfer.system.files import write_atomic


def run(uri: str, unit: int, folder: Path, indices: Sequence[int]) -> None:
    """Predict files of a unit by their places, and leave each one's tables and record in a folder."""
    with Worker(uri) as worker:
        files = worker.open.listing.of_unit(unit)
        for index in indices:
            (record,), tables = worker.predict(files[index : index + 1], worker.paths_of(files[index : index + 1]))
            for kind, table in tables.items():
                write_atomic(folder / f"{index}.{kind}.parquet", parquet_bytes(table))
            write_atomic(folder / f"{index}.json", msgspec.json.encode(record))


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), list(map(int, sys.argv[4:])))
