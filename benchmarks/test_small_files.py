"""Thousands of files of 5 s against the same sound in ten files: the whole command, CPU seconds, one worker."""

import statistics

import numpy as np
import pytest
import soundfile

from birdinfer.inference.bundle import demo_bundle_path
from test_startup import BIRDINFER, cpu_seconds

ROUNDS = 3
SECONDS = 5
N_PIECES = 24
"""That differ; the files repeat them."""


def write_sound(folder, soundscapes, n_files):
    """The same sound in as many files of 5 s, and in ten; their folders."""
    wave = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in soundscapes[:2]])
    rate = soundfile.info(soundscapes[0]).samplerate
    length = SECONDS * rate
    pieces = [wave[begin : begin + length] for begin in range(0, len(wave) - length + 1, length)][:N_PIECES]
    small, large = folder / "small", folder / "large"
    for each in (small, large):
        each.mkdir()
    for index, piece in enumerate(pieces):
        soundfile.write(folder / f"{index}.ogg", piece, rate)
    for index in range(n_files):
        (small / f"f{index:05d}.ogg").hardlink_to(folder / f"{index % len(pieces)}.ogg")
    for number in range(10):
        with soundfile.SoundFile(large / f"l{number}.ogg", "w", rate, 1) as file:
            for index in range(number * n_files // 10, (number + 1) * n_files // 10):
                file.write(pieces[index % len(pieces)])
    return small, large


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "n_files", "bound", "engine"),
    [
        ("b0", 300, 1.3, "onnxruntime"),
        # Its calls compute three windows even where there is one.
        ("b0", 300, 1.3, "openvino"),
        pytest.param("b0", 10_000, 1.3, "onnxruntime", marks=pytest.mark.slow),
        # A network of next to no cost: almost all that is measured is decoding and what each file costs.
        ("demo", 400, 1.6, "onnxruntime"),
    ],
)
def test_files_of_5_s(name, n_files, bound, engine, request, soundscapes, table, tmp_path):
    pytest.importorskip(engine)
    bundle = demo_bundle_path() if name == "demo" else request.getfixturevalue(name).folder
    small, large = write_sound(tmp_path, soundscapes, n_files)
    seconds = {small: [], large: []}
    for number in range(ROUNDS if n_files < 10_000 else 1):
        for folder in (small, large)[:: -1 if number % 2 else 1]:
            out = tmp_path / f"{folder.name}.csv"
            predict = (BIRDINFER, "predict", str(folder), "--bundle", str(bundle), "-o", str(out), "-q")
            seconds[folder].append(cpu_seconds(*predict, "--workers", "1", "--engine", engine))
    ratio = statistics.median(one / other for one, other in zip(seconds[small], seconds[large], strict=True))
    each = (statistics.median(seconds[small]) - statistics.median(seconds[large])) / n_files
    table.append(
        {
            "what": f"{n_files:,} files of 5 s against the same sound in ten, {name}, {engine}, whole process, CPU",
            "measured": f"{ratio:.2f}x",
            "bound": f"<= {bound:g}x",
            "detail": f"{statistics.median(seconds[small]):.1f} against {statistics.median(seconds[large]):.1f} s: "
            f"{1000 * each:.1f} ms more a file",
        }
    )
    assert len((tmp_path / "small.csv").read_text().splitlines()) == 1 + n_files
    assert ratio <= bound
