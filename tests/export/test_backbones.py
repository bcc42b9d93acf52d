"""The networks that recipes name: built, trained a step, exported, and held against their graph in both engines."""

import numpy as np
import pytest
import torch
from shallow_networks import make_networks_shallow

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.export.onnx.torch_export import TOLERANCE, check_parity, export_graph
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig

pytestmark = pytest.mark.no_cover
"""Tracing an exporter's millions of calls takes half as long again, and what it would see is seen on tiny networks."""
PICTURE = FrontEndConfig(mel=MelConfig(resize=(64, 64)))
NETWORKS = {
    "efficientnet_b0": ModelConfig("sed", "efficientnet_b0", drop_path_rate=0.1),
    "tf_efficientnetv2_s": ModelConfig(backbone="tf_efficientnetv2_s", drop_path_rate=0.1),
    "eca_nfnet_l0": ModelConfig(backbone="eca_nfnet_l0", pooling="gem"),
    "regnety_008": ModelConfig(backbone="regnety_008", pooling="avgmax"),
    "mobilenetv3_large_100": ModelConfig(backbone="mobilenetv3_large_100", pooling="meanfreq"),
    "convnext_tiny": ModelConfig(backbone="convnext_tiny", pooling="max", in_channels=3),
    "resnet18": ModelConfig(backbone="resnet18"),
    "hgnetv2_b0": ModelConfig("sed", "hgnetv2_b0"),
    "efficientvit_b0": ModelConfig(backbone="efficientvit_b0", pooling="gem"),
    "repvit_m0_9": ModelConfig("sed", "repvit_m0_9"),
    "vit_small_patch16_224": ModelConfig("vit", "vit_small_patch16_224", drop_path_rate=0.1),
}


WHOLE = {"efficientnet_b0", "eca_nfnet_l0", "vit_small_patch16_224"}
"""A family each; the others have few blocks of each kind, in CI, too."""


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=name, marks=() if name == "eca_nfnet_l0" else pytest.mark.slow)
        for name, config in NETWORKS.items()
    ],
)
def test_networks_in_use_learn_and_answer_alike_as_graphs(config, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    make_networks_shallow(monkeypatch, whole_in_ci=config.backbone in WHOLE)
    torch.manual_seed(0)
    model = build_model(config, 3, PICTURE, start=True)
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    rng = np.random.default_rng(0)
    # Louder below than above and all different, as spectrograms are.
    windows = rng.normal(np.linspace(1, -1, 64)[:, None], rng.uniform(0.5, 2, (4, 1, 1, 1)), (4, 1, 64, 64))
    windows = windows.astype(np.float32)
    clip = model(torch.from_numpy(windows)).clip
    torch.nn.functional.binary_cross_entropy_with_logits(clip, torch.ones(4, 3)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    optimiser.step()
    export_graph(model.eval(), PICTURE, tmp_path / "a.onnx", {})
    assert check_parity(model, tmp_path / "a.onnx", windows, ["onnxruntime", "openvino"]) < TOLERANCE
