"""Weights to start from: timm's hub, timm's files, our own checkpoints."""

import contextlib
import math
import os
import pickle
import urllib.error

import pytest
import torch
from safetensors.torch import save_file
from tiny_clips import TINY_FRONTEND
from tiny_models import LOG_PCEN

from birdinfer.errors import CheckpointError, ConfigError, InputNotFoundError
from birdinfer.training.models import hub
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.models.weights import tensors_only
from birdinfer.training.plan import TrainingSettings, plan_runs
from birdinfer.training.recipe.schema import ModelConfig, Recipe

TINY = ModelConfig(backbone="test_efficientnet")
ON_TIMM = {
    "native": TINY,
    "pooled": ModelConfig(backbone="test_efficientnet", pooling="gem"),
    "sed": ModelConfig("sed", "test_efficientnet", hidden=16),
}


def build(config=TINY, note=lambda _: None, **changes):
    fields = {name: getattr(config, name) for name in config.__struct_fields__} | changes
    return build_model(ModelConfig(**fields), 5, TINY_FRONTEND, start=True, note=note)


class TestHub:
    def test_out_of_reach(self, monkeypatch):
        def offline(*_, **__):
            raise ConnectionError("Name or service not known\nlong trace")

        monkeypatch.setattr(import_timm(), "create_model", offline)
        with pytest.raises(ConfigError, match=r"cannot be fetched \(Name or service not known\) - .*model\.weights"):
            build(pretrained=True)

    def test_other_failures_are_not_disguised(self, monkeypatch):
        def broken(*_, **__):
            raise ZeroDivisionError

        monkeypatch.setattr(import_timm(), "create_model", broken)
        with pytest.raises(ZeroDivisionError):
            build()

    @pytest.mark.parametrize(("start", "weights"), [(False, ""), (True, "local")])
    def test_it_is_not_asked_for_what_comes_from_elsewhere(self, monkeypatch, tmp_path, start, weights):
        asked = []
        create = import_timm().create_model
        if weights:
            weights = str(tmp_path / "w.safetensors")
            save_file(build().state_dict(), weights)
        monkeypatch.setattr(
            import_timm(), "create_model", lambda *a, **k: asked.append(k["pretrained"]) or create(*a, **k)
        )
        config = ModelConfig(backbone="test_efficientnet", pretrained=True, weights=weights)
        build_model(config, 5, TINY_FRONTEND, start=start)
        assert asked == [False]

    def test_what_it_sends_is_never_unpickled(self, monkeypatch, tmp_path):
        """Whatever the hub's loader asks of torch."""

        class Bomb:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "exploded"),)

        torch.save({"weight": Bomb()}, tmp_path / "sent.pth", pickle_protocol=pickle.DEFAULT_PROTOCOL)

        def hub(*_, **__):
            return torch.load(tmp_path / "sent.pth", weights_only=False)

        monkeypatch.setattr(import_timm(), "create_model", hub)
        with pytest.raises(ConfigError, match="cannot be fetched"):
            build(pretrained=True)
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize("before", [None, "0", "1"])
    def test_the_switch_is_restored(self, monkeypatch, before):
        name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
        with contextlib.suppress(ZeroDivisionError), tensors_only():
            assert os.environ[name] == "1"
            raise ZeroDivisionError
        assert os.environ.get(name) == before


class TestTimmsFiles:
    @pytest.fixture
    def weights(self, tmp_path):
        """A network for 3 channels and 7 classes, with a tensor that no one knows."""
        network = import_timm().create_model("test_efficientnet", in_chans=3, num_classes=7)
        path = tmp_path / "weights.safetensors"
        save_file({**network.state_dict(), "unknown": torch.zeros(1)}, path)
        return path, network

    @pytest.mark.parametrize("config", ON_TIMM.values(), ids=ON_TIMM)
    def test_every_family_finds_its_backbone_in_them(self, weights, config):
        path, network = weights
        model = build(config, weights=str(path))
        torch.testing.assert_close(model.backbone.conv_stem.weight, network.conv_stem.weight.sum(1, keepdim=True))
        theirs = network.state_dict()
        for name, tensor in model.backbone.state_dict().items():
            if name != "conv_stem.weight" and not name.startswith("classifier"):
                assert torch.equal(tensor, theirs[name]), name

    def test_what_did_not_fit_is_reported(self, weights):
        notes = []
        build(weights=str(weights[0]), note=notes.append)
        assert "2 kept random: backbone.classifier.bias, backbone.classifier.weight" in notes[0]
        assert "3 not used: classifier.bias, classifier.weight, unknown" in notes[0]

    def test_three_channels_are_taken_as_they_are(self, weights):
        path, network = weights
        model = build(weights=str(path), in_channels=3)
        assert torch.equal(model.backbone.conv_stem.weight, network.conv_stem.weight)

    def test_one_channel_is_shared_among_three(self, tmp_path):
        grey = build().eval()
        save_file(grey.state_dict(), tmp_path / "w.safetensors")
        coloured = build(weights=str(tmp_path / "w.safetensors"), in_channels=3).eval()
        log_mel = torch.randn(2, 1, 16, 64)
        torch.testing.assert_close(coloured(log_mel).clip, grey(log_mel).clip)

    @pytest.mark.parametrize("n_given", [1, 3])
    def test_two_channels_get_half_of_what_others_answered_to_grey(self, n_given, tmp_path):
        source = build(in_channels=n_given).eval()
        save_file(source.state_dict(), tmp_path / "w.safetensors")
        config = ModelConfig(backbone="test_efficientnet", weights=str(tmp_path / "w.safetensors"))
        two = build_model(config, 5, LOG_PCEN, start=True).eval()
        log_mel = torch.randn(2, 1, 16, 64)
        torch.testing.assert_close(two(log_mel.repeat(1, 2, 1, 1)).clip, source(log_mel).clip)

    def test_missing(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="no such weights"):
            build(weights=str(tmp_path / "none.safetensors"))

    def test_damaged(self, tmp_path):
        (tmp_path / "w.safetensors").write_bytes(b"\x80\x04pickle")
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            build(weights=str(tmp_path / "w.safetensors"))

    def test_unknown(self, tmp_path):
        save_file({"x": torch.zeros(3)}, tmp_path / "w.safetensors")
        with pytest.raises(CheckpointError, match="holds no tensor that fits"):
            build(weights=str(tmp_path / "w.safetensors"))

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda x: x.to(torch.int8), r"holds backbone\.conv_stem\.weight as torch\.int8, needed is torch\.float32"),
            (lambda x: x * math.nan, r"holds numbers in backbone\.conv_stem\.weight that are not finite"),
            (lambda x: x / 0, "not finite"),
        ],
    )
    def test_values_that_are_no_weights(self, tmp_path, spoil, words):
        tensors = build().state_dict()
        tensors["backbone.conv_stem.weight"] = spoil(tensors["backbone.conv_stem.weight"])
        save_file(tensors, tmp_path / "w.safetensors")
        with pytest.raises(CheckpointError, match=words):
            build(weights=str(tmp_path / "w.safetensors"))

    def test_half_precision_is_taken(self, tmp_path):
        source = build()
        save_file({name: x.half() if x.is_floating_point() else x for name, x in source.state_dict().items()},
                  tmp_path / "w.safetensors")  # fmt: skip
        model = build(weights=str(tmp_path / "w.safetensors"))
        torch.testing.assert_close(model.state_dict(), source.state_dict(), rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("shape", [(), (7,), (0, 0, 64), (1, 5), (2, 26, 64), (1, 1, 64), (1, 4, 4, 64)])
    def test_position_embeddings_of_no_picture_are_left_out(self, tmp_path, shape):
        vit, notes = ModelConfig("vit", "test_vit"), []
        save_file({**build(vit).state_dict(), "backbone.pos_embed": torch.ones(shape)}, tmp_path / "w.safetensors")
        build(vit, weights=str(tmp_path / "w.safetensors"), note=notes.append)
        assert "1 kept random: backbone.pos_embed" in notes[0]


class TestOurCheckpoints:
    def test_all_of_it_fits(self, tmp_path):
        notes = []
        save_file({"model." + name: x for name, x in build().state_dict().items()}, tmp_path / "best.safetensors")
        build(weights=str(tmp_path / "best.safetensors"), note=notes.append)
        assert notes[0].endswith("tensors taken")

    def test_a_classifiers_backbone_serves_a_detector(self, tmp_path):
        source, notes = build(ON_TIMM["pooled"]), []
        save_file({"model." + name: x for name, x in source.state_dict().items()}, tmp_path / "best.safetensors")
        detector = build(ON_TIMM["sed"], weights=str(tmp_path / "best.safetensors"), note=notes.append)
        for name, tensor in source.backbone.state_dict().items():
            assert torch.equal(detector.backbone.state_dict()[name], tensor), name
        assert "3 not used: model.head.bias, model.head.weight, model.pooling.p" in notes[0]


class TestHubIsAskedOnce:
    """Before anything is decoded, and for seconds instead of a minute."""

    WANTED = ModelConfig(backbone="efficientnet_b0", pretrained=True)

    @pytest.fixture
    def asked(self, monkeypatch, tmp_path):
        """Every address that is asked; none answers."""
        addresses = []

        def refuse(request, **_):
            addresses.append(request.full_url)
            raise urllib.error.URLError("no route to host")

        monkeypatch.setattr(hub.urllib.request, "urlopen", refuse)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        hub._answers.cache_clear()
        yield addresses
        hub._answers.cache_clear()

    def test_out_of_reach_is_one_line(self, asked):
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"does not answer, and its cache does not hold them - set model\.p"):
                hub.check_hub(self.WANTED)
        assert len(asked) == 1

    def test_its_cache_is_enough(self, asked, tmp_path):
        folder = tmp_path / "models--timm--efficientnet_b0.ra_in1k"
        for path in (folder / "snapshots" / "abc" / "model.safetensors", folder / "refs" / "main"):
            path.parent.mkdir(parents=True)
            path.write_text("abc")
        hub.check_hub(self.WANTED)
        assert asked == []

    @pytest.mark.parametrize("config", [ModelConfig(), ModelConfig(pretrained=True, weights="w.safetensors")])
    def test_who_does_not_need_it_does_not_ask(self, asked, config):
        hub.check_hub(config)
        assert asked == []

    def test_a_server_that_refuses_has_answered(self, asked, monkeypatch):
        def forbid(request, **_):
            raise urllib.error.HTTPError(request.full_url, 403, "forbidden", {}, None)

        monkeypatch.setattr(hub.urllib.request, "urlopen", forbid)
        hub.check_hub(self.WANTED)

    def test_debug_takes_random_weights_and_says_so(self, asked):
        (run,) = plan_runs([TrainingSettings(recipe=Recipe(model=self.WANTED), debug=True)])
        assert not run.recipe.model.pretrained
        assert run.note.startswith("random weights, for weights of efficientnet_b0 cannot be fetched: ")


class TestFilesOfTorch:
    """What torch.save wrote: of Lightning, of a loop of one's own, of another library."""

    @pytest.mark.parametrize(
        ("nested", "before", "ending"),
        [
            ("", "", "pth"),
            ("state_dict", "model.", "ckpt"),
            ("model", "module.backbone.", "pt"),
            ("", "_orig_mod.", "bin"),
        ],
    )
    def test_prefixes_and_wrappers_are_stripped(self, tmp_path, nested, before, ending):
        network, notes = import_timm().create_model("test_efficientnet", in_chans=1, num_classes=7), []
        tensors = {before + name: tensor for name, tensor in network.state_dict().items()}
        torch.save({nested: tensors, "epoch": 3} if nested else tensors, tmp_path / f"w.{ending}")
        model = build(weights=str(tmp_path / f"w.{ending}"), note=notes.append)
        assert torch.equal(model.backbone.conv_stem.weight, network.conv_stem.weight)
        assert "2 kept random: backbone.classifier.bias, backbone.classifier.weight; 2 not used" in notes[0]

    def test_other_names_in_the_same_order(self, tmp_path):
        network, notes = import_timm().create_model("test_efficientnet", in_chans=3, num_classes=7), []
        tensors = {f"_layer{index}": tensor for index, tensor in enumerate(network.state_dict().values())}
        torch.save(tensors, tmp_path / "w.pth")
        model = build(weights=str(tmp_path / "w.pth"), note=notes.append)
        torch.testing.assert_close(model.backbone.conv_stem.weight, network.conv_stem.weight.sum(1, keepdim=True))
        assert torch.equal(model.backbone.conv_head.weight, network.conv_head.weight)
        assert "tensors taken by order and shape; 2 kept random" in notes[0]
        torch.save(dict(reversed(tensors.items())), tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match="holds no tensor that fits"):
            build(weights=str(tmp_path / "w.pth"))

    def test_objects_are_refused_and_never_made(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "exploded"),)

        torch.save({"state_dict": build().state_dict(), "hyper_parameters": Bomb()}, tmp_path / "w.ckpt")
        with pytest.raises(CheckpointError, match=r"holds other things than tensors.* - save its state_dict\(\) alone"):
            build(weights=str(tmp_path / "w.ckpt"))
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x02}q\x00."])
    def test_damaged(self, tmp_path, content):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"w\.pth"):
            build(weights=str(tmp_path / "w.pth"))


class TestHeads:
    """Fine-tuning a network that was trained for other species."""

    @pytest.fixture
    def pretrained(self, tmp_path):
        """A fold's folder with weights for the species a to e."""
        source = build()
        tensors = {"model." + name: tensor for name, tensor in source.state_dict().items()}
        species = ", ".join(f'{{"label": "{label}"}}' for label in "abcde")
        save_file(tensors, tmp_path / "best.safetensors", {"birdinfer": f'{{"species": [{species}]}}'})
        return tmp_path, source

    @pytest.mark.parametrize(
        ("labels", "rows"), [("abcde", [0, 1, 2, 3, 4]), ("xcay", [None, 2, 0, None]), ("vwxyz", [None] * 5)]
    )
    def test_rows_are_taken_by_label(self, pretrained, labels, rows):
        folder, source = pretrained
        config, notes = ModelConfig(backbone="test_efficientnet", weights=str(folder)), []
        model = build_model(config, len(labels), TINY_FRONTEND, start=True, note=notes.append, labels=labels)
        theirs, own = source.backbone.classifier.weight, model.backbone.classifier.weight
        for index, row in enumerate(rows):
            assert any(torch.equal(own[index], each) for each in theirs) == (row is not None)
            assert row is None or torch.equal(own[index], theirs[row])
        if labels == "xcay":
            assert "classifier of 2 of 4 species taken" in notes[0]

    def test_a_backbone_moves_under_a_head_of_more_stages(self, pretrained):
        folder, source = pretrained
        config = ModelConfig("sed", "test_efficientnet", hidden=16, feature_stages=2, weights=str(folder))
        model = build_model(config, 3, TINY_FRONTEND, start=True, labels="abc")
        theirs = source.backbone.state_dict()
        for name, tensor in model.backbone.state_dict().items():
            assert torch.equal(tensor, theirs[name])
