"""Fixtures of quantising: the fp32 graph of an awkward network, and windows with different outputs."""

import numpy as np
import pytest
import torch
from awkward_network import INPUT_CONFIG, SHAPE, AwkwardNetwork, LogitsOf

from birdinfer.export.int8.quantize import calibrate_graph
from birdinfer.export.onnx.torch_export import export_graph


@pytest.fixture(scope="session")
def awkward_graph(tmp_path_factory):
    """Its fp32 graph. Read only."""
    torch.manual_seed(0)
    model = AwkwardNetwork().eval()
    with torch.no_grad():
        model.head.weight.mul_(30)
    path = tmp_path_factory.mktemp("graph") / "fp32.onnx"
    export_graph(LogitsOf(model), INPUT_CONFIG, path, {"labels_sha256": "abc"})
    return path


@pytest.fixture(scope="session")
def awkward_windows():
    """Each window has a loudness and a tilt of its own: a network's outputs differ."""
    random = np.random.default_rng(0)
    tilt = np.linspace(-1, 1, SHAPE[0])[:, None] * random.normal(0, 1, (40, 1, 1, 1))
    return (random.normal(0, 1, (40, 1, *SHAPE)) * random.uniform(0.3, 1.5, (40, 1, 1, 1)) + tilt).astype(np.float32)


@pytest.fixture(scope="session")
def awkward_calibrated(awkward_graph, awkward_windows):
    """The awkward network, calibrated on 24 of the windows. Read only."""
    return calibrate_graph(awkward_graph, np.split(awkward_windows[:24], 24))
