"""wav2vec 2.0 with the weights of Hugging Face's checkpoints."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_clips import TINY_FRONTEND

from birdinfer.config import WaveformConfig
from birdinfer.training.models import waveform
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.wav2vec2 import Wav2Vec2, Wav2Vec2Size
from birdinfer.training.models.waveform import normalised
from birdinfer.training.models.weights import multiplied_out
from birdinfer.training.recipe.schema import ModelConfig

INPUT = WaveformConfig(TINY_FRONTEND.audio, TINY_FRONTEND.window)
BASE = ModelConfig("raw", "wav2vec2_base", drop_rate=0.0)
TINY = Wav2Vec2Size(
    convolutions=((16, 10, 5), (16, 3, 2), (16, 2, 2)), width=24, layers=2, heads=4, inner=48, position_kernel=16,
    position_groups=4,
)  # fmt: skip


def named_weights(network):
    """A checkpoint as the hub has it: names, weight normalisation, and what only pre-training needs.

    Its numbers follow from the names alone, so that another implementation can be filled with the same.
    """
    found = {f"wav2vec2.{name}": made(name, tensor.shape) for name, tensor in network.state_dict().items()}
    stem = "wav2vec2.encoder.pos_conv_embed.conv"
    shape = found.pop(f"{stem}.weight").shape
    found[f"{stem}.weight_v"] = made("weight_v", shape)
    found[f"{stem}.weight_g"] = 1 + made("weight_g", (1, 1, shape[2])).abs()
    found["wav2vec2.masked_spec_embed"] = made("masked", (network.encoder.layer_norm.weight.shape[0],))
    found["quantizer.codevectors"] = made("quantizer", (1, 8, 4))
    found["lm_head.weight"] = made("lm_head", (32, 24))
    return found


def made(name, shape):
    start = sum(map(ord, name))
    values = np.sin(1.7 * np.arange(int(np.prod(shape))) + start) * (0.5 if "norm" in name or "bias" in name else 0.3)
    return torch.from_numpy((values + ("norm" in name and "weight" in name)).reshape(shape).astype(np.float32))


@pytest.fixture
def tiny(monkeypatch):
    """The family builds the small form under the same name."""
    monkeypatch.setattr(waveform, "_WAV2VEC2", TINY)


def test_base_has_the_size_of_the_paper():
    with torch.device("meta"):
        network = Wav2Vec2(Wav2Vec2Size(), 0.0)
        steps = network(torch.zeros(1, 16_000))
    assert steps.shape == (1, 49, 768)
    assert 94.3e6 < sum(parameter.numel() for parameter in network.parameters()) < 94.5e6


def test_a_checkpoint_of_the_hub_fills_all_but_the_head(tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(named_weights(Wav2Vec2(TINY, 0.0)), path)
    lines = []
    config = ModelConfig("raw", "wav2vec2_base", weights=str(path))
    model = build_model(config, 4, INPUT, start=True, note=lines.append)
    n_own = len(model.state_dict())
    assert f"{n_own - 2} of {n_own} tensors taken; 2 kept random: head.bias, head.weight" in lines[0]
    assert "3 not used: lm_head.weight, quantizer.codevectors, wav2vec2.masked_spec_embed" in lines[0]


def test_weight_normalisation_is_multiplied_out_as_torch_does():
    convolution = torch.nn.Conv1d(8, 8, 5, groups=2)
    normed = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(8, 8, 5, groups=2), dim=2)
    with torch.no_grad():
        normed.parametrizations.weight.original0.mul_(3)
    newer = {f"conv.{name}": value for name, value in normed.state_dict().items()}
    older = {
        "conv.bias": newer["conv.bias"],
        "conv.weight_g": newer["conv.parametrizations.weight.original0"],
        "conv.weight_v": newer["conv.parametrizations.weight.original1"],
    }
    sound = torch.randn(2, 8, 20)
    for stored in (newer, older):
        found = multiplied_out(stored)
        assert found.keys() == {"conv.weight", "conv.bias"}
        convolution.load_state_dict({name.removeprefix("conv."): value for name, value in found.items()})
        torch.testing.assert_close(convolution(sound), normed(sound), atol=1e-6, rtol=1e-6)
    alone = {"conv.weight_g": torch.ones(1)}
    assert multiplied_out(alone) == alone


def test_each_window_by_itself_and_layers_are_left_out_in_training_only(tiny):
    torch.manual_seed(0)
    model = build_model(ModelConfig("raw", "wav2vec2_base", drop_path_rate=0.9), 4, INPUT, start=False).eval()
    windows = torch.randn(3, INPUT.window_samples)
    together = model(windows).clip
    assert together.shape == (3, 4)
    torch.testing.assert_close(model(windows[1:2]).clip, together[1:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(windows).clip, together, atol=0, rtol=0)
    model.train()
    answers = {model(windows).clip.sum().item() for _ in range(4)}
    assert len(answers) > 1


def filled(network, weights):
    own = {name.removeprefix("wav2vec2."): value for name, value in multiplied_out(weights).items()}
    network.load_state_dict({name: own[name] for name in network.state_dict()})
    return network.eval()


OF_TRANSFORMERS = (
    0.14556, -0.32251, 0.32294, -0.36399, 0.14791, -0.32183, 0.3268, -0.35202, 0.14371, -0.32304, 0.31668, -0.37008,
    0.1484, -0.3239, 0.32879, -0.33327,
)  # fmt: skip
"""Each seventh number of each fifth step, by transformers 4.57.6, as the test below fills it."""


def test_it_computes_what_transformers_has_computed():
    with torch.no_grad():
        steps = filled(Wav2Vec2(TINY, 0.0), named_weights(Wav2Vec2(TINY, 0.0)))(normalised(made("sound", (1, 400))))
    assert steps.shape == (1, 19, 24)
    np.testing.assert_allclose(steps[0, ::5, ::7].flatten(), OF_TRANSFORMERS, atol=3e-5)


def test_it_computes_what_transformers_computes():
    transformers = pytest.importorskip("transformers")
    kernels, strides = ([layer[place] for layer in TINY.convolutions] for place in (1, 2))
    config = transformers.Wav2Vec2Config(
        hidden_size=TINY.width, num_hidden_layers=TINY.layers, num_attention_heads=TINY.heads,
        intermediate_size=TINY.inner, conv_dim=[layer[0] for layer in TINY.convolutions], conv_kernel=kernels,
        conv_stride=strides, num_feat_extract_layers=len(kernels), num_conv_pos_embeddings=TINY.position_kernel,
        num_conv_pos_embedding_groups=TINY.position_groups, do_stable_layer_norm=False, feat_extract_norm="group",
        conv_bias=False,
    )  # fmt: skip
    weights = named_weights(Wav2Vec2(TINY, 0.0))
    theirs = transformers.Wav2Vec2Model(config).eval()
    stem = "encoder.pos_conv_embed.conv."
    names = {f"{stem}weight_g": f"{stem}parametrizations.weight.original0",
             f"{stem}weight_v": f"{stem}parametrizations.weight.original1"}  # fmt: skip
    own = {name.removeprefix("wav2vec2."): value for name, value in weights.items()}
    theirs.load_state_dict({names.get(name, name): own[name] for name in own if not name.startswith(("quant", "lm_"))})
    sound = normalised(torch.randn(2, 4_000))
    with torch.no_grad():
        expected = theirs(sound).last_hidden_state
        found = filled(Wav2Vec2(TINY, 0.0), weights)(sound)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
