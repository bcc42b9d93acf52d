import math

import pytest
import torch
from tiny_clips import TINY_FRONTEND
from tiny_models import TINY

from birdinfer.errors import ConfigError
from birdinfer.training.models.activation import count_costly, swap_for_relu
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.recipe.schema import ModelConfig

COSTLY = {"SiLU", "GELU", "GELUTanh", "Hardswish", "HardSwish", "Swish", "GammaAct"}


def network(name):
    return import_timm().create_model(name, in_chans=1, num_classes=3)


def kinds(model, outside="gate"):
    """The names of all activations' types that are no part of an attention over channels."""
    held = {id(inner) for module in model.modules() if hasattr(module, outside) for inner in module.modules()}
    return [type(module).__name__ for module in model.modules() if id(module) not in held]


def all_kinds(model):
    return [type(module).__name__ for module in model.modules()]


@pytest.mark.parametrize(
    ("name", "n_swapped"),
    [("test_efficientnet", 9), ("test_nfnet", 20), ("test_convnext", 9), ("mobilenetv3_small_050", 19)],
)
def test_everything_on_feature_maps_is_swapped_and_counted(name, n_swapped):
    model = network(name)
    assert set(kinds(model)) & COSTLY
    assert count_costly(model) == n_swapped
    assert swap_for_relu(model) == f"{n_swapped} activations swapped for ReLU"
    assert not set(kinds(model)) & COSTLY
    assert count_costly(model) == 0
    assert torch.isfinite(model.eval()(torch.randn(2, 1, 64, 64))).all()


def test_gates_keep_their_own():
    model = network("test_efficientnet")
    before = all_kinds(model).count("SiLU") - kinds(model).count("SiLU")
    swap_for_relu(model)
    assert all_kinds(model).count("SiLU") == before > 0
    assert all_kinds(model).count("Sigmoid") > 0


def test_weights_keep_their_names_and_shapes():
    model, native = network("test_nfnet"), network("test_nfnet")
    swap_for_relu(model)
    model.load_state_dict(native.state_dict())
    assert list(model.state_dict()) == list(native.state_dict())


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet"])
def test_a_network_of_relus_stays_as_it_is_and_says_so(name):
    model = network(name)
    before = all_kinds(model)
    assert "nothing is swapped" in swap_for_relu(model)
    assert all_kinds(model) == before


class TestNormalizerFree:
    def gamma(self, of):
        return import_timm("timm.models.nfnet")._nonlin_gamma[of]

    def test_the_factor_of_the_convolutions_follows_the_activation(self):
        model = network("test_nfnet")
        convolutions = [module for module in model.modules() if type(module).__name__.startswith("ScaledStdConv")]
        before = [module.scale for module in convolutions]
        swap_for_relu(model)
        for module, scale in zip(convolutions, before, strict=True):
            assert module.scale / scale == pytest.approx(self.gamma("relu") / self.gamma("silu"))

    def test_the_factor_of_scaled_activations_follows_and_convolutions_keep_theirs(self):
        nfnet = import_timm("timm.models.nfnet")
        config = nfnet.NfCfg(depths=(1, 1, 1, 1), channels=(16, 16, 32, 32), act_layer="gelu", gamma_in_act=True)
        model = nfnet.NormFreeNet(config, in_chans=1, num_classes=3)
        scales = [module.scale for module in model.modules() if hasattr(module, "scale")]
        swap_for_relu(model)
        acts = [module for module in model.modules() if isinstance(module, nfnet.GammaAct)]
        assert acts
        assert {act.gamma for act in acts} == {self.gamma("relu")}
        assert scales == [module.scale for module in model.modules() if hasattr(module, "scale")]
        assert torch.equal(acts[0](torch.tensor([-1.0, 1.0])), torch.tensor([0.0, self.gamma("relu")]))
        assert "nothing is swapped" in swap_for_relu(model)

    def test_noise_keeps_its_variance_from_layer_to_layer(self):
        torch.manual_seed(0)
        convolution = import_timm("timm.layers").ScaledStdConv2d
        model = torch.nn.Sequential(
            torch.nn.SiLU(), convolution(64, 256, 3, padding=0, gamma=self.gamma("silu"), bias=False)
        )
        swap_for_relu(model)
        noise = torch.randn(8, 64, 24, 24)
        deviation = (model(noise).var(dim=(0, 2, 3)).mean()).sqrt().item()
        assert math.isclose(deviation, 1.0, rel_tol=0.05)


class TestInARecipe:
    @pytest.mark.parametrize("name", ["cnn", "cnn-gem", "sed"])
    def test_built_swapped_and_reported(self, name):
        import msgspec

        lines = []
        config = msgspec.structs.replace(TINY[name], activation="relu")
        model = build_model(config, 4, TINY_FRONTEND, start=False, note=lines.append)
        assert not set(kinds(model)) & COSTLY
        assert lines == ["9 activations swapped for ReLU"]

    @pytest.mark.parametrize("family", ["vit", "rnn", "raw"])
    def test_a_family_without_feature_maps_refuses_it(self, family):
        config = ModelConfig(family, {"vit": "test_vit", "rnn": "gru", "raw": "small"}[family], activation="relu")
        with pytest.raises(ConfigError, match=f"model.activation: is 'relu', {family} has no use for it"):
            build_model(config, 4, TINY_FRONTEND, start=False)
