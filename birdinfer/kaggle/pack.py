"""A bundle -> all that a submission needs: a data set to upload, and the notebook that runs it.

::

    OUT/dataset/  manifest.json, *.onnx, tables of steps, *.whl, dataset-metadata.json: flat
    OUT/kernel/   birdinfer.ipynb, birdinfer.py (the same cells), kernel-metadata.json

Comes in: a bundle, a competition, folders of wheels. OUT appears whole or not at all. Wheels that are not to be had
are a value and no error: the rest is there to look at, and beside them stands the command that gets them.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

import birdinfer
from birdinfer.bundle import MANIFEST_NAME, Bundle
from birdinfer.engines import parse_spec
from birdinfer.errors import BundleError, ConfigError
from birdinfer.files import atomic_folder, check_replaceable
from birdinfer.kaggle import wheel_sources
from birdinfer.kaggle.competitions import Competition
from birdinfer.kaggle.flat_bundle import left_behind, write_flat_bundle
from birdinfer.kaggle.image import kaggle_image
from birdinfer.kaggle.metadata import (
    NOTEBOOK,
    SCRIPT,
    UNKNOWN_OWNER,
    check_page,
    usual_title,
    write_dataset_metadata,
    write_kernel_metadata,
)
from birdinfer.kaggle.notebook import NotebookSettings, cells, write_notebook, write_script
from birdinfer.kaggle.wheels import MissingWheel, Selection, Wheel, select

DATASET_LIMIT_BYTES = 20 * 10**9
"""What Kaggle takes as a private data set."""
SPARE_MINUTES = 5.0
"""Of the competition's limit, left for the notebook's start and end where no budget is given."""
_EXTRAS = {"auto": ("cpu", "openvino"), "onnxruntime": ("cpu",), "openvino": ("openvino",)}
"""Engine -> extras of birdinfer that bring it."""
_OWN = "birdinfer"
_MARKER = f"dataset/{MANIFEST_NAME}"
_KIND = "a packed submission"
_REMEDY = "choose another folder with --out"


class PackSettings(NamedTuple):
    """What a submission is to be."""

    competition: Competition
    engine: str = "auto"
    """As ``birdinfer predict --engine`` takes it: its wheels are packed, and the notebook asks for it."""
    budget_minutes: float | None = None
    """Of the whole notebook; :data:`SPARE_MINUTES` less than the competition's limit if None."""
    owner: str = UNKNOWN_OWNER
    """The Kaggle account."""
    title: str = ""
    """Of the data set, 6 to 39 characters; from the bundle's name if empty."""
    options: tuple[str, ...] = ()
    """Further options of ``birdinfer predict``."""
    wheel_folders: tuple[Path, ...] = ()
    """Where to look for wheels."""
    download: bool = False
    """Whether pip may fetch those that are not there."""


class Packed(NamedTuple):
    """What was packed."""

    dataset: Path
    kernel: Path
    files: list[tuple[str, int]]
    """Name and size in bytes of all that the data set holds, largest first."""
    missing_wheels: list[MissingWheel]
    """Without these birdinfer does not install on Kaggle."""
    wheels_command: str
    """What gets them; "" where none is missing."""
    left_behind: list[str]
    """Files of the bundle's folder that its manifest does not need."""
    download_problem: str
    """What pip said where a download failed."""

    @property
    def size_bytes(self) -> int:
        """Of the data set."""
        return sum(size for _, size in self.files)


def pack(bundle_folder: Path, out: Path, settings: PackSettings) -> Packed:
    """Pack a submission.

    Args:
        bundle_folder: a bundle, which is verified.
        out: where to; an older submission there is replaced, anything else never.
        settings: what it is to be.

    Raises:
        InputNotFoundError: there is no bundle, or no such folder of wheels.
        BundleError: it is damaged, or cannot be flat, or is too large for Kaggle.
        ConfigError: title, owner, engine or budget cannot be used, or a wheel is damaged.
        OutputError: birdinfer's wheel cannot be built, or ``out`` cannot be written or holds other things.
    """
    bundle = Bundle.load(bundle_folder)
    title = settings.title or usual_title(bundle.manifest.name)
    notebook = _notebook(settings)
    check_page(settings.owner, title)
    cells(notebook)  # a budget that cannot be is refused before wheels are fetched
    check_replaceable(out, _KIND, _REMEDY, _MARKER)
    extras = _extras(settings.engine)
    with tempfile.TemporaryDirectory(prefix="birdinfer-wheels-") as scratch:
        selection, problem = _gather(extras, settings, Path(scratch))
        with atomic_folder(out, _KIND, _REMEDY, _MARKER) as staging:
            _write_dataset(staging / "dataset", bundle, selection.wheels, settings.owner, title)
            _write_kernel(staging / "kernel", notebook, settings.owner, title)
    dataset = out / "dataset"
    files = sorted(
        ((path.name, path.stat().st_size) for path in dataset.iterdir()), key=lambda each: (-each[1], each[0])
    )
    missing = list(selection.missing)
    return Packed(dataset, out / "kernel", files, missing, _command(missing), left_behind(bundle), problem)


def _notebook(settings: PackSettings) -> NotebookSettings:
    limit = settings.competition.minutes_limit
    minutes = settings.budget_minutes if settings.budget_minutes is not None else limit - SPARE_MINUTES
    return NotebookSettings(settings.competition, minutes, settings.engine, settings.options)


def _extras(engine: str) -> tuple[str, ...]:
    """Extras of birdinfer that bring an engine."""
    name = engine if engine == "auto" else parse_spec(engine).engine
    if name not in _EXTRAS:
        raise ConfigError(
            "--engine", f"{engine} needs a GPU, submissions run without", "choose auto, onnxruntime, openvino"
        )
    return _EXTRAS[name]


def _gather(extras: Sequence[str], settings: PackSettings, scratch: Path) -> tuple[Selection, str]:
    """The wheels of a submission, built and downloaded into a folder where need be; and what pip complained of."""
    image, own = kaggle_image(), Requirement(f"{_OWN}[{','.join(extras)}]=={birdinfer.__version__}")
    available = wheel_sources.wheels_in(settings.wheel_folders)
    selection, root = select([own], available, image), wheel_sources.checkout()
    if root is not None and _OWN not in {wheel.name for wheel in selection.wheels}:
        available.append(wheel_sources.build(root, scratch / "own", image))
        selection = select([own], available, image)
    return _completed(selection, own, available, scratch / "fetched") if settings.download else (selection, "")


def _completed(selection: Selection, own: Requirement, available: list[Wheel], into: Path) -> tuple[Selection, str]:
    """A selection with what pip can fetch of its missing wheels, and what pip said where it failed."""
    into.mkdir()
    problem, asked = "", set[str]()
    # What has come may need more in turn: pip is asked again until nothing new is wanted.
    while not problem and (wanted := sorted({each.requirement for each in selection.missing} - asked)):
        asked.update(wanted)
        problem = wheel_sources.download(wanted, into, kaggle_image())
        selection = select([own], [*available, *wheel_sources.wheels_in([into])], kaggle_image())
    return selection, problem


def _write_dataset(folder: Path, bundle: Bundle, wheels: Sequence[Wheel], owner: str, title: str) -> None:
    folder.mkdir()
    write_flat_bundle(bundle, folder)
    for wheel in wheels:
        shutil.copyfile(wheel.path, folder / wheel.path.name)
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    if size_bytes > DATASET_LIMIT_BYTES:
        limit = f"Kaggle takes {DATASET_LIMIT_BYTES / 1e9:g} GB"
        raise BundleError(
            bundle.folder, f"makes a data set of {size_bytes / 1e9:.1f} GB", f"{limit}: leave members out"
        )
    write_dataset_metadata(folder, owner, title)


def _write_kernel(folder: Path, notebook: NotebookSettings, owner: str, title: str) -> None:
    folder.mkdir()
    write_notebook(folder / NOTEBOOK, notebook)
    write_script(folder / SCRIPT, notebook)
    write_kernel_metadata(folder, owner, title, notebook.competition)


def _command(missing: Sequence[MissingWheel]) -> str:
    if not missing:
        return ""
    requirements = [each.requirement for each in missing]
    return wheel_sources.shown(wheel_sources.download_command(requirements, Path("wheels"), kaggle_image()))
