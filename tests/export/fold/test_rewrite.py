import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from front_ends import KINDS, N_FFT, SAMPLES, sounds, write_front_end
from onnx import helper, numpy_helper

from birdinfer.export.fold import rewrite
from birdinfer.export.fold.rewrite import fold_graph


def run(path, windows):
    return onnxruntime.InferenceSession(str(path)).run(None, {"waveform": windows})[0]


def folded(path):
    found = fold_graph(path, SAMPLES)
    out = path.with_name("folded.onnx")
    ir.save(found.model, out)
    onnx.checker.check_model(onnx.load(out))
    return found, out


@pytest.mark.parametrize("pad", ["", "reflect", "constant"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("real part", "unfolded")])
def test_fold_graph_knows_a_transform_whatever_nodes_it_is_made_of(tmp_path, kind, pad):
    path = write_front_end(tmp_path / "g.onnx", kind, pad, normalised=pad == "constant")
    found, out = folded(path)
    assert str(found) == "1 fast Fourier transform"
    np.testing.assert_allclose(run(out, sounds()), run(path, sounds()), atol=2e-4)
    nodes = onnx.load(out).graph.node
    assert not {node.op_type for node in nodes} & {"STFT", "DFT", "Conv"}
    # Not Unsqueeze, which takes its axes in another way before opset 13.
    written = {node.op_type for node in nodes if node.name.startswith("folded/")}
    assert written <= {"Reshape", "Slice", "Pad", "Concat", "Transpose", "MatMul", "Gather", "Mul", "Add"}


def test_fold_graph_makes_one_convolution_of_a_real_part(tmp_path):
    """As of BirdNET 2.4: transform, real part and bands are linear up to the square."""
    path = write_front_end(tmp_path / "g.onnx", "real part", normalised=True)
    found, out = folded(path)
    assert str(found) == "1 convolution"
    np.testing.assert_allclose(run(out, sounds()), run(path, sounds()), atol=2e-4)
    kinds = [node.op_type for node in onnx.load(out).graph.node]
    assert kinds.count("Conv") == 1
    assert not {"DFT", "Gather"} & {*kinds}


def write_shifted(path, n_fft=1024, hop=320, n_samples=16_000):
    """BirdNET 2.4's beginning: lowest sample to 0, frames, window, real part of the transform, bands."""
    rng, n_frames = np.random.default_rng(0), (n_samples - n_fft) // hop + 1
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)
    bands = (rng.random((n_fft // 2 - 20, 40)) / 100).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMin", ["waveform"], ["low"], axes=[1]),
        helper.make_node("Sub", ["waveform", "low"], ["shifted"]),
        helper.make_node("Gather", ["shifted", "index"], ["frames"], axis=1),
        helper.make_node("Mul", ["frames", "window"], ["windowed"]),
        helper.make_node("Unsqueeze", ["windowed", "deep"], ["signal"]),
        helper.make_node("DFT", ["signal"], ["both"], axis=2, onesided=1),
        helper.make_node("Gather", ["both", "zero"], ["real"], axis=3),
        helper.make_node("Slice", ["real", "begin", "end", "axis"], ["high"]),
        helper.make_node("MatMul", ["high", "bands"], ["front"]),
        helper.make_node("Mul", ["front", "front"], ["scores"]),
    ]
    index = np.arange(n_frames)[:, None] * hop + np.arange(n_fft)
    constants = {"index": index, "window": window, "deep": np.array([3]), "zero": np.array(0), "begin": np.array([21]),
                 "end": np.array([n_fft // 2 + 1]), "axis": np.array([2]), "bands": bands}  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "shifted",
        [helper.make_tensor_value_info("waveform", 1, ["batch", n_samples])],
        [helper.make_tensor_value_info("scores", 1, ["batch", n_frames, 40])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return index, window, bands


def test_fold_graph_keeps_the_rounding_out_of_digital_silence(tmp_path, monkeypatch):
    """A constant has next to nothing in the bands; a power below 1 makes the rounding loud that a sum over it leaves.

    Right is what the product with the window rounds away, behind a transform in double precision, as LiteRT has it.
    """
    index, window, bands = write_shifted(tmp_path / "g.onnx")
    sound = np.zeros((1, 16_000), np.float32)
    sound[0, :4_000] = np.random.default_rng(0).normal(0, 0.1, 4_000)
    frames = ((sound[0] - sound.min())[index[-8:]] * window).astype(np.float64)
    exact = np.square(np.fft.rfft(frames).real[:, 21:] @ bands)

    def error():
        found = fold_graph(tmp_path / "g.onnx", 16_000)
        ir.save(found.model, tmp_path / "folded.onnx")
        return np.abs(np.sqrt(run(tmp_path / "folded.onnx", sound)[0, -8:]) - np.sqrt(exact)).max()

    with_level = error()
    monkeypatch.setattr(rewrite, "silence_level", lambda *_: None)
    assert with_level < 2e-9 < 2e-8 < error()


def test_fold_graph_takes_the_weights_that_the_graph_states(tmp_path):
    """Those that impulses find have the rounding of its transform in single precision."""
    _, window, bands = write_shifted(tmp_path / "g.onnx")
    model = fold_graph(tmp_path / "g.onnx", 16_000).model
    found = [each.const_value.numpy() for name, each in model.graph.initializers.items() if "Conv/constant" in name]
    (taps,) = (each[:, 0] for each in found if each.shape[0] == 40)
    exact = (np.fft.rfft(np.eye(1024), axis=1).real[:, 21:] @ bands.astype(np.float64) * window[:, None]).T
    assert np.abs(taps - exact[:, 1 : 1 + taps.shape[1]]).max() < 1e-7 * np.abs(exact).max()


def test_fold_graph_of_a_fixed_batch(tmp_path):
    path = write_front_end(tmp_path / "g.onnx", "stft", batch=3)
    _, out = folded(path)
    np.testing.assert_allclose(run(out, sounds(3)), run(path, sounds(3)), atol=2e-4)


def test_fold_graph_leaves_what_is_not_linear(tmp_path):
    assert fold_graph(write_front_end(tmp_path / "g.onnx", "unfolded"), SAMPLES) is None


def test_fold_graph_leaves_a_convolution_that_is_no_transform(tmp_path):
    """It is one already."""
    path = write_front_end(tmp_path / "g.onnx", "conv")
    model = onnx.load(path)
    taps = next(each for each in model.graph.initializer if each.name == "both")
    noise = np.random.default_rng(0).normal(size=taps.dims).astype(np.float32)
    taps.CopyFrom(onnx.numpy_helper.from_array(noise, "both"))
    onnx.save(model, path)
    assert fold_graph(path, SAMPLES) is None


def test_fold_graph_of_an_open_length_is_for_one_window(tmp_path):
    """What follows has frames of its own only where the length says so: the result takes that length alone."""
    path = write_front_end(tmp_path / "g.onnx", "stft")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "samples"
    onnx.save(model, path)
    _, out = folded(path)
    assert onnxruntime.InferenceSession(str(out)).get_inputs()[0].shape[1] == SAMPLES
    np.testing.assert_allclose(run(out, sounds()), run(path, sounds()), atol=2e-4)
    assert N_FFT < SAMPLES
