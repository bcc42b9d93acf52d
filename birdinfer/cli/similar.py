"""``birdinfer similar``: an example -> the embedded windows that are most like it, as a table and a page."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from birdinfer.callbacks import Callback
from birdinfer.cli.console import make_table, shown, stdout
from birdinfer.cli.options import Quiet, bundle_folder
from birdinfer.cli.progress import StatusBar
from birdinfer.detections.page import PageSettings
from birdinfer.detections.recordings import OriginSettings
from birdinfer.detections.similar import TABLE, SimilarSettings, SimilarWindow, write_similar
from birdinfer.system.files import utf8_text

_SHOWN = 10
FILES = "Input and output"
example = partial(typer.Option, rich_help_panel="What to search for")
result = partial(typer.Option, rich_help_panel="What to find")


class Likeness(StrEnum):
    """How similar two embeddings are."""

    cosine = "cosine"
    euclidean = "euclidean"


def similar(
    sounds: Annotated[list[Path] | None, typer.Argument(
        metavar="QUERY", help="Sound files like which windows are searched for, each a query.")] = None,
    within: Annotated[Path, typer.Option(
        "--in", rich_help_panel=FILES, help="Folder of birdinfer predict --embeddings, or of one member in it."
        )] = Path("embeddings"),
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("results"),
    bundle: Annotated[Path | None, typer.Option(
        help="The bundle that made the embeddings; where it was then if left out.")] = None,
    recordings: Annotated[list[Path] | None, typer.Option(
        rich_help_panel=FILES, help="Where the embedded recordings are now, as they were given to predict; "
        "repeatable.")] = None,
    at: Annotated[list[float] | None, example(
        min=0, metavar="SECONDS", help="Where the window of the one QUERY begins; repeatable. Left out: all its "
        "windows are examples of one query.")] = None,
    row_id: Annotated[list[str] | None, example(
        help="Search for a window that is embedded, by its row id; repeatable.")] = None,
    queries: Annotated[Path | None, example(
        help="Table of examples: row_id, or recording or file with start in seconds. Those of one label are one query. "
        "If they are reviews, those that are right count.")] = None,
    label: Annotated[str, example(
        help="What all examples are of, which makes them one query. Left out: the files' names, row ids, or the "
        "table's labels.")] = "",
    k: Annotated[int, result("-k", min=1, help="Windows to find for each query.")] = 20,
    per_file: Annotated[int | None, result(min=1, help="Most windows of one recording.")] = None,
    own: Annotated[bool, result(
        "--own", help="Find the example itself, too, and what is less than a window away from it.")] = False,
    metric: Annotated[Likeness, result(
        help="The cosine, or with euclidean 1 / (1 + distance).")] = Likeness.cosine,
    timezone: Annotated[str, result(
        help="Zone in which clock times are read and shown, as Europe/Berlin or +02:00; left out: as recorded.")] = "",
    page: Annotated[bool, result(help="Make index.html, on which windows are listened to and marked.")] = True,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Find the embedded windows that are most like an example, and write a folder of results.

    similar.csv lists them; on index.html they are listened to and marked as right or wrong, and its export is what
    head fit takes as --labels, and similar as --queries. The comparison is exact, with every window. The first search
    in a folder makes an index beside the embeddings, as large as they are.
    """
    settings = SimilarSettings(
        embeddings=within, sounds=sounds or (), at_seconds=at or (), row_ids=row_id or (), table=queries, label=label,
        k=k, metric=metric.value, per_recording=per_file, finds_own=own,
        bundle=None if bundle is None else bundle_folder(bundle), recordings=recordings or (),
        origin=OriginSettings(timezone=timezone),
    )  # fmt: skip
    names = [label] if label else [*(path.name for path in sounds or ()), *settings.row_ids]
    title = f"Like {utf8_text(', '.join(names) or 'the examples')}"
    with _Progress(quiet) as progress:
        found = write_similar(settings, output, PageSettings(title=title) if page else None, progress)
    if not quiet:
        _show(found, output, page)


def _show(found: list[SimilarWindow], output: Path, page: bool) -> None:
    console, table = stdout(), make_table(("", "similarity", "start", "recording"), ("", "similarity", "start"))
    labels = {each.species.label for each in found}
    for each in found[:_SHOWN]:
        rank = f"{each.species.label} {each.rank}" if len(labels) > 1 else str(each.rank)
        table.add_row(
            escape(rank), f"{each.similarity:.3f}", f"{each.start_seconds:.1f}", shown(each.recording.file)
        )  # fmt: skip
    console.print(table)
    if len(found) > _SHOWN:
        console.print(f"[dim]and {len(found) - _SHOWN} more[/]")
    where = f"[bold]{shown(str(output / TABLE))}[/]: {len(found)} windows of "
    console.print(f"{where}{len({each.recording.name for each in found})} recordings")
    if page and found:
        console.print(f"next: open {shown(str(output / 'index.html'))}, mark what is right, export reviews.csv")


class _Progress(StatusBar, Callback):
    """Show the index being made, the search and the page."""

    def on_message(self, line: str) -> None:
        self.line(line)

    def on_warning(self, line: str) -> None:
        self.warn(line)

    def on_progress(self, task: str, done: float, total: float) -> None:
        self.show(task, f"{task}: {100 * done / max(1, total):.0f} %", done, total)
        if done >= total:
            self.stop()
