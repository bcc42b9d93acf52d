"""What every step of post-processing is: parameters as data, bound to a bundle's species, then run file by file.

A step is a frozen struct that reads from JSON and TOML as ``{"step": "its_name", ...}``. Bound, it is a pure function
of one file's rows: it neither remembers a file nor looks at another.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from birdinfer.labels import Species

Float32 = npt.NDArray[np.float32]

Bound = Callable[[Float32, str], Float32]
"""(probabilities [rows, species] of one file in time order, the file's name without its ending) -> the same shape,
float32 in [0, 1]. The input is left as it is."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step"):
    """A kind of post-processing with its parameters; each kind is a subclass with a ``tag``."""

    @property
    def reach(self) -> int | None:
        """How many rows before and behind a row it depends on: 0, 1, 2 ...; None: on the whole file."""
        raise NotImplementedError

    @property
    def is_neutral(self) -> bool:
        """Whether these parameters leave every value as it is."""
        raise NotImplementedError

    def bind(self, species: Sequence[Species]) -> Bound:
        """The function that does it, for scores in these columns.

        Raises:
            ConfigError: the parameters do not fit the species.
        """
        raise NotImplementedError
