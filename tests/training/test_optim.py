import pytest
import torch
from tiny_clips import TINY_FRONTEND

from birdinfer.errors import ConfigError
from birdinfer.training.models.registry import build_model
from birdinfer.training.optim import build_optimiser, set_rate
from birdinfer.training.recipe.schema import ModelConfig, OptimConfig


def model():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("rmsprop", torch.optim.RMSprop)],
)
def test_torchs_own(name, kind):
    assert type(build_optimiser(model(), OptimConfig(name=name))) is kind


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_biases_and_norms_are_not_decayed(name):
    decayed, others = build_optimiser(model(), OptimConfig(name=name)).param_groups
    assert [x.ndim for x in decayed["params"]] == [4]
    assert decayed["weight_decay"] > others["weight_decay"] == 0
    assert len(others["params"]) == 3


def test_timms_are_known_by_name():
    assert type(build_optimiser(model(), OptimConfig(name="lion"))).__name__ == "Lion"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"optim\.name: 'adamx' is unknown - did you mean .*adam"):
        build_optimiser(model(), OptimConfig(name="adamx"))
    with pytest.raises(ConfigError, match="known are"):
        build_optimiser(model(), OptimConfig(name="7"))


def test_frozen_parameters_are_left_alone():
    frozen = model()
    for parameter in frozen[1].parameters():
        parameter.requires_grad_(False)
    assert sum(len(group["params"]) for group in build_optimiser(frozen, OptimConfig()).param_groups) == 2


class TestBackbones:
    """A backbone that learns more slowly than its head."""

    CONFIG = ModelConfig(backbone="test_efficientnet", pooling="avg")

    def optimiser(self, **keys):
        model = build_model(self.CONFIG, 3, TINY_FRONTEND, start=False)
        return model, build_optimiser(model, OptimConfig(**keys))

    def rates(self, **keys):
        model, optimiser = self.optimiser(**keys)
        set_rate(optimiser, 0.1, False)
        rate = {id(x): group["lr"] for group in optimiser.param_groups for x in group["params"]}
        return {name: rate[id(x)] for name, x in model.named_parameters()}

    def test_by_a_share(self):
        rates = self.rates(backbone_lr_share=0.25)
        assert {rates[name] for name in rates if name.startswith("backbone.")} == {0.025}
        assert rates["head.weight"] == rates["head.bias"] == 0.1

    def test_layer_by_layer(self):
        rates = self.rates(layer_decay=0.5)
        assert rates["backbone.conv_stem.weight"] < rates["backbone.blocks.1.0.conv_pwl.weight"]
        assert len({rate for name, rate in rates.items() if name.startswith("backbone.")}) > 3
        assert max(rates.values()) == rates["head.weight"] == 0.1

    def test_frozen_weights_keep_their_bits(self):
        model, optimiser = self.optimiser(frozen_backbone_epochs=1)
        before = {name: x.clone() for name, x in model.named_parameters()}
        for is_frozen in (True, False):
            model(torch.randn(2, 1, 16, 64)).clip.square().sum().backward()
            set_rate(optimiser, 0.1, is_frozen)
            optimiser.step()
            moved = {name.partition(".")[0] for name, x in model.named_parameters() if not torch.equal(x, before[name])}
            assert moved == ({"head"} if is_frozen else {"head", "backbone"})

    def test_networks_without_a_backbone_are_refused(self):
        with pytest.raises(ConfigError, match="has no backbone"):
            build_optimiser(torch.nn.Linear(2, 2), OptimConfig(backbone_lr_share=0.5))
