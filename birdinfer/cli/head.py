"""``birdinfer head``: fit a head of one's own on embeddings, and pack it into a bundle."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdinfer.callbacks import Callback
from birdinfer.cli.app import make_group
from birdinfer.cli.console import needing, shown, stderr, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from birdinfer.heads.run import FittedHead
    from birdinfer.heads.validation import Score

head = make_group("head")
_NAMED = 5
_FEW_GROUPS = 6
"""Of recordings of a species: of fewer, cross-validation takes a large part away."""


class Activation(StrEnum):
    """How logits become probabilities."""

    sigmoid = "sigmoid"
    softmax = "softmax"


class Kind(StrEnum):
    """What a head is."""

    linear = "linear"
    mlp = "mlp"
    prototypes = "prototypes"
    gru = "gru"
    attention = "attention"
    auto = "auto"


@head.callback()
def _group() -> None:
    """Keep ``fit`` a name of its own while it is the only one."""


@head.command()
def fit(
    embeddings: Annotated[Path, typer.Option(help="Folder of birdinfer predict --embeddings, or of one member in it.")],
    labels: Annotated[Path, typer.Option(
        help="What is known: train.csv (filename, primary_label), reviews that the page of detect exported, or who is "
        "present when in soundscapes (filename, start, end, primary_label; row_id and labels; Raven, Audacity).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    kind: Annotated[list[Kind] | None, typer.Option(
        metavar="KIND", show_default="linear",
        help="linear, mlp, prototypes: of single windows; gru, attention: over the windows of a file; of several the "
        "best in cross-validation is taken; auto: all that fit the labels.")] = None,
    bundle: Annotated[Path | None, typer.Option(
        help="The bundle that made the embeddings; where it was then if left out.")] = None,
    fold_column: Annotated[str, typer.Option(
        help="Column of the table with the folds to validate on; without, groups (or authors) are split.")] = "",
    activation: Annotated[Activation, typer.Option(
        help="sigmoid: a recording holds any number of the species; softmax: each holds exactly one.")] = (
        Activation.sigmoid),
    folds: Annotated[int, typer.Option(help="Folds to split groups into.")] = 5,
    sequence: Annotated[int, typer.Option(help="Windows that gru and attention see at once.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, of networks and of the intervals.")] = 0,
) -> None:  # fmt: skip
    """Fit a head to embeddings with known species, score it by cross-validation, and make a bundle of both.

    The bundle predicts, detects and is packed like any other.
    """
    with needing("export", "onnx"):
        from birdinfer.heads.run import HeadCallback, HeadSettings, fit_head
    settings = HeadSettings(
        embeddings=embeddings, labels=labels, output=output, encoder=bundle, fold_column=fold_column, n_folds=folds,
        kinds=tuple(each.value for each in kind or [Kind.linear]), activation=activation.value, n_windows=sequence,
        seed=seed,
    )  # fmt: skip

    class _Progress(_Warnings, HeadCallback):
        def on_kind(self, kind: str) -> None:
            status.update(f"{kind}: cross-validating")

    with stderr().status("reading") as status:
        fitted = fit_head(settings, _Progress())
    _print(stdout(), fitted, output)


def _print(console: "Console", fitted: "FittedHead", output: Path) -> None:
    scores, labelled = fitted.scores, fitted.labelled
    n_clips, n_species, n_windows = len(labelled.groups), len(labelled.species), len(labelled.windows)
    of = f"{n_clips} {labelled.unit}s and {n_windows} windows" if labelled.unit != "window" else f"{n_windows} windows"
    n_scored = n_species - len(scores.unscored)
    console.print(f"[bold]{shown(str(output))}[/]: {fitted.kind} head, {n_species} species, from {of}")
    console.print(f"  macro AUC  {_text(scores.macro_auc)} over {n_scored} species, {scores.n_folds} folds")
    console.print(f"  top-1      {_text(scores.top1)} of the {labelled.unit}s with one species")
    if scores.cmap is not None:
        console.print(f"  cmAP       {scores.cmap:.3f} (padded)")
    if len(fitted.tried) > 1:
        _print_tried(console, fitted)
    if scores.unscored:
        named = ", ".join(scores.unscored[:_NAMED]) + (", ..." if len(scores.unscored) > _NAMED else "")
        console.print(f"[yellow]{len(scores.unscored)} species are in one fold alone and not scored:[/] {shown(named)}")
    few = labelled.n_groups_of_species
    if (half := sorted(few)[len(few) // 2]) < _FEW_GROUPS:
        console.print(
            f"half of the species have at most {half} groups of recordings, a fold's head fewer:\n"
            "figures are rather low, and heads that are alike cannot be compared"
        )
    console.print(f"next: birdinfer predict SOUNDSCAPES --bundle {shown(str(output))} -o submission.csv")


def _print_tried(console: "Console", fitted: "FittedHead") -> None:
    """A table of the kinds, and whether the best is better."""
    console.print(f"  {'kind':<12}{'macro AUC':<26}{'top-1':<9}{'best minus this':<28}{'s':>3}")
    for each in fitted.tried:
        top1 = "-" if each.scores.top1.value is None else f"{each.scores.top1.value:.3f}"
        lead = "" if each.kind == fitted.kind else _text(each.lead, "")
        console.print(f"  {each.kind:<12}{_text(each.scores.macro_auc, ''):<26}{top1:<9}{lead:<28}{each.seconds:3.0f}")
    others = [each for each in fitted.tried if each.kind != fitted.kind and each.lead.interval]
    alike = [each.kind for each in others if each.lead.interval and each.lead.interval[0] <= 0]
    text = f"but {', '.join(alike)} may be as good" if alike else "and is better than the others"
    console.print(f"  {fitted.kind} is taken, {text}")


def _text(score: "Score", percent: str = "95 %: ") -> str:
    if score.value is None:
        return "-"
    interval = f" ({percent}{score.interval[0]:.3f} to {score.interval[1]:.3f})" if score.interval else ""
    return f"{score.value:.3f}{interval}"


class _Warnings(Callback):
    def on_warning(self, line: str) -> None:
        stderr().print(f"[yellow]{shown(line)}[/]")
