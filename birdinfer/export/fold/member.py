"""Fold the front end of a bundle's member, if its scores stay the same and it becomes faster: ``bundle adopt``.

In: a bundle, and the name of a member that takes the waveform. Out: the bundle with the folded graph in the place of
the given one, whose sha256 stays in the manifest; or unchanged, with the reason.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir

from birdinfer.errors import BundleError
from birdinfer.export.fold.rewrite import fold_graph
from birdinfer.inference.bundle import Bundle, file_sha256, sharing, store_settings
from birdinfer.inference.engines import EnginePlan, load_engine
from birdinfer.inference.engines.benchmark import compare_speed
from birdinfer.inference.external.onnx_probe import probe_windows, scores_of
from birdinfer.inference.manifest import Member
from birdinfer.system.files import write_atomic
from birdinfer.typing import Float32

MAX_DIFFERENCE = 1e-4
"""Of a probability for silence, noise, tones and a sweep; of an embedding, relative to its largest number."""
LEAST_GAIN = 1.02
"""Times as fast; less is within what two measurements differ."""
_ROUNDS, _SECONDS = 5, 0.3

Speeds = Callable[[Path, Path, tuple[str, ...], Float32], tuple[float, float]]
"""Windows per second of two graphs that return some outputs."""


class FoldResult(NamedTuple):
    """What became of a member's front end."""

    is_kept: bool
    line: str
    """"" where there is nothing to fold."""


def fold_member(
    folder: Path, name: str, on_wait: Callable[[str], None] = lambda line: None, speeds: Speeds | None = None
) -> FoldResult:
    """Fold a member's graph, and keep it if scores agree and it is faster.

    Args:
        folder: the bundle's.
        name: of a member whose graph is its own.
        on_wait: is called with a line while another process changes the bundle.
        speeds: measures both graphs; in turns on this machine if None.

    Raises:
        BundleError: the graph cannot be read.
        OutputError: the folder cannot be written to.
    """
    bundle = Bundle.load(folder)
    member = next(each for each in bundle.manifest.members if each.name == name)
    if member.waveform is None or [member] not in sharing(bundle.manifest.members):
        return FoldResult(False, "")
    path = bundle.graph_path(member.graphs["fp32"])
    folded = fold_graph(path, member.waveform.window_samples)
    if folded is None:
        return FoldResult(False, "")
    with tempfile.TemporaryDirectory(prefix="birdinfer-") as temporary:
        new = Path(temporary) / "folded.onnx"
        ir.save(folded.model, new)
        try:
            difference = _difference(member, path, new)
        except BundleError as error:
            return FoldResult(False, f"front end: left as it is, for folded it {error.what}")
        if not difference <= MAX_DIFFERENCE:
            return FoldResult(False, f"front end: left as it is, for folded it differs by {difference:.1e}")
        before, after = (speeds or _speeds)(path, new, _output_names(member), _windows(member)[:2])
        times = f"{after / before:.2f} times as fast"
        if after < LEAST_GAIN * before:
            return FoldResult(False, f"front end: left as it is, folded into {folded} it is {times}")
        _replace(folder, member, new.read_bytes(), on_wait)
    return FoldResult(True, f"front end: folded into {folded}, {times}, largest difference {difference:.1e}")


def _windows(member: Member) -> Float32:
    assert member.waveform is not None
    windows = probe_windows(member.waveform)
    return windows[:, np.newaxis] if member.waveform.has_channel_axis else windows


def _output_names(member: Member) -> tuple[str, ...]:
    outputs = member.outputs
    return tuple(each for each in (outputs.clip, outputs.frames, outputs.embedding) if each is not None)


def _difference(member: Member, old: Path, new: Path) -> float:
    """The largest difference of a probability or, relative to its largest number, an embedding; inf for NaN."""
    windows, names = _windows(member), _output_names(member)
    found = []
    for path in (old, new):
        engine = load_engine(EnginePlan(), path, names, windows.shape[1:])
        try:
            found.append(engine.run(windows))
        except Exception as error:  # onnxruntime's own exception classes share no base but Exception
            raise BundleError(path, f"cannot be computed ({error})") from error
    differences = []
    for name in names:
        one, other = (each[name] for each in found)
        if name != member.outputs.embedding:
            one, other = scores_of(one, member.outputs), scores_of(other, member.outputs)
        scale = max(1.0, float(np.abs(one).max()))
        differences.append(float(np.abs(one - other).max()) / scale if one.shape == other.shape else np.inf)
    return float(np.nan_to_num(max(differences), nan=np.inf))


def _speeds(old: Path, new: Path, outputs: tuple[str, ...], windows: Float32) -> tuple[float, float]:
    plan = EnginePlan()
    before, after = compare_speed([(old, plan), (new, plan)], outputs, windows, _ROUNDS, _SECONDS)
    return before, after


def _replace(folder: Path, member: Member, content: bytes, on_wait: Callable[[str], None]) -> None:
    """Put a folded graph in the place of a member's, as long as the bundle still has that one."""
    given = member.graphs["fp32"]
    file = f"{Path(given.file).stem}-folded.onnx"

    def change(bundle: Bundle) -> Bundle:
        if member not in bundle.manifest.members:
            raise BundleError(folder, f"member {member.name!r} was changed meanwhile", "adopt it again")
        write_atomic(folder / file, content)
        sha256 = file_sha256(folder / file)
        graph = msgspec.structs.replace(given, file=file, sha256=sha256, original_sha256=given.sha256)
        changed = msgspec.structs.replace(member, graphs={**member.graphs, "fp32": graph})
        members = tuple(changed if each == member else each for each in bundle.manifest.members)
        return Bundle(folder, msgspec.structs.replace(bundle.manifest, members=members))

    store_settings(folder, change, on_wait)
    (folder / given.file).unlink(missing_ok=True)
