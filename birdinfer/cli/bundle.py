"""``birdinfer bundle``: show a bundle, add an external model to it, store how its scores are processed."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from birdinfer.audio.windows import make_grid
from birdinfer.cli.app import make_group
from birdinfer.cli.console import needing, stderr, stdout
from birdinfer.cli.options import Merge, MissingSpecies, bundle_folder, parse_kernel, with_scoring
from birdinfer.config import FrontEndConfig, InputConfig, SpectrogramConfig
from birdinfer.errors import ConfigError
from birdinfer.inference.blend_text import describe_blend
from birdinfer.inference.bundle import Bundle, store_settings
from birdinfer.inference.external.add_model import AddedModel, AddOptions
from birdinfer.inference.manifest import Graph, Manifest, Member
from birdinfer.inference.members import remove_member, with_weights
from birdinfer.postprocess.steps import write_step

_LISTED_LABELS = 5
_HEADINGS = ("member", "backbone", "input", "graphs", "labels", "weight", "OOF AUC", "stride")

_FORM = "Form of the graph"

bundle = make_group("bundle")


class Activation(StrEnum):
    """How a graph's outputs become probabilities."""

    auto = "auto"
    sigmoid = "sigmoid"
    softmax = "softmax"
    none = "none"


@bundle.command()
def adopt(
    graph: Annotated[Path, typer.Argument(
        help="ONNX graph, or TensorFlow Lite model, that takes sound: Perch v2, BirdNET ...")],
    bundle: Annotated[Path, typer.Option(help="Bundle folder; a new bundle is made if it is not there.")],
    labels: Annotated[Path | None, typer.Option(
        help="Its labels in the order of its columns: one a line, or a table with a header; leave it out for a graph "
        "that gives embeddings alone.")] = None,
    name: Annotated[str | None, typer.Option(help="The member's name; the file's if left out.")] = None,
    weight: Annotated[float, typer.Option(min=0, help="Its weight in the mean; a fold has 1.")] = 1.0,
    sample_rate: Annotated[int | None, typer.Option(
        help="Hz of its input; known of Perch v2 and BirdNET, else needed.")] = None,
    window: Annotated[float | None, typer.Option(help="Seconds of its window; known of Perch v2 and BirdNET.")] = None,
    overlap: Annotated[float | None, typer.Option(min=0, help="Seconds that its neighbouring windows share.")] = None,
    peak: Annotated[float | None, typer.Option(
        help="Scale each window, freed of its mean, to this peak (0.25 is usual for Perch).")] = None,
    output: Annotated[str | None, typer.Option(
        help="Output of batch x labels; the only one of that shape if left out.")] = None,
    frames: Annotated[str | None, typer.Option(help="Output of batch x frames x labels to use, too.")] = None,
    embedding: Annotated[str | None, typer.Option(
        help="Output of batch x numbers that describes a window; found if left out.")] = None,
    activation: Annotated[Activation, typer.Option(
        help="What turns its outputs into probabilities; auto looks at their values.")] = Activation.auto,
    species: Annotated[Path | None, typer.Option(
        help="Species that a new bundle scores, as taxonomy.csv; all of the graph's if left out.")] = None,
    missing_species: Annotated[MissingSpecies, typer.Option(
        help="What species of the bundle get that the graph does not know: 0, or the highest score of their genus."
        )] = MissingSpecies.zero,
    taxonomy: Annotated[Path | None, typer.Option(
        help="Table of species with their classes, for a new bundle whose list of labels has none.")] = None,
    rows: Annotated[float | None, typer.Option(
        min=0, help="Seconds of a row of a new bundle; the model's window if left out.")] = None,
    merge: Annotated[Merge | None, typer.Option(
        help="How scores of several windows in a row are combined; max if they are shorter than a row.")] = None,
    smooth: Annotated[str | None, typer.Option(
        help="Kernel over neighbouring rows of a new bundle, as 0.2,0.6,0.2; none if left out.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a member of this name.")] = False,
    frontend: Annotated[Path | None, typer.Option(
        rich_help_panel=_FORM, help="TOML file that declares the spectrogram it takes, if not the waveform.")] = None,
    head: Annotated[Path | None, typer.Option(
        rich_help_panel=_FORM, help="Graph that scores its embedding, put behind it; --labels are the head's.")] = None,
    inputs: Annotated[list[str] | None, typer.Option(
        "--input", metavar="NAME=VALUE", rich_help_panel=_FORM,
        help="Value of an input beside the sound; repeatable.")] = None,
    fold: Annotated[bool, typer.Option(
        rich_help_panel=_FORM,
        help="Fold its front end into a convolution or fast transform, if scores agree and it is faster.")] = True,
) -> None:  # fmt: skip
    """Make an external ONNX graph that takes sound a member of a bundle, matching labels by name.

    Nothing is written unless the whole bundle predicts with it.
    """
    from birdinfer.export.adopt import GraphChanges, adopt_model
    from birdinfer.inference.external.front_end import read_front_end

    options = AddOptions(
        name=name, sample_rate=sample_rate, window_seconds=window, overlap_seconds=overlap, peak=peak, output=output,
        frames=frames, embedding=embedding, activation=activation.value, weight=weight, replace=replace,
        species_list=species, missing_species=missing_species.value, taxonomy=taxonomy, row_seconds=rows,
        merge=merge.value if merge else None, smoothing_kernel=parse_kernel(smooth),
        spectrogram=read_front_end(frontend) if frontend else None,
    )  # fmt: skip
    changes = GraphChanges(fold=fold, inputs=_parse_inputs(inputs or ()), head=head)
    with stderr().status("asking the graph what it takes and gives"):
        adopted = adopt_model(
            graph, labels, bundle, options, changes, on_wait=lambda line: stderr().print(escape(line))
        )  # fmt: skip
    print_added(adopted)


@bundle.command()
def embed(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder; its graphs are changed.")],
) -> None:
    """Let the members give embeddings: the input of their last linear layer becomes an output, scores stay the same.

    Then birdinfer predict --embeddings keeps them for birdinfer head fit.
    """
    with needing("export", "onnx"):
        from birdinfer.heads.embed import let_embed
    for member, what in let_embed(folder, lambda line: stderr().print(escape(line))).items():
        stdout().print(escape(f"{member}: {what}"))


@bundle.command()
def show(
    folder: Annotated[Path | None, typer.Argument(
        metavar="[BUNDLE]", help="Bundle folder, or demo; the newest in exports/ if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:  # fmt: skip
    """Show a bundle's members, species, settings and the variants of each member, after verifying its files."""
    loaded = Bundle.load(bundle_folder(folder, demo="birdinfer bundle show demo"))
    if json:
        _print_json(loaded)
    else:
        _print_bundle(loaded)


def input_text(input_config: InputConfig) -> str:
    """Describe the input of a member: ``mel 128 x 320 of 5 s at 32 kHz``, ``waveform of 3 s at 48 kHz``."""
    what = "waveform"
    if isinstance(input_config, FrontEndConfig):
        channels, *sizes = input_config.sample_shape
        what = f"mel {' x '.join(map(str, sizes if channels == 1 else (channels, *sizes)))}"
    elif isinstance(input_config, SpectrogramConfig):
        what = f"spectrogram {' x '.join(map(str, input_config.input_shape))}"
    return f"{what} of {input_config.window.window_seconds:g} s at {input_config.audio.sample_rate / 1000:g} kHz"


def print_added(adopted: AddedModel) -> None:
    """Print what was found of a model that is a member now, and what comes next."""
    console, member, folder = stderr(), adopted.member, escape(str(adopted.folder))
    outputs = member.outputs
    gives = ", ".join(escape(each) for each in (outputs.clip, outputs.frames) if each) or "embeddings alone"
    rules = ", ".join(f"{count} by {rule}" for rule, count in adopted.rules.items())
    done = "a new bundle of it alone" if adopted.is_new_bundle else "adopted"
    console.print(f"[bold]{folder}[/]: {escape(member.name)}, {done}, weight {member.weight:g}")
    console.print(f"  takes   {input_text(member.input_config)}")
    console.print(f"  gives   {gives}")
    for note in adopted.notes:
        console.print(f"          {escape(note)}")
    console.print(f"  labels  {len(adopted.matches)} of the bundle's {adopted.n_labels} known ({rules})")
    guessed = {label: match for label, match in adopted.matches.items() if match.is_guess}
    if guessed:
        console.print(f"          [yellow]{len(guessed)} guessed, to be checked:[/]")
    for label, match in guessed.items():
        console.print(f"          {escape(label)} is {escape(match.listed)} ({match.rule})")
    if adopted.genus_labels:
        console.print(f"          {len(adopted.genus_labels)} unknown to it get the highest score of their genus")
    if adopted.unknown_labels:
        more = ", ..." if len(adopted.unknown_labels) > _LISTED_LABELS else ""
        shown = escape(", ".join(adopted.unknown_labels[:_LISTED_LABELS]))
        console.print(f"          [yellow]{len(adopted.unknown_labels)} unknown to it:[/] {shown}{more}")
    if adopted.n_unused_columns:
        console.print(f"          {adopted.n_unused_columns} of its own are not used")
    console.print(f"next: birdinfer predict SOUNDSCAPES --bundle {folder} -o submission.csv")


def _print_json(loaded: Bundle) -> None:
    manifest = loaded.manifest
    facts = {
        "folder": str(loaded.folder),
        "name": manifest.name,
        "format": manifest.format,
        "labels": list(loaded.labels),
        "rows": msgspec.to_builtins(manifest.rows),
        "blend": msgspec.to_builtins(manifest.blend),
        "post": msgspec.to_builtins(manifest.post),
        "tolerance": msgspec.to_builtins(manifest.tolerance),
        "provenance": msgspec.to_builtins(manifest.provenance),
        "calibration": msgspec.to_builtins(manifest.calibration),
        "members": [_member_facts(loaded, member) for member in manifest.members],
        "for_other_hosts": [_file_facts(loaded, graph) for graph in manifest.for_other_hosts],
    }
    typer.echo(json.dumps(facts))


def _member_facts(loaded: Bundle, member: Member) -> dict[str, Any]:
    known = msgspec.to_builtins(member)
    kept = ("name", "backbone", "fold", "weight", "outputs", "timeline", "frontend", "waveform", "spectrogram")
    return {
        **{key: known[key] for key in kept},
        "hears": input_text(member.input_config),
        "graphs": {precision: _file_facts(loaded, graph) for precision, graph in member.graphs.items()},
        "sequence": known["sequence"],
        "stride_seconds": _stride_seconds(loaded.manifest, member),
        "labels_known": _n_known(loaded, member),
        "out_of_fold_macro_auc": member.out_of_fold_macro_auc,
        "variants": known["variants"],
    }


def _file_facts(loaded: Bundle, graph: Graph) -> dict[str, Any]:
    return {"file": graph.file, "bytes": loaded.graph_path(graph).stat().st_size}


def _print_bundle(loaded: Bundle) -> None:
    from birdinfer.cli.export import variants_table

    console, manifest = stdout(), loaded.manifest
    console.print(
        f"[bold]{escape(str(loaded.folder))}[/]: {escape(manifest.name)}, {len(manifest.members)} members, "
        f"{len(loaded.labels)} species"
    )
    heading, *lines = _aligned([_HEADINGS, *(_cells(loaded, member) for member in manifest.members)])
    console.print(f"[bold]{heading}[/]")
    for line in lines:
        console.print(escape(line))
    for name, value in _settings(loaded):
        console.print(f"{name:<10}  {escape(value)}")
    if any(member.variants for member in manifest.members):
        console.print()
        console.print(variants_table(manifest))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other; not a table of rich's, which cuts cells off where a pipe is 80 characters wide."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(loaded: Bundle, member: Member) -> tuple[str, ...]:
    auc = member.out_of_fold_macro_auc
    return (
        member.name,
        member.backbone or "-",
        input_text(member.input_config),
        _graphs(loaded, member),
        f"{_n_known(loaded, member)} of {len(loaded.labels)}",
        f"{member.weight:g}",
        "-" if auc is None else f"{auc:.4f}",
        f"{_stride_seconds(loaded.manifest, member):g} s",
    )


def _graphs(loaded: Bundle, member: Member) -> str:
    """``fp32 16.2 MB, int8 4.4 MB``; a file that members share has its size with the first of them alone."""
    owners: dict[str, str] = {}
    for other in loaded.manifest.members:
        for graph in other.graphs.values():
            owners.setdefault(graph.file, other.name)
    shown = []
    for precision, graph in member.graphs.items():
        owner = owners[graph.file]
        shown.append(f"{precision} {_size(loaded, graph) if owner == member.name else f'in the file of {owner}'}")
    if member.sequence is not None:
        shown.append(f"head of {member.sequence.n_windows} windows {_size(loaded, member.sequence.graph)}")
    return ", ".join(shown)


def _size(loaded: Bundle, graph: Graph) -> str:
    return f"{loaded.graph_path(graph).stat().st_size / 1e6:.1f} MB"


def _settings(loaded: Bundle) -> list[tuple[str, str]]:
    manifest = loaded.manifest
    provenance, tolerance = manifest.provenance, manifest.tolerance
    others = [f"{graph.file} {_size(loaded, graph)}, takes the waveform" for graph in manifest.for_other_hosts]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(provenance.versions.items()))
    epoch = "" if provenance.epoch is None else f", epoch {provenance.epoch}"
    allowed, mean = tolerance.max_probability_difference, tolerance.mean_probability_difference
    return [
        ("rows", f"{manifest.rows.window_seconds:g} s, a rest of {manifest.rows.min_tail_seconds:g} s makes one"),
        *scoring_lines(manifest),
        ("tolerance", f"{allowed:g} of a probability, {mean:g} on average"),
        *_calibration_lines(manifest),
        ("made", f"{provenance.created_utc} of run {provenance.run}{epoch}" + (f" ({versions})" if versions else "")),
        *(("to hand on", other) for other in others),
    ]


def _calibration_lines(manifest: Manifest) -> list[tuple[str, str]]:
    calibration = manifest.calibration
    if calibration is None:
        return []
    n_own, n_classes = len(calibration.species), len(calibration.classes)
    of = f"of {n_own} species and {n_classes} classes, {calibration.created_utc}"
    return [("thresholds", f"for {100 * calibration.precision:g} % right detections, {of}")]


def scoring_lines(manifest: Manifest) -> list[tuple[str, str]]:
    """List what is done to the members' scores, step by step, as name and value."""
    return [
        *describe_blend(manifest.blend),
        ("smoothing", ", ".join(f"{weight:g}" for weight in manifest.post.smoothing_kernel)),
        *(("then", write_step(step)) for step in manifest.post.steps),
    ]


def _stride_seconds(manifest: Manifest, member: Member) -> float:
    grid = make_grid(member.input_config, member.aggregation, manifest.rows)
    return grid.stride_samples / grid.sample_rate


def _n_known(loaded: Bundle, member: Member) -> int:
    return len(loaded.labels) if member.label_columns is None else len(member.label_columns)


@bundle.command("set")
def set_bundle(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder; its manifest is changed.")],
    smooth: Annotated[str | None, typer.Option(
        help="Kernel over neighbouring windows, as 0.2,0.6,0.2, or none.")] = None,
    post: Annotated[list[str] | None, typer.Option(
        help="Steps after the smoothing, as of predict --post, instead of its own; none: no step.")] = None,
    blend: Annotated[str | None, typer.Option(
        help="How members are combined, as of predict --blend; docs/ensembles.md shows ranks.")] = None,
    overlap: Annotated[float | None, typer.Option(min=0, help="Seconds that neighbouring windows share.")] = None,
    merge: Annotated[Merge | None, typer.Option(help="How scores of overlapping windows are combined.")] = None,
    weight: Annotated[list[str] | None, typer.Option(
        metavar="MEMBER=NUMBER", help="What a member weighs in the mean; repeatable.")] = None,
) -> None:  # fmt: skip
    """Store in a bundle how its scores are processed, for example as `birdinfer score --ablate` recommends.

    Tables that steps read are copied into the bundle. Options that are not given stay as they are.
    """

    def change(loaded: Bundle) -> Bundle:
        changed = with_scoring(loaded.with_overlap(overlap, merge.value if merge else None), smooth, post, blend)
        changed = with_weights(changed, _parse_weights(weight or ()))
        if loaded.manifest.calibration and changed.sha256() != loaded.sha256():
            line = "the calibration is of other scores and is removed: birdinfer calibrate makes it again"
            stderr().print(f"[yellow]{line}[/]")
            return Bundle(loaded.folder, msgspec.structs.replace(changed.manifest, calibration=None))
        return changed

    stored = store_settings(folder, change, lambda line: stderr().print(escape(line)))
    for name, value in scoring_lines(stored.manifest):
        stdout().print(f"[dim]{name:<10}[/] {escape(value)}", soft_wrap=True)


@bundle.command()
def remove(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder; its manifest is changed.")],
    member: Annotated[str, typer.Argument(help="The member's name, as `birdinfer bundle show` prints it.")],
) -> None:
    """Take a member out of a bundle, and remove its graphs."""
    left = remove_member(folder, member, lambda line: stderr().print(escape(line)))
    stdout().print(f"left: {escape(', '.join(each.name for each in left.manifest.members))}")


def _parse_inputs(texts: Sequence[str]) -> dict[str, str]:
    """``["training=false"]`` -> {"training": "false"}; ConfigError for what is none."""
    for text in texts:
        if not text.partition("=")[2]:
            raise ConfigError("--input", f"{text!r} gives an input no value", "write it as training=false")
    return dict(text.split("=", 1) for text in texts)


def _parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """``["perch-v2=0.5"]`` -> {"perch-v2": 0.5}; ConfigError for what is none."""
    weights = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError as error:
            raise ConfigError("--weight", f"{text!r} is no weight of a member", "write it as perch-v2=0.5") from error
    return weights
