"""``birdinfer demo``: soundscapes with their truth, predicted, scored, detected and shown."""

import secrets
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from birdinfer.cli.console import stdout
from birdinfer.cli.detect import DetectionProgress
from birdinfer.cli.predict import PredictionProgress
from birdinfer.cli.score import score_submission
from birdinfer.detections.page import PageSettings
from birdinfer.inference.bundle import Bundle, demo_bundle_path, forest_demo_path
from birdinfer.prediction.detect import DetectionSettings, detect_recordings
from birdinfer.prediction.run import PredictionSettings, predict_to_csv
from birdinfer.synthetic.soundscapes import write_soundscapes
from birdinfer.system.files import check_replaceable
from birdinfer.system.outputs import check_folder
from birdinfer.tables.scores import ScoreTable, read_scores

_LEVELS = " ▁▂▃▄▅▆▇█"
_TOP_ROWS = 4
_HINT = "name another folder: --out"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the soundscapes and the results.")] = Path("demo"),
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Make soundscapes of invented species instead, any number of them.")
    ] = False,
    files: Annotated[int, typer.Option(min=1, max=1000, help="Soundscapes to make, with --synthetic.")] = 10,
    seconds: Annotated[float, typer.Option(min=10, max=3600, help="Length of each, with --synthetic.")] = 60.0,
    seed: Annotated[
        int | None, typer.Option(help="For the same sounds again, with --synthetic; a fresh one if left out.")
    ] = None,
) -> None:
    """Predict, score and detect three minutes of real sound, and make the page to look at and listen to.

    Clips of ESC-10 (rooster, dog, rain ...), on which the network was not trained, mixed over recordings of a forest;
    whose they are stands in ATTRIBUTION.md. --synthetic makes any number of soundscapes of eight invented species.
    """
    console = stdout()
    audio = out / "soundscapes"
    check_folder(out, hint=_HINT)
    check_replaceable(out, "a demo", _HINT, "soundscapes/events.csv")
    for path in audio.glob("*.ogg"):  # of an earlier demo: they would be predicted, too, and miss their truth
        path.unlink()
    if synthetic:
        seed = secrets.randbelow(1_000_000) if seed is None else seed
        console.print(f"[bold]1.[/] {files} soundscapes of {seconds:g} s, seed {seed}: {escape(str(audio))}")
        truth, name = write_soundscapes(audio, files, seconds, seed), "demo"
        bundle = Bundle.load(demo_bundle_path())
    else:
        shutil.copytree(forest_demo_path(), out, dirs_exist_ok=True)
        console.print(f"[bold]1.[/] three real minutes with their truth, and a network: {escape(str(out))}")
        truth, name = audio / "truth.csv", str(out / "forest")
        bundle = Bundle.load(out / "forest")
    submission = out / "submission.csv"
    console.print(f"[bold]2.[/] birdinfer predict {escape(f'{audio} --bundle {name} -o {submission}')}")
    settings = PredictionSettings(output=submission, force=True, engine="onnxruntime")
    with PredictionProgress() as progress:
        predict_to_csv(bundle, [audio], settings, progress)
    console.print(f"[bold]3.[/] birdinfer score {escape(str(submission))} {escape(str(truth))}")
    report = score_submission(submission, truth)
    console.print(
        f"   macro ROC-AUC [bold green]{report.macro_roc_auc or float('nan'):.4f}[/], padded cmAP "
        f"{report.padded_cmap:.4f} ({report.rows} rows, {report.classes_scored} species)"
    )
    _show_chart(read_scores(submission), read_scores(truth))
    _show_top(submission)
    found = out / "detections"
    console.print(f"[bold]4.[/] birdinfer detect {escape(f'{audio} --bundle {name} -o {found} --page')}")
    page = PageSettings(bundle=bundle.manifest.name)
    with DetectionProgress(bundle) as following:
        detect_recordings(
            bundle, [audio], DetectionSettings(output=found, force=True, engine="onnxruntime", page=page), following
        )
    console.print(
        f"\n[bold]Look and listen:[/] open {escape(str((found / 'index.html').resolve()))}\n"
        "[bold]Next:[/] birdinfer models                          (BirdNET and others: no training data needed)\n"
        "      birdinfer detect YOUR_RECORDINGS/ --bundle BUNDLE -o results/ --page\n"
        "      birdinfer train --data YOUR_DATA/ --fold 0        (BirdCLEF layout; README.md has the walk)"
    )


def _show_chart(scores: ScoreTable, truth: ScoreTable) -> None:
    """The first soundscape as a strip per species: the height is the probability, a note is where it truly is."""
    console = stdout()
    stem = scores.row_ids[0].rpartition("_")[0]
    rows = [index for index, row_id in enumerate(scores.row_ids) if row_id.rpartition("_")[0] == stem][:60]
    truth_rows = [truth.row_ids.index(scores.row_ids[index]) for index in rows]
    console.print(f"\n{stem}: height is probability per 5 s, [bold green]♪[/] it is truly there")
    for column, label in enumerate(scores.labels):
        strip = ""
        for index, truth_index in zip(rows, truth_rows, strict=True):
            level = _LEVELS[min(8, int(scores.values[index, column] * 9))]
            sings = truth.values[truth_index, truth.labels.index(label)] > 0
            strip += f"[bold green]{level}♪[/]" if sings else f"{level} "
        console.print(f"{label:>16} ▏{strip}▕")


def _show_top(submission: Path) -> None:
    console = stdout()
    console.print(f"\n[bold]{escape(str(submission))}[/]")
    with submission.open(encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(",") for _, line in zip(range(_TOP_ROWS), file, strict=False)]
    width = max(len(cells[0]) for cells in rows)
    for cells in rows:
        console.print(escape(" ".join([f"{cells[0]:<{width}}", *(f"{cell[:8]:>9}" for cell in cells[1:5]), "..."])))
    console.print("")
