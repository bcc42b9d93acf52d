"""Steps of post-processing: parameters as data, bound to a bundle's species, then run file by file.

A :class:`Step` is a frozen struct that reads from JSON and TOML as ``{"step": "its_name", ...}``. Bound to the species,
it is a pure function of one file's probabilities [rows, species], float32 in [0, 1] in time order, which returns the
same shape: it neither remembers a file nor reads another. A :class:`Pipeline` runs several steps in order. A
:class:`TableStep` reads a CSV table, which in a bundle lies in the bundle's folder.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, TypeVar

import msgspec

from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.species import Species
from birdinfer.system.files import write_atomic
from birdinfer.typing import Float32

BoundStep = Callable[[Float32, str], Float32]
"""(probabilities [rows, species] of one file in time order, the file's name without its extension) -> the same shape,
float32 in [0, 1]. The input is not changed."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step"):
    """A kind of post-processing with its parameters; each kind is a subclass with a ``tag``.

    A new kind is a struct with these members and its place in :data:`birdinfer.postprocess.steps.AnyStep`.
    """

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """The least and the greatest value of each parameter that has bounds."""
    neutral: ClassVar[Mapping[str, float]] = {}
    """Values of parameters with which the step leaves every score as it is: any one of them is enough."""
    is_per_species: ClassVar[bool] = False
    """Whether a species' scores depend on no other species, nor on which others there are."""

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, allowed are {low:g} to {high:g}")

    @property
    def context_rows(self) -> int | None:
        """Rows before and behind a row that it depends on: 0, 1, 2 ...; None: the whole file."""
        raise NotImplementedError

    @property
    def is_neutral(self) -> bool:
        """Whether these parameters leave every value as it is."""
        return any(getattr(self, name) == value for name, value in self.neutral.items())

    def bind(self, species: Sequence[Species]) -> BoundStep:
        """Make the function for scores in these columns; ConfigError if the parameters do not fit the species."""
        raise NotImplementedError


class Pipeline:
    """Steps that run one after the other; may be shared by threads.

    >>> import numpy as np
    >>> from birdinfer.postprocess.steps import parse_steps
    >>> pipeline = Pipeline(parse_steps(["smooth:kernel=0.25/0.5/0.25", "file_max"]), [Species("a")])
    >>> pipeline.names, pipeline.context_rows
    (['smooth', 'file_max'], None)
    >>> pipeline(np.array([[0.0], [0.75], [0.0]], np.float32), "site_20260501_053000").tolist()
    [[0.09375], [0.140625], [0.09375]]
    """

    def __init__(self, steps: Sequence[Step], species: Sequence[Species]) -> None:
        """Bind the steps in the order in which they run; neutral ones are checked, too, and then left out."""
        bound = [(step, step.bind(species)) for step in steps]
        active = [(step, function) for step, function in bound if not step.is_neutral]
        self._functions = [function for _, function in active]
        self.names = [str(type(step).__struct_config__.tag) for step, _ in active]
        """Of the steps that change something, in order."""
        self.whole_file_steps = [
            name for name, (step, _) in zip(self.names, active, strict=True) if step.context_rows is None
        ]
        contexts = [step.context_rows for step, _ in active]
        known = [context for context in contexts if context is not None]
        self.context_rows = sum(known) if len(known) == len(contexts) else None
        """Rows before and behind a row that it depends on; None: the whole file."""

    def __call__(self, probabilities: Float32, file_id: str) -> Float32:
        """Run all steps on one file's [rows, species]; without steps or rows the input itself is returned."""
        if not len(probabilities):
            return probabilities
        for function in self._functions:
            probabilities = function(probabilities, file_id)
        return probabilities


StepType = TypeVar("StepType", bound=Step)


class TableStep(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step that reads a table when it is bound."""

    table: str
    """Path of a CSV; in a manifest, its name within the bundle's folder."""

    def known_columns(self, species: Sequence[Species], labels: Container[str]) -> list[int]:
        """Find the columns of the species that the table's labels include; ConfigError if there are none."""
        known = [column for column, one in enumerate(species) if one.label in labels]
        if not known:
            name = str(type(self).__struct_config__.tag)
            raise ConfigError(name, f"{self.table} knows none of the species", "its labels must be theirs")
        return known


def tables_of(steps: Iterable[Step]) -> list[Path]:
    """List the tables that steps read."""
    return [Path(step.table) for step in steps if isinstance(step, TableStep)]


def with_table_in(step: StepType, folder: Path) -> StepType:
    """Replace a table's name in a bundle by its path, if the step has one; BundleError if it leaves the folder."""
    if not isinstance(step, TableStep):
        return step
    if not _is_within(step.table, folder):
        raise BundleError(folder, f"table {step.table!r} of a step lies outside the bundle", "copy it into the folder")
    return msgspec.structs.replace(step, table=str((folder / step.table).resolve()))


def _is_within(table: str, folder: Path) -> bool:
    """Whether a name stays in a folder, with links followed; names with backslashes or NUL are refused."""
    name = PurePosixPath(table)
    if name.is_absolute() or ".." in name.parts or "\\" in table or "\0" in table:
        return False
    return (folder / name).resolve().is_relative_to(folder.resolve())


def copy_table_into(step: StepType, folder: Path) -> StepType:
    """Copy a step's table into a bundle, if it lies elsewhere, and return the step for the manifest.

    Raises InputNotFoundError if there is no such table, OutputError if it cannot be written.
    """
    if not isinstance(step, TableStep):
        return step
    table = Path(step.table)
    if _is_within(step.table, folder) and (folder / table).is_file():
        return step
    if not table.is_file():
        raise InputNotFoundError(table, "no such table", "name the table that the step is to read")
    name, content, n_before = table.name, table.read_bytes(), 0
    while (folder / name).exists() and (folder / name).read_bytes() != content:
        n_before += 1
        name = f"{table.stem}_{n_before}{table.suffix}"
    write_atomic(folder / name, content)
    return msgspec.structs.replace(step, table=name)
