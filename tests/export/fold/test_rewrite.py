import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from front_ends import KINDS, N_FFT, SAMPLES, sounds, write_front_end

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
    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert not kinds & {"STFT", "DFT", "Conv"}


def test_fold_graph_makes_one_convolution_of_a_real_part(tmp_path):
    """As of BirdNET 2.4: transform, real part and bands are linear up to the square."""
    path = write_front_end(tmp_path / "g.onnx", "real part", normalised=True)
    found, out = folded(path)
    assert str(found) == "1 convolution"
    np.testing.assert_allclose(run(out, sounds()), run(path, sounds()), atol=2e-4)
    kinds = [node.op_type for node in onnx.load(out).graph.node]
    assert kinds.count("Conv") == 1
    assert not {"DFT", "Gather"} & {*kinds}


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
