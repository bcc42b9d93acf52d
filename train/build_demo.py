"""Make ``exports/demo/`` again: synthetic clips -> two folds -> bundle -> its score on soundscapes it never heard.

    python train/build_demo.py

The same commands as anybody's, one after the other; about six minutes on two cores.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from birdinfer.synthetic import write_soundscapes, write_training_data

ROOT = Path(__file__).resolve().parents[1]
CLIPS_PER_SPECIES = 100
FOLDS = ("0", "1")


def birdinfer(*arguments: object) -> None:
    """Run a command as a user would; stop where it stops."""
    print("$ birdinfer", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "birdinfer", *map(str, arguments)], check=True, cwd=ROOT)


def main() -> None:
    """Build the bundle and print its score."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        data = write_training_data(work / "data", CLIPS_PER_SPECIES, seed=2026)
        for fold in FOLDS:
            place = ("--data", data, "--runs-dir", work, "--run", "demo")
            birdinfer("train", "--recipe", "train/demo.toml", *place, "--fold", fold)
        birdinfer("export", "--onnx", "--run", work / "demo", "--data", data, "--out", work / "bundle")
        for seed in (1, 2, 3):
            truth = write_soundscapes(work / f"soundscapes{seed}", 10, 60.0, seed=seed)
            submission = work / f"submission{seed}.csv"
            birdinfer("predict", work / f"soundscapes{seed}", "--bundle", work / "bundle", "-o", submission)
            birdinfer("score", submission, truth)
        shutil.rmtree(ROOT / "exports" / "demo", ignore_errors=True)
        shutil.copytree(work / "bundle", ROOT / "exports" / "demo")


if __name__ == "__main__":
    main()
