import csv
import dataclasses
import shutil

import msgspec
import pytest
import torch
from stopped_run import train_until_stopped

from birdinfer.errors import CheckpointError, ConfigError, InputNotFoundError
from birdinfer.training import run as run_module
from birdinfer.training.callbacks import TrainingCallback
from birdinfer.training.checkpoint import load_checkpoint, save_checkpoint
from birdinfer.training.finetune import for_int8, plan_int8
from birdinfer.training.fold import init_state
from birdinfer.training.recipe.data_config import SourceConfig
from birdinfer.training.recipe.schema import DataConfig, DistilConfig, LoopConfig, ModelConfig, OptimConfig
from birdinfer.training.run import Run, train_run

BEST, LAST = "best.safetensors", "last.safetensors"


class Recorder(TrainingCallback):
    def __init__(self):
        self.messages, self.rows = [], []

    def on_message(self, line):
        self.messages.append(line)

    def on_epoch_end(self, row, is_best):
        self.rows.append(row)


@pytest.fixture(scope="module")
def original(tmp_path_factory, tiny_recipe, clips_dir):
    """Folds 0 and 1 of three, one epoch, with averaged weights, dropout and mixup. Read only."""
    run_dir = tmp_path_factory.mktemp("runs") / "mine"
    recipe = msgspec.structs.replace(tiny_recipe, loop=msgspec.structs.replace(tiny_recipe.loop, epochs=1))
    train_run(Run(recipe=recipe, data_dir=clips_dir, run_dir=run_dir, folds=(0, 1), device="cpu"))
    return run_dir


@pytest.fixture(scope="module")
def tuned(original, tmp_path_factory):
    """The original, trained on; both folds."""
    run_dir, reporter = tmp_path_factory.mktemp("tuned") / "mine-int8", Recorder()
    plan = plan_int8(original, None)
    results = train_run(
        Run(recipe=plan.recipe, data_dir=plan.data_dir, run_dir=run_dir, folds=plan.folds, device="cpu"), reporter
    )
    return run_dir, results, reporter


def held_out(fold_dir):
    with (fold_dir / "oof.csv").open(newline="") as file:
        return {row["filename"] for row in csv.DictReader(file)}


class TestWhatIsPlanned:
    def test_a_teacher_of_another_kind_and_what_it_alone_knows_are_left_out(self, plain_recipe, tmp_path):
        sources = (
            SourceConfig(path="a", name="a", kind="unlabelled", share=0.2),
            SourceConfig(path="b", name="b", kind="clips"),
        )
        recipe = msgspec.structs.replace(
            plain_recipe, data=DataConfig(sources=sources), distil=DistilConfig(teacher="bundle")
        )
        changed = for_int8(recipe, tmp_path)
        assert not changed.distil.teacher
        assert [source.name for source in changed.data.sources] == ["b"]

    def test_a_fifth_of_the_epochs_at_a_tenth_of_the_rate(self, plain_recipe, tmp_path):
        recipe = msgspec.structs.replace(
            plain_recipe,
            optim=OptimConfig(lr=2e-3, schedule="plateau", warmup_epochs=3, ema_decay=0.99),
            loop=LoopConfig(epochs=30, patience=3),
        )
        short = for_int8(recipe, tmp_path / "b0")
        assert (short.name, short.loop.epochs, short.loop.patience) == ("b0-int8", 6, 0)
        assert short.optim.lr == pytest.approx(2e-4)
        assert (short.optim.schedule, short.optim.warmup_epochs) == ("cosine", pytest.approx(0.6))
        assert short.optim.ema_decay == pytest.approx(0.95)  # 20 steps of a fifth as many, instead of 100
        assert (short.model.activation, short.loss.teacher_share) == ("relu", 0.5)
        assert short.augment == recipe.augment

    @pytest.mark.parametrize(("epochs", "expected"), [(1, 2), (5, 2), (10, 2), (20, 4)])
    def test_at_least_two_epochs(self, plain_recipe, tmp_path, epochs, expected):
        recipe = msgspec.structs.replace(plain_recipe, loop=LoopConfig(epochs=epochs))
        assert for_int8(recipe, tmp_path).loop.epochs == expected

    @pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
    def test_an_average_over_few_steps_needs_no_decay(self, plain_recipe, tmp_path, decay):
        recipe = msgspec.structs.replace(plain_recipe, optim=OptimConfig(ema_decay=decay), loop=LoopConfig(epochs=50))
        assert 0 <= for_int8(recipe, tmp_path).optim.ema_decay <= max(0.0, 1 - 5 * (1 - decay)) + 1e-9

    @pytest.mark.parametrize(("n_frozen", "patience"), [(0, 0), (0, 5), (20, 0)])
    def test_norms_hold_still_throughout_whatever_they_did_before(self, plain_recipe, tmp_path, n_frozen, patience):
        recipe = msgspec.structs.replace(
            plain_recipe,
            optim=OptimConfig(frozen_norm_epochs=n_frozen),
            loop=LoopConfig(epochs=30, patience=patience),
        )
        short = for_int8(recipe, tmp_path)
        assert (short.loop.epochs, short.optim.frozen_norm_epochs, short.first_frozen_epoch) == (6, 6, 1)

    @pytest.mark.parametrize("epochs", [1, 2, 7])
    def test_norms_hold_still_through_any_number_of_epochs(self, original, epochs):
        recipe = plan_int8(original, (0,), [f" loop.epochs = {epochs}", "loop.patience=3"]).recipe
        assert (recipe.loop.epochs, recipe.optim.frozen_norm_epochs) == (epochs, epochs)

    @pytest.mark.parametrize("n_frozen", [0, 3])
    def test_norms_may_move_where_that_is_asked_for(self, original, n_frozen):
        recipe = plan_int8(original, (0,), ["loop.epochs=4", f"optim.frozen_norm_epochs={n_frozen}"]).recipe
        assert recipe.optim.frozen_norm_epochs == n_frozen

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("loop.epochs=many", r"--set: loop\.epochs: is 'many'"),
            ("optim.frozen_norm_epochs=3", r"--set: optim\.frozen_norm_epochs is 3, more than loop\.epochs = 2"),
        ],
    )
    def test_what_is_asked_for_and_cannot_be_is_named(self, original, override, words):
        with pytest.raises(ConfigError, match=words):
            plan_int8(original, (0,), [override])

    def test_folds_are_the_files_whatever_assigned_them(self, plain_recipe, tmp_path):
        config = DataConfig(val_share=0.2, complete_fold0=True, duplicates="remove", test_share=0.1)
        data = for_int8(msgspec.structs.replace(plain_recipe, data=config), tmp_path / "b0").data
        assert data.folds_file == str(tmp_path / "b0" / "folds.csv")
        assert (data.val_share, data.complete_fold0, data.duplicates, data.fold_column) == (0, False, "keep", "")

    def test_every_key_can_be_overridden(self, original):
        plan = plan_int8(original, (1,), ["optim.lr=5e-4", "loss.teacher_share=0", "name=other"])
        assert (plan.recipe.optim.lr, plan.recipe.loss.teacher_share, plan.recipe.name) == (5e-4, 0, "other")
        assert plan.folds == (1,)
        with pytest.raises(ConfigError, match=r"--set: optim\.lr: is 7"):
            plan_int8(original, (1,), ["optim.lr=7"])

    def test_the_data_are_where_they_were(self, original, clips_dir):
        assert plan_int8(original, None).data_dir == clips_dir.resolve()


class TestWhatIsTrained:
    def test_it_starts_from_what_was_validated(self, original, tmp_path, clips_dir, monkeypatch):
        """The averaged weights of the fold's best epoch, bit for bit, ReLU or not."""
        seen = {}

        def look(job, session):
            state, _ = init_state(job, "fp32", session)
            seen[job.number] = state.model.state_dict()
            raise ConfigError("enough", "was seen")

        monkeypatch.setattr(run_module, "train_fold", look)
        plan = plan_int8(original, None)
        train_run(
            Run(recipe=plan.recipe, data_dir=clips_dir, run_dir=tmp_path / "r", folds=plan.folds, device="cpu"),
        )
        assert set(seen) == {0, 1}
        for fold, weights in seen.items():
            kept = load_checkpoint(original / f"fold{fold}" / BEST).weights("model.")
            assert all(torch.equal(weights[name], kept[name]) for name in kept)
        assert any(not torch.equal(seen[0][name], seen[1][name]) for name in seen[0])

    def test_held_out_clips_stay_held_out(self, original, tuned):
        assert (tuned[0] / "folds.csv").read_bytes() == (original / "folds.csv").read_bytes()
        for fold in (0, 1):
            assert held_out(tuned[0] / f"fold{fold}") == held_out(original / f"fold{fold}")
        assert held_out(tuned[0] / "fold0").isdisjoint(held_out(tuned[0] / "fold1"))

    def test_the_checkpoint_is_a_plain_network_of_relus(self, tuned):
        checkpoint = load_checkpoint(tuned[0] / "fold0" / BEST)
        model = checkpoint.build_model()
        norms = [module for module in model.modules() if type(module).__name__ == "BatchNormAct2d"]
        assert {type(norm.act).__name__ for norm in norms} == {"ReLU", "Identity"}
        assert torch.isfinite(model(torch.randn(2, 1, 16, 64)).clip).all()

    def test_norms_keep_what_they_had_measured(self, original, tuned):
        """Bit for bit, of the weights and of their average, which were all that the original kept."""
        kept = load_checkpoint(original / "fold0" / BEST).weights("model.")
        measured = [name for name in kept if "running_" in name]
        last, best = (load_checkpoint(tuned[0] / "fold0" / name) for name in (LAST, BEST))
        for weights in (last.weights("model."), last.weights("ema."), best.weights("model.")):
            assert [name for name in measured if not torch.equal(weights[name], kept[name])] == []
            assert any(not torch.equal(weights[name], kept[name]) for name in kept)
        assert measured

    def test_it_says_what_was_swapped_and_taken(self, tuned):
        reported = tuned[2].messages
        assert reported.count("9 activations swapped for ReLU") == 2  # a fold each
        assert sum("tensors taken" in line and "kept random" not in line for line in reported) == 2
        assert all(not result.problem for result in tuned[1])

    def test_a_teacher_keeps_it_nearer_to_what_was_said_before(self, original, clips_dir, tmp_path):
        answers = {}
        before = load_checkpoint(original / "fold0" / BEST).build_model()
        inputs = torch.randn(64, 1, 16, 64, generator=torch.Generator().manual_seed(0))
        for share in (0.0, 1.0):
            changes = [f"loss.teacher_share={share}", "optim.lr=3e-3", "optim.ema_decay=0", "loop.epochs=4"]
            plan = plan_int8(original, (0,), changes)
            train_run(
                Run(
                    recipe=plan.recipe,
                    data_dir=clips_dir,
                    run_dir=tmp_path / f"{share}",
                    folds=plan.folds,
                    device="cpu",
                ),
            )
            answers[share] = load_checkpoint(tmp_path / f"{share}" / "fold0" / LAST).build_model()
        with torch.no_grad():
            p = before(inputs).clip.sigmoid()
            distance = {share: (model(inputs).clip.sigmoid() - p).abs().mean() for share, model in answers.items()}
        assert distance[1.0] < distance[0.0]

    def test_an_interrupted_fine_tune_ends_with_the_same_bits(self, original, tuned, tmp_path, monkeypatch):
        plan = plan_int8(original, (0,))
        run = Run(
            recipe=plan.recipe, data_dir=plan.data_dir, run_dir=tmp_path / "again", folds=plan.folds, device="cpu"
        )
        train_until_stopped(run, monkeypatch)
        interrupted = load_checkpoint(tmp_path / "again" / "fold0" / LAST).header.progress
        assert (interrupted.epoch, interrupted.step) == (1, 2)
        train_run(dataclasses.replace(run, resume=True))
        for name in (BEST, LAST):
            mine, theirs = (load_checkpoint(d / "fold0" / name).tensors for d in (run.run_dir, tuned[0]))
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)


class TestWhatMakesNoSense:
    def test_a_run_that_is_not_there(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="none: no such run"):
            plan_int8(tmp_path / "none", (0,))

    def test_a_folder_without_folds(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="holds no trained fold"):
            plan_int8(tmp_path, None)

    def test_a_fold_that_was_not_trained(self, original):
        with pytest.raises(InputNotFoundError, match="has no fold 2 - trained are 0, 1"):
            plan_int8(original, (0, 2))

    def test_a_fold_that_is_not_finished(self, original, tmp_path):
        run_dir = shutil.copytree(original, tmp_path / "mine")
        checkpoint = load_checkpoint(run_dir / "fold1" / LAST)
        checkpoint.header.progress.is_complete = False
        save_checkpoint(run_dir / "fold1" / LAST, checkpoint.header, checkpoint.tensors)
        plan_int8(run_dir, (0,))
        with pytest.raises(CheckpointError, match=r"fold1: is not finished"):
            plan_int8(run_dir, None)

    def test_a_run_whose_folds_are_gone(self, original, tmp_path):
        run_dir = shutil.copytree(original, tmp_path / "mine")
        (run_dir / "folds.csv").unlink()
        with pytest.raises(InputNotFoundError, match=r"folds\.csv: the run's folds are gone"):
            plan_int8(run_dir, None)

    @pytest.mark.parametrize(
        ("model", "words"),
        [
            (ModelConfig("vit", "test_vit"), "is of family vit, only cnn and sed"),
            (ModelConfig("rnn", "gru"), "is of family rnn"),
            (ModelConfig("cnn", "test_resnet"), "test_resnet of .* has no activation that INT8 would wait for"),
            (ModelConfig("cnn", "test_efficientnet", activation="relu"), "has no activation"),
        ],
    )
    def test_a_network_with_nothing_to_swap(self, original, tmp_path, model, words):
        run_dir = shutil.copytree(original, tmp_path / "mine")
        checkpoint = load_checkpoint(run_dir / "fold0" / LAST)
        recipe = msgspec.structs.replace(checkpoint.recipe, model=model)
        header = msgspec.structs.replace(checkpoint.header, recipe=recipe)
        save_checkpoint(run_dir / "fold0" / LAST, header, checkpoint.tensors)
        with pytest.raises(ConfigError, match=words):
            plan_int8(run_dir, (0,))


class TestCommand:
    def test_trains_on_and_compares(self, birdinfer, original, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # the data are found without --data
        code, out, err = birdinfer("train", "--finetune-for-int8", original, "--fold", "1", "--device", "cpu")
        assert code == 0
        assert "9 activations swapped for ReLU" in err
        assert "macro AUC of mine" in out
        assert "difference" in out
        before = load_checkpoint(original / "fold1" / LAST).header.progress.best_auc
        after = load_checkpoint(tmp_path / "runs" / "mine-int8" / "fold1" / LAST).header.progress.best_auc
        assert f"{before:.4f}" in out
        assert f"{after - before:+.4f}" in out

    def test_debug_and_a_name_of_its_own(self, birdinfer, original, tmp_path):
        arguments = ["train", "--finetune-for-int8", original, "--runs-dir", tmp_path, "--device", "cpu", "--debug"]
        assert birdinfer(*arguments, "--name", "tried")[0] == 0
        checkpoint = load_checkpoint(tmp_path / "tried" / "fold0" / BEST)
        assert (checkpoint.recipe.name, checkpoint.recipe.data.max_clips) == ("mine-int8-debug", 1_000)

    @pytest.mark.parametrize("option", ["--recipe", "--weights"])
    def test_a_recipe_or_weights_of_its_own_are_refused(self, birdinfer, original, option):
        code, _, err = birdinfer("train", "--finetune-for-int8", original, option, "x.toml")
        assert code == 2
        assert f"takes recipe and weights from its run, {option} was given, too" in " ".join(err.split())

    def test_trained_over_its_own_original_is_refused(self, birdinfer, original):
        code, _, err = birdinfer(
            "train", "--finetune-for-int8", original, "--runs-dir", original.parent, "--name", "mine"
        )
        assert code == 2
        assert "an input of this command" in err
