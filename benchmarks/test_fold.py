"""Graphs of waveforms with a front end inside, as they are exported and folded: time, scores, and OpenVINO.

Each is a network at 32 kHz and 5 s behind a spectrogram of 2048/500 and 256 bands: of an STFT node as torch exports it,
of two convolutions (PANNs), and of products with cosines. Weights are random.
"""

import warnings

import numpy as np
import onnx_ir as ir
import pytest
import torch

from birdinfer.config import WaveformConfig
from birdinfer.errors import BundleError
from birdinfer.export.fold.rewrite import fold_graph
from birdinfer.features.log_mel import filterbank
from birdinfer.inference.activation import sigmoid
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.inference.engines.benchmark import compare_speed
from birdinfer.inference.external.onnx_probe import probe_windows
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig
from bundles import FRONTENDS, LABELS

INPUT = FRONTENDS["efficientnet_b0"]
N_SAMPLES, N_FFT, HOP = 160_000, 2_048, 500
MAX_DIFFERENCE, MIN_TIMES = 1e-4, 1.02
GRAPHS = [
    ("efficientnet_b0", "stft"), ("efficientnet_b0", "two convolutions"),
    ("efficientnet_b0", "products"), ("tf_efficientnetv2_s", "stft"),
]  # fmt: skip


class Front(torch.nn.Module):
    """Waveform [batch, samples] -> scores [batch, labels]."""

    def __init__(self, kind, backbone):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.network = build_model(ModelConfig(backbone=backbone), len(LABELS), INPUT, start=False)
        turns = 2 * np.pi * (np.outer(np.arange(N_FFT // 2 + 1), np.arange(N_FFT)) % N_FFT) / N_FFT
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
        self.window: torch.Tensor
        self.cos: torch.Tensor
        self.sin: torch.Tensor
        self.bank: torch.Tensor
        self.register_buffer("window", torch.from_numpy(hann).float())
        self.register_buffer("cos", torch.from_numpy(np.cos(turns) * hann).float())
        self.register_buffer("sin", torch.from_numpy(-np.sin(turns) * hann).float())
        self.register_buffer("bank", torch.from_numpy(filterbank(INPUT.mel, 32_000).copy()))

    def forward(self, waveform):
        """Score the windows."""
        padded = torch.nn.functional.pad(waveform[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")
        if self.kind == "stft":
            spectrum = torch.stft(padded[:, 0], N_FFT, HOP, window=self.window, center=False, return_complex=True)
            real, imaginary = spectrum.real, spectrum.imag
        elif self.kind == "two convolutions":
            real, imaginary = (
                torch.nn.functional.conv1d(padded, each[:, None], stride=HOP) for each in (self.cos, self.sin)
            )
        else:
            frames = padded[:, 0].unfold(1, N_FFT, HOP)
            real, imaginary = ((frames @ each.T).transpose(1, 2) for each in (self.cos, self.sin))
        mel = (real**2 + imaginary**2).transpose(1, 2) @ self.bank
        picture = torch.log10(mel + 1e-6).transpose(1, 2)[:, None, :, : INPUT.input_shape[1]]
        return self.network((picture - picture.mean((2, 3), keepdim=True)) / 2).clip


def export(kind, backbone, path):
    model, dimension = Front(kind, backbone), torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        for _ in range(10):  # without statistics of batches the outputs of random weights do not depend on the sound
            model(torch.from_numpy(probe_windows(WaveformConfig())))
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch of itself
        torch.onnx.export(
            model, (torch.randn(2, N_SAMPLES),), path, dynamo=True, dynamic_shapes={"waveform": {0: dimension}},
            input_names=["waveform"], output_names=["scores"], opset_version=18, external_data=False, verbose=False,
        )  # fmt: skip


def compiles(path):
    """Whether OpenVINO takes it, and its scores for the probes."""
    try:
        return load_engine(EnginePlan(parse_spec("openvino")), path, ["scores"], (N_SAMPLES,))
    except BundleError:
        return None


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("backbone", "kind"), GRAPHS)
def test_fold(backbone, kind, table, tmp_path):
    given, new = tmp_path / "given.onnx", tmp_path / "folded.onnx"
    export(kind, backbone, given)
    folded = fold_graph(given, N_SAMPLES)
    assert folded is not None
    ir.save(folded.model, new)
    windows = probe_windows(WaveformConfig())
    scores = [load_engine(EnginePlan(), path, ["scores"], (N_SAMPLES,)).run(windows)["scores"] for path in (given, new)]
    difference = float(np.abs(sigmoid(scores[0]) - sigmoid(scores[1])).max())
    plan = EnginePlan()
    speeds = compare_speed([(given, plan), (new, plan)], ["scores"], windows[2:], 7, 0.8)
    openvino = [compiles(path) for path in (given, new)]
    table.append(
        {
            "what": f"{backbone} behind a front end of {kind}, folded against as it was exported, one thread",
            "measured": f"{speeds[1] / speeds[0]:.2f} times as fast",
            "bound": f">= {MIN_TIMES} times, scores within {MAX_DIFFERENCE:g}",
            "detail": f"{1e3 / speeds[1]:.1f} ms a window against {1e3 / speeds[0]:.1f}; {folded}; largest difference "
            f"{difference:.1e}; OpenVINO compiles it: {' -> '.join('yes' if each else 'no' for each in openvino)}",
        }
    )
    assert str(folded) == "1 fast Fourier transform"
    assert difference <= MAX_DIFFERENCE
    assert speeds[1] >= MIN_TIMES * speeds[0]
    assert openvino[1] is not None
