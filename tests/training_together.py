"""Several trainings by several processes, one after another: what torchrun starts in the tests, once for all of them.

    python -m torch.distributed.run --nproc-per-node 2 training_together.py FOLDER DATA...

FOLDER holds NAME.toml for each training, in the order of their names; DATA is a folder of clips each, in that order.
A recipe whose name ends with "half" is stopped after its first epoch. Of one whose name ends with "killed" the second
process is killed, as by kill -9, after an epoch; it is trained by the command line, in FOLDER, and has to be the last.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from birdinfer.cli.app import main as birdinfer
from birdinfer.training.callbacks import TrainingCallback
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.training.run import Run, train_run


class StopsAfterAnEpoch(TrainingCallback):
    """The first process is reported to end; all save and leave."""

    def on_epoch_end(self, row, is_best):
        os.kill(os.getpid(), signal.SIGTERM)


def die_after_an_epoch(history: Path) -> None:
    while not history.exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, data: list[Path]) -> None:
    for path, data_dir in zip(sorted(folder.glob("*.toml")), data, strict=True):
        if path.stem.endswith("killed"):
            if os.environ["RANK"] == "1":
                history = folder / path.stem / "fold0" / "history.csv"
                threading.Thread(target=die_after_an_epoch, args=(history,), daemon=True).start()
            words = ["--recipe", str(path), "--data", str(data_dir), "--runs-dir", str(folder), "--name", path.stem]
            birdinfer(["train", *words, "--device", "cpu"])
        recipe = load_recipe(path)
        reporter = StopsAfterAnEpoch() if path.stem.endswith("half") else TrainingCallback()
        with suppress(SystemExit, KeyboardInterrupt):
            train_run(
                Run(
                    recipe=recipe,
                    data_dir=data_dir,
                    run_dir=folder / path.stem.removesuffix("half"),
                    folds=(0,),
                    device="cpu",
                    resume=True,
                ),
                reporter,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
