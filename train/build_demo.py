"""Make ``exports/demo/`` again: synthetic clips -> two folds -> bundle -> its score on unseen soundscapes.

    python train/build_demo.py

The same commands as anybody's, one after the other; about six minutes on two cores.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from birdinfer.synthetic.soundscapes import write_soundscapes, write_training_data

ROOT = Path(__file__).resolve().parents[1]
CLIPS_PER_SPECIES = 160
FOLDS = ("0", "1")
RECIPE = "train/demo.toml"


def birdinfer(*arguments: object) -> None:
    """Run a command as a user would; stop where it stops."""
    print("$ birdinfer", *arguments, flush=True)
    command = [sys.executable, "-m", "birdinfer", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})


def main() -> None:
    """Build the bundle and print its score."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        data = write_training_data(work / "data", CLIPS_PER_SPECIES, seed=2026)
        place = ("--data", data, "--runs-dir", work, "--run", "demo")
        # Side by side, a core each: the threads of so small a network would wait more than they work.
        with ThreadPoolExecutor(len(FOLDS)) as workers:
            list(workers.map(lambda fold: birdinfer("train", "--recipe", RECIPE, *place, "--fold", fold), FOLDS))
        bundle = work / "exports" / "demo"
        birdinfer("export", "--onnx", "--run", work / "demo", "--out", bundle)
        for seed in (1, 2, 3):
            truth = write_soundscapes(work / f"soundscapes{seed}", 10, 60.0, seed=seed)
            submission = work / f"submission{seed}.csv"
            birdinfer("predict", work / f"soundscapes{seed}", "--bundle", bundle, "-o", submission)
            birdinfer("score", submission, truth)
        shutil.rmtree(ROOT / "exports" / "demo", ignore_errors=True)
        shutil.copytree(bundle, ROOT / "exports" / "demo")


if __name__ == "__main__":
    main()
