"""``python -m birdinfer.training.launch.worker RUN_DIR --fold 0 ...``: one fold of a prepared run, for another process.

What is trained stands in the run's recipe.toml and folds.csv; how it goes is reported as ``local`` has it.
"""

import argparse
import sys
from pathlib import Path

from birdinfer.runs.layout import RECIPE_FILE
from birdinfer.training.callbacks import TrainingCallback
from birdinfer.training.launch.local import Send, run_child, sending
from birdinfer.training.plan import Run
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.training.run import train_run


def main(arguments: list[str]) -> int:
    """Train a fold; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cache-dir", type=Path)
    asked = parser.parse_args(arguments)

    def work(send: Send) -> None:
        run = Run(
            recipe=load_recipe(asked.run_dir / RECIPE_FILE), data_dir=asked.data, run_dir=asked.run_dir,
            folds=(asked.fold,), device=asked.device, resume=True, cache_dir=asked.cache_dir,
            has_log=True,
        )  # fmt: skip
        train_run(run, sending(TrainingCallback, send))

    return run_child(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
