"""The names of what a training run (``runs/NAME/``) and a study (``runs/STUDY/``) leave on disk."""

import shutil
from pathlib import Path

RECIPE_FILE = "recipe.toml"
LOGS_DIR = "logs"  # what processes beside this one, or jobs of a cluster, wrote
LAST, BEST = "last.safetensors", "best.safetensors"
"""In a fold's folder: all that a resume needs; the weights that count."""

SOUP_DIR, EPOCHS_DIR = "soup", "epochs"
"""In it: weights of epochs that may be averaged in the end; of those that are kept for good (``loop.keep_epochs``)."""

TRIALS_DIR = "trials"  # runs in a folder of this name are the trials of a study
STUDY_FILE = "study.json"  # what the study searches; written last, so that a study with this file is whole
SPACE_FILE, BEST_FILE = "space.toml", "best.toml"
TRIALS_FILE, CURVES_FILE, IMPORTANCE_FILE = "trials.csv", "curves.csv", "importance.csv"
STUDY_LEASE = "study.lease"  # held by a worker while it claims a trial or writes the tables
PROBLEM_FILE = "failed.txt"  # in a trial's run: why it cannot be trained


def fold_dir(run_dir: Path, fold: int) -> Path:
    """The folder of a run's fold, numbered from 0."""
    return run_dir / f"fold{fold}"


def weights_file(fold_dir: Path, epoch: int | None = None) -> Path:
    """The weights of a fold: those that count, or an epoch's (``loop.keep_epochs``)."""
    return fold_dir / BEST if epoch is None else fold_dir / EPOCHS_DIR / epoch_file(epoch)


def epoch_file(epoch: int) -> str:
    """The name of an epoch's weights, numbered from 1."""
    return f"epoch{epoch:04}.safetensors"


def trial_dir(study_dir: Path, number: int) -> Path:
    """The folder of a trial's run, numbered from 0."""
    return study_dir / TRIALS_DIR / f"{number:04}"


def repeat_dir(trial_dir: Path, repeat: int) -> Path:
    """The folder of a trial's further training with another seed, numbered from 1; 0 is the trial's own."""
    return trial_dir / f"repeat{repeat}" if repeat else trial_dir


def trial_lease(study_dir: Path, number: int) -> Path:
    """The file that a worker holds while it trains a trial."""
    return study_dir / TRIALS_DIR / f"{number:04}.lease"


def remove_weights(run_dir: Path) -> None:
    """Remove a run's checkpoints, which take a hundred times the space of its tables."""
    for folder in (run_dir, *run_dir.glob("repeat*")):
        for path in folder.glob("fold*/*.safetensors"):
            path.unlink(missing_ok=True)
        for name in (SOUP_DIR, EPOCHS_DIR):
            for path in folder.glob(f"fold*/{name}"):
                shutil.rmtree(path, ignore_errors=True)
