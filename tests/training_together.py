"""Several trainings by several processes, one after another: what torchrun starts in the tests, once for all of them.

    python -m torch.distributed.run --nproc-per-node 2 training_together.py FOLDER DATA...

FOLDER holds NAME.toml for each training, in the order of their names; DATA is a folder of clips each, in that order.
A recipe whose name ends with "half" is stopped in its second epoch.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from birdinfer.training.recipe.file import load_recipe
from birdinfer.training.report import Silent
from birdinfer.training.run import Run, train


class StopsAfterAnEpoch(Silent):
    """The first process is told to end; all save and leave."""

    def epoch(self, row, is_best):
        os.kill(os.getpid(), signal.SIGTERM)


def main(folder: Path, data: list[Path]) -> None:
    for path, data_dir in zip(sorted(folder.glob("*.toml")), data, strict=True):
        recipe = load_recipe(path)
        reporter = StopsAfterAnEpoch() if path.stem.endswith("half") else Silent()
        with suppress(SystemExit, KeyboardInterrupt):
            train(Run(recipe, data_dir, folder / path.stem.removesuffix("half"), (0,), "cpu", resume=True), reporter)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
