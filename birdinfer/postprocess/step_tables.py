"""Steps whose numbers stand in a table beside the bundle: where the table is, told by the step and by nobody else.

In: a step as a manifest or a command line spells it. On a command line a relative path is seen from where the command
runs, and the step is bound as it is. In a manifest it lies within the bundle's folder: :func:`resolved` comes first.
"""

from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from birdinfer.errors import BundleError, InputNotFoundError
from birdinfer.files import write_atomic
from birdinfer.postprocess.step import Step

AnyOne = TypeVar("AnyOne", bound=Step)


class TableStep(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step that reads a table when it is bound."""

    table: str
    """Path of a CSV; in a manifest, its name within the bundle's folder."""


def resolved(step: AnyOne, folder: Path) -> AnyOne:
    """A bundle's step, made to find its table wherever it is bound; a step without a table as it is.

    Args:
        step: as the manifest has it.
        folder: the bundle's.

    Raises:
        BundleError: the table's name leaves the folder.
    """
    if not isinstance(step, TableStep):
        return step
    if not _is_within(step.table, folder):
        raise BundleError(folder, f"table {step.table!r} of a step lies outside the bundle", "copy it into the folder")
    return msgspec.structs.replace(step, table=str((folder / step.table).resolve()))


def _is_within(table: str, folder: Path) -> bool:
    """Whether a name stays in a folder, links followed; backslashes and NUL are no part of an honest one."""
    name = PurePosixPath(table)
    if name.is_absolute() or ".." in name.parts or "\\" in table or "\0" in table:
        return False
    return (folder / name).resolve().is_relative_to(folder.resolve())


def bring_in(step: AnyOne, folder: Path) -> AnyOne:
    """A step for the manifest of a bundle: its table is copied into the bundle, and named as it lies there.

    Args:
        step: as a command line or a recipe has it; one whose table lies in the bundle already stays as it is.
        folder: the bundle's.

    Raises:
        InputNotFoundError: there is no such table.
        OutputError: it cannot be written there.
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
