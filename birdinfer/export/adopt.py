"""An external model -> a bundle's member: ``birdinfer bundle adopt``.

In: an ONNX graph or a TensorFlow Lite model, and what is to be done to it. Out: the member, of a graph that takes what
members take, with its front end folded (:mod:`birdinfer.export.fold`) if that makes it faster.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from birdinfer.errors import BirdinferError, MissingExtraError
from birdinfer.export.tflite.model import is_tflite
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.external.add_model import AddedModel, AddOptions, add_model
from birdinfer.inference.external.known_models import KnownModel
from birdinfer.inference.onnx_files import external_files, other_kind


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphChanges:
    """What is done to a graph before and after it becomes a member."""

    fold: bool = True
    """Fold its front end, if scores agree and it is faster."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Values of inputs beside the sound, by name: ``{"training": "false"}``."""
    head: Path | None = None
    """A graph that scores its embedding; it is put behind it."""


def adopt_model(
    model: Path,
    labels: Path | None,
    bundle_folder: Path,
    options: AddOptions,
    changes: GraphChanges = GraphChanges(),
    *,
    expected: KnownModel | None = None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> AddedModel:
    """Add an external model to a bundle as a member; arguments and errors as of :func:`add_model`.

    ``model``: an ONNX graph, or a TensorFlow Lite model.
    ``changes``: to its graph.

    Raises:
        MissingExtraError: it has to be converted or changed, and a package for that is not installed.
    """
    with as_onnx(model) as graph, _changed(graph, changes) as (changed, lines):
        try:
            added = add_model(changed, labels, bundle_folder, options, expected=expected, on_wait=on_wait)
        except BirdinferError as error:
            if changed == model or error.where != str(changed):
                raise
            raise type(error)(model, error.what, error.hint) from error  # not the temporary file
    added = replace(added, notes=(*lines, *added.notes))
    return _folded(added, on_wait) if changes.fold and added.member.waveform is not None else added


@contextlib.contextmanager
def _changed(graph: Path, changes: GraphChanges) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield a graph with plain inputs, and its head, for the block; and what was changed."""
    if not graph.is_file() or other_kind(graph) or external_files(graph):
        yield graph, ()  # where it is opened it is refused
        return
    try:
        from birdinfer.export.external.change import change_graph  # not at the top: a plain graph needs no extra
    except ModuleNotFoundError as error:
        if changes.head or changes.inputs:
            raise MissingExtraError(error.name or "onnx", "export") from error
        yield graph, ()
        return
    with tempfile.TemporaryDirectory(prefix="birdinfer-") as folder:
        new = Path(folder) / graph.name
        with contextlib.ExitStack() as stack:
            head = stack.enter_context(as_onnx(changes.head)) if changes.head else None
            lines = change_graph(graph, new, changes.inputs, head)
        yield (new if new.is_file() else graph), tuple(lines)


def _folded(added: AddedModel, on_wait: Callable[[str], None]) -> AddedModel:
    try:
        from birdinfer.export.fold.member import fold_member  # not at the top: an ONNX graph needs no extra
    except ModuleNotFoundError:
        line = "front end: left as it is; to fold it, pip install 'birdinfer[export]'"
        return replace(added, notes=(*added.notes, line))
    result = fold_member(added.folder, added.member.name, on_wait)
    members = Bundle.load(added.folder).manifest.members if result.is_kept else (added.member,)
    member = next(each for each in members if each.name == added.member.name)
    return replace(added, member=member, notes=(*added.notes, *filter(None, [result.line])))


@contextlib.contextmanager
def as_onnx(model: Path) -> Iterator[Path]:
    """Yield a model's graph: the file itself, or of a TensorFlow Lite model what it is converted to, for the block.

    Raises:
        BundleError: it is a TensorFlow Lite model that cannot be converted.
        MissingExtraError: it is one, and tflite or onnx is not installed.
    """
    if not model.is_file() or not is_tflite(model):
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="birdinfer-") as folder:
        graph = Path(folder) / f"{model.stem}.onnx"
        convert(model, graph)
        yield graph


def convert(model: Path, graph: Path) -> None:
    """Write a TensorFlow Lite model as an ONNX graph."""
    try:
        from birdinfer.export.tflite.convert import convert_tflite  # not at the top: an ONNX graph needs no extra
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "tflite") from error
    convert_tflite(model, graph)
