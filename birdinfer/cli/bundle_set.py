"""``birdinfer bundle set``: overlap, blend and post-processing become a bundle's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdinfer.cli.predict import Merge

if TYPE_CHECKING:
    from birdinfer.bundle import Bundle


def set_bundle(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder; its manifest is changed.")],
    smooth: Annotated[
        str | None, typer.Option(help="Kernel over neighbouring windows, as 0.2,0.6,0.2, or none.")
    ] = None,
    post: Annotated[
        list[str] | None,
        typer.Option(help="Steps after the smoothing, as of predict --post, instead of its own; none: no step."),
    ] = None,
    blend: Annotated[str | None, typer.Option(help="How members become one opinion, as of predict --blend.")] = None,
    overlap: Annotated[float | None, typer.Option(min=0, help="Seconds that neighbouring windows share.")] = None,
    merge: Annotated[Merge | None, typer.Option(help="How scores of overlapping windows meet.")] = None,
) -> None:
    """Store in a bundle what is to be done to its scores: what `birdinfer score --ablate` found worth it.

    Tables that steps read are copied into the bundle. What is left out of the command stays as it is.
    """
    from birdinfer.bundle import Bundle
    from birdinfer.bundle_settings import store_settings
    from birdinfer.cli.scoring_options import with_scoring

    loaded = Bundle.load(folder).with_overlap(overlap, merge.value if merge else None)
    _tell(store_settings(with_scoring(loaded, smooth, post, blend)))


def _tell(stored: "Bundle") -> None:
    from rich.markup import escape

    from birdinfer.cli.bundle import scoring_lines
    from birdinfer.cli.console import stdout

    console = stdout()
    for name, value in scoring_lines(stored.manifest):
        console.print(f"[dim]{name:<10}[/] {escape(value)}", soft_wrap=True)
