"""``birdinfer bundle``: what a bundle holds, and a foreign model made a member of it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from birdinfer.adopt import Adopted
    from birdinfer.bundle import Bundle
    from birdinfer.config import Hearing
    from birdinfer.manifest import Graph, Manifest, Member

_LISTED_LABELS = 5
_HEADINGS = ("member", "backbone", "hears", "graphs", "labels", "weight", "OOF AUC", "stride")

bundle = typer.Typer(
    help="Look into a bundle, or make a foreign ONNX model a member of it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Activation(StrEnum):
    """What makes probabilities of a graph's outputs."""

    auto = "auto"
    sigmoid = "sigmoid"
    softmax = "softmax"
    none = "none"


@bundle.command()
def adopt(
    graph: Annotated[Path, typer.Argument(help="ONNX graph that takes the waveform: Perch v2, BirdNET ...")],
    labels: Annotated[
        Path, typer.Option(help="Its labels in the order of its columns: one a line, or a table with a header.")
    ],
    bundle: Annotated[Path, typer.Option(help="Bundle folder; a new bundle is made if it is not there.")],
    name: Annotated[str | None, typer.Option(help="The member's name; the file's if left out.")] = None,
    weight: Annotated[float, typer.Option(min=0, help="Its say in the weighted mean; a fold has 1.")] = 1.0,
    sample_rate: Annotated[
        int | None, typer.Option(help="Hz that it hears; known of Perch v2 and BirdNET, else needed.")
    ] = None,
    window: Annotated[float | None, typer.Option(help="Seconds that it hears at once; likewise.")] = None,
    overlap: Annotated[float | None, typer.Option(min=0, help="Seconds that its neighbouring windows share.")] = None,
    peak: Annotated[
        float | None,
        typer.Option(help="Scale each window, freed of its mean, to this peak (0.25 is usual for Perch)."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Output of batch x labels; the only one of that shape if left out.")
    ] = None,
    frames: Annotated[str | None, typer.Option(help="Output of batch x frames x labels to use, too.")] = None,
    activation: Annotated[
        Activation, typer.Option(help="What makes its outputs probabilities; auto looks at their values.")
    ] = Activation.auto,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a member of this name.")] = False,
) -> None:
    """Make a foreign ONNX graph that takes the waveform a member of a bundle, matching labels by name.

    Nothing is written unless the whole bundle predicts with it.
    """
    from birdinfer.adopt import adopt as adopt_graph
    from birdinfer.cli.console import stderr

    with stderr().status("asking the graph what it takes and gives"):
        adopted = adopt_graph(
            graph,
            labels,
            bundle,
            name=name,
            sample_rate=sample_rate,
            window_seconds=window,
            overlap_seconds=overlap,
            peak=peak,
            output=output,
            frames=frames,
            activation=activation.value,
            weight=weight,
            replace=replace,
        )
    _tell(adopted)


@bundle.command()
def show(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="Bundle folder; the demo bundle if left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Show a bundle's members, species, settings and what was tried for each member, after verifying its files."""
    from birdinfer.bundle import Bundle, demo_bundle_path

    loaded = Bundle.load(folder or demo_bundle_path())
    if json:
        _print_json(loaded)
    else:
        _print_bundle(loaded)


def hears(hearing: "Hearing") -> str:
    """What a member hears, in words: ``mel 128 x 320 of 5 s at 32 kHz``, ``waveform of 3 s at 48 kHz``."""
    from birdinfer.config import FrontEndConfig

    what = "waveform"
    if isinstance(hearing, FrontEndConfig):
        what = "mel {} x {}".format(*hearing.input_shape)
    return f"{what} of {hearing.window.window_seconds:g} s at {hearing.audio.sample_rate / 1000:g} kHz"


def _tell(adopted: "Adopted") -> None:
    from rich.markup import escape

    from birdinfer.cli.console import stderr

    console, member, folder = stderr(), adopted.member, escape(str(adopted.folder))
    gives = ", ".join(escape(each) for each in (member.outputs.clip, member.outputs.frames) if each)
    rules = ", ".join(f"{count} by {rule}" for rule, count in adopted.rules.items())
    done = "a new bundle of it alone" if adopted.is_new_bundle else "adopted"
    console.print(f"[bold]{folder}[/]: {escape(member.name)}, {done}, weight {member.weight:g}")
    console.print(f"  takes   {hears(member.hearing)}")
    console.print(f"  gives   {gives}")
    for note in adopted.notes:
        console.print(f"          {escape(note)}")
    console.print(f"  labels  {len(adopted.matches)} of the bundle's {adopted.n_labels} known ({rules})")
    if adopted.unknown_labels:
        more = ", ..." if len(adopted.unknown_labels) > _LISTED_LABELS else ""
        shown = escape(", ".join(adopted.unknown_labels[:_LISTED_LABELS]))
        console.print(f"          [yellow]{len(adopted.unknown_labels)} unknown to it:[/] {shown}{more}")
    if adopted.n_foreign:
        console.print(f"          {adopted.n_foreign} of its own are not asked for")
    console.print(f"next: birdinfer predict SOUNDSCAPES --bundle {folder} -o submission.csv")


def _print_json(loaded: "Bundle") -> None:
    import json

    import msgspec

    manifest = loaded.manifest
    facts = {
        "folder": str(loaded.folder),
        "name": manifest.name,
        "format": manifest.format,
        "labels": list(loaded.labels),
        "rows": msgspec.to_builtins(manifest.rows),
        "post": msgspec.to_builtins(manifest.post),
        "tolerance": msgspec.to_builtins(manifest.tolerance),
        "provenance": msgspec.to_builtins(manifest.provenance),
        "members": [_member_facts(loaded, member) for member in manifest.members],
        "for_other_hosts": [_file_facts(loaded, graph) for graph in manifest.for_other_hosts],
    }
    typer.echo(json.dumps(facts))


def _member_facts(loaded: "Bundle", member: "Member") -> dict[str, Any]:
    import msgspec

    known = msgspec.to_builtins(member)
    kept = ("name", "backbone", "fold", "weight", "outputs", "timeline", "frontend", "waveform")
    return {
        **{key: known[key] for key in kept},
        "hears": hears(member.hearing),
        "graphs": {precision: _file_facts(loaded, graph) for precision, graph in member.graphs.items()},
        "stride_seconds": _stride_seconds(loaded.manifest, member),
        "labels_known": _n_known(loaded, member),
        "out_of_fold_macro_auc": member.out_of_fold_macro_auc,
        "variants": known["variants"],
    }


def _file_facts(loaded: "Bundle", graph: "Graph") -> dict[str, Any]:
    return {"file": graph.file, "bytes": loaded.graph_path(graph).stat().st_size}


def _print_bundle(loaded: "Bundle") -> None:
    from rich.markup import escape

    from birdinfer.cli.console import stdout
    from birdinfer.cli.variants_table import variants_table

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


def _aligned(rows: "Sequence[Sequence[str]]") -> list[str]:
    """Columns under each other; not a table of rich's, which cuts cells off where a pipe is 80 characters wide."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(loaded: "Bundle", member: "Member") -> tuple[str, ...]:
    auc = member.out_of_fold_macro_auc
    return (
        member.name,
        member.backbone or "-",
        hears(member.hearing),
        _graphs(loaded, member),
        f"{_n_known(loaded, member)} of {len(loaded.labels)}",
        f"{member.weight:g}",
        "-" if auc is None else f"{auc:.4f}",
        f"{_stride_seconds(loaded.manifest, member):g} s",
    )


def _graphs(loaded: "Bundle", member: "Member") -> str:
    """``fp32 16.2 MB, int8 4.4 MB``; a file that members share has its size with the first of them alone."""
    owners: dict[str, str] = {}
    for other in loaded.manifest.members:
        for graph in other.graphs.values():
            owners.setdefault(graph.file, other.name)
    shown = []
    for precision, graph in member.graphs.items():
        owner = owners[graph.file]
        shown.append(f"{precision} {_size(loaded, graph) if owner == member.name else f'in the file of {owner}'}")
    return ", ".join(shown)


def _size(loaded: "Bundle", graph: "Graph") -> str:
    return f"{loaded.graph_path(graph).stat().st_size / 1e6:.1f} MB"


def _settings(loaded: "Bundle") -> list[tuple[str, str]]:
    manifest = loaded.manifest
    provenance, tolerance = manifest.provenance, manifest.tolerance
    others = [f"{graph.file} {_size(loaded, graph)}, takes the waveform" for graph in manifest.for_other_hosts]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(provenance.versions.items()))
    return [
        ("rows", f"{manifest.rows.window_seconds:g} s, a rest of {manifest.rows.min_tail_seconds:g} s makes one"),
        *scoring_lines(manifest),
        (
            "tolerance",
            f"{tolerance.max_probability_difference:g} of a probability, "
            f"{tolerance.mean_probability_difference:g} on average",
        ),
        ("made", f"{provenance.created_utc} of run {provenance.run}" + (f" ({versions})" if versions else "")),
        *(("to hand on", other) for other in others),
    ]


def scoring_lines(manifest: "Manifest") -> list[tuple[str, str]]:
    """What becomes of the members' scores, step by step, as name and value."""
    from birdinfer.postprocess.steps import write_step

    blend = manifest.blend
    gate = f" by {blend.by} from {blend.threshold:g}" if blend.threshold is not None else ""
    return [
        ("blend", blend.how + gate),
        ("smoothing", ", ".join(f"{weight:g}" for weight in manifest.post.smoothing_kernel)),
        *(("then", write_step(step)) for step in manifest.post.steps),
    ]


def _stride_seconds(manifest: "Manifest", member: "Member") -> float:
    """From one of its windows to the next."""
    from birdinfer.windows import place

    placement = place(member.hearing, member.timeline, manifest.rows)
    return placement.stride_samples / placement.sample_rate


def _n_known(loaded: "Bundle", member: "Member") -> int:
    return len(loaded.labels) if member.label_columns is None else len(member.label_columns)
