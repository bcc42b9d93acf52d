import pytest
import torch
from safetensors.torch import save_file
from tiny_clips import TINY_FRONTEND

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.errors import ConfigError
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.recipe.schema import ModelConfig

TEST_VIT = ModelConfig("vit", "test_vit")


def picture(rows, columns):
    return FrontEndConfig(mel=MelConfig(resize=(rows, columns)))


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "vit_small_patch16_224"])
def test_transformers_in_use_take_the_recipes_picture(backbone):
    model = build_model(ModelConfig("vit", backbone), 3, picture(64, 96), start=False).eval()
    assert model.backbone.patch_embed.grid_size == (4, 6)
    assert model(torch.zeros(2, 1, 64, 96)).clip.shape == (2, 3)


def test_a_picture_that_patches_do_not_divide_is_padded_not_cut():
    torch.manual_seed(0)
    model = build_model(TEST_VIT, 3, picture(40, 50), start=False).eval()
    assert model.backbone.patch_embed.grid_size == (3, 4)
    output = torch.randn(1, 1, 40, 50)
    last = output.clone()
    last[..., -1:] += 5
    assert (model(output).clip - model(last).clip).abs().max() > 1e-4
    whole = torch.nn.functional.pad(output, (0, 14, 0, 8))
    torch.testing.assert_close(model(output).clip, model.backbone(whole))


def test_native_spectrograms_are_pictures_too():
    assert build_model(TEST_VIT, 3, TINY_FRONTEND, start=False)(torch.zeros(2, 1, 16, 64)).clip.shape == (2, 3)


def test_another_network_is_refused():
    with pytest.raises(ConfigError, match=r'efficientnet_b0 is no vision transformer - .*family = "cnn"'):
        build_model(ModelConfig("vit", "efficientnet_b0"), 3, picture(64, 64), start=False)


class TestWeightsOfAnotherPicture:
    @pytest.fixture
    def saved(self, tmp_path):
        """timm's own file, for three channels, other labels and 160 x 160."""
        torch.manual_seed(0)
        network = import_timm().create_model("test_vit", in_chans=3, num_classes=7, img_size=(160, 160))
        torch.nn.init.normal_(network.pos_embed)
        save_file(network.state_dict(), tmp_path / "vit.safetensors")
        return tmp_path / "vit.safetensors", network

    def test_position_embeddings_are_resampled_as_timm_does(self, saved):
        path, network = saved
        notes = []
        config = ModelConfig("vit", "test_vit", weights=str(path))
        model = build_model(config, 3, picture(64, 96), start=True, note=notes.append)
        network.set_input_size(img_size=(64, 96))
        torch.testing.assert_close(model.backbone.pos_embed, network.pos_embed)
        torch.testing.assert_close(
            model.backbone.patch_embed.proj.weight, network.patch_embed.proj.weight.sum(1, keepdim=True)
        )
        assert "2 kept random: backbone.head.bias, backbone.head.weight" in notes[0]

    def test_the_same_picture_is_taken_as_it_is(self, saved):
        path, network = saved
        config = ModelConfig("vit", "test_vit", weights=str(path))
        model = build_model(config, 3, picture(160, 160), start=True)
        assert torch.equal(model.backbone.pos_embed, network.pos_embed)

    def test_places_that_form_no_square_are_left_out(self, tmp_path):
        network = import_timm().create_model("test_vit", in_chans=1, num_classes=3, img_size=(32, 96))
        save_file(network.state_dict(), tmp_path / "vit.safetensors")
        notes = []
        config = ModelConfig("vit", "test_vit", weights=str(tmp_path / "vit.safetensors"))
        build_model(config, 3, picture(64, 64), start=True, note=notes.append)
        assert "1 kept random: backbone.pos_embed; 1 not used: pos_embed" in notes[0]
