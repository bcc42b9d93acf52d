"""``birdinfer pseudo-label``: recordings -> a folder of scores to train on, and who gave them."""

from pathlib import Path
from typing import Annotated

import typer

from birdinfer.cli import STARTED
from birdinfer.cli.options import (
    BatchSize,
    BlendMembers,
    BundleFolder,
    Engine,
    MergeOverlapping,
    Overlap,
    Post,
    Quiet,
    Resume,
    Smooth,
    StartAgain,
    VoiceOption,
    Workers,
    bundle_folder,
    with_scoring,
)
from birdinfer.cli.predict import EXIT_WITH_FAILURES, PredictionProgress
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.pseudo_label import PseudoLabelSettings
from birdinfer.prediction.pseudo_label import pseudo_label as write_pseudo_labels
from birdinfer.prediction.run import PredictionOutcome


def pseudo_label(
    soundscapes: Annotated[Path, typer.Argument(help="Folder of recordings (searched to the bottom).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of pseudo-labels to write.")],
    bundle: BundleFolder = None,
    power: Annotated[float, typer.Option(help="Recorded for training: scores are raised to this.")] = 1.0,
    keep: Annotated[float, typer.Option(
        help="Recorded for training: a window counts if its largest score reaches this.")] = 0.0,
    zero: Annotated[float, typer.Option(help="Recorded for training: lower scores count as 0.")] = 0.0,
    smooth: Smooth = None,
    post: Post = None,
    blend: BlendMembers = None,
    overlap: Overlap = None,
    merge: MergeOverlapping = None,
    voice: VoiceOption = None,
    engine: Engine = None,
    workers: Workers = None,
    batch_size: BatchSize = None,
    resume: Resume = False,
    force: StartAgain = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Score recordings, and write a folder of pseudo-labels to train on.

    Any bundle is a teacher, with its blend and post-processing. The folder holds index.csv (filename, start, end, row),
    scores.npy (float16, a row for each window, as they were predicted), pseudo_labels.json (which bundle, members and
    kinds of network gave them, and the thresholds that are meant) and files.csv (the status of every recording).

    A recording that a fold was trained on is scored by the other folds alone, and left out where there are none.
    A stopped run continues with --resume. Exit code 3: written, but some recordings failed or are damaged.
    """
    loaded = Bundle.load(bundle_folder(bundle, quiet)).with_overlap(overlap, merge.value if merge else None)
    loaded = with_scoring(loaded, smooth, post, blend)
    settings = PseudoLabelSettings(
        output=output, power=power, keep=keep, zero=zero, resume=resume, force=force, started=STARTED, engine=engine,
        workers=workers, batch_size=batch_size, voice=None if voice is None else voice.value,
    )  # fmt: skip
    with PseudoLabelProgress(quiet, output=output) as progress:
        outcome = write_pseudo_labels(loaded, soundscapes, settings, progress)
    if outcome.n_damaged:
        raise typer.Exit(EXIT_WITH_FAILURES)


class PseudoLabelProgress(PredictionProgress):
    """Show a run of pseudo-labels as a prediction is shown."""

    def describe(self, outcome: PredictionOutcome) -> str:
        """What was written, in a line."""
        return f"{outcome.written.rows} windows; train on them as a source of kind pseudo-labels"
