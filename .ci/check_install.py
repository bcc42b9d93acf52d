"""Run by the Python of a fresh environment that holds the wheel and its cpu extra only: does it predict, without torch?

Usage: python check_install.py WORK_FOLDER
"""

import importlib.util
import sys
from pathlib import Path

TRAINING_ONLY = ("torch", "torchaudio", "timm", "librosa", "sklearn", "matplotlib", "scipy", "onnx")
LEAST_MACRO_AUC = 0.9
"""The demo bundle knows these species; a front end or a bundle that is broken does not come near."""


def main(work: Path) -> None:
    """Predict fresh soundscapes with the bundle of the wheel and look at what was written."""
    check_environment()
    truth = write_soundscapes(work)
    submission = work / "submission.csv"
    run("predict", str(truth.parent), "--bundle", "demo", "--output", str(submission))
    check_submission(submission, truth)
    run("score", str(submission), str(truth))
    run("recipes", "check", "strong")
    run("demo", "--out", str(work / "demo"))
    assert (work / "demo" / "detections" / "index.html").is_file()
    loaded = [name for name in TRAINING_ONLY if name in sys.modules]
    assert not loaded, f"predict imported {loaded}"
    print("the installed wheel predicts, without torch and its like")


def check_environment() -> None:
    """Nothing of training is installed, and birdinfer is the wheel's, with its bundle."""
    import birdinfer
    from birdinfer.inference.bundle import demo_bundle_path

    installed = [name for name in TRAINING_ONLY if importlib.util.find_spec(name)]
    assert not installed, f"[cpu] brought {installed}"
    assert Path(birdinfer.__file__).is_relative_to(sys.prefix), f"{birdinfer.__file__} is not the wheel's"
    assert demo_bundle_path().is_relative_to(sys.prefix), f"{demo_bundle_path()} is not the wheel's"


def write_soundscapes(work: Path) -> Path:
    """Four soundscapes that no model has heard; returns their truth.csv."""
    from birdinfer.synthetic import soundscapes as synthetic_files

    return synthetic_files.write_soundscapes(work / "soundscapes", n_files=4, duration_seconds=60, seed=20_260_501)


def run(*arguments: str) -> None:
    """The command line, in this process, so that its imports can be looked at."""
    from birdinfer.cli.app import main as birdinfer_main

    code: object = None
    try:
        birdinfer_main(list(arguments))
    except SystemExit as end:
        code = end.code
    assert not code, f"birdinfer {arguments[0]} exits with {code}"


def check_submission(submission: Path, truth: Path) -> None:
    """Its rows and columns are exactly those asked for, its values probabilities that know the species."""
    from birdinfer.cli.score import score_submission
    from birdinfer.tables.scores import read_scores

    written, wanted = read_scores(submission), read_scores(truth)
    assert sorted(written.row_ids) == sorted(wanted.row_ids), "rows differ from the truth's"
    assert written.labels == wanted.labels, "columns differ from the truth's"
    assert ((written.values >= 0) & (written.values <= 1)).all(), "a value is no probability"
    auc = score_submission(submission, truth).macro_roc_auc
    assert auc is not None, "no class can be scored"
    assert auc >= LEAST_MACRO_AUC, f"macro ROC-AUC is {auc:.3f}, at least {LEAST_MACRO_AUC} is needed"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
