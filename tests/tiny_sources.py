"""Sources of training data beside tiny_clips: soundscapes of calls, their labels, and pseudo-labels for them."""

import numpy as np
from make_bundles import write_sound
from tiny_clips import LABELS, RATE, call

from birdinfer.tables.pseudo_labels import Teacher, write_pseudo_labels

SITES = ("S01", "S02")


def soundscape(number: int) -> str:
    return f"BC2026_Train_000{number}_{SITES[number % 2]}_20250227_060000"


def write_soundscapes(folder, n_files=3, seconds=4):
    """Files of seconds with one call each; second k of file n holds label n + k."""
    folder.mkdir()
    for number in range(n_files):
        calls = [call(LABELS[(number + second) % len(LABELS)], 1.0, 100 + number) for second in range(seconds)]
        write_sound(folder / f"{soundscape(number)}.wav", np.concatenate(calls), RATE)
    return folder


def write_labels(path, n_files=3, seconds=4):
    """The table of 2026; each last second holds nothing."""
    rows = ["filename,start,end,primary_label"]
    for number in range(n_files):
        for second in range(seconds):
            label = LABELS[(number + second) % len(LABELS)] if second < seconds - 1 else ""
            rows.append(f"{soundscape(number)}.ogg,{second},{second + 1},{label}")
    path.write_text("\n".join(rows) + "\n")
    return path


def write_pseudo(folder, n_files=3, seconds=4, labels=LABELS, **keys):
    """Score of label c in second s of file n: 0.1 (1 + (n + s + c) % 8)."""
    windows = [(float(second), float(second + 1)) for second in range(seconds)]
    scores = [
        0.1 * (1 + (number + np.add.outer(np.arange(seconds), np.arange(len(labels)))) % 8) for number in range(n_files)
    ]
    rows = [(f"{soundscape(number)}.wav", windows, values.astype(np.float32)) for number, values in enumerate(scores)]
    write_pseudo_labels(folder, Teacher(labels=tuple(labels), bundle="teacher", **keys), rows)
    return folder
