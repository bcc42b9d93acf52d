"""``birdinfer rounds``: a recipe and soundscapes -> rounds of pseudo-labels, training, export and evaluation."""

from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.markup import escape

from birdinfer.cli.console import make_table, stdout, widen
from birdinfer.cli.export import ExportProgress
from birdinfer.cli.options import Quiet, need_modules, parse_folds
from birdinfer.cli.predict import PredictionProgress
from birdinfer.cli.progress import StatusBar
from birdinfer.cli.train import TrainingProgress
from birdinfer.prediction.run import PredictionOutcome
from birdinfer.rounds.callbacks import PICTURE, TABLE, RoundRecord, RoundsCallback

if TYPE_CHECKING:
    from birdinfer.rounds.run import RoundsOutcome


class Apart(StrEnum):
    """What of the soundscapes gets no pseudo-labels."""

    file = "file"
    site = "site"


_pseudo = partial(typer.Option, rich_help_panel="Pseudo-labels")
_evaluation = partial(typer.Option, rich_help_panel="Evaluation")


def rounds(
    recipe: Annotated[list[Path], typer.Argument(
        help="A recipe; of several round 0 trains the first, round 1 the second, and so on in a circle.")],
    soundscapes: Annotated[Path, typer.Option(help="Folder of recordings without labels.")],
    n_rounds: Annotated[int, typer.Option("--rounds", min=1, help="After round 0, at most.")] = 3,
    data: Annotated[Path, typer.Option(help="Folder of clips in BirdCLEF's layout.")] = Path("data"),
    out: Annotated[Path | None, typer.Option(help="Where all is written; runs/NAME-rounds if left out.")] = None,
    teacher: Annotated[Path | None, typer.Option(
        help="A bundle that stands for round 0: folds that are there, Perch, BirdNET.")] = None,
    share: Annotated[float, _pseudo(min=0.0, max=0.95, help="The share of each batch that has pseudo-labels.")] = 0.5,
    power: Annotated[float, _pseudo(help="Scores are raised to this.")] = 1.0,
    keep: Annotated[float, _pseudo(help="A window counts if its largest score reaches this.")] = 0.0,
    zero: Annotated[float, _pseudo(help="Lower scores count as 0.")] = 0.0,
    judge_on: Annotated[Path | None, _evaluation(
        help="Labelled recordings that no round learns from; left out: the recipe's out-of-fold clips.")] = None,
    truth: Annotated[Path | None, _evaluation(help="Labels of these recordings, as score takes them.")] = None,
    apart: Annotated[Apart, _evaluation(
        help="These recordings, or all of their sites, get no pseudo-labels.")] = Apart.file,
    resamples: Annotated[int, _evaluation(min=100, help="How often files are resampled for an interval.")] = 1000,
    fold: Annotated[str, typer.Option(help="Which folds: 0,2 or all.")] = "all",
    overrides: Annotated[list[str] | None, typer.Option(
        "--set", help="Change a key of the recipes, as optim.lr=3e-4; repeatable.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(
        help="Where decoded clips are kept (data.cache); your cache folder if left out.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue rounds that were interrupted.")] = False,
    debug: Annotated[bool, typer.Option(
        "--debug", help="Try all rounds in minutes: fold 0 on 1,000 clips for 2 epochs, 10 soundscapes.")] = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train rounds of a noisy student, each on labels and on the pseudo-labels of the best round before it.

    Round 0 trains on labels alone. Rounds end when the 95 % interval of the gain in macro ROC-AUC, over files or
    recordings, includes zero; the bundle of the last sure gain lies in OUT/bundle. OUT/rounds.csv and rounds.png show
    all. Interrupted at any moment, --resume continues; on a CPU the result is the same to the bit.
    """
    need_modules("train", "torch", "timm", "safetensors")
    need_modules("export", "onnx", "onnxscript")
    from birdinfer.rounds.run import RoundsSettings, run_rounds

    settings = RoundsSettings(
        recipes=tuple(recipe), soundscapes=soundscapes, data=data, out=out, n_rounds=n_rounds, teacher=teacher,
        judge_on=judge_on, truth=truth, apart=apart.value, share=share, power=power, keep=keep, zero=zero,
        folds=parse_folds(fold), device=device, overrides=tuple(overrides or ()), cache_dir=cache_dir,
        n_resamples=resamples, resume=resume, debug=debug,
    )  # fmt: skip
    with RoundsProgress(quiet) as progress:
        outcome = run_rounds(settings, progress)
    _draw(outcome)
    _show(outcome)


class RoundsProgress(RoundsCallback):
    """Show each step as its own command does. Use as a context manager."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._status = quiet, StatusBar(quiet)
        self._training = TrainingProgress(quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._training.__exit__()
        self._status.stop()

    def on_message(self, line: str) -> None:
        self._training.on_message(line)

    def on_warning(self, line: str) -> None:
        self._training.on_warning(line)

    def training(self) -> TrainingProgress:
        return self._training

    def prediction(self) -> PredictionProgress:
        return _StepOfRound(self._quiet)

    def export(self) -> ExportProgress:
        return ExportProgress(self._status)

    def on_round(self, record: RoundRecord) -> None:
        self.on_message(f"== round {record.number}: macro AUC {record.macro_auc:.4f}{_gain(record)}")


def _gain(record: RoundRecord) -> str:
    if record.gain is None:
        return ""
    gain, low, high = record.gain
    return f", gain {gain:+.4f} ({low:+.4f} to {high:+.4f})"


class _StepOfRound(PredictionProgress):
    """Shows a prediction within a round, without what to do next."""

    def describe(self, outcome: PredictionOutcome) -> str:
        return f"{outcome.written.rows} windows"


def _draw(outcome: "RoundsOutcome") -> None:
    with suppress(ModuleNotFoundError):
        from birdinfer.plots.rounds import draw_rounds

        draw_rounds(outcome.out / TABLE, outcome.out / PICTURE)


def _show(outcome: "RoundsOutcome") -> None:
    numbers = ("macro AUC", "gain", "95 %", "pseudo-labels", "seconds")
    table = make_table(("round", "recipe", *numbers, ""), numbers)
    for record in outcome.records:
        value, low, high = map("{:+.4f}".format, record.gain) if record.gain else ("", "", "")
        interval, kept = low and f"{low} .. {high}", "kept" if record.number == outcome.best else ""
        cells = (f"{record.macro_auc:.4f}", value, interval, str(record.pseudo_windows), f"{record.seconds:.0f}", kept)
        table.add_row(str(record.number), escape(record.recipe), *cells)
    stdout().print(widen(table))
    folder = escape(str(outcome.out / "bundle"))
    stdout().print(f"{folder}: the bundle of round {outcome.best}")
    stdout().print(f"next: birdinfer predict SOUNDSCAPES --bundle {folder} -o submission.csv")
