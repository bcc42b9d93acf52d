import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_tflite import TinyModel

from birdinfer.errors import BundleError, InputNotFoundError, MissingExtraError
from birdinfer.export.tflite.convert import convert_tflite

SAMPLES, LENGTH, HOP = 8_000, 64, 24
N_FRAMES = (SAMPLES - LENGTH) // HOP + 1
RNG = np.random.default_rng(0)
FILTERS = RNG.random((10, LENGTH // 2 + 1)).astype(np.float32)
HEAD, BIAS = RNG.normal(size=(7, 10)).astype(np.float32), RNG.normal(size=7).astype(np.float32)


def run(path, windows):
    session = onnxruntime.InferenceSession(str(path))
    return dict(
        zip([each.name for each in session.get_outputs()], session.run(None, {"waveform": windows}), strict=True)
    )


def frames_of(model, source):
    """As TensorFlow cuts frames: parts of the greatest common divisor of length and hop, then parts are chosen."""
    part = np.gcd(LENGTH, HOP)
    numbers = [model.constant(each, "int32") for each in ([0, 0], [1, SAMPLES], [1, 1], [1, SAMPLES // part, part])]
    cut = model.add("STRIDED_SLICE", source, *numbers[:3], options="StridedSliceOptions", BeginMask=3, EndMask=1)
    parts = model.add("RESHAPE", cut, numbers[3])
    chosen = np.arange(N_FRAMES)[:, None] * (HOP // part) + np.arange(LENGTH // part)
    gathered = model.add("GATHER", parts, model.constant(chosen, "int32"), options="GatherOptions", Axis=1)
    return model.add("RESHAPE", gathered, model.constant([1, N_FRAMES, LENGTH], "int32"))


def spectrogram_model(path, **changes):
    """Frames, Hann window, real part of the transform, filters, square, mean over time, one product."""
    model = TinyModel()
    source = model.tensor(1, SAMPLES)
    windowed = model.add("MUL", frames_of(model, source), model.constant(np.hanning(LENGTH)), options="MulOptions")
    deep = model.add("EXPAND_DIMS", windowed, model.constant(-2, "int32"))
    transformed = model.add("RFFT2D", deep, model.constant([1, changes.get("n_fft", LENGTH)], "int32"))
    flat = model.add("SQUEEZE", transformed, options="SqueezeOptions")
    real = model.add("CAST", flat)
    rows = model.add("RESHAPE", real, model.constant([N_FRAMES, LENGTH // 2 + 1], "int32"))
    bands = model.add("FULLY_CONNECTED", rows, model.constant(FILTERS), -1, options="FullyConnectedOptions")
    back = model.add("RESHAPE", bands, model.constant([1, N_FRAMES, 10], "int32"))
    power = model.add(changes.get("square", "MUL"), back, back, options="MulOptions")
    mean = model.add("MEAN", power, model.constant([1], "int32"), options="ReducerOptions")
    head = model.constant(HEAD, changes.get("head", "float32"))
    scores = model.add("FULLY_CONNECTED", mean, head, model.constant(BIAS), options="FullyConnectedOptions")
    return model.write(path, source, scores)


def expected(windows):
    frames = np.lib.stride_tricks.sliding_window_view(windows.astype(np.float64), LENGTH, axis=1)[:, ::HOP]
    spectrum = np.fft.rfft(frames * np.hanning(LENGTH), axis=2).real
    embedding = np.square(spectrum @ FILTERS.T.astype(np.float64)).mean(axis=1)
    return embedding, embedding @ HEAD.T.astype(np.float64) + BIAS


def test_convert_folds_a_spectrogram_into_one_convolution(tmp_path):
    model, graph = spectrogram_model(tmp_path / "bird.tflite"), tmp_path / "bird.onnx"
    convert_tflite(model, graph, {"sample_rate": "48000"})
    windows = np.random.default_rng(1).normal(0, 0.1, (3, SAMPLES)).astype(np.float32)
    outputs = run(graph, windows)
    embedding, scores = expected(windows)
    np.testing.assert_allclose(outputs["embedding"], embedding, rtol=1e-4)
    np.testing.assert_allclose(outputs["scores"], scores, rtol=1e-3, atol=1e-4)
    kinds = [node.op_type for node in onnx.load(graph).graph.node]
    assert kinds.count("Conv") == 1
    assert "Gather" not in kinds
    assert onnxruntime.InferenceSession(str(graph)).get_modelmeta().custom_metadata_map == {"sample_rate": "48000"}


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (9, 4, 3), (6, 1, 1)])
@pytest.mark.parametrize("is_depthwise", [False, True])
def test_convert_pads_as_tensorflow_does(tmp_path, size, kernel, stride, is_depthwise):
    """SAME: ceil(size / stride) values, the padding split between both ends, the odd one behind."""
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(1, kernel, kernel, 3) if is_depthwise else (5, kernel, kernel, 3)).astype(np.float32)
    model = TinyModel()
    source = model.tensor(1, size * size * 3)
    picture = model.add("RESHAPE", source, model.constant([1, size, size, 3], "int32"))
    kind, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if is_depthwise else ("CONV_2D", "Conv2DOptions")
    out = model.add(
        kind, picture, model.constant(weights), options=options,
        Padding=0, StrideH=stride, StrideW=stride, DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=1,
    )  # fmt: skip
    scaled = model.add("MUL", out, model.constant(np.arange(1, 4 if is_depthwise else 6)), options="MulOptions")
    mean = model.add("MEAN", scaled, model.constant([1, 2], "int32"), options="ReducerOptions")
    convert_tflite(model.write(tmp_path / "a.tflite", source, mean), tmp_path / "a.onnx")
    windows = rng.normal(size=(2, size, size, 3)).astype(np.float32)
    count = -(-size // stride)
    pad = max(0, (count - 1) * stride + kernel - size)
    sides = (pad // 2, pad - pad // 2)
    padded = np.pad(windows, ((0, 0), sides, sides, (0, 0)))
    values = []
    for row in range(count):
        for column in range(count):
            part = padded[:, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            form = "bhwc,hwc->bc" if is_depthwise else "bhwc,khwc->bk"
            values.append(np.einsum(form, part, weights[0] if is_depthwise else weights))
    wanted = np.maximum(values, 0).mean(axis=0) * np.arange(1, 4 if is_depthwise else 6)
    np.testing.assert_allclose(run(tmp_path / "a.onnx", windows.reshape(2, -1))["scores"], wanted, rtol=1e-4, atol=1e-5)


def test_convert_reads_weights_in_float16(tmp_path):
    model = TinyModel()
    source = model.tensor(1, 3)
    half = np.float16(RNG.normal(size=(4, 3)))
    weights = model.add("DEQUANTIZE", model.constant(half, "float16"))
    scores = model.add("FULLY_CONNECTED", source, weights, options="FullyConnectedOptions")
    convert_tflite(model.write(tmp_path / "a.tflite", source, scores), tmp_path / "a.onnx")
    windows = RNG.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(
        run(tmp_path / "a.onnx", windows)["scores"], windows @ half.T.astype(np.float32), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is no TensorFlow Lite model"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(range(200)), "is damaged"),
        (b"", "is no TensorFlow Lite model"),
    ],
)
def test_convert_refuses_other_files(tmp_path, content, problem):
    path = tmp_path / "bird.tflite"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=problem):
        convert_tflite(path, tmp_path / "bird.onnx")
    assert not (tmp_path / "bird.onnx").exists()


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_convert_refuses_a_cut_file(tmp_path, share):
    path = spectrogram_model(tmp_path / "bird.tflite")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BundleError, match=r"is damaged|has "):
        convert_tflite(path, tmp_path / "bird.onnx")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"head": "int8"}, "weights in INT8 - a quantised model"),
        ({"square": "SQUARED_DIFFERENCE"}, "operator SQUARED_DIFFERENCE, which is not known"),
        ({"n_fft": 32}, "operator RFFT2D"),
    ],
)
def test_convert_names_what_it_does_not_know(tmp_path, changes, problem):
    with pytest.raises(BundleError, match=problem):
        convert_tflite(spectrogram_model(tmp_path / "bird.tflite", **changes), tmp_path / "bird.onnx")


def test_convert_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(MissingExtraError, match=r"birdinfer\[tflite\]"):
        convert_tflite(tmp_path / "bird.tflite", tmp_path / "bird.onnx")


def test_convert_names_a_missing_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such file"):
        convert_tflite(tmp_path / "bird.tflite", tmp_path / "bird.onnx")
