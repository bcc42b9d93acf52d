"""What would fail of a packed submission, found by looking at it: a folder -> lines, each what is wrong and what to do.

Nothing is run here. What only a run shows is said by :mod:`birdinfer.kaggle.run_faults`.
"""

import json
from pathlib import Path
from typing import NamedTuple

from birdinfer.bundle import Bundle
from birdinfer.errors import BirdinferError, ConfigError, InputNotFoundError
from birdinfer.kaggle.competitions import Competition, competition
from birdinfer.kaggle.flat_bundle import not_uploaded
from birdinfer.kaggle.image import kaggle_image
from birdinfer.kaggle.metadata import KERNEL_METADATA
from birdinfer.kaggle.wheels import foreign_wheels

_REPACK = "birdinfer kaggle pack makes it"


class PackedSubmission(NamedTuple):
    """What lies in a packed folder."""

    dataset: Path
    notebook: Path
    competition: Competition
    has_internet: bool
    """Whether the notebook asks for it."""


def read_packed(folder: Path) -> PackedSubmission:
    """Find the parts of a packed submission.

    Raises:
        InputNotFoundError: it is none.
        ConfigError: its metadata are damaged, or name no competition that is known.
    """
    dataset, metadata = folder / "dataset", folder / "kernel" / KERNEL_METADATA
    if not dataset.is_dir() or not metadata.is_file():
        lacks = f"is no packed submission (it lacks dataset/ or kernel/{KERNEL_METADATA})"
        raise InputNotFoundError(folder, lacks, _REPACK)
    try:
        facts = json.loads(metadata.read_text(encoding="utf-8"))
        slug, code_file = facts["competition_sources"][0], facts["code_file"]
        has_internet = bool(facts.get("enable_internet"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(metadata, f"is damaged ({type(error).__name__}: {error})", "pack again") from error
    return PackedSubmission(dataset, metadata.parent / str(code_file), competition(str(slug)), has_internet)


def packed_faults(packed: PackedSubmission) -> list[str]:
    """All that would fail on Kaggle as the folder lies there."""
    faults = [
        f"nested: dataset/{name} {why} - put its files beside the others" for name, why in not_uploaded(packed.dataset)
    ]
    faults += _wheel_faults(packed.dataset)
    try:
        Bundle.load(packed.dataset)
    except BirdinferError as error:
        faults.append(f"the bundle: {error}")
    if packed.has_internet:
        faults.append(
            f"the internet: {KERNEL_METADATA} asks for it, and such a notebook cannot be submitted - set "
            "enable_internet to false"
        )
    return faults


def _wheel_faults(dataset: Path) -> list[str]:
    try:
        foreign = foreign_wheels(dataset, kaggle_image())
    except ConfigError as error:
        return [f"a wheel: {error}"]
    return [f"a wheel: {path.name} {reason} - pack again, or replace it" for path, reason in foreign]
