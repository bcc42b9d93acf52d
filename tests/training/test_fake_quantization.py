import dataclasses

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stopped_run import train_until_stopped
from tiny_clips import TINY_FRONTEND
from tiny_models import TINY, windows

from birdinfer.errors import ConfigError
from birdinfer.runs.layout import BEST, LAST
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.fake_quantization import FakeQuantized, round_activation, round_weight
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.training.run import Run, train_run

SEEDS = st.integers(0, 2**32 - 1)


def normal(shape, seed, spread=1.0):
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(name="cnn"):
    torch.manual_seed(0)
    return build_model(TINY[name], 4, TINY_FRONTEND, start=False)


@given(SEEDS, st.floats(1e-3, 1e3))
def test_a_weight_lies_on_one_of_255_steps_of_its_channel_and_no_further_than_half_a_step(seed, spread):
    weight = normal((3, 2, 3, 3), seed, spread) * torch.tensor([1.0, 10.0, 100.0])[:, None, None, None]
    rounded = round_weight(weight)
    steps = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    whole = rounded / steps
    torch.testing.assert_close(whole, whole.round(), atol=1e-3, rtol=0)
    assert whole.abs().max() < 127.01
    assert ((rounded - weight).abs() <= steps * 0.501).all()


@given(SEEDS, st.floats(-5, 5))
def test_a_map_lies_on_one_of_256_steps_and_zero_is_one_of_them(seed, shift):
    values = normal((2, 3, 8, 8), seed) + shift
    values[0, 0, 0, 0] = 0.0
    rounded = round_activation(values)
    span = max(float(values.max()), 0.0) - min(float(values.min()), 0.0)
    assert rounded[0, 0, 0, 0] == 0
    assert len(rounded.unique()) <= 256
    assert (rounded - values).abs().max() <= 1.01 * span / 255


def test_what_is_all_zeros_stays_so():
    assert torch.equal(round_weight(torch.zeros(2, 1, 3, 3)), torch.zeros(2, 1, 3, 3))
    assert torch.equal(round_activation(torch.zeros(1, 1, 4, 4)), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_keeps_its_type(dtype):
    assert round_activation(normal((1, 2, 4, 4), 0).to(dtype)).dtype == dtype
    assert round_weight(normal((2, 2, 1, 1), 0).to(dtype)).dtype == dtype


def test_gradients_pass_as_if_nothing_had_been_rounded():
    weight = normal((4, 2, 3, 3), 0).requires_grad_()
    (round_weight(weight) * 3).sum().backward()
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 3.0))


def test_rounding_for_a_norm_that_follows_is_rounding_what_is_exported():
    """A norm is folded into the weights on export: it scales whole channels, and each channel has its own steps."""
    weight, scale = normal((4, 2, 3, 3), 0), torch.tensor([0.01, 1.0, -3.0, 50.0])[:, None, None, None]
    torch.testing.assert_close(round_weight(weight * scale), round_weight(weight) * scale)


class TestRounded:
    @pytest.mark.parametrize("name", ["cnn", "cnn-gem", "sed"])
    def test_near_to_the_network_and_not_the_same(self, name):
        plain = network(name).eval()
        _, inputs = windows(TINY[name])
        with torch.no_grad():
            exact, rounded = plain(inputs).clip, FakeQuantized(plain)(inputs).clip
        assert not torch.equal(exact, rounded)
        assert (exact - rounded).abs().max() < 0.5 * exact.std()

    def test_the_network_itself_is_left_plain(self):
        plain = network().eval()
        names = list(plain.state_dict())
        _, inputs = windows(TINY["cnn"])
        before = plain(inputs).clip
        FakeQuantized(plain)(inputs)
        assert torch.equal(plain(inputs).clip, before)
        assert list(plain.state_dict()) == names
        assert not any(module._forward_pre_hooks for module in plain.modules())

    def test_an_error_on_the_way_leaves_it_plain_too(self):
        plain = network()
        with pytest.raises(RuntimeError):
            FakeQuantized(plain)(torch.zeros(2, 1, 16))
        assert not any(module._forward_pre_hooks for module in plain.modules())

    def test_every_parameter_learns(self):
        plain = network()
        _, inputs = windows(TINY["cnn"])
        FakeQuantized(plain)(inputs).clip.square().sum().backward()
        assert [name for name, parameter in plain.named_parameters() if parameter.grad is None] == []

    def test_the_first_convolution_and_gates_stay_exact(self):
        names = FakeQuantized(network())._names
        assert names
        assert "backbone.conv_stem" not in names
        assert not any(".se." in name for name in names)
        assert any(".se." in name for name, _ in network().named_modules())

    def test_standardised_weights_are_left_to_the_network(self):
        """NFNet makes its weights again at each pass; only what they read is rounded."""
        plain = build_model(
            msgspec.structs.replace(TINY["cnn"], backbone="test_nfnet"), 4, TINY_FRONTEND, start=False
        ).eval()
        _, inputs = windows(TINY["cnn"])
        with torch.no_grad():
            exact, rounded = plain(inputs).clip, FakeQuantized(plain)(inputs).clip
        assert not torch.equal(exact, rounded)
        assert torch.isfinite(rounded).all()


class TestInTraining:
    @pytest.fixture
    def recipe(self, tiny_recipe):
        loop = msgspec.structs.replace(tiny_recipe.loop, epochs=2, fake_quantise=True)
        return msgspec.structs.replace(tiny_recipe, loop=loop)

    def test_stopped_and_resumed_it_ends_with_the_same_bits(self, recipe, clips_dir, tmp_path, monkeypatch):
        runs = [
            Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path / name, folds=(0,), device="cpu")
            for name in ("whole", "stopped")
        ]
        train_run(runs[0])
        train_until_stopped(runs[1], monkeypatch)
        train_run(dataclasses.replace(runs[1], resume=True))
        for name in (BEST, LAST):
            whole, stopped = (load_checkpoint(run.run_dir / "fold0" / name).tensors for run in runs)
            assert whole.keys() == stopped.keys()
            assert all(torch.equal(whole[key], stopped[key]) for key in whole)

    def test_training_steps_are_rounded_and_nothing_else(self, recipe, clips_dir, tmp_path, monkeypatch):
        """Validation is in fp32 of the very weights, and the checkpoint holds a plain network."""
        real, with_gradients = FakeQuantized.forward, []

        def watched(self, inputs):
            with_gradients.append(torch.is_grad_enabled())
            return real(self, inputs)

        monkeypatch.setattr(FakeQuantized, "forward", watched)
        train_run(Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path, folds=(0,), device="cpu"))
        assert with_gradients == [True] * 4 * 2  # steps of two epochs
        checkpoint = load_checkpoint(tmp_path / "fold0" / BEST)
        plain = build_model(recipe.model, 4, recipe.input_config, start=False)
        assert checkpoint.weights("model.").keys() == plain.state_dict().keys()
        assert not any(isinstance(module, FakeQuantized) for module in checkpoint.build_model().modules())

    def test_rounding_changes_what_is_learned(self, recipe, clips_dir, tmp_path):
        plain = msgspec.structs.replace(recipe, loop=msgspec.structs.replace(recipe.loop, fake_quantise=False))
        for name, each in (("rounded", recipe), ("plain", plain)):
            train_run(
                Run(recipe=each, data_dir=clips_dir, run_dir=tmp_path / name, folds=(0,), device="cpu"),
            )
        rounded, exact = (load_checkpoint(tmp_path / name / "fold0" / LAST).tensors for name in ("rounded", "plain"))
        key = "model.backbone.conv_head.weight"
        assert not torch.equal(rounded[key], exact[key])
        assert np.isfinite(rounded[key].numpy()).all()


@pytest.mark.parametrize("family", ["vit", "rnn", "raw"])
def test_a_family_without_convolutions_on_maps_refuses_it(family):
    with pytest.raises(ConfigError, match=f"loop.fake_quantise is true, {family} has no convolutions to round"):
        load_recipe(None, [f"model.family={family}", "loop.fake_quantise=true"])
