"""``birdinfer steps``: what can follow the models, how it is written, and what it does."""

import typer


def steps() -> None:
    """List the steps of post-processing, as --post takes them, with their defaults.

    Each stands in birdinfer/postprocess/ with its formula and where it comes from. Which of them help is told by
    `birdinfer score --ablate`.
    """
    from birdinfer.postprocess.steps import summaries

    for line in summaries():
        written, _, what = line.partition("  ")
        typer.secho(written, bold=True)
        typer.echo(f"    {what}")
