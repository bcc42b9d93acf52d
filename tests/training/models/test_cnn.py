import pytest
import torch
from tiny_clips import TINY_FRONTEND
from tiny_models import LOG_PCEN

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.errors import ConfigError
from birdinfer.training.models.image import coloured, slopes
from birdinfer.training.models.pooling import POOLINGS
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.recipe.schema import ModelConfig
from birdinfer.training.recipe.toml import load_recipe

PICTURE = FrontEndConfig(mel=MelConfig(resize=(64, 64)))


def test_native_pooling_is_timms_own_network():
    config = ModelConfig(backbone="test_efficientnet")
    model = build_model(config, 5, TINY_FRONTEND, start=False).eval()
    network = import_timm().create_model("test_efficientnet", in_chans=1, num_classes=5).eval()
    network.load_state_dict(model.backbone.state_dict())
    log_mel = torch.randn(2, 1, 16, 64)
    torch.testing.assert_close(model(log_mel).clip, network(log_mel))
    assert model(log_mel).frames is None


def test_average_pooling_of_the_feature_map_is_what_timm_pools_natively():
    """The same layers under both heads: what stands between feature map and classifier is not lost."""
    pooled = build_model(ModelConfig(backbone="test_efficientnet", pooling="avg"), 5, TINY_FRONTEND, start=False).eval()
    network = import_timm().create_model("test_efficientnet", in_chans=1, num_classes=5).eval()
    network.load_state_dict(pooled.backbone.state_dict(), strict=False)
    network.classifier.load_state_dict(pooled.head.state_dict())
    log_mel = torch.randn(2, 1, 16, 64)
    torch.testing.assert_close(pooled(log_mel).clip, network(log_mel))


@pytest.mark.parametrize("pooling", ["native", *POOLINGS])
def test_three_channels_hold_the_same_spectrogram(pooling):
    config = ModelConfig(backbone="test_efficientnet", in_channels=3, pooling=pooling)
    coloured = build_model(config, 5, TINY_FRONTEND, start=False).eval()
    grey = build_model(ModelConfig(backbone="test_efficientnet", pooling=pooling), 5, TINY_FRONTEND, start=False).eval()
    weights = coloured.state_dict()
    weights["backbone.conv_stem.weight"] = weights["backbone.conv_stem.weight"].sum(1, keepdim=True)
    grey.load_state_dict(weights)
    log_mel = torch.randn(2, 1, 16, 64)
    torch.testing.assert_close(coloured(log_mel).clip, grey(log_mel).clip)


@pytest.mark.parametrize("pooling", ["native", "gem"])
def test_dropout_stands_before_the_classifier_and_only_in_training(pooling):
    config = ModelConfig(backbone="test_efficientnet", drop_rate=0.5, pooling=pooling)
    model = build_model(config, 5, TINY_FRONTEND, start=False)
    log_mel = torch.randn(2, 1, 16, 64)
    model.eval()
    assert torch.equal(model(log_mel).clip, model(log_mel).clip)
    model.train()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eval()
    assert not torch.equal(model(log_mel).clip, model(log_mel).clip)


def test_stochastic_depth_reaches_the_backbone():
    config = ModelConfig(backbone="test_efficientnet", drop_path_rate=0.4, drop_rate=0.0, pooling="avg")
    model = build_model(config, 5, TINY_FRONTEND, start=False)
    rates = [module.drop_prob for module in model.modules() if type(module).__name__ == "DropPath"]
    assert rates
    assert max(rates) > 0.1


def test_unknown_backbone_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"'eficientnet_b0' - did you mean efficientnet_b0"):
        build_model(ModelConfig(backbone="eficientnet_b0"), 5, TINY_FRONTEND, start=False)


def test_unknown_backbone_with_no_near_name():
    with pytest.raises(ConfigError, match=r"'zzzzqqqq' - timm.list_models\(\) lists them"):
        build_model(ModelConfig(backbone="zzzzqqqq"), 5, TINY_FRONTEND, start=False)


@pytest.mark.parametrize("pretrained", [False, True])
def test_unknown_weights_of_a_known_backbone_suggest_the_nearest(pretrained):
    """Reported before anything is fetched: timm would have asked the hub for nothing, and blamed the network."""
    config = ModelConfig(backbone="test_efficientnet.r160_in22k", pretrained=pretrained)
    with pytest.raises(ConfigError, match=r"knows no '.*in22k' - did you mean test_efficientnet.r160_in1k"):
        build_model(config, 5, TINY_FRONTEND, start=True)


def test_a_backbone_may_be_named_with_its_weights():
    config = ModelConfig(backbone="test_efficientnet.r160_in1k")
    assert build_model(config, 5, TINY_FRONTEND, start=False)


def test_settings_that_a_backbone_does_not_take():
    config = ModelConfig(backbone="densenet121", drop_path_rate=0.5, drop_rate=0.0)
    with pytest.raises(ConfigError, match="takes no such setting"):
        build_model(config, 5, TINY_FRONTEND, start=False)


@pytest.mark.parametrize("backbone", ["test_vit", "vit_tiny_patch16_224"])
def test_a_network_without_a_feature_map_is_refused(backbone):
    with pytest.raises(ConfigError, match=r'gives cnn no feature map of any picture - .*family = "vit"'):
        build_model(ModelConfig(backbone=backbone, pooling="gem"), 5, PICTURE, start=False)


@pytest.mark.parametrize("backbone", ["mobilenetv3_large_100", "resnet18", "eca_nfnet_l1"])
def test_networks_in_use_learn_under_a_head_of_our_own(backbone):
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, pooling="gem", drop_path_rate=0.1)
    model = build_model(config, 3, PICTURE, start=False)
    before = model(torch.randn(2, 1, 64, 64)).clip
    before.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


class TestSlopes:
    def test_are_those_of_librosa(self):
        librosa = pytest.importorskip("librosa")
        log_mel = torch.randn(1, 1, 8, 40)
        first = librosa.feature.delta(log_mel[0, 0].numpy(), width=9, mode="nearest")
        torch.testing.assert_close(slopes(log_mel)[0, 0], torch.from_numpy(first), atol=1e-5, rtol=1e-5)

    def test_of_a_straight_line_is_its_slope_and_beyond_the_ends_it_is_flat(self):
        line = 0.25 * torch.arange(20.0).expand(1, 1, 2, 20)
        found = slopes(line)
        torch.testing.assert_close(found[..., 4:-4], torch.full((1, 1, 2, 12), 0.25))
        assert (found[..., 0] < 0.25).all()

    def test_are_the_second_and_third_channel(self):
        config = ModelConfig(backbone="test_efficientnet", in_channels=3, channels="delta")
        given = torch.randn(2, 1, 16, 64)
        three = coloured(given, config)
        assert torch.equal(three[:, :1], given)
        torch.testing.assert_close(three[:, 1:2], slopes(given))
        torch.testing.assert_close(three[:, 2:], slopes(slopes(given)))
        model = build_model(config, 5, TINY_FRONTEND, start=False).eval()
        torch.testing.assert_close(model(given).clip, model.backbone(three))

    def test_need_three_channels(self):
        with pytest.raises(ConfigError, match="it needs in_channels = 3"):
            load_recipe(None, ["model.channels=delta"])


class TestStages:
    CONFIG = ModelConfig(backbone="test_efficientnet", pooling="avg", feature_stages=3)

    def test_the_head_gets_each_stages_mean_beside_that_of_the_feature_map(self):
        """Against timm's own features, and the same backbone under one stage."""
        model = build_model(self.CONFIG, 5, TINY_FRONTEND, start=False).eval()
        timm, weights = import_timm(), model.backbone.state_dict()
        stages = timm.create_model("test_efficientnet", in_chans=1, features_only=True, out_indices=(2, 3)).eval()
        whole = timm.create_model("test_efficientnet", in_chans=1, num_classes=0).eval()
        stages.load_state_dict(weights, strict=False)
        whole.load_state_dict(weights)
        log_mel, given = torch.randn(2, 1, 16, 64), []
        model.head.register_forward_pre_hook(lambda _, inputs: given.extend(inputs))
        with torch.no_grad():
            model(log_mel)
            wanted = torch.cat([*(each.mean((2, 3)) for each in stages(log_mel)), whole(log_mel)], dim=1)
        torch.testing.assert_close(given[0], wanted)

    def test_each_has_a_pooling_that_learns_by_itself(self):
        config = ModelConfig(backbone="test_efficientnet", pooling="gem", feature_stages=2)
        model = build_model(config, 5, TINY_FRONTEND, start=False)
        model(torch.randn(2, 1, 16, 64)).clip.sum().backward()
        assert model.pooling.p.grad != model.earlier_poolings[0].p.grad
        assert {name for name in model.state_dict() if "pooling" in name} == {"pooling.p", "earlier_poolings.0.p"}

    def test_one_stage_has_the_names_of_older_checkpoints(self):
        model = build_model(ModelConfig(backbone="test_efficientnet", pooling="gem"), 5, TINY_FRONTEND, start=False)
        assert [name for name in model.state_dict() if not name.startswith("backbone.")] == [
            "pooling.p", "head.weight", "head.bias",
        ]  # fmt: skip

    def test_more_than_the_backbone_has_are_refused(self):
        config = ModelConfig(backbone="resnet18", pooling="avg", feature_stages=5)
        build_model(config, 5, TINY_FRONTEND, start=False)
        config = ModelConfig(backbone="convnext_atto", pooling="avg", feature_stages=5)
        with pytest.raises(ConfigError, match="feature_stages: is 5, convnext_atto has 4 - set it to at most 4"):
            build_model(config, 5, TINY_FRONTEND, start=False)

    def test_need_a_pooling_of_our_own(self):
        with pytest.raises(ConfigError, match="feature_stages is 2, it needs a pooling other than native"):
            load_recipe(None, ["model.feature_stages=2"])
        assert load_recipe(None, ["model.feature_stages=2", "model.family=sed"]).model.feature_stages == 2


class TestTwoChannels:
    """The front end gives log-mel and PCEN."""

    GIVEN = torch.randn(2, 2, 16, 64, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("pooling", ["native", "gem"])
    def test_are_the_networks_input(self, pooling):
        model = build_model(ModelConfig(backbone="test_efficientnet", pooling=pooling), 5, LOG_PCEN, start=False).eval()
        assert model.backbone.conv_stem.weight.shape[1] == 2
        clip = model(self.GIVEN).clip
        for channel in range(2):
            changed = self.GIVEN.clone()
            changed[:, channel] += torch.randn(16, 64)
            assert not torch.allclose(model(changed).clip, clip)

    def test_have_place_for_the_slope_of_the_first(self):
        config = ModelConfig(backbone="test_efficientnet", in_channels=3, channels="delta")
        three = coloured(self.GIVEN, config)
        torch.testing.assert_close(
            three, torch.stack([self.GIVEN[:, 0], slopes(self.GIVEN)[:, 0], self.GIVEN[:, 1]], 1)
        )
        assert build_model(config, 5, LOG_PCEN, start=False).eval()(self.GIVEN).clip.shape == (2, 5)

    def test_are_not_three(self):
        with pytest.raises(ConfigError, match=r"model.in_channels is 3, log_pcen gives two: set it to 1"):
            load_recipe(None, ["frontend.mel.compression=log_pcen", "model.in_channels=3"])
