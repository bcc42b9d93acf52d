import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from birdinfer.export.fold.low_rank import split_kernel
from birdinfer.export.fold.measure import FrameKernel
from birdinfer.export.fold.rewrite import fold_graph

N_SAMPLES, LENGTH, HOP = 16_000, 1_024, 140


def narrow_taps(highest_bin, n_channels=48):
    """Bands of a real part below a bin, as BirdNET's low spectrogram."""
    turns = 2 * np.pi * np.outer(np.arange(1, highest_bin), np.arange(LENGTH)) / LENGTH
    bands = np.random.default_rng(0).random((n_channels, highest_bin - 1)) / highest_bin
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(LENGTH) + 0.5) / LENGTH)
    return (bands @ np.cos(turns) * hann).astype(np.float32)


def kernel(taps):
    n_frames = (N_SAMPLES - LENGTH) // HOP + 1
    return FrameKernel(taps=taps, offsets=np.zeros(len(taps), np.float32), first=0, hop=HOP, n_frames=n_frames,
                       time_axis=1, channel_shape=(len(taps),))  # fmt: skip


def test_split_kernel_of_a_narrow_band_gives_the_same_weights():
    taps = narrow_taps(64)
    stages = split_kernel(kernel(taps))
    assert len(stages.basis) < 40
    whole = np.einsum("crp,rh->cph", stages.mix, stages.basis).reshape(len(taps), -1)
    np.testing.assert_allclose(whole[:, :LENGTH], taps, atol=1e-5 * np.abs(taps).max())
    assert np.abs(whole[:, LENGTH:]).max() < 1e-5 * np.abs(taps).max()


def test_split_kernel_leaves_a_wide_band():
    assert split_kernel(kernel(narrow_taps(480))) is None


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_fold_graph_splits_a_long_convolution_once(tmp_path, offset):
    taps = narrow_taps(64)
    bias = np.full(len(taps), offset, np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["waveform", "axis"], ["deep"]),
        helper.make_node("Conv", ["deep", "taps", "bias"], ["front"], strides=[HOP]),
        helper.make_node("Mul", ["front", "front"], ["scores"]),
    ]
    constants = {"axis": np.array([1]), "taps": taps[:, None], "bias": bias}
    graph = helper.make_graph(
        nodes,
        "long",
        [helper.make_tensor_value_info("waveform", 1, ["batch", N_SAMPLES])],
        [helper.make_tensor_value_info("scores", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    given, new = tmp_path / "given.onnx", tmp_path / "new.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), given)
    ir.save(fold_graph(given, N_SAMPLES).model, new)
    sound = np.random.default_rng(1).normal(0, 0.2, (2, N_SAMPLES)).astype(np.float32)
    before, after = (onnxruntime.InferenceSession(str(path)).run(None, {"waveform": sound})[0] for path in (given, new))
    np.testing.assert_allclose(after, before, atol=1e-5 * before.max())
    assert fold_graph(new, N_SAMPLES) is None
