import sys

import pytest
import torch
from safetensors.torch import save_file

from birdinfer.errors import CheckpointError, ConfigError, InputNotFoundError, MissingExtraError
from birdinfer.training import torchvision_shim
from birdinfer.training.models import build_model
from birdinfer.training.recipe_learning import ModelConfig
from birdinfer.training.torchvision_shim import import_timm

TINY = ModelConfig(backbone="test_efficientnet")


class TestBuildModel:
    def test_one_channel_in_logits_out(self):
        model = build_model(TINY, 5, start=False).eval()
        assert model(torch.zeros(2, 1, 32, 64)).shape == (2, 5)

    def test_unknown_family(self):
        with pytest.raises(ConfigError, match=r"model\.family: 'rnn' is unknown - known are cnn"):
            build_model(ModelConfig(family="rnn"), 5, start=False)

    def test_unknown_backbone_suggests_the_nearest(self):
        with pytest.raises(ConfigError, match=r"'eficientnet_b0' - did you mean efficientnet_b0"):
            build_model(ModelConfig(backbone="eficientnet_b0"), 5, start=False)

    def test_settings_that_a_backbone_does_not_take(self):
        with pytest.raises(ConfigError, match="takes no such setting"):
            build_model(ModelConfig(backbone="densenet121", drop_path_rate=0.5, drop_rate=0.0), 5, start=False)

    def test_hub_out_of_reach(self, monkeypatch):
        def offline(*_, **__):
            raise ConnectionError("Name or service not known\nlong trace")

        monkeypatch.setattr(import_timm(), "create_model", offline)
        config = ModelConfig(backbone="test_efficientnet", pretrained=True)
        with pytest.raises(ConfigError, match=r"cannot be fetched \(Name or service not known\) - .*model\.weights"):
            build_model(config, 5, start=True)

    def test_other_failures_are_not_disguised(self, monkeypatch):
        def broken(*_, **__):
            raise ZeroDivisionError

        monkeypatch.setattr(import_timm(), "create_model", broken)
        with pytest.raises(ZeroDivisionError):
            build_model(TINY, 5, start=True)

    def test_a_checkpoint_needs_no_hub(self, monkeypatch):
        asked = []
        create = import_timm().create_model
        monkeypatch.setattr(
            import_timm(), "create_model", lambda *a, **k: asked.append(k["pretrained"]) or create(*a, **k)
        )
        build_model(ModelConfig(backbone="test_efficientnet", pretrained=True), 5, start=False)
        assert asked == [False]


class TestLocalWeights:
    @pytest.fixture
    def weights(self, tmp_path):
        """A model for 3 channels and 7 classes, with a tensor that nobody knows."""
        model = import_timm().create_model("test_efficientnet", in_chans=3, num_classes=7)
        path = tmp_path / "weights.safetensors"
        save_file({**model.state_dict(), "foreign": torch.zeros(1)}, path)
        return path, model

    def test_first_convolution_is_summed_and_classifier_dropped(self, weights):
        path, source = weights
        notes = []
        model = build_model(
            ModelConfig(backbone="test_efficientnet", weights=str(path)), 5, start=True, note=notes.append
        )
        torch.testing.assert_close(model.conv_stem.weight, source.conv_stem.weight.sum(1, keepdim=True))
        torch.testing.assert_close(model.conv_head.weight, source.conv_head.weight)
        (note,) = notes
        assert "2 kept random: classifier.bias, classifier.weight" in note
        assert "3 not used: classifier.bias, classifier.weight, foreign" in note

    def test_all_of_it_fits(self, tmp_path):
        path, notes = tmp_path / "w.safetensors", []
        save_file(build_model(TINY, 5, start=False).state_dict(), path)
        build_model(ModelConfig(backbone="test_efficientnet", weights=str(path)), 5, start=True, note=notes.append)
        assert notes[0].endswith("tensors taken")

    def test_missing(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="no such weights"):
            build_model(ModelConfig(weights=str(tmp_path / "none.safetensors")), 5, start=True)

    def test_damaged(self, tmp_path):
        (tmp_path / "w.safetensors").write_bytes(b"\x80\x04pickle")
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            build_model(ModelConfig(weights=str(tmp_path / "w.safetensors")), 5, start=True)

    def test_foreign(self, tmp_path):
        save_file({"x": torch.zeros(3)}, tmp_path / "w.safetensors")
        with pytest.raises(CheckpointError, match="holds no tensor that fits"):
            build_model(ModelConfig(weights=str(tmp_path / "w.safetensors")), 5, start=True)


class TestTorchvisionShim:
    """Only the one failure is cured, and only where it happens."""

    @pytest.fixture
    def imports(self, monkeypatch):
        """Answer imports of torchvision with these outcomes, one after the other; schemas go to a stand-in."""
        asked, defined = [], []

        class Library:
            def __init__(self, *_):
                pass

            def define(self, schema):
                defined.append(schema)

        monkeypatch.setattr(torch.library, "Library", Library)

        def answer(*outcomes):
            queue = list(outcomes)

            def import_module(name):
                asked.append(name)
                outcome = queue.pop(0) if queue else None
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

            monkeypatch.setattr(torchvision_shim.importlib, "import_module", import_module)
            return asked, defined

        return answer

    def test_a_torchvision_that_imports_is_left_alone(self, imports):
        asked, defined = imports("torchvision", "timm")
        assert import_timm() == "timm"
        assert asked == ["torchvision", "timm"]
        assert defined == []

    def test_cures_the_missing_operator(self, imports, monkeypatch):
        asked, defined = imports(RuntimeError("operator torchvision::nms does not exist"), "torchvision", "timm")
        monkeypatch.setitem(sys.modules, "torchvision.half_imported", object())
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            monkeypatch.setitem(sys.modules, name, sys.modules[name])  # put back afterwards
        assert import_timm() == "timm"
        assert asked == ["torchvision", "torchvision", "timm"]
        assert [schema.split("(")[0] for schema in defined] == ["nms", "qnms"]
        assert "torchvision.half_imported" not in sys.modules

    def test_another_failure_is_not_hidden(self, imports):
        imports(RuntimeError("something else"))
        with pytest.raises(RuntimeError, match="something else"):
            import_timm()

    def test_without_torchvision_timm_decides(self, imports):
        imports(ModuleNotFoundError("torchvision"), "timm")
        assert import_timm() == "timm"

    def test_without_timm(self, imports):
        imports("torchvision", ModuleNotFoundError("timm"))
        with pytest.raises(MissingExtraError, match=r"pip install \"birdinfer\[train\]\""):
            import_timm()
