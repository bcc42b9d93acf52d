"""pyarrow, which only Parquet needs, and whose import takes longer than all else of a start."""

from typing import Any

from birdinfer.errors import MissingExtraError


def load_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and its Parquet; MissingExtraError if it is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "detect") from error
    return pyarrow, parquet
