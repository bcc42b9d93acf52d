import json
import math

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import birdinfer.training.checkpoint as checkpoint_module
from birdinfer.errors import CheckpointError, InputNotFoundError
from birdinfer.species import Species
from birdinfer.training.checkpoint import (
    EMA,
    MODEL,
    EpochRow,
    Header,
    Progress,
    load_checkpoint,
    load_header,
    save_checkpoint,
    versions,
)
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig, Recipe

SPECIES = (Species("0012", "Corvus corax", "Raven", "Aves"), Species("1161364"))
RECIPE = Recipe(model=ModelConfig(backbone="test_efficientnet"))


def header(auc=0.75, epoch=2, recipe=RECIPE):
    rows = [EpochRow(index, 0.5, 0.4, auc if index == 2 else 0.1, 0.3, 0.5, 1e-3, 2.0, 0.1, None) for index in (1, 2)]
    return Header(recipe, SPECIES, 3, Progress(epoch=epoch, history=rows), "/where/clips/were", versions())


def model_tensors(prefix=MODEL, seed=0):
    torch.manual_seed(seed)
    return {
        prefix + k: v for k, v in build_model(RECIPE.model, 2, RECIPE.input_config, start=False).state_dict().items()
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, header(), model_tensors())
    return path


class TestRoundTrip:
    def test_state(self, path):
        checkpoint = load_checkpoint(path)
        assert checkpoint.recipe == RECIPE
        assert checkpoint.species == SPECIES
        assert (checkpoint.fold, checkpoint.epoch, checkpoint.val_macro_auc) == (3, 2, 0.75)
        assert checkpoint.data_dir == "/where/clips/were"
        assert checkpoint.versions["torch"] == torch.__version__

    def test_tensors_bit_for_bit(self, path):
        tensors = load_checkpoint(path).tensors
        assert all(torch.equal(tensors[name], tensor) for name, tensor in model_tensors().items())

    def test_model_is_in_eval_mode_and_answers(self, path):
        model = load_checkpoint(path).build_model()
        assert not model.training
        with torch.no_grad():
            assert model(torch.zeros(2, 1, 32, 64)).clip.shape == (2, 2)

    def test_averaged_weights_win(self, path):
        averaged = model_tensors(EMA, seed=1)
        save_checkpoint(path, header(), {**model_tensors(), **averaged})
        kept = load_checkpoint(path).build_model().state_dict()
        assert all(torch.equal(kept[name.removeprefix(EMA)], tensor) for name, tensor in averaged.items())

    @pytest.mark.parametrize("state", [header(auc=None), header(epoch=9)])
    def test_what_was_not_scored_is_nan(self, path, state):
        save_checkpoint(path, state, model_tensors())
        assert math.isnan(load_checkpoint(path).val_macro_auc)


class TestDamage:
    @given(seed=st.integers(0, 2**32 - 1), n_flipped=st.sampled_from([1, 200]))
    def test_flipped_bytes_are_found_and_named(self, path, seed, n_flipped):
        rng = np.random.default_rng(seed)
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        content[rng.choice(len(content), n_flipped, replace=False)] ^= rng.integers(1, 256, n_flipped, dtype=np.uint8)
        damaged = path.with_name("damaged.safetensors")
        damaged.write_bytes(content.tobytes())
        with pytest.raises(CheckpointError, match=r"damaged\.safetensors: (is damaged|holds)"):
            load_checkpoint(damaged)

    def test_a_changed_state_is_found_without_the_tensors(self, path):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"/where/clips/were", b"/where/clips/went"))
        with pytest.raises(CheckpointError, match="is damaged: its state has changed since it was written - train it"):
            load_header(path)

    def test_one_of_an_older_birdinfer_has_no_digests(self, path):
        state = msgspec.json.encode(header()).decode()
        save_file(model_tensors(), path, {"birdinfer": state})
        assert load_checkpoint(path).header == header()


class TestRefused:
    def test_missing(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="no such checkpoint"):
            load_checkpoint(tmp_path / "none")

    @pytest.mark.parametrize("keep", [0, 4, 100, 20_000])
    def test_cut_short(self, path, keep):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match=r"is damaged or no checkpoint") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)

    def test_pickle(self, path):
        torch.save({"model": torch.zeros(1)}, path)
        with pytest.raises(CheckpointError, match="is damaged or no checkpoint"):
            load_checkpoint(path)

    def test_unknown_tensors(self, path):
        save_file({"x": torch.zeros(1)}, path)
        with pytest.raises(CheckpointError, match="holds tensors but no birdinfer state"):
            load_checkpoint(path)

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            ("{", "cannot be read"),
            ("[]", "cannot be read"),
            pytest.param('{"a":' * 100_000, r"cannot be read \(maximum recursion depth", id="deep"),
            ('{"format_version": 2}', "cannot be read"),
            ('{"format_version": 99}', "has format 99, this birdinfer reads 2 - update birdinfer"),
            ('{"format_version": 1}', "has format 1, this birdinfer reads 2 - train it again"),
            ('{"format_version": "2\\n\\u001b[31m"}', "has format 2 \\[31m, this birdinfer reads 2 - train it again"),
        ],
    )
    def test_state_that_cannot_be_read(self, path, state, words):
        save_file({"x": torch.zeros(1)}, path, {"birdinfer": state})
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(path)

    def test_a_recipe_key_that_no_longer_exists(self, path):
        state = json.loads(msgspec.json.encode(header()))
        state["recipe"]["optim"]["nesterov"] = True
        save_file({"x": torch.zeros(1)}, path, {"birdinfer": json.dumps(state)})
        with pytest.raises(CheckpointError, match="nesterov"):
            load_checkpoint(path)

    @pytest.mark.parametrize(
        ("key", "value"), [("fold", -1), ("fold", 10**30), ("data_dir", None), ("species", [{"label": 7}])]
    )
    def test_a_state_that_no_training_writes(self, path, key, value):
        state = json.loads(msgspec.json.encode(header())) | {key: value}
        save_file({"x": torch.zeros(1)}, path, {"birdinfer": json.dumps(state)})
        with pytest.raises(CheckpointError, match=rf"cannot be read .*\$\.{key}"):
            load_header(path)

    def test_tensors_of_another_model(self, path):
        save_checkpoint(path, header(), {f"{MODEL}x": torch.zeros(1)})
        with pytest.raises(CheckpointError, match=r"does not fit its own recipe \(\d+ missing: .*; 1 unknown: x\)"):
            load_checkpoint(path).build_model()

    def test_state_and_tensors_are_read_of_one_file(self, path, monkeypatch):
        """A training that continues puts another file in the place of this one at any moment."""
        decode = msgspec.json.decode

        def meanwhile(*arguments, **options):
            save_checkpoint(path, header(epoch=9), {"other": torch.zeros(1)})
            return decode(*arguments, **options)

        monkeypatch.setattr(msgspec.json, "decode", meanwhile)
        checkpoint = load_checkpoint(path)
        assert checkpoint.epoch == 2
        assert set(checkpoint.tensors) == set(model_tensors())

    def test_a_network_larger_than_the_machine_takes_no_memory(self, path, monkeypatch):
        """The recipe names a network of a billion weights; the file holds none of them."""
        built = []

        def build(*arguments, **options):
            built.append(build_model(*arguments, **options))
            return built[-1]

        monkeypatch.setattr(checkpoint_module, "build_model", build)
        giant = msgspec.structs.replace(RECIPE, model=ModelConfig(backbone="eva_giant_patch14_224"))
        save_checkpoint(path, header(recipe=giant), model_tensors())
        with pytest.raises(CheckpointError, match="does not fit its own recipe"):
            load_checkpoint(path).build_model()
        assert len(built) == 1
        assert {weight.device.type for weight in built[0].parameters()} == {"meta"}
