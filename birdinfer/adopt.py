"""A foreign ONNX graph that takes the waveform (Perch v2 and BirdNET 3.0 travel so) becomes a member of a bundle.

In: the graph, the list of its labels, and a bundle's folder, which is made if it is not there. Out: the graph in that
folder and an entry in its manifest. Nothing of the foreign model is trusted: it is asked what it takes and gives
(:mod:`birdinfer.foreign`), its labels are matched by name (:mod:`birdinfer.tables.label_lists`), and the whole bundle
predicts once with it before the manifest is written. Killed or refused at any moment, the old bundle stays as it was.
"""

import contextlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile

import birdinfer
from birdinfer.bundle import MANIFEST_NAME, Bundle, file_sha256, overlapping, save_manifest
from birdinfer.config import PostConfig, TimelineConfig, WaveformConfig, WindowConfig
from birdinfer.engines.onnxruntime import open_session
from birdinfer.errors import BirdinferError, BundleError, ConfigError
from birdinfer.files import atomic_file, atomic_folder, check_replaceable, write_atomic
from birdinfer.foreign import (
    N_QUIET,
    ForeignGraph,
    ask,
    check_company,
    choose_outputs,
    hearing_of,
    measure_activation,
    open_foreign,
    probe_windows,
)
from birdinfer.labels import Species
from birdinfer.manifest import FORMAT, Graph, Manifest, Member, Outputs, Provenance
from birdinfer.predictor import Predictor
from birdinfer.scores import activate
from birdinfer.tables.label_lists import ListedLabel, Match, match_labels, read_label_list, species_of
from birdinfer.windows import place

Float32 = npt.NDArray[np.float32]

FRAME_SHARE = 0.25
"""Of the frame-wise score where a graph gives both: the first place of BirdCLEF 2023 took 0.75 clip, 0.25 frame max."""
ROWS = WindowConfig()
"""Of a new bundle: 5 s, as all competitions since 2021 have them."""
_FALLBACK_NOTE = "rows of files that cannot be read are filled with what it says of silence and faint noise"
_ELSEWHERE = "choose another place: --bundle"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class Adopted:
    """A foreign graph that is a member now."""

    folder: Path
    """The bundle's."""
    member: Member
    is_new_bundle: bool
    n_labels: int
    """Of the bundle."""
    matches: Mapping[str, Match]
    """Which labels of the bundle it knows, and by which rule."""
    unknown_labels: tuple[str, ...]
    """Labels of the bundle that it does not know."""
    n_foreign: int
    """Columns of the graph that no label of the bundle asks for."""
    notes: tuple[str, ...]
    """What was measured or decided, a line each."""

    @property
    def rules(self) -> dict[str, int]:
        """Rule -> how many labels were matched by it."""
        return dict(Counter(match.rule for match in self.matches.values()))


def adopt(
    graph: Path,
    labels: Path,
    bundle_folder: Path,
    *,
    name: str | None = None,
    sample_rate: int | None = None,
    window_seconds: float | None = None,
    overlap_seconds: float | None = None,
    peak: float | None = None,
    output: str | None = None,
    frames: str | None = None,
    activation: Literal["auto", "sigmoid", "softmax", "none"] = "auto",
    weight: float = 1.0,
    replace: bool = False,
) -> Adopted:
    """Make a foreign graph a member of a bundle.

    Args:
        graph: the ONNX file, which takes [batch, samples] or [batch, 1, samples] as float32.
        labels: the list of its labels, in the order of its columns.
        bundle_folder: the bundle; a new one of this member alone is made if it is not there.
        name: the member's; the file's if None.
        sample_rate: Hz; as the graph's metadata or its length say if None.
        window_seconds: likewise.
        overlap_seconds: what neighbouring windows share; as :class:`birdinfer.config.TimelineConfig` has it if None.
        peak: scale each window, freed of its mean, to this largest magnitude (perch-hoplite feeds Perch with 0.25).
        output: name of the output [batch, labels]; the only one of that shape if None.
        frames: name of an output [batch, frames, labels] to use, too.
        activation: what makes probabilities of the outputs; measured if ``auto``.
        weight: its say in the weighted mean.
        replace: a member of this name gives way.

    Raises:
        InputNotFoundError: the graph or the list is not there.
        ConfigError: an option does not fit the graph or the bundle.
        LabelError: the list is not one, a name in it is ambiguous, or none is a label of the bundle.
        BundleError: the graph takes or gives something else, or the bundle does not predict with it.
        OutputError: the folder cannot be written to, or holds other things than a bundle.
        MissingExtraError: onnxruntime is not installed.
    """
    old = _manifest_there(bundle_folder)
    name = _member_name(name, graph)
    _check_fits(old, name, weight, replace=replace)
    listed = read_label_list(labels)
    species = old.species if old else species_of(listed)
    matches = match_labels(species, listed, labels)
    foreign = open_foreign(graph)
    found = _look_at(foreign, len(listed), sample_rate, window_seconds, output, frames, activation)
    if peak is not None:
        found = found._replace(hearing=_with_peak(found.hearing, peak))
    timeline = _timeline(found, overlap_seconds, old.rows if old else ROWS)
    with _folder_to_write(bundle_folder, old) as folder, _copied(graph, folder, name) as copy:
        member = Member(
            name=name,
            graphs={"fp32": Graph(copy.name, file_sha256(copy))},
            waveform=found.hearing,
            outputs=found.outputs,
            timeline=timeline,
            label_columns=_label_columns(species, listed, matches),
            weight=weight,
            backbone=graph.stem,
        )
        manifest = _with_member(old, member) if old else _new_manifest(bundle_folder, species, member, found, labels)
        _try_out(Bundle(folder, manifest), copy, graph)
        _write_manifest(folder, manifest)
    if old:
        _remove_unused_graphs(bundle_folder, old, manifest)
    return Adopted(
        bundle_folder,
        member,
        old is None,
        len(species),
        matches,
        tuple(each.label for each in species if each.label not in matches),
        len(listed) - len(matches),
        found.notes if old else (*found.notes, _FALLBACK_NOTE),
    )


class _Found(NamedTuple):
    """What a foreign graph was found to be."""

    hearing: WaveformConfig
    outputs: Outputs
    quiet: Float32
    """[windows, labels]: probabilities in windows in which nothing calls."""
    notes: tuple[str, ...]


def _look_at(
    foreign: ForeignGraph,
    n_labels: int,
    sample_rate: int | None,
    window_seconds: float | None,
    output: str | None,
    frames: str | None,
    activation: Literal["auto", "sigmoid", "softmax", "none"],
) -> _Found:
    """Ask a graph all that its manifest's entry must say; arguments as of :func:`adopt`."""
    hearing = hearing_of(foreign, sample_rate, window_seconds)
    answers = ask(foreign, probe_windows(hearing))
    clip, frames = choose_outputs(foreign, answers, n_labels, output, frames)
    used = [answers.alone[each] for each in (clip, frames) if each is not None]
    measured = measure_activation(foreign.path, used, activation)
    outputs = Outputs(clip, frames, measured.activation)
    check_company(foreign.path, answers, outputs)
    quiet = activate(used[0][:N_QUIET], measured.activation)
    return _Found(hearing, outputs, quiet if quiet.ndim == 2 else quiet.mean(axis=1), (measured.reason,))


def _with_peak(hearing: WaveformConfig, peak: float) -> WaveformConfig:
    try:
        return msgspec.structs.replace(hearing, peak=peak)
    except ValueError as error:
        raise ConfigError("--peak", str(error)) from error


def _manifest_there(folder: Path) -> Manifest | None:
    """That of the bundle in a folder; None where one can be made."""
    if (folder / MANIFEST_NAME).is_file():
        return Bundle.load(folder).manifest
    check_replaceable(folder, "a bundle", _ELSEWHERE)
    return None


def _member_name(name: str | None, graph: Path) -> str:
    """The member's name, which is also that of its file."""
    if name is None:
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", graph.stem).lstrip("._+-") or "adopted"
    if not _NAME.fullmatch(name):
        raise ConfigError("--name", f"{name!r} cannot name a file", "take letters, digits and . _ + - only")
    return name


def _check_fits(old: Manifest | None, name: str, weight: float, *, replace: bool) -> None:
    """Refuse a name that is taken and a weight that cannot be one."""
    members = old.members if old else ()
    if not replace and any(member.name == name for member in members):
        raise ConfigError("--name", f"there is a member {name!r} already", "choose another name, or say --replace")
    others = sum(member.weight for member in members if member.name != name)
    if not 0 <= weight < float("inf") or others + weight == 0:
        raise ConfigError("--weight", f"{weight:g} cannot be a weight here", "take a number above 0")


def _timeline(found: _Found, overlap_seconds: float | None, rows: WindowConfig) -> TimelineConfig:
    """Where its windows lie; refused where they would leave gaps on the bundle's rows."""
    frame_share = 0.0 if found.outputs.frames is None else 1.0 if found.outputs.clip is None else FRAME_SHARE
    timeline = TimelineConfig(frame_share=frame_share)
    if overlap_seconds is not None:
        window_seconds = found.hearing.window.window_seconds
        timeline = overlapping(timeline, overlap_seconds, window_seconds, "the graph's windows")
    place(found.hearing, timeline, rows)
    return timeline


def _label_columns(
    species: Sequence[Species], listed: Sequence[ListedLabel], matches: Mapping[str, Match]
) -> dict[str, int] | None:
    """Label of the bundle -> column; None where they are the same."""
    columns = {label: match.column for label, match in matches.items()}
    is_same = len(columns) == len(species) == len(listed) and list(columns.values()) == list(range(len(listed)))
    return None if is_same else columns


def _with_member(old: Manifest, member: Member) -> Manifest:
    """The manifest with a member in the place of its namesake, or at the end."""
    if any(each.name == member.name for each in old.members):
        members = tuple(member if each.name == member.name else each for each in old.members)
    else:
        members = (*old.members, member)
    return msgspec.structs.replace(old, members=members)


def _new_manifest(folder: Path, species: tuple[Species, ...], member: Member, found: _Found, labels: Path) -> Manifest:
    import onnxruntime

    # What it says when nothing calls, not one number for all: that of a species it often believes to hear is higher.
    fallback = np.clip(found.quiet.mean(axis=0, dtype=np.float64), 0, 1)
    return Manifest(
        format=FORMAT,
        name=folder.resolve().name,
        species=species,
        rows=ROWS,
        post=PostConfig(),
        members=(member,),
        fallback_probabilities=tuple(round(float(each), 7) for each in fallback),
        provenance=Provenance(
            created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            run="adopted",
            versions={"birdinfer": birdinfer.__version__, "onnxruntime": onnxruntime.__version__},
            recipe={"graph": member.backbone, "labels": labels.name},
        ),
    )


def _folder_to_write(folder: Path, old: Manifest | None) -> contextlib.AbstractContextManager[Path]:
    """A bundle's folder; a new one appears under its name only when the block ends without an exception."""
    return contextlib.nullcontext(folder) if old else atomic_folder(folder, "a bundle", _ELSEWHERE)


@contextlib.contextmanager
def _copied(graph: Path, folder: Path, name: str) -> Iterator[Path]:
    """A copy of a graph under a free name, which stays only if the block ends without an exception."""
    path = folder / f"{name}.onnx"
    count = 2
    while path.exists():
        path, count = folder / f"{name}-{count}.onnx", count + 1
    with graph.open("rb") as source, atomic_file(path) as target:
        shutil.copyfileobj(source, target)
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _try_out(bundle: Bundle, copy: Path, graph: Path) -> None:
    """Predict a second of sound with the whole bundle.

    Raises:
        BundleError: that fails, or makes something else than probabilities.
    """
    with tempfile.TemporaryDirectory() as temporary:
        sound = Path(temporary) / "second.wav"
        soundfile.write(sound, 0.3 * np.sin(np.arange(32_000) / 5), 32_000)
        try:
            probabilities = Predictor(bundle).predict(sound)
        except BundleError:
            _check_is_whole(copy, graph)
            raise
        except BirdinferError:
            raise
        except Exception as error:  # of the engine's own kinds, which share no base but Exception
            raise BundleError(graph, f"does not run as a member ({error})") from error
    if probabilities.shape != (1, len(bundle.labels)) or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise BundleError(graph, "gives no probabilities as a member", "see --activation and --output")


def _check_is_whole(copy: Path, graph: Path) -> None:
    """Refuse a graph that can be loaded where it came from, and not elsewhere."""
    try:
        open_session(copy, ["CPUExecutionProvider"])
    except BundleError as error:
        raise BundleError(
            graph, "keeps its weights in a file beside it (external data)", "save it as one file, which onnx.save can"
        ) from error


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, and put the old one back if the bundle cannot be loaded with it."""
    path = folder / MANIFEST_NAME
    before = path.read_bytes() if path.is_file() else None
    save_manifest(folder, manifest)
    try:
        Bundle.load(folder)
    except BaseException:
        if before is None:
            path.unlink()
        else:
            write_atomic(path, before)
        raise


def _remove_unused_graphs(folder: Path, old: Manifest, new: Manifest) -> None:
    """Remove the graphs of a member that gave way; one that stays does no harm."""
    used = {graph.file for member in new.members for graph in member.graphs.values()}
    for member in old.members:
        for graph in member.graphs.values():
            if graph.file not in used:
                with contextlib.suppress(OSError):
                    (folder / graph.file).unlink()
