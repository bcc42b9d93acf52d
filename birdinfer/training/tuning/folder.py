"""Where everything of a study lies: ``runs/STUDY/`` and the names in it."""

import shutil
from pathlib import Path

from birdinfer.training.tracking.tracker import TRIALS_DIR

STUDY_FILE = "study.json"
"""What the study is of; made last when one begins, so that a study with it is a whole one."""
SPACE_FILE, RECIPE_FILE, BEST_FILE = "space.toml", "recipe.toml", "best.toml"
TRIALS_FILE, CURVES_FILE, IMPORTANCE_FILE = "trials.csv", "curves.csv", "importance.csv"
PROBLEM_FILE = "failed.txt"
"""In a trial's run: why it cannot be trained."""
LOCKED = "study.lock"
"""There while a worker does what one alone may do."""
LOGS_DIR, WORKERS_DIR = "logs", "workers"


def trial_dir(study_dir: Path, number: int) -> Path:
    """A trial's run."""
    return study_dir / TRIALS_DIR / f"{number:04}"


def take_over(study_dir: Path, number: int, earlier: int) -> bool:
    """Make an interrupted trial's run another one's, which goes on with it; False where nothing of it is there."""
    old, new = trial_dir(study_dir, earlier), trial_dir(study_dir, number)
    if new.exists() or not old.is_dir():
        return new.exists()
    old.rename(new)
    return True


def remove_weights(run_dir: Path) -> None:
    """Leave a run's tables and take its checkpoints, which are a hundred times as large."""
    for path in run_dir.glob("fold*/*.safetensors"):
        path.unlink(missing_ok=True)
    for path in run_dir.glob("fold*/soup"):
        shutil.rmtree(path, ignore_errors=True)
