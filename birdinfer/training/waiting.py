"""How long the loop waits for data."""

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class Waiting:
    """A clock that runs only while the next batch is being waited for."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Begin at what was waited before."""
        self.seconds = seconds

    def through(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches."""
        began = perf_counter()
        for batch in batches:
            self.seconds += perf_counter() - began
            yield batch
            began = perf_counter()
