from pathlib import Path

import msgspec
import pytest

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.file_level import FileMax
from birdinfer.postprocess.smoothing import LocalMax, Smooth, TaxonKernels
from birdinfer.postprocess.taxonomy import MirrorGroups
from birdinfer.training.recipe.schema import NOT_DECISIVE, Recipe, flatten
from birdinfer.training.recipe.toml import change, load_recipe, write_recipe


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


class TestLoadRecipe:
    def test_without_a_file_it_is_the_defaults(self):
        assert load_recipe(None) == Recipe()

    def test_is_called_like_its_file_unless_it_says_otherwise(self, toml):
        assert load_recipe(toml("seed = 3")).name == "mine"
        assert load_recipe(toml('name = "other"')).name == "other"

    def test_reads_nested_tables(self, toml):
        recipe = load_recipe(toml('[optim]\nlr = 1\n[frontend.mel]\nn_mels = 64\n[model]\nbackbone = "x"'))
        assert (recipe.optim.lr, recipe.frontend.mel.n_mels, recipe.model.backbone) == (1.0, 64, "x")

    @pytest.mark.parametrize(
        ("override", "key", "value"),
        [
            ("optim.lr=3e-4", "optim.lr", 3e-4),
            (" loop.epochs = 7 ", "loop.epochs", 7),
            ("model.backbone=lcnet_035", "model.backbone", "lcnet_035"),
            ('model.backbone="lcnet_035"', "model.backbone", "lcnet_035"),
            ("augment.background_dir=../a b/c", "augment.background_dir", "../a b/c"),
            ("augment.background_snr_db=[0, 10]", "augment.background_snr_db", [0.0, 10.0]),
            ("data.group_by=[recording]", "data.group_by", ["recording"]),
            ("data.group_by=[author, recording]", "data.group_by", ["author", "recording"]),
            ('data.group_by=["recording"]', "data.group_by", ["recording"]),
            ("augment.background_dir=[a b]", "augment.background_dir", "[a b]"),
            ("model.pretrained=true", "model.pretrained", True),
            ("frontend.mel.n_mels=64", "frontend.mel.n_mels", 64),
        ],
    )
    def test_overrides_are_toml_values(self, override, key, value):
        assert flatten(load_recipe(None, [override]))[key] == (tuple(value) if isinstance(value, list) else value)

    def test_a_teacher_needs_weights_to_come_from(self):
        with pytest.raises(ConfigError, match=r"loss\.teacher_share is 0\.5, it needs a teacher, model\.weights"):
            load_recipe(None, ["loss.teacher_share=0.5"])
        both = load_recipe(None, ["loss.teacher_share=0.5", "model.weights=runs/b0/fold{fold}/best.safetensors"])
        assert both.model.weights == "runs/b0/fold{fold}/best.safetensors"

    def test_steps_of_post_processing_are_a_list_of_tables(self, toml):
        recipe = load_recipe(toml('[[post.steps]]\nstep = "file_max"\npower = 0.5\n[[post.steps]]\nstep = "local_max"'))
        assert recipe.post.steps == (FileMax(0.5), LocalMax())
        assert load_recipe(None, ['post.steps=[{step="file_max", power=0.5}]']).post.steps == (FileMax(0.5),)

    @pytest.mark.parametrize("start", ["model.pretrained=true", "model.weights=b0.safetensors"])
    def test_norms_that_have_measured_before_may_hold_still_throughout(self, start):
        """Patience cannot end a run before they do."""
        recipe = load_recipe(None, [start, "optim.frozen_norm_epochs=20", "loop.patience=3"])
        assert (recipe.optim.frozen_norm_epochs, recipe.first_frozen_epoch) == (20, 1)

    @pytest.mark.parametrize(("n_frozen", "first"), [(0, 21), (1, 20), (8, 13)])
    def test_from_which_epoch_on_norms_hold_still(self, n_frozen, first):
        assert load_recipe(None, [f"optim.frozen_norm_epochs={n_frozen}"]).first_frozen_epoch == first

    def test_missing_file(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="no such recipe"):
            load_recipe(tmp_path / "none.toml")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("lr = = 3", ["is not TOML"]),
            ("[optim]\nlr = 2.0", ["mine.toml: optim.lr", "is 2.0", "allowed is 0 < lr <= 1"]),
            ("[optim]\nlr = 'fast'", ["optim.lr", "is 'fast'", "float"]),
            ("[optim]\nlrr = 0.1", ["optim.lrr", "no such key", "did you mean lr?"]),
            ("[optimm]\nlr = 0.1", ["optimm", "no such key", "did you mean optim?"]),
            ("[optim]\nqqqqq = 0.1", ["known are name, lr, weight_decay"]),
            ("[frontend.mel]\nn_mels = 4", ["frontend.mel", "n_mels is 4", "8 to 512"]),
            ("[frontend.mel]\nscale = 'bark'", ["frontend.mel.scale", "is 'bark'", "allowed is htk or slaney"]),
            ("[frontend.mel]\nf_max_hz = 20000.0", ["frontend", "mel.f_max_hz is 20000"]),
            ("[augment]\nbackground_snr_db = [9, 3]", ["augment", "[9.0, 3.0]", "from <= to"]),
            ("[augment]\nbackground_snr_db = [9, 'x']", ["augment.background_snr_db", "is [9, 'x']"]),
            ("[loop]\nepochs = 0", ["loop.epochs", "is 0", "allowed is 1 <= epochs <= 100000"]),
            ("[model]\ndrop_rate = 1", ["allowed is 0 <= drop_rate < 1"]),
            ("[frontend.mel]\nf_min_hz = 'x'", ["frontend.mel.f_min_hz", "is 'x'"]),
            ("[model]\nbackbone = 1", ["model.backbone", "is 1, expected str"]),
            ("[[post.steps]]\nstep = 'file_mx'", ["mine.toml: post.steps.0.step", "is 'file_mx'"]),
            ("[[post.steps]]\nstep = 'file_max'\npowr = 1", ["post.steps.0.powr", "there is no such key"]),
            ("[[post.steps]]\nstep = 'file_max'\npower = 'x'", ["post.steps.0.power", "is 'x', expected float"]),
            ("[[post.steps]]\nstep = 'file_max'\npower = 11", ["post.steps.0", "power is 11", "0 to 10"]),
            ("[post]\nsteps = 3", ["post.steps", "is 3, expected array"]),
            ("name = 'a/b'", ["name is 'a/b'"]),
            ("optim = 3", ["optim", "is 3", "object"]),
            (
                "[optim]\nfrozen_norm_epochs = 21",
                ["mine.toml", "optim.frozen_norm_epochs is 21, more than loop.epochs = 20"],
            ),
            (
                "[optim]\nfrozen_norm_epochs = 20",
                ["optim.frozen_norm_epochs is 20, all of loop.epochs", "start from model.weights"],
            ),
            (
                "[optim]\nfrozen_norm_epochs = 5\n[loop]\npatience = 3",
                ["loop.patience may end the run before optim.frozen_norm_epochs begin", "set one of them to 0"],
            ),
            ("[optim]\nfrozen_norm_epochs = -1", ["optim.frozen_norm_epochs", "is -1", "allowed is 0 <= "]),
        ],
    )
    def test_refuses_with_file_key_value_and_what_is_allowed(self, toml, text, words):
        with pytest.raises(ConfigError) as caught:
            load_recipe(toml(text))
        assert all(word in str(caught.value) for word in words), caught.value
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("override", ["lr", "=3", "optim..lr=3", "seed.deep=1"])
    def test_refuses_overrides_that_are_none(self, override):
        with pytest.raises(ConfigError, match="--set"):
            load_recipe(None, ["seed=1", override])


class TestChange:
    def test_what_is_not_named_stays(self):
        recipe = load_recipe(None, ["seed=3", "augment.background_snr_db=[0, 10]"])
        changed = change(recipe, ["optim.lr=3e-4"])
        assert changed.optim.lr == 3e-4
        assert change(changed, [f"optim.lr={recipe.optim.lr}"]) == recipe

    def test_refused_like_any_override(self):
        with pytest.raises(ConfigError, match=r"--set: optim\.lrr: there is no such key - did you mean lr\?"):
            change(Recipe(), ["optim.lrr=0.1"])


class TestWriteRecipe:
    def test_reads_back_equal(self, toml, tiny_recipe):
        odd = msgspec.structs.replace(
            tiny_recipe, optim=msgspec.structs.replace(tiny_recipe.optim, lr=1e-5), name='a "b" é'
        )
        assert load_recipe(toml(write_recipe(odd))) == odd

    def test_reads_back_steps_with_lists_and_tables_of_their_own(self, toml):
        steps = (Smooth((0.25, 0.5, 0.25)), TaxonKernels({'a "b"': (1 / 3,) * 3}), MirrorGroups(groups=(("a", "b"),)))
        recipe = msgspec.structs.replace(Recipe(name="mine"), post=PostConfig((1.0,), steps))
        assert load_recipe(toml(write_recipe(recipe))) == recipe

    def test_writes_every_value_out(self):
        text = write_recipe(Recipe())
        assert "[frontend.mel]\nn_fft = 2048\n" in text
        assert "\n[loop]\nepochs = 20\n" in text
        assert "[frontend]" not in text


SHIPPED = sorted(path for path in (Path(__file__).parents[3] / "train").glob("*.toml") if path.name != "space.toml")


class TestShippedRecipes:
    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_they_load_and_their_models_can_be_built(self, path):
        from birdinfer.training.models.registry import build_model

        recipe = load_recipe(path)
        assert recipe.name == path.stem
        build_model(recipe.model, 3, recipe.input_config, start=False, activation=recipe.loss.activation)

    def test_two_folds_of_the_demo_fit_into_its_bundle(self):
        """2.8 MB of float32 for both graphs."""
        from birdinfer.training.models.registry import build_model

        recipe = load_recipe(next(path for path in SHIPPED if path.stem == "demo"))
        model = build_model(recipe.model, 8, recipe.input_config, start=False)
        assert recipe.data.n_folds * 4 * sum(parameter.numel() for parameter in model.parameters()) < 2.8e6


def test_a_run_may_be_resumed_with_other_post_processing():
    other = PostConfig((1.0,), (FileMax(),))
    before, after = flatten(Recipe()), flatten(msgspec.structs.replace(Recipe(), post=other))
    assert {key for key in before if before[key] != after[key]} == {"post.smoothing_kernel", "post.steps"}
    assert {"post.smoothing_kernel", "post.steps"} <= NOT_DECISIVE
