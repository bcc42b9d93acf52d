import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_clips import TINY_FRONTEND

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.errors import ConfigError
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.sequence import pool_logits, pool_probabilities
from birdinfer.training.recipe.schema import ModelConfig

CONFIG = ModelConfig("sed", "test_efficientnet", hidden=16)


def attended(attention, frames):
    """The paper's formula, word by word, in float64."""
    weights = np.exp(np.tanh(attention))
    weights /= weights.sum(axis=1, keepdims=True)
    return (weights / (1 + np.exp(-frames))).sum(axis=1)


@given(seed=st.integers(0, 999), scale=st.floats(0.01, 10.0))
def test_the_logit_is_the_exact_inverse_of_the_attended_probability(seed, scale):
    rng = np.random.default_rng(seed)
    attention, frames = rng.normal(0, 2, (2, 5, 3)), rng.normal(0, scale, (2, 5, 3))
    probability = attended(attention, frames)
    logit = pool_probabilities(torch.from_numpy(attention), torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logit)), probability, rtol=1e-9)
    np.testing.assert_allclose(logit, np.log(probability) - np.log1p(-probability), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loud", [1e4, -1e4, 90.0, -90.0])
def test_pitfall_12_sure_frames_give_finite_logits_and_gradients(loud):
    attention = torch.randn(1, 4, 2, requires_grad=True)
    frames = torch.full((1, 4, 2), loud, requires_grad=True)
    clip = pool_probabilities(attention, frames)
    torch.testing.assert_close(clip, torch.full((1, 2), loud))
    clip.sum().backward()
    assert attention.grad.isfinite().all()
    torch.testing.assert_close(frames.grad.sum(dim=1), torch.ones(1, 2))


@given(seed=st.integers(0, 99))
def test_the_clip_lies_between_its_frames(seed):
    rng = torch.Generator().manual_seed(seed)
    attention, frames = torch.randn(3, 6, 4, generator=rng), 5 * torch.randn(3, 6, 4, generator=rng)
    for pool in (pool_probabilities, pool_logits):
        clip = pool(attention, frames)
        assert (clip <= frames.amax(1) + 1e-4).all()
        assert (clip >= frames.amin(1) - 1e-4).all()


def test_a_softmax_pools_the_logits_themselves():
    attention, frames = torch.zeros(1, 4, 2), torch.randn(1, 4, 2)
    torch.testing.assert_close(pool_logits(attention, frames), frames.mean(dim=1))


@pytest.mark.parametrize(("activation", "pool"), [("sigmoid", pool_probabilities), ("softmax", pool_logits)])
def test_the_detector_pools_as_its_scores_are_read(activation, pool):
    model = build_model(CONFIG, 3, TINY_FRONTEND, start=False, activation=activation).eval()
    torch.nn.init.zeros_(model.attention.weight)
    torch.nn.init.zeros_(model.attention.bias)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.classes.weight, std=50.0)  # for small logits both are almost the same
    clip, frames = model(torch.randn(2, 1, 16, 192))
    torch.testing.assert_close(clip, pool(torch.zeros_like(frames), frames))
    other = pool_logits if pool is pool_probabilities else pool_probabilities
    assert (clip - other(torch.zeros_like(frames), frames)).abs().max() > 1e-3


def test_a_window_of_320_frames_has_10_frames_of_half_a_second():
    model = build_model(CONFIG, 3, FrontEndConfig(mel=MelConfig(n_mels=64)), start=False).eval()
    assert model(torch.zeros(2, 1, 64, 320)).frames.shape == (2, 10, 3)


def test_frames_come_in_the_order_of_time():
    """A sound in the last fifth of a window moves the last frames most."""
    torch.manual_seed(0)
    model = build_model(CONFIG, 3, TINY_FRONTEND, start=False).eval()
    silent = torch.zeros(1, 1, 64, 640)
    sounding = silent.clone()
    sounding[..., 512:] = torch.randn(64, 128)
    moved = (model(sounding).frames - model(silent).frames).abs().amax(dim=2)[0]
    assert moved.argmax() >= 15
    assert moved[:8].max() < 0.5 * moved.max()


def test_width_and_dropout_are_the_recipes():
    model = build_model(
        ModelConfig("sed", "test_efficientnet", hidden=24, drop_rate=0.35), 3, TINY_FRONTEND, start=False
    )
    assert (model.hidden.out_features, model.dropout.p) == (24, 0.35)


def test_answers_are_float32_under_mixed_precision():
    model = build_model(CONFIG, 3, TINY_FRONTEND, start=False)
    with torch.autocast("cpu", torch.bfloat16):
        clip, frames = model(torch.randn(2, 1, 16, 64))
    assert clip.dtype == frames.dtype == torch.float32


@pytest.mark.slow
def test_extreme_frames_stay_finite_in_the_graph(tmp_path, monkeypatch):
    """Exporters cut logsigmoid in two, and log(0) - log(0) is no number: frames of thousands gave NaN scores."""
    from birdinfer.config import FrontEndConfig, MelConfig
    from birdinfer.export.onnx.torch_export import export_graph
    from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec

    input_config = FrontEndConfig(mel=MelConfig(resize=(32, 64)))
    model = build_model(ModelConfig(family="sed", backbone="test_resnet"), 4, input_config, start=False).eval()
    with torch.no_grad():
        model.classes.weight.mul_(1e6)
    pictures = torch.randn(2, 1, 32, 64)
    with torch.no_grad():
        wanted = model(pictures)
    assert wanted.frames.abs().max() > 1_000
    export_graph(model, input_config, tmp_path / "sed.onnx", {})
    engine = load_engine(EnginePlan(parse_spec("onnxruntime")), tmp_path / "sed.onnx", ["logits"], (1, 32, 64))
    np.testing.assert_allclose(engine.run(pictures.numpy())["logits"], wanted.clip, rtol=1e-3, atol=1)


class TestGeneralisedMeanOverFrequency:
    CONFIG = ModelConfig("sed", "test_efficientnet", hidden=16, pooling="gem")

    def test_of_a_power_of_one_is_the_mean(self):
        torch.manual_seed(0)
        gem = build_model(self.CONFIG, 5, TINY_FRONTEND, start=False).eval()
        mean = build_model(CONFIG, 5, TINY_FRONTEND, start=False).eval()
        mean.load_state_dict({name: each for name, each in gem.state_dict().items() if name != "pooling.p"})
        features = torch.rand(2, gem.hidden.in_features, 3, 4) + 0.1
        assert not torch.allclose(gem.classify((features,)).clip, mean.classify((features,)).clip, atol=1e-4)
        with torch.no_grad():
            gem.pooling.p.fill_(1.0)
        for found, expected in zip(gem.classify((features,)), mean.classify((features,)), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_its_power_learns_and_is_one_number(self):
        gem = build_model(self.CONFIG, 5, TINY_FRONTEND, start=False)
        mean = build_model(CONFIG, 5, TINY_FRONTEND, start=False)
        gem(torch.randn(2, 1, 16, 64)).clip.sum().backward()
        assert gem.pooling.p.grad.abs() > 0
        n_parameters = [sum(each.numel() for each in model.parameters()) for model in (gem, mean)]
        assert n_parameters[0] - n_parameters[1] == 1

    def test_other_poolings_are_refused(self):
        config = ModelConfig("sed", "test_efficientnet", pooling="max")
        with pytest.raises(ConfigError, match="sed pools frequency alone - choose native"):
            build_model(config, 5, TINY_FRONTEND, start=False)
