"""Add an external ONNX graph that takes the waveform (Perch v2, BirdNET 3.0) to a bundle: ``birdinfer bundle adopt``.

In: the graph, the list of its labels, and a bundle's folder, which is made if it does not exist. Out: the graph in that
folder and an entry in its manifest. Nothing about the model is trusted: it is probed
(:mod:`birdinfer.inference.external.describe_graph`), its labels are matched by name
(:mod:`birdinfer.inference.external.label_matching`), and the whole bundle predicts once with it before the manifest is
written (:mod:`birdinfer.inference.external.write_member`).
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from birdinfer.audio.windows import make_grid
from birdinfer.config import AggregationConfig, InputConfig, SpectrogramConfig, WaveformConfig, WindowConfig
from birdinfer.errors import ConfigError
from birdinfer.features.spectrogram import fingerprint
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, file_sha256, overlapping
from birdinfer.inference.external.describe_graph import GraphOptions, describe_graph
from birdinfer.inference.external.known_models import KnownModel
from birdinfer.inference.external.label_classes import with_classes
from birdinfer.inference.external.label_lists import ListedLabel, read_label_list
from birdinfer.inference.external.label_matching import Match, genus_columns, match_labels, species_of
from birdinfer.inference.external.write_member import (
    copied,
    existing_manifest,
    folder_to_write,
    remove_unused_graphs,
    try_out,
    write_manifest,
)
from birdinfer.inference.manifest import (
    FORMAT,
    Graph,
    Manifest,
    Member,
    Outputs,
    Provenance,
    columns_of,
    families_of,
)
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species
from birdinfer.system.locks import locked
from birdinfer.typing import Float32
from birdinfer.version import __version__

FRAME_SHARE = 0.25
"""Share of the frame-wise score if a graph has both: first place of BirdCLEF 2023, 0.75 clip and 0.25 frame maximum."""
_FALLBACK_NOTE = "rows of files that cannot be read are filled with its scores for silence and faint noise"
_ENCODER_NOTE = "scores nothing: predict --embeddings keeps what it gives, head fit makes a bundle that scores"
UNSCORED = "unscored"
"""The label of a bundle that gives embeddings alone."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class AddOptions(GraphOptions):
    """What the user says about a graph, and about the member that it becomes."""

    name: str | None = None
    """The member's; the file's if None."""
    overlap_seconds: float | None = None
    """What neighbouring windows share; the default of :class:`birdinfer.config.AggregationConfig` if None."""
    weight: float = 1.0
    """In the weighted mean."""
    replace: bool = False
    """Replace a member of this name."""
    merge: Literal["mean", "max"] | None = None
    """How scores of several windows in a row are combined; if None the highest counts where windows are shorter."""
    row_seconds: float | None = None
    """Rows of a new bundle; the model's window in whole seconds if None."""
    smoothing_kernel: tuple[float, ...] | None = None
    """Of a new bundle; none if None: what the authors of a model publish is not smoothed."""
    missing_species: Literal["zero", "genus"] = "zero"
    """What a species of the bundle gets that the graph does not know: 0, or the highest score of its genus."""
    taxonomy: Path | None = None
    """A table of species with classes, for a new bundle whose list of labels has none."""
    species_list: Path | None = None
    """The species of a new bundle, as ``taxonomy.csv``; those that the graph does not know get 0. None: the graph's
    labels."""


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
    genus_labels: tuple[str, ...]
    """Labels of the bundle that it does not know, which get the highest score of their genus."""
    unknown_labels: tuple[str, ...]
    """Those that it does not know either, which get 0."""
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
    options: AddOptions = AddOptions(),
    *,
    expected: KnownModel | None = None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> AddedModel:
    """Add an external graph to a bundle as a member.

    Args:
        graph: the ONNX file, which takes [batch, samples] or [batch, 1, samples] as float32.
        labels: the list of its labels, in the order of its columns; None: it gives embeddings alone. Then a new bundle
            is made whose one label, :data:`UNSCORED`, is 0 everywhere, for heads on its embeddings.
        bundle_folder: the bundle; a new one with this member alone is made if it does not exist.
        options: what is said of the graph and its member.
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
    name = _member_name(options.name, graph)
    listed = read_label_list(labels) if labels else [ListedLabel(1, UNSCORED)]
    if labels is None and (bundle_folder / MANIFEST_NAME).is_file():
        raise ConfigError("--labels", "is needed to add a member to a bundle", "name a new folder for embeddings alone")
    source = labels or graph
    # Before the graph is run, which takes its time; what counts is what is there when the bundle is ours alone.
    _find_place(bundle_folder, name, options, listed, source, expected)
    described = describe_graph(graph, listed if labels else None, options, expected)
    notes = described.notes
    taken = described.input_config
    spectrogram = taken if isinstance(taken, SpectrogramConfig) else None
    with locked(bundle_folder, on_wait):
        place = _find_place(bundle_folder, name, options, listed, source, described.known)
        with folder_to_write(bundle_folder, place.old) as folder, copied(graph, folder, name) as copy:
            member = Member(
                name=name,
                graphs={"fp32": Graph(copy.name, file_sha256(copy))},
                waveform=taken if isinstance(taken, WaveformConfig) else None,
                spectrogram=spectrogram,
                frontend_fingerprint=tuple(fingerprint(spectrogram)) if spectrogram else None,
                outputs=described.outputs,
                aggregation=_aggregation(taken, described.outputs, options, place),
                label_columns=_label_columns(place, listed),
                batch=described.batch,
                weight=options.weight,
                backbone=graph.stem,
            )
            if place.old:
                manifest = _with_member(place.old, member)
            else:
                manifest = _new_manifest(
                    bundle_folder, place, member, _fallback(place, described.quiet), source, options.smoothing_kernel
                )
                notes = (*notes, _FALLBACK_NOTE if labels else _ENCODER_NOTE)
            try_out(Bundle(folder, manifest), graph)
            write_manifest(folder, manifest)
        if place.old:
            remove_unused_graphs(bundle_folder, place.old, manifest, graph)
    return AddedModel(
        folder=bundle_folder,
        member=member,
        is_new_bundle=place.old is None,
        n_labels=len(place.species),
        matches=place.matches,
        genus_labels=tuple(place.genus_columns),
        unknown_labels=tuple(each.label for each in place.species if each.label not in place.columns),
        n_unused_columns=len(listed) - len({column for each in place.columns.values() for column in columns_of(each)}),
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a member is added."""

    old: Manifest | None
    """Of the bundle; None: a new one."""
    species: tuple[Species, ...]
    """Of the bundle."""
    matches: dict[str, Match]
    """Those that the graph knows."""
    genus_columns: dict[str, tuple[int, ...]]
    """Those of which it knows the genus, if that is to count."""
    row_seconds: float | None
    """Of a new bundle."""

    @property
    def columns(self) -> dict[str, int | tuple[int, ...]]:
        """Label of the bundle -> column of the graph, or several."""
        return {**{label: match.column for label, match in self.matches.items()}, **self.genus_columns}

    def rows(self, input_config: InputConfig) -> WindowConfig:
        """Rows of the bundle; of a new one, one for each window of the model, in whole seconds as row ids have them."""
        if self.old:
            return self.old.rows
        seconds = self.row_seconds or float(math.ceil(input_config.window.window_seconds))
        try:
            return WindowConfig(seconds, min(WindowConfig().min_tail_seconds, seconds))
        except ValueError as error:
            raise ConfigError("--rows", str(error)) from error


def _find_place(
    folder: Path,
    name: str,
    options: AddOptions,
    listed: Sequence[ListedLabel],
    source: Path,
    known: KnownModel | None,
) -> _Place:
    old = existing_manifest(folder)
    _check_fits(old, name, options)
    if old:
        _check_has_none(options)
        species = old.species
    elif options.species_list:
        species = species_of(read_label_list(options.species_list), options.species_list)
    else:
        species = species_of(listed, source)
    if not old:
        species = with_classes(species, options.taxonomy, known)
    matches = match_labels(species, listed, source)
    of_genus = genus_columns(species, listed, matches) if options.missing_species == "genus" else {}
    return _Place(old=old, species=species, matches=matches, genus_columns=of_genus, row_seconds=options.row_seconds)


def _check_has_none(options: AddOptions) -> None:
    """Refuse what a bundle has already."""
    for option, value, hint in (
        ("--species", options.species_list, "leave it out, or make a new bundle"),
        ("--taxonomy", options.taxonomy, "leave it out, or make a new bundle"),
        ("--rows", options.row_seconds, "leave it out, or make a new bundle"),
        ("--smooth", options.smoothing_kernel, "birdinfer bundle set BUNDLE --smooth changes it"),
    ):
        if value is not None:
            raise ConfigError(option, f"the bundle has its {option[2:]} already", hint)


def _member_name(name: str | None, graph: Path) -> str:
    if name is None:
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", graph.stem).lstrip("._+-") or "adopted"
    if not _NAME.fullmatch(name):
        raise ConfigError("--name", f"{name!r} cannot name a file", "take letters, digits and . _ + - only")
    return name


def _check_fits(old: Manifest | None, name: str, options: AddOptions) -> None:
    members, weight = old.members if old else (), options.weight
    if not options.replace and any(member.name == name for member in members):
        raise ConfigError("--name", f"there is a member {name!r} already", "choose another name, or give --replace")
    others = sum(member.weight for member in members if member.name != name)
    if not 0 <= weight < float("inf") or others + weight == 0:
        raise ConfigError("--weight", f"{weight:g} cannot be a weight here", "take a number above 0")


def _aggregation(input_config: InputConfig, outputs: Outputs, options: AddOptions, place: _Place) -> AggregationConfig:
    """How its windows become rows; refused if they would leave gaps on the bundle's rows."""
    rows, overlap_seconds = place.rows(input_config), options.overlap_seconds
    frame_share = 0.0 if outputs.frames is None else 1.0 if outputs.clip is None else FRAME_SHARE
    # Two windows of 3 s in a row of 5 s: a call is in one of them.
    is_shorter = input_config.window.window_seconds < rows.window_seconds
    merge = options.merge or ("max" if is_shorter else "mean")
    aggregation = AggregationConfig(frame_share=frame_share, overlap=merge)
    if overlap_seconds is not None:
        window_seconds = input_config.window.window_seconds
        aggregation = overlapping(aggregation, overlap_seconds, window_seconds, "the graph's windows")
    make_grid(input_config, aggregation, rows)
    return aggregation


def _label_columns(place: _Place, listed: Sequence[ListedLabel]) -> dict[str, int | tuple[int, ...]] | None:
    """Label of the bundle -> column; None if they are the same."""
    columns = place.columns
    is_same = len(columns) == len(place.species) == len(listed) and list(columns.values()) == list(range(len(listed)))
    return None if is_same else columns


def _with_member(old: Manifest, member: Member) -> Manifest:
    if any(each.name == member.name for each in old.members):
        members = tuple(member if each.name == member.name else each for each in old.members)
    else:
        members = (*old.members, member)
    return msgspec.structs.replace(old, members=members, blend=old.blend.filled(families_of(members)))


def _fallback(place: _Place, quiet: Float32) -> tuple[float, ...]:
    """What a row gets that cannot be read, by species; ``quiet``: probabilities [columns] without any call."""
    # Not one number for all: a species with many false alarms gets more.
    found = np.clip(quiet, 0, 1)
    columns = (columns_of(place.columns.get(each.label, ())) for each in place.species)
    return tuple(round(float(found[list(own)].max(initial=0)), 7) for own in columns)


def _new_manifest(
    folder: Path,
    place: _Place,
    member: Member,
    fallback: tuple[float, ...],
    source: Path,
    kernel: tuple[float, ...] | None,
) -> Manifest:
    """The manifest of a bundle with one member."""
    import onnxruntime

    return Manifest(
        format=FORMAT,
        name=folder.resolve().name,
        species=place.species,
        rows=place.rows(member.input_config),
        post=PostConfig(kernel or (1.0,)),
        members=(member,),
        fallback_probabilities=fallback,
        provenance=Provenance(
            created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            run="adopted",
            versions={"birdinfer": __version__, "onnxruntime": onnxruntime.__version__},
            recipe={"graph": member.backbone, "labels": source.name},
        ),
    )
