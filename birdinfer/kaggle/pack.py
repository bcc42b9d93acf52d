"""Pack a submission: a bundle -> a data set to upload, and the notebook that runs it.

::

    OUT/dataset/  manifest.json, *.onnx, tables of steps, *.whl, dataset-metadata.json: flat
    OUT/kernel/   birdinfer.ipynb, birdinfer.py (the same cells), kernel-metadata.json
    OUT/sample_submission.csv   the competition's, if one was given: what a dry run asks for

In: a bundle, a competition, folders of wheels. OUT appears whole or not at all. Missing wheels are a value and not an
error: the rest is packed, and the result has the command that downloads them.
"""

import json
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec
from packaging.requirements import Requirement

from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, save_manifest
from birdinfer.inference.engines import parse_spec
from birdinfer.inference.manifest import Graph, Manifest, Precision, SequenceHead
from birdinfer.kaggle import wheels as wheel_sources
from birdinfer.kaggle.competitions import Competition, kaggle_image
from birdinfer.kaggle.notebook import NotebookSettings, cells, write_notebook, write_script
from birdinfer.kaggle.wheels import MissingWheel, Selection, Wheel, select
from birdinfer.postprocess.base import TableStep
from birdinfer.prediction.writer import SubmissionWriter
from birdinfer.submission.formats import read_sample
from birdinfer.system.files import atomic_folder, check_replaceable, write_atomic
from birdinfer.system.outputs import check_folder
from birdinfer.version import __version__

# ---- A flat bundle

NEVER_UPLOADED = frozenset(
    {"datapackage.json", *(f"dataset-cover-image.{suffix}" for suffix in ("png", "jpg", "jpeg", "webp"))}
    | {f"{kind}-metadata.json" for kind in ("dataset", "kernel", "model", "model-instance")}
)  # file names that Kaggle's client reserves for itself
_RESERVED = "has a name that Kaggle's client reserves for itself"
# Kaggle refuses "@" and "&" after the upload (kaggle-cli issues 430, 524) and documents neither them nor others; these
# are in its own data sets. A disk takes 255 bytes; no longest name is documented.
_NAME, _NO_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,149}"), re.compile(r"[^A-Za-z0-9.+-]+")
_REFUSED = "has a name that Kaggle may refuse: it takes letters, digits and . _ + - up to 150 characters"


def write_flat_bundle(bundle: Bundle, folder: Path) -> dict[str, str]:
    """Copy what a verified bundle needs into one flat folder; return the files that got another name, and that name."""
    names = packed_names(_files(bundle.manifest))
    for name, packed in names.items():
        shutil.copyfile(bundle.folder / name, folder / packed)
    save_manifest(folder, _flattened(bundle.manifest, names))
    Bundle.load(folder)
    return {name: packed for name, packed in names.items() if PurePosixPath(name).name != packed}


def left_behind(bundle: Bundle) -> list[str]:
    """List the files of the bundle's folder that are not packed, by their path in it."""
    packed = {MANIFEST_NAME, *_files(bundle.manifest)}
    there = (path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file())
    return sorted(set(there) - packed)


def not_uploaded(folder: Path) -> list[tuple[str, str]]:
    """List what Kaggle's client would not upload of a data set's folder, and why, except its metadata."""
    reasons = [(path.name, _why_skipped(path)) for path in sorted(folder.iterdir()) if path.name != DATASET_METADATA]
    return [(name, reason) for name, reason in reasons if reason]


def packed_names(files: Iterable[str]) -> dict[str, str]:
    """Give each file of a bundle a name that Kaggle takes, in one flat folder: its own, as far as that is possible.

    >>> packed_names(["int8/fold0.onnx", "fold0.onnx", "Hälfte & Ende.onnx"])
    {'int8/fold0.onnx': 'fold0.onnx', 'fold0.onnx': 'fold0-2.onnx', 'Hälfte & Ende.onnx': 'Halfte_Ende.onnx'}
    """
    names: dict[str, str] = {}
    # Two names that differ in case alone are one file on the disks of Windows and macOS.
    taken = {MANIFEST_NAME, *NEVER_UPLOADED}
    for file in dict.fromkeys(files):
        stem, suffix = (path := PurePosixPath(file)).stem, path.suffix
        if not _NAME.fullmatch(path.name):
            stem, suffix = (_NO_NAME.sub("_", _ascii(part)).strip("_") for part in (stem, suffix))
            stem, suffix = stem.lstrip(".")[:100] or "file", suffix[:20]
        free = (f"{stem}{number}{suffix}" for number in ("", *(f"-{one}" for one in range(2, len(taken) + 3))))
        names[file] = next(name for name in free if name.lower() not in taken)
        taken.add(names[file].lower())
    return names


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _why_skipped(path: Path) -> str:
    if path.is_dir():
        return "is a folder: Kaggle's client leaves folders out"
    if not path.is_file():
        return "is no file"
    if not _NAME.fullmatch(path.name):
        return _REFUSED
    return _RESERVED if path.name in NEVER_UPLOADED else ""


def _files(manifest: Manifest) -> Iterator[str]:
    for member in manifest.members:
        yield from (graph.file for graph in member.every_graph)
    yield from (step.table for step in manifest.post.steps if isinstance(step, TableStep))


def _flattened(manifest: Manifest, names: dict[str, str]) -> Manifest:
    replace = msgspec.structs.replace

    def moved(graphs: dict[Precision, Graph]) -> dict[Precision, Graph]:
        return {precision: replace(graph, file=names[graph.file]) for precision, graph in graphs.items()}

    def moved_head(head: SequenceHead | None) -> SequenceHead | None:
        return head and replace(head, graph=replace(head.graph, file=names[head.graph.file]))

    members = tuple(
        replace(member, graphs=moved(member.graphs), sequence=moved_head(member.sequence))
        for member in manifest.members
    )
    steps = tuple(
        replace(step, table=names[step.table]) if isinstance(step, TableStep) else step for step in manifest.post.steps
    )
    return replace(manifest, members=members, post=replace(manifest.post, steps=steps), for_other_hosts=())


# ---- Metadata for Kaggle's client

DATASET_METADATA = "dataset-metadata.json"
KERNEL_METADATA = "kernel-metadata.json"
NOTEBOOK = "birdinfer.ipynb"
SCRIPT = "birdinfer.py"
UNKNOWN_OWNER = "YOUR_NAME"  # stands for the account if none was given; such a submission cannot be pushed
_LENGTHS = range(6, 51)  # characters that Kaggle allows a data set's title and address
_NOTEBOOK_SUFFIX = " submission"
_OWNER = re.compile(r"[a-z0-9][a-z0-9-]*")
_REPACK = "pack again"


class Pages(NamedTuple):
    """The addresses of a submission on Kaggle."""

    dataset: str  # ``OWNER/SLUG``
    kernel: str  # ``OWNER/SLUG`` of the notebook
    competition: str  # its slug


def slug(title: str) -> str:
    """Spell a title as Kaggle does in an address.

    >>> slug("Bäume 2")
    'baume-2'
    """
    return re.sub(r"[^a-z0-9]+", "-", _ascii(title).lower()).strip("-")


def usual_title(name: str) -> str:
    """Make the title of a data set from the bundle's name, short enough for the notebook's title as well."""
    longest = _LENGTHS[-1] - len(_NOTEBOOK_SUFFIX)
    return slug(f"birdinfer {name}").replace("-", " ")[:longest].strip()


def check_page(owner: str, title: str) -> None:
    """Raise ConfigError for account names and titles that Kaggle would refuse: impossible, too short or too long."""
    if owner != UNKNOWN_OWNER and not _OWNER.fullmatch(owner):
        raise ConfigError("--owner", f"{owner!r} is no account's name", "give it as in kaggle.com/NAME, in lower case")
    limits = f"{_LENGTHS[0]} to {_LENGTHS[-1]} characters"
    for what, text in (("title", title), ("address", slug(title)), ("notebook's title", title + _NOTEBOOK_SUFFIX)):
        if len(text) not in _LENGTHS:
            raise ConfigError("--title", f"the {what} {text!r} has {len(text)} characters", f"Kaggle allows {limits}")


def write_dataset_metadata(folder: Path, owner: str, title: str) -> None:
    """Write the data set's metadata; the licence grants no rights, as the training data may not allow it."""
    facts = {"id": f"{owner}/{slug(title)}", "title": title, "licenses": [{"name": "other"}]}
    _write(folder / DATASET_METADATA, facts)


def write_kernel_metadata(folder: Path, owner: str, title: str, competition: Competition) -> None:
    """Write the notebook's metadata: private, no internet, no accelerator, data set and competition mounted."""
    name = title + _NOTEBOOK_SUFFIX
    facts = {
        "id": f"{owner}/{slug(name)}",
        "title": name,
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": False,
        "enable_tpu": False,
        "enable_internet": False,
        "keywords": [],
        "dataset_sources": [f"{owner}/{slug(title)}"],
        "competition_sources": [competition.slug],
        "kernel_sources": [],
        "model_sources": [],
    }
    _write(folder / KERNEL_METADATA, facts)


def read_pages(dataset: Path, kernel: Path) -> Pages:
    """Read the addresses of a packed submission from its metadata, which must name an account and mount its data."""
    data, notebook = _read(dataset / DATASET_METADATA), _read(kernel / KERNEL_METADATA)
    try:
        page = Pages(data["id"], notebook["id"], notebook["competition_sources"][0])
        mounted = notebook["dataset_sources"]
    except (KeyError, IndexError, TypeError) as error:
        raise ConfigError(kernel.parent, f"its metadata lack {error}", _REPACK) from error
    if any(each.partition("/")[0] == UNKNOWN_OWNER for each in page[:2]):
        raise ConfigError(kernel.parent, "was packed without an account", f"{_REPACK} with --owner NAME")
    if page.dataset not in mounted:
        raise ConfigError(kernel / KERNEL_METADATA, f"does not mount {page.dataset}", _REPACK)
    return page


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", "birdinfer kaggle pack makes it")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(path, f"is no JSON ({error})", _REPACK) from error
    if not isinstance(facts, dict):
        raise ConfigError(path, "holds no names and values", _REPACK)
    return facts


def _write(path: Path, facts: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(facts, indent=2) + "\n")


# ---- The whole submission

DATASET_LIMIT_BYTES = 20 * 10**9  # largest private data set that Kaggle accepts
SPARE_MINUTES = 5.0  # part of the competition's limit that the default budget leaves for the notebook's start and end
_EXTRAS = {"auto": ("cpu", "openvino"), "onnxruntime": ("cpu",), "openvino": ("openvino",)}  # of birdinfer, by engine
_OWN = "birdinfer"
_MARKER = f"dataset/{MANIFEST_NAME}"
SAMPLE = "sample_submission.csv"
MISSING_SPECIES = "--missing-species"
_KIND = "a packed submission"
_HINT = "choose another folder with --out"


@dataclass(frozen=True, kw_only=True, slots=True)
class PackSettings:
    """What :func:`pack` reads and makes."""

    bundle: Path  # folder of the bundle, which is verified
    out: Path  # the new folder; an older submission there is replaced, anything else never
    competition: Competition
    engine: str = "auto"  # as for ``birdinfer predict --engine``: its wheels are packed, and the notebook uses it
    budget_minutes: float | None = None  # for the whole notebook; None: SPARE_MINUTES below the competition's limit
    owner: str = UNKNOWN_OWNER  # the Kaggle account
    title: str = ""  # of the data set, 6 to 39 characters; "": made from the bundle's name
    options: tuple[str, ...] = ()  # further options of ``birdinfer predict``
    wheel_folders: tuple[Path, ...] = ()  # where to look for wheels
    download: bool = False  # whether pip may download those that are not there
    sample: Path | None = (
        None  # the competition's sample_submission.csv: its species are compared, and it is kept in out
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """What was packed."""

    dataset: Path
    kernel: Path
    files: list[tuple[str, int]]  # name and size in bytes of the data set's files, largest first
    missing_wheels: list[MissingWheel]  # without these birdinfer does not install on Kaggle
    wheels_command: str  # downloads them; "" if none is missing
    left_behind: list[str]  # files of the bundle's folder that its manifest does not need
    download_problem: str  # Pip's message if a download failed
    renamed: dict[str, str]  # files of the bundle that got a name that Kaggle takes, and that name
    lacking: str  # which species of the competition the bundle lacks; "" if none is known
    accepts_lacking: bool  # whether an option of predict says how to fill them

    @property
    def size_bytes(self) -> int:
        """Of the data set."""
        return sum(size for _, size in self.files)


def pack(settings: PackSettings) -> Packed:
    """Pack a submission.

    ::

        pack(PackSettings(bundle=Path("exports/x"), out=Path("submission/x"), competition=competition("birdclef-2026")))

    Raises:
        InputNotFoundError: there is no bundle, or no such folder of wheels.
        BundleError: it is damaged, or too large for Kaggle.
        ConfigError: title, owner, engine or budget cannot be used, or a wheel is damaged.
        MetadataError: the sample is damaged, of another year, or asks for none of the bundle's species.
        OutputError: birdinfer's wheel cannot be built, or ``out`` cannot be written or holds other things.
    """
    bundle, out = Bundle.load(settings.bundle), settings.out
    title = settings.title or usual_title(bundle.manifest.name)
    limit = settings.competition.minutes_limit
    notebook = NotebookSettings(
        competition=settings.competition,
        budget_minutes=limit - SPARE_MINUTES if settings.budget_minutes is None else settings.budget_minutes,
        engine=settings.engine,
        options=settings.options,
    )
    check_page(settings.owner, title)
    cells(notebook)  # refuses an impossible budget before wheels are downloaded
    lacking = lacking_species(bundle, settings.competition, settings.sample)
    read = [settings.bundle, *settings.wheel_folders, *([settings.sample] if settings.sample else [])]
    check_folder(out, read, hint=_HINT)
    check_replaceable(out, _KIND, _HINT, _MARKER)
    extras = _extras(settings.engine)
    with tempfile.TemporaryDirectory(prefix="birdinfer-wheels-") as scratch:
        selection, problem = _gather(extras, settings, Path(scratch))
        with atomic_folder(out, _KIND, _HINT, _MARKER) as staging:
            renamed = _write_dataset(staging / "dataset", bundle, selection.wheels)
            if settings.sample:
                shutil.copyfile(settings.sample, staging / SAMPLE)
            write_dataset_metadata(staging / "dataset", settings.owner, title)
            kernel = staging / "kernel"
            kernel.mkdir()
            write_notebook(kernel / NOTEBOOK, notebook)
            write_script(kernel / SCRIPT, notebook)
            write_kernel_metadata(kernel, settings.owner, title, settings.competition)
    dataset = out / "dataset"
    sizes = ((path.name, path.stat().st_size) for path in dataset.iterdir())
    missing = list(selection.missing)
    wanted = [each.requirement for each in missing]
    command = wheel_sources.as_typed(wheel_sources.download_command(wanted, Path("wheels"), kaggle_image()))
    return Packed(
        dataset=dataset,
        kernel=out / "kernel",
        files=sorted(sizes, key=lambda each: (-each[1], each[0])),
        missing_wheels=missing,
        wheels_command=command if missing else "",
        left_behind=left_behind(bundle),
        download_problem=problem,
        renamed=renamed,
        lacking=lacking,
        accepts_lacking=any(option.startswith(MISSING_SPECIES) for option in settings.options),
    )


def lacking_species(bundle: Bundle, competition: Competition, sample: Path | None) -> str:
    """Say which species of a competition a bundle lacks, in one line; "" if none is known. A sample names them.

    Raises:
        MetadataError: the sample is damaged, of another year, or asks for none of the bundle's species.
    """
    if sample is not None:
        manifest = bundle.manifest
        writer = SubmissionWriter(
            bundle.labels, manifest.fallback_probabilities, manifest.rows, year=competition.year,
            sample=read_sample(sample), missing_species="prior",
        )  # fmt: skip
        of_them = f"{len(writer.missing)} of its species are not in the bundle: {writer.missing_text()}"
        return f"{sample}: {of_them}" if writer.missing else ""
    known, asked = len(bundle.labels), competition.n_species
    if known >= asked:
        return ""
    return (
        f"the bundle knows {known} species, {competition.slug} asks for {asked}: {asked - known} would hold a constant"
    )


def _extras(engine: str) -> tuple[str, ...]:
    name = engine if engine == "auto" else parse_spec(engine).engine
    if name not in _EXTRAS:
        what = f"{engine} needs a GPU, submissions run without"
        raise ConfigError("--engine", what, "choose auto, onnxruntime, openvino")
    return _EXTRAS[name]


def _gather(extras: Sequence[str], settings: PackSettings, scratch: Path) -> tuple[Selection, str]:
    image, own = kaggle_image(), Requirement(f"{_OWN}[{','.join(extras)}]=={__version__}")
    available = wheel_sources.wheels_in(settings.wheel_folders)
    selection, root = select([own], available, image), wheel_sources.checkout()
    if root is not None and _OWN not in {wheel.name for wheel in selection.wheels}:
        available.append(wheel_sources.build(root, scratch / "own", image))
        selection = select([own], available, image)
    return _completed(selection, own, available, scratch / "fetched") if settings.download else (selection, "")


def _completed(selection: Selection, own: Requirement, available: list[Wheel], into: Path) -> tuple[Selection, str]:
    into.mkdir()
    problem, asked = "", set[str]()
    # Downloaded wheels may require more: pip runs again until nothing new is missing.
    while not problem and (wanted := sorted({each.requirement for each in selection.missing} - asked)):
        asked.update(wanted)
        problem = wheel_sources.download(wanted, into, kaggle_image())
        selection = select([own], [*available, *wheel_sources.wheels_in([into])], kaggle_image())
    return selection, problem


def _write_dataset(folder: Path, bundle: Bundle, wheels: Sequence[Wheel]) -> dict[str, str]:
    folder.mkdir()
    renamed = write_flat_bundle(bundle, folder)
    for wheel in wheels:
        shutil.copyfile(wheel.path, folder / wheel.path.name)
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    if size_bytes > DATASET_LIMIT_BYTES:
        hint = f"Kaggle takes {DATASET_LIMIT_BYTES / 1e9:g} GB: leave members out"
        raise BundleError(bundle.folder, f"makes a data set of {size_bytes / 1e9:.1f} GB", hint)
    return renamed
