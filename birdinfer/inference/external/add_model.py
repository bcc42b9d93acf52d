"""Add an external ONNX graph that takes the waveform (Perch v2, BirdNET 3.0) to a bundle: ``birdinfer bundle adopt``.

In: the graph, the list of its labels, and a bundle's folder, which is made if it does not exist. Out: the graph in that
folder and an entry in its manifest. Nothing about the model is trusted: its input and outputs are probed
(:mod:`birdinfer.inference.external.onnx_probe`), its labels are matched by name
(:mod:`birdinfer.inference.external.label_matching`), and the whole bundle predicts once with it before the manifest is
written. Whenever it is killed or refused, the old bundle is unchanged.
"""

import contextlib
import math
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import soundfile

from birdinfer.audio.windows import make_grid
from birdinfer.config import AggregationConfig, InputConfig, WaveformConfig, WindowConfig
from birdinfer.errors import BirdinferError, BundleError, ConfigError
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, file_sha256, overlapping, save_manifest
from birdinfer.inference.external.known_models import KnownModel, recognise
from birdinfer.inference.external.label_lists import ListedLabel, read_label_list
from birdinfer.inference.external.label_matching import Match, match_labels, species_of
from birdinfer.inference.external.measured_activation import measure_activation
from birdinfer.inference.external.onnx_probe import (
    N_QUIET,
    check_batch_independence,
    choose_embedding,
    choose_outputs,
    input_config_of,
    only_embedding,
    open_external_graph,
    probe,
    scores_of,
)
from birdinfer.inference.manifest import FORMAT, Graph, Manifest, Member, Outputs, Provenance
from birdinfer.inference.predictor import Predictor
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species
from birdinfer.system.files import atomic_file, atomic_folder, check_replaceable, write_atomic
from birdinfer.system.locks import locked
from birdinfer.system.outputs import check_folder
from birdinfer.typing import Float32
from birdinfer.version import __version__

FRAME_SHARE = 0.25
"""Share of the frame-wise score if a graph has both: first place of BirdCLEF 2023, 0.75 clip and 0.25 frame maximum."""
_FALLBACK_NOTE = "rows of files that cannot be read are filled with its scores for silence and faint noise"
_ENCODER_NOTE = "scores nothing: predict --embeddings keeps what it gives, head fit makes a bundle that scores"
UNSCORED = "unscored"
"""The label of a bundle that gives embeddings alone."""
_ELSEWHERE = "choose another place: --bundle"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedModel:
    """An external graph that is a member now."""

    folder: Path
    """The bundle's."""
    member: Member
    is_new_bundle: bool
    n_labels: int
    """Of the bundle."""
    matches: Mapping[str, Match]
    """Label of the bundle -> the graph's label that matches it, and by which rule."""
    unknown_labels: tuple[str, ...]
    """Labels of the bundle that it does not know."""
    n_unused_columns: int
    """Columns of the graph that match no label of the bundle."""
    notes: tuple[str, ...]
    """What was measured or decided, one line each."""

    @property
    def rules(self) -> dict[str, int]:
        """Number of labels matched by each rule."""
        return dict(Counter(match.rule for match in self.matches.values()))


def add_model(
    graph: Path,
    labels: Path | None,
    bundle_folder: Path,
    *,
    name: str | None = None,
    sample_rate: int | None = None,
    window_seconds: float | None = None,
    overlap_seconds: float | None = None,
    peak: float | None = None,
    output: str | None = None,
    frames: str | None = None,
    embedding: str | None = None,
    activation: Literal["auto", "sigmoid", "softmax", "none"] = "auto",
    weight: float = 1.0,
    replace: bool = False,
    species_list: Path | None = None,
    expected: KnownModel | None = None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> AddedModel:
    """Add an external graph to a bundle as a member.

    Args:
        graph: the ONNX file, which takes [batch, samples] or [batch, 1, samples] as float32.
        labels: the list of its labels, in the order of its columns; None: it gives embeddings alone. Then a new bundle
            is made whose one label, :data:`UNSCORED`, is 0 everywhere, for heads on its embeddings.
        bundle_folder: the bundle; a new one with this member alone is made if it does not exist.
        name: the member's; the file's if None.
        sample_rate: Hz; from the graph's metadata or its input length if None.
        window_seconds: likewise.
        overlap_seconds: what neighbouring windows share; the default of :class:`birdinfer.config.AggregationConfig` if
            None.
        peak: remove each window's mean and scale it to this largest magnitude (perch-hoplite uses 0.25 for Perch).
        output: name of the output [batch, labels]; the only one of that shape if None.
        frames: name of an output [batch, frames, labels] to use, too.
        embedding: name of an output [batch, numbers] that describes a window; the only one of that shape, if any, if
            None.
        activation: function that turns the outputs into probabilities; ``auto`` finds it from their values.
        weight: in the weighted mean.
        replace: replace a member of this name.
        species_list: the species of a new bundle, as ``taxonomy.csv``; those that the graph does not know get 0. None:
            the graph's labels.
        expected: the public model that the graph must be.
        on_wait: is called with a line while another process changes the bundle.

    Raises:
        InputNotFoundError: the graph or the list does not exist.
        ConfigError: an option does not fit the graph or the bundle.
        LabelError: the list cannot be read, a name in it is ambiguous, or none is a label of the bundle.
        BundleError: the graph takes or returns something else, or the bundle does not predict with it.
        OutputError: the folder cannot be written to, or holds something else than a bundle.
        MissingExtraError: onnxruntime is not installed.
    """
    name = _member_name(name, graph)
    listed = read_label_list(labels) if labels else [ListedLabel(1, UNSCORED)]
    if labels is None and (bundle_folder / MANIFEST_NAME).is_file():
        raise ConfigError("--labels", "is needed to add a member to a bundle", "name a new folder for embeddings alone")
    where = labels or graph
    # Before the graph is run, which takes its time; what counts is what is there when the bundle is ours alone.
    _find_place(bundle_folder, name, weight, (listed, where), species_list, replace=replace)
    opened = open_external_graph(graph)
    known = recognise(opened.facts.outputs, opened.n_samples)
    if expected is not None and known is not expected:
        what = f"is {known.title}, not {expected.title}" if known else f"is not {expected.title}"
        raise BundleError(graph, what, f"its outputs are {', '.join(opened.facts.outputs)}")
    if known is not None and not known.has_scores:
        raise BundleError(graph, f"is {known.title}, which {known.obstacle}", known.page)
    if known is not None and sample_rate is None and window_seconds is None:
        sample_rate = known.sample_rate
        window_seconds = opened.n_samples / sample_rate if opened.n_samples else known.window_seconds
    input_config = _with_peak(input_config_of(opened, sample_rate, window_seconds), _peak(peak, known))
    results = probe(opened, input_config)
    if known is not None and frames is None and known.scores in results.alone:
        is_listed = results.alone[known.scores].shape[-1] == len(listed)
        output, embedding = output or (known.scores if is_listed else None), embedding or known.embedding
    if labels is None:
        outputs, notes = Outputs(None, None, "none", only_embedding(opened, results, embedding)), []
    else:
        clip, frames = choose_outputs(opened, results, len(listed), output, frames)
        used = [results.alone[each] for each in (clip, frames) if each is not None]
        measured = measure_activation(graph, used, activation, known)
        embedding = choose_embedding(opened, results, (clip, frames), len(listed), embedding)
        outputs = Outputs(clip, frames, measured.activation, embedding, measured.slope, measured.intercept)
        notes = [measured.reason]
    check_batch_independence(graph, results, outputs)
    if known is not None:
        notes.append(f"{known.title}, {known.licence}: {known.terms}")
    if outputs.embedding is not None:
        notes.append(f"embeddings of {results.alone[outputs.embedding].shape[-1]} numbers: {outputs.embedding}")
    if results.batch == "one" and opened.batch_size is None:
        notes.append("takes one window a call, although its batch is open")
    with locked(bundle_folder, on_wait):
        old, species, matches = _find_place(bundle_folder, name, weight, (listed, where), species_list, replace=replace)
        aggregation = _aggregation(input_config, outputs, overlap_seconds, old.rows if old else _new_rows(input_config))
        with _folder_to_write(bundle_folder, old) as folder, _copied(graph, folder, name) as copy:
            member = Member(
                name=name,
                graphs={"fp32": Graph(copy.name, file_sha256(copy))},
                waveform=input_config,
                outputs=outputs,
                aggregation=aggregation,
                label_columns=_label_columns(species, listed, matches),
                batch=results.batch,
                weight=weight,
                backbone=graph.stem,
            )
            if old:
                manifest = _with_member(old, member)
            else:
                quiet = np.zeros((1, 1), np.float32) if labels is None else scores_of(used[0][:N_QUIET], outputs)
                quiet = quiet if quiet.ndim == 2 else quiet.mean(axis=1)
                manifest = _new_manifest(bundle_folder, species, member, _fallback(species, matches, quiet), where)
                notes.append(_ENCODER_NOTE if labels is None else _FALLBACK_NOTE)
            _try_out(Bundle(folder, manifest), graph)
            _write_manifest(folder, manifest)
        if old:
            _remove_unused_graphs(bundle_folder, old, manifest, graph)
    return AddedModel(
        folder=bundle_folder,
        member=member,
        is_new_bundle=old is None,
        n_labels=len(species),
        matches=matches,
        unknown_labels=tuple(each.label for each in species if each.label not in matches),
        n_unused_columns=len(listed) - len(matches),
        notes=tuple(notes),
    )


def _peak(given: float | None, known: KnownModel | None) -> float | None:
    return known.peak if given is None and known is not None else given


def _with_peak(input_config: WaveformConfig, peak: float | None) -> WaveformConfig:
    if peak is None:
        return input_config
    try:
        return msgspec.structs.replace(input_config, peak=peak)
    except ValueError as error:
        raise ConfigError("--peak", str(error)) from error


def _existing_manifest(folder: Path) -> Manifest | None:
    """The manifest of the bundle in a folder; None if a new bundle can be made there."""
    if (folder / MANIFEST_NAME).is_file():
        return Bundle.load(folder).manifest
    check_folder(folder, hint=_ELSEWHERE)
    check_replaceable(folder, "a bundle", _ELSEWHERE)
    return None


def _find_place(
    folder: Path,
    name: str,
    weight: float,
    labels: tuple[Sequence[ListedLabel], Path],
    species_list: Path | None,
    *,
    replace: bool,
) -> tuple[Manifest | None, tuple[Species, ...], dict[str, Match]]:
    """The bundle that a member is added to (None: a new one), its species, and those that the graph knows."""
    old = _existing_manifest(folder)
    _check_fits(old, name, weight, replace=replace)
    if old and species_list:
        raise ConfigError("--species", "the bundle has its species already", "leave it out, or make a new bundle")
    listed, path = labels
    named = (read_label_list(species_list), species_list) if species_list else labels
    species = old.species if old else species_of(*named)
    return old, species, match_labels(species, listed, path)


def _member_name(name: str | None, graph: Path) -> str:
    if name is None:
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", graph.stem).lstrip("._+-") or "adopted"
    if not _NAME.fullmatch(name):
        raise ConfigError("--name", f"{name!r} cannot name a file", "take letters, digits and . _ + - only")
    return name


def _check_fits(old: Manifest | None, name: str, weight: float, *, replace: bool) -> None:
    members = old.members if old else ()
    if not replace and any(member.name == name for member in members):
        raise ConfigError("--name", f"there is a member {name!r} already", "choose another name, or give --replace")
    others = sum(member.weight for member in members if member.name != name)
    if not 0 <= weight < float("inf") or others + weight == 0:
        raise ConfigError("--weight", f"{weight:g} cannot be a weight here", "take a number above 0")


def _aggregation(
    input_config: WaveformConfig, outputs: Outputs, overlap_seconds: float | None, rows: WindowConfig
) -> AggregationConfig:
    """How its windows become rows; refused if they would leave gaps on the bundle's rows."""
    frame_share = 0.0 if outputs.frames is None else 1.0 if outputs.clip is None else FRAME_SHARE
    # Two windows of 3 s in a row of 5 s: a call is in one of them.
    is_shorter = input_config.window.window_seconds < rows.window_seconds
    aggregation = AggregationConfig(frame_share=frame_share, overlap="max" if is_shorter else "mean")
    if overlap_seconds is not None:
        window_seconds = input_config.window.window_seconds
        aggregation = overlapping(aggregation, overlap_seconds, window_seconds, "the graph's windows")
    make_grid(input_config, aggregation, rows)
    return aggregation


def _new_rows(input_config: InputConfig) -> WindowConfig:
    """Rows of a new bundle: one for each window of the model, in whole seconds as row ids have them."""
    return WindowConfig(float(math.ceil(input_config.window.window_seconds)))


def _label_columns(
    species: Sequence[Species], listed: Sequence[ListedLabel], matches: Mapping[str, Match]
) -> dict[str, int] | None:
    """Label of the bundle -> column; None if they are the same."""
    columns = {label: match.column for label, match in matches.items()}
    is_same = len(columns) == len(species) == len(listed) and list(columns.values()) == list(range(len(listed)))
    return None if is_same else columns


def _with_member(old: Manifest, member: Member) -> Manifest:
    if any(each.name == member.name for each in old.members):
        members = tuple(member if each.name == member.name else each for each in old.members)
    else:
        members = (*old.members, member)
    return msgspec.structs.replace(old, members=members)


def _fallback(species: Sequence[Species], matches: Mapping[str, Match], quiet: Float32) -> tuple[float, ...]:
    """What a row gets that cannot be read, by species; ``quiet``: probabilities [windows, columns] without any call."""
    # Not one number for all: a species with many false alarms gets more.
    found = np.clip(quiet.mean(axis=0, dtype=np.float64), 0, 1)
    columns = (matches.get(each.label) for each in species)
    return tuple(0.0 if match is None else round(float(found[match.column]), 7) for match in columns)


def _new_manifest(
    folder: Path, species: tuple[Species, ...], member: Member, fallback: tuple[float, ...], labels: Path
) -> Manifest:
    """The manifest of a bundle with one member."""
    import onnxruntime

    return Manifest(
        format=FORMAT,
        name=folder.resolve().name,
        species=species,
        rows=_new_rows(member.input_config),
        post=PostConfig((1.0,)),  # what its authors publish is not smoothed
        members=(member,),
        fallback_probabilities=fallback,
        provenance=Provenance(
            created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            run="adopted",
            versions={"birdinfer": __version__, "onnxruntime": onnxruntime.__version__},
            recipe={"graph": member.backbone, "labels": labels.name},
        ),
    )


def _folder_to_write(folder: Path, old: Manifest | None) -> contextlib.AbstractContextManager[Path]:
    """The bundle's folder; a new one gets its name only when the block ends without an exception."""
    return contextlib.nullcontext(folder) if old else atomic_folder(folder, "a bundle", _ELSEWHERE)


@contextlib.contextmanager
def _copied(graph: Path, folder: Path, name: str) -> Iterator[Path]:
    """Copy a graph under a free name; the copy stays only if the block ends without an exception."""
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


def _try_out(bundle: Bundle, graph: Path) -> None:
    """Predict a second of sound with the whole bundle; BundleError if it fails or returns no probabilities."""
    with tempfile.TemporaryDirectory() as temporary:
        sound = Path(temporary) / "second.wav"
        soundfile.write(sound, 0.3 * np.sin(np.arange(32_000) / 5), 32_000)
        try:
            probabilities = Predictor(bundle).predict(sound)
        except BirdinferError:
            raise
        except Exception as error:  # of the engine's own kinds, which share no base but Exception
            raise BundleError(graph, f"does not run as a member ({error})") from error
    if probabilities.shape != (1, len(bundle.labels)) or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise BundleError(graph, "returns no probabilities as a member", "see --activation and --output")


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, and restore the old one if the bundle cannot be loaded with it."""
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


def _remove_unused_graphs(folder: Path, old: Manifest, new: Manifest, given: Path) -> None:
    """Remove the graphs of a member that was replaced, not the one that was given; one that stays does no harm."""
    used = {graph.file for member in new.members for graph in member.graphs.values()}
    for member in old.members:
        for graph in member.graphs.values():
            if graph.file not in used:
                with contextlib.suppress(OSError):
                    if not given.samefile(folder / graph.file):
                        (folder / graph.file).unlink()
