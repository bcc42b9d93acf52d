"""Make ``exports/forest_demo/`` again: three minutes of real sound, their truth, and a small network for them.

    python train/build_forest_demo.py DATA

DATA holds ``esc10/`` (clips of ESC-10 in BirdCLEF's layout, with ``eval_audio/`` apart) and ``background/`` (forest
recordings: ``augment/`` to train with, ``mix_public/`` to mix). Only clips in the public domain are mixed, from
``eval_audio/``, on which the network is not trained. The same commands as anybody's; about five minutes on two cores.
"""

import csv
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from birdinfer.synthetic.soundscapes import add_call, write_csv, write_ogg

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "exports" / "forest_demo"
RATE, SECONDS, WINDOW, FRAME = 32_000, 60, 5, 640
EVENTS_PER_FILE, LEVEL = 9, 0.006
DEMO_SNR_DB, TRAINING_SNR_DB = (6.0, 20.0), (0.0, 20.0)
MIN_ACTIVE_SECONDS = 0.25
SEED = 2026
SETTINGS = (
    "data.all_data=true",
    # The forest was recorded at 22 kHz: nothing is above 11 kHz there.
    "frontend.mel.f_max_hz=11000.0",
    'augment.mixup_labels="max"',
    "augment.mixup_probability=0.5",
    "augment.mixup_alpha=0.4",
    "augment.filter_probability=0.5",
    "loop.epochs=30",
)


def birdinfer(work: Path, *arguments: object) -> None:
    """Run a command as a user would, in a folder; stop where it stops."""
    print("$ birdinfer", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "birdinfer", *map(str, arguments)], check=True, cwd=work)


def active_part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A clip without the silence around it [samples], and which of its frames of 20 ms sound [frames]."""
    waveform, rate = soundfile.read(path, dtype="float64")
    if rate != RATE:
        raise SystemExit(f"{path}: is at {rate} Hz, needs {RATE}")
    power = np.square(waveform[: len(waveform) // FRAME * FRAME]).reshape(-1, FRAME).mean(1)
    sounds = power > power.max() * 1e-3
    first, last = np.flatnonzero(sounds)[[0, -1]]
    part = waveform[first * FRAME : (last + 1) * FRAME]
    ramp = np.minimum(1, np.arange(len(part)) / FRAME)
    return part * ramp * ramp[::-1], sounds[first : last + 1]


def forest(files: Sequence[Path]) -> np.ndarray:
    """A minute of forest [samples]: recordings of one place one after the other, each faded into the next for 1 s."""
    minute = np.zeros(0)
    for path in files:
        part = soundfile.read(path, dtype="float64")[0]
        part /= np.sqrt(np.mean(np.square(part)))
        if len(minute):
            fade = np.sin(np.linspace(0, np.pi / 2, RATE))
            minute[-RATE:] = minute[-RATE:] * fade[::-1] + part[:RATE] * fade
            part = part[RATE:]
        minute = np.concatenate([minute, part])
    return LEVEL * minute[: RATE * SECONDS]


class Pool(NamedTuple):
    """What soundscapes are mixed from."""

    clips: list[dict[str, str]]  # rows of ESC-10's tables
    audio: Path  # folder of their files
    beds: list[Path]  # recordings of the forest


def read_pool(data: Path, kind: str) -> Pool:
    """Clips and forest to mix: ``train``, or ``eval``, of which clips in the public domain alone."""
    with (data / "esc10" / f"{kind}.csv").open(newline="", encoding="utf-8") as file:
        clips = [row for row in csv.DictReader(file) if kind == "train" or row["license"].startswith("CC0")]
    beds = data / "background" / ("augment" if kind == "train" else "mix_public") / "jura"
    return Pool(clips, data / "esc10" / f"{kind}_audio", sorted(beds.glob("*.ogg")))


def mix(pool: Pool, target: Path, n_files: int, snr_db: tuple[float, float], seed: int) -> list[dict[str, str]]:
    """Write soundscapes of a minute, their truth and events into a folder; return the clips in them."""
    rng = np.random.default_rng(seed)
    labels = sorted({row["primary_label"] for row in pool.clips})
    order = [label for _ in range(n_files) for label in rng.permutation(labels)]
    beds = rng.permutation(np.array(pool.beds, dtype=object))
    truth_rows: list[list[object]] = []
    events: list[list[object]] = []
    used: dict[str, dict[str, str]] = {}
    for index in range(n_files):
        # Seven recordings of 10 s make a minute.
        files = [beds[(4 * index + i) % len(beds)] for i in range(7)]
        name = f"FOREST{index + 1}_{files[0].stem.partition('_')[2]}"
        background = (forest(files) * 10 ** rng.uniform(-0.3, 0.3)).astype(np.float32)
        waveform, seconds = background.copy(), np.zeros((SECONDS // WINDOW, len(labels)))
        starts = rng.permutation(SECONDS // WINDOW - 1)[:EVENTS_PER_FILE] * WINDOW + rng.uniform(0, 2, EVENTS_PER_FILE)
        for start in sorted(starts):
            label = order.pop()
            row = rng.choice([row for row in pool.clips if row["primary_label"] == label])
            onset = int(start * RATE) // FRAME
            n_frames = SECONDS * RATE // FRAME - onset
            sound, sounds = active_part(pool.audio / row["filename"])
            sound, sounds = sound[: n_frames * FRAME], sounds[:n_frames]
            event = add_call(waveform, background, label, sound, onset * FRAME, rng.uniform(*snr_db), RATE)
            windows = (onset + np.flatnonzero(sounds)) * FRAME // (WINDOW * RATE)
            seconds[:, labels.index(label)] += np.bincount(windows, minlength=len(seconds)) * FRAME / RATE
            used[row["filename"]] = row
            numbers = (f"{event.onset_seconds:.2f}", f"{event.offset_seconds:.2f}", f"{event.snr_db:.1f}")
            events.append([f"{name}.ogg", label, *numbers, row["filename"]])
        waveform *= min(1.0, 0.9 / float(np.abs(waveform).max()))
        write_ogg(target / f"{name}.ogg", waveform, RATE)
        for window, present in enumerate(seconds >= MIN_ACTIVE_SECONDS):
            truth_rows.append([f"{name}_{WINDOW * (window + 1)}", *present.astype(int)])
    write_csv(target / "truth.csv", ["row_id", *labels], truth_rows)
    header = ["filename", "label", "onset_seconds", "offset_seconds", "snr_db", "clip"]
    write_csv(target / "events.csv", header, events)
    return list(used.values())


def write_attribution(path: Path, clips: list[dict[str, str]]) -> None:
    """Say whose sounds these are; the licence of the forest recordings stands beside it."""
    lines = [
        "# Whose sounds these are\n",
        'Clips: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015',
        "(https://doi.org/10.1145/2733373.2806390). Those mixed here are in the public domain (CC0), from freesound:\n",
        *(f"- {row['filename']}: {row['common_name']} - {row['author']} - {row['url']}" for row in clips),
        "\nForest: recordings S4A03895_20190522, Jura (France), from scikit-maad: LICENSE.scikit-maad.txt.",
        "Changes: mixed by train/build_forest_demo.py, Ogg Vorbis at 32 kHz; events.csv says what sounds when.",
        "\nThe network was trained on other clips of ESC-10 (CC BY 3.0 as a set), other recordings of that forest.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_recipe(path: Path) -> Path:
    """The recipe of the network: clips, and soundscapes mixed from the same clips; others of them choose the epoch."""
    sources = "".join(
        f'\n[[data.sources]]\nkind = "segments"\nname = "{name}"\npath = "{name}"\n'
        f'table = "{name}/truth.csv"\noverlap = "keep"\n{rest}\n'
        for name, rest in (("mixed", "share = 0.5"), ("chosen_on", 'role = "validate"'))
    )
    path.write_text((ROOT / "train" / "esc10.toml").read_text(encoding="utf-8") + sources, encoding="utf-8")
    return path


def main() -> None:
    """Build sound and bundle, and print the bundle's score on that sound."""
    data = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        built = work / "forest_demo"
        clips = mix(read_pool(data, "eval"), built / "soundscapes", 3, DEMO_SNR_DB, SEED)
        write_attribution(built / "ATTRIBUTION.md", clips)
        shutil.copy(data / "LICENSES" / "scikit-maad.BSD-3-Clause.txt", built / "LICENSE.scikit-maad.txt")
        for name, n_files, seed in (("mixed", 120, 1), ("chosen_on", 12, 2)):
            mix(read_pool(data, "train"), work / name, n_files, TRAINING_SNR_DB, seed)
        recipe = write_recipe(work / "forest.toml")
        options = [word for setting in SETTINGS for word in ("--set", setting)]
        place = ("--name", "forest", "--runs-dir", work)
        birdinfer(work, "train", "--recipe", recipe, "--data", data / "esc10", *place, "--fold", "0", *options)
        birdinfer(work, "export", "--onnx", "--run", work / "forest", "--out", built / "forest")
        submission = work / "submission.csv"
        birdinfer(work, "predict", built / "soundscapes", "--bundle", built / "forest", "-o", submission)
        birdinfer(work, "score", submission, built / "soundscapes" / "truth.csv", "--per-class")
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(built, TARGET)


if __name__ == "__main__":
    main()
