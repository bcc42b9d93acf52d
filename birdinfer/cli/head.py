"""``birdinfer head``: fit a head of one's own on embeddings, and pack it into a bundle."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdinfer.callbacks import Callback
from birdinfer.cli.app import make_group
from birdinfer.cli.console import needing, shown, stderr, stdout

if TYPE_CHECKING:
    from birdinfer.heads.linear import Score

head = make_group("head")


class Activation(StrEnum):
    """How logits become probabilities."""

    sigmoid = "sigmoid"
    softmax = "softmax"


@head.callback()
def _group() -> None:
    """Keep ``fit`` a name of its own while it is the only one."""


@head.command()
def fit(
    embeddings: Annotated[Path, typer.Option(help="Folder of birdinfer predict --embeddings, or of one member in it.")],
    labels: Annotated[Path, typer.Option(
        help="What is known: train.csv (filename, primary_label), or reviews that the page of detect exported.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    bundle: Annotated[Path | None, typer.Option(
        help="The bundle that made the embeddings; where it was then if left out.")] = None,
    fold_column: Annotated[str, typer.Option(
        help="Column of the table with the folds to validate on; without, groups (or authors) are split.")] = "",
    activation: Annotated[Activation, typer.Option(
        help="sigmoid: a recording holds any number of the species; softmax: each holds exactly one.")] = (
        Activation.sigmoid),
    folds: Annotated[int, typer.Option(help="Folds to split groups into.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the intervals.")] = 0,
) -> None:  # fmt: skip
    """Fit a head to embeddings with known species, score it by cross-validation, and make a bundle of both.

    The bundle predicts, detects and is packed like any other: encoder and head are one graph.
    """
    with needing("export", "onnx"):
        from birdinfer.heads.run import HeadSettings, fit_head
    settings = HeadSettings(
        embeddings=embeddings, labels=labels, output=output, encoder=bundle, fold_column=fold_column, n_folds=folds,
        seed=seed, activation=activation.value,
    )  # fmt: skip
    with stderr().status("fitting"):
        fitted = fit_head(settings, _Warnings())
    scores, console = fitted.scores, stdout()
    n_clips, n_species = len(fitted.labelled.groups), len(fitted.labelled.species)
    console.print(
        f"[bold]{shown(str(output))}[/]: {n_species} species, from {n_clips} clips and "
        f"{len(fitted.labelled.windows)} windows; penalty {scores.penalty:g}"
    )
    left_out = n_species - scores.n_scored
    of = f"{scores.n_scored} species" + (f" ({left_out} stand in one fold alone)" if left_out else "")
    console.print(f"  macro AUC  {_text(scores.macro_auc)} over {of}, {scores.n_folds} folds")
    console.print(f"  top-1      {_text(scores.top1)} of the clips with one species")
    if scores.cmap is not None:
        console.print(f"  cmAP       {scores.cmap:.3f} (padded)")
    console.print(f"next: birdinfer predict SOUNDSCAPES --bundle {shown(str(output))} -o submission.csv")


def _text(score: "Score") -> str:
    if score.value is None:
        return "-"
    interval = f" (95 %: {score.interval[0]:.3f} to {score.interval[1]:.3f})" if score.interval else ""
    return f"{score.value:.3f}{interval}"


class _Warnings(Callback):
    def on_warning(self, line: str) -> None:
        stderr().print(f"[yellow]{shown(line)}[/]")
