"""Distillation from a bundle: what it costs, what it trains, and that it leaves nothing in the network."""

import csv
import dataclasses

import msgspec
import numpy as np
import pytest
import torch
from make_bundles import write_sound
from one_fold import CPU, Killed, Recorder, assert_same_bits, changed, die_at, job, kill, tensors, train
from tiny_clips import LABELS, RATE, call
from tiny_models import TINY, windows
from tiny_teachers import write_teacher

from birdinfer.errors import ConfigError
from birdinfer.runs.layout import BEST, LAST
from birdinfer.training.augment.mixing import Pairs, mixed_targets
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.data.prepare import prepare_data
from birdinfer.training.data.sources import DecodedSource
from birdinfer.training.data.targets import Targets
from birdinfer.training.data.teacher import choose_teacher, open_teacher
from birdinfer.training.distributed import Distributed
from birdinfer.training.fold import Fold, FoldData
from birdinfer.training.forward import Forward
from birdinfer.training.learner import Learner, Taught, phase_of, pooled, teacher_loss
from birdinfer.training.models.base import Logits
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.data_config import SourceConfig
from birdinfer.training.recipe.schema import DistilConfig
from birdinfer.training.recipe.toml import check_table
from birdinfer.training.run import Run, train_run

NAN = float("nan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "bundle")


@pytest.fixture
def taught_job(tiny_recipe, clips_dir, folder, tmp_path):
    """Makes a fold with a teacher: taught_job(name, weight=2)."""

    def make(name, **distil):
        recipe = changed(tiny_recipe, distil={"teacher": str(folder), **distil})
        fold = job(recipe, clips_dir, tmp_path / name)
        teacher = choose_teacher(recipe, fold.species, fold.validation, tmp_path / "cache", lambda _: None)
        clips = (*fold.training, *fold.validation)
        return dataclasses.replace(fold, teacher=open_teacher(teacher, clips, recipe, fold.source, tmp_path / "cache"))

    return make


def targets(teacher, n_labels=2):
    teacher = torch.tensor(teacher)
    values = torch.zeros(len(teacher), n_labels)
    return Targets(values, torch.ones_like(values), torch.ones(len(teacher)), teacher)


class TestTeacherLoss:
    def test_cosine_and_mse_are_means_over_the_windows_that_the_teacher_knows(self):
        given = torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
        wanted = targets([[2.0, 0.0], [3.0, 0.0], [NAN, NAN]])
        taught = Taught(Logits(torch.zeros(3, 2)), given)
        assert teacher_loss(taught, wanted, DistilConfig()).item() == pytest.approx((0 + 1) / 2)
        mse = teacher_loss(taught, wanted, DistilConfig(loss="mse"))
        assert mse.item() == pytest.approx(((1 + 0) / 2 + (9 + 4) / 2) / 2)

    @pytest.mark.parametrize("temperature", [1.0, 2.5])
    def test_bce_is_the_cross_entropy_of_sigmoids_at_a_temperature(self, temperature):
        logits, teacher = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]])
        config = DistilConfig(target="scores", loss="bce", temperature=temperature)
        wanted = torch.sigmoid(teacher / temperature)
        given = torch.sigmoid(logits / temperature)
        expected = -(wanted * given.log() + (1 - wanted) * (1 - given).log()).mean() * temperature**2
        found = teacher_loss(Taught(Logits(logits), None), targets(wanted.tolist()), config)
        torch.testing.assert_close(found, expected)

    def test_kl_is_least_where_both_agree_on_the_species_that_the_teacher_knows(self):
        config = DistilConfig(target="scores", loss="kl")
        wanted = targets([[0.7, NAN, 0.3]], 3)
        answer = torch.tensor([[np.log(0.7), 9.0, np.log(0.3)]], requires_grad=True)
        teacher_loss(Taught(Logits(answer.float()), None), wanted, config).backward()
        assert answer.grad.abs().max() < 1e-6
        other = teacher_loss(Taught(Logits(torch.tensor([[0.0, 9.0, 0.0]])), None), wanted, config)
        assert other > teacher_loss(Taught(Logits(answer.detach().float()), None), wanted, config)

    def test_a_batch_of_which_the_teacher_knows_nothing_costs_nothing(self):
        given = torch.ones(2, 2, requires_grad=True)
        loss = teacher_loss(Taught(Logits(torch.zeros(2, 2)), given), targets([[NAN, NAN]] * 2), DistilConfig())
        loss.backward()
        assert loss == 0
        assert not given.grad.any()


def test_mixed_windows_are_taught_the_mix_of_what_the_teacher_said():
    wanted = targets([[1.0, 0.0], [0.0, 2.0], [NAN, NAN]])
    pairs = Pairs(torch.tensor([1, 2, 0]), torch.tensor([0.25, 0.0, 0.5]))
    mixed = mixed_targets(wanted, pairs, "max").teacher
    torch.testing.assert_close(mixed[0], torch.tensor([0.75, 0.5]))
    torch.testing.assert_close(mixed[1], torch.tensor([0.0, 2.0]))  # not mixed: the other one's NaN stays away
    assert mixed[2].isnan().all()


class TestLearner:
    @pytest.mark.parametrize("name", TINY)
    def test_learner_answers_as_the_network_of_every_family(self, name):
        input_config, inputs = windows(TINY[name])
        torch.manual_seed(0)
        network = build_model(TINY[name], 3, input_config, start=False).eval()
        learner = Learner(network, 5, inputs[:1])
        taught = learner(inputs)
        torch.testing.assert_close(taught.logits.clip, network(inputs).clip, rtol=0, atol=0)
        assert taught.embedding.shape == (3, 5)
        assert not network.training

    @pytest.mark.parametrize("name", ["cnn", "sed", "raw"])
    def test_detached_labels_train_what_follows_the_features_alone(self, name):
        input_config, inputs = windows(TINY[name])
        network = build_model(TINY[name], 3, input_config, start=False)
        learner = Learner(network, 5, inputs[:1])
        learner.is_detached = True
        learner(inputs).logits.clip.sum().backward()
        assert any(x.grad is not None and x.grad.any() for x in network.parameters())
        reached = torch.autograd.grad(network.features(inputs)[0].sum(), list(network.parameters()), allow_unused=True)
        before = [x for x, way in zip(network.parameters(), reached, strict=True) if way is not None]
        assert not any(x.grad is not None and x.grad.any() for x in before)
        learner(inputs).embedding.sum().backward()
        assert any(x.grad is not None and x.grad.any() for x in before)

    def test_features_are_averaged_over_places_or_steps(self):
        assert pooled((torch.ones(2, 3, 4, 5),)).shape == (2, 3)
        assert pooled((torch.ones(2, 7, 3),)).shape == (2, 3)

    def test_features_of_several_stages_stand_side_by_side(self):
        assert pooled((torch.ones(2, 3, 8, 10), torch.zeros(2, 4, 4, 5))).tolist() == [[1.0] * 3 + [0.0] * 4] * 2


def test_phases_teach_alone_first_and_then_beside_the_labels():
    config = DistilConfig(teacher="b", weight=3.0, alone_epochs=2, detach=True)
    assert [phase_of(config, epoch) for epoch in (0, 1, 2)] == [(0, 1, False), (0, 1, False), (1, 3, True)]
    labels_alone = DistilConfig(teacher="b", weight=0.0, alone_epochs=1, detach=True)
    assert phase_of(labels_alone, 1) == (1, 0, False)  # or nothing would train the features


def test_the_loss_weighs_labels_and_teacher_by_the_phase(taught_job):
    fold = taught_job("x", weight=2.0, alone_epochs=1)
    recipe = changed(fold.recipe, augment={"mixup_probability": 0.0})
    forward = Forward(recipe, fold.clips_per_output(), CPU)
    network = build_model(recipe.model, 4, recipe.input_config, start=False).eval()
    learner = Learner(network, 16, torch.zeros(1, 1, *recipe.input_config.input_shape))
    batch = next(iter(FoldData(fold, Distributed(), pin=False).training))
    part, ones = forward.augment(batch, np.random.default_rng(0)), torch.ones(2)
    alone = forward.loss(learner, part, ones)
    torch.testing.assert_close(alone, teacher_loss(learner(part.inputs), part.targets, recipe.distil))
    forward.begin(1)
    plain = Forward(changed(recipe, distil={"teacher": ""}), fold.clips_per_output(), CPU).loss(network, part, ones)
    torch.testing.assert_close(forward.loss(learner, part, ones), plain + 2.0 * alone)


class TestTraining:
    @pytest.mark.parametrize(
        "distil",
        [
            {"detach": True, "alone_epochs": 1},
            pytest.param({"target": "scores", "loss": "bce"}, marks=pytest.mark.slow),
        ],
    )
    def test_a_killed_run_ends_with_the_same_bits(self, taught_job, monkeypatch, distil):
        whole, killed = taught_job("whole", **distil), taught_job("killed", **distil)
        train(whole)
        with monkeypatch.context() as patch:
            die_at(patch, 7, kill)
            with pytest.raises(Killed):
                train(killed)
        train(killed)
        assert_same_bits(whole.folder, killed.folder)
        assert any(name.startswith("beside.") for name in tensors(whole.folder, LAST)) == ("detach" in distil)
        assert {name.split(".")[0] for name in tensors(whole.folder, BEST)} == {"model"}
        load_checkpoint(whole.folder / BEST).build_model()  # as it is exported

    def test_a_teacher_changes_what_is_learned_and_its_distance_falls(self, taught_job):
        reporter = Recorder()
        fold = taught_job("alone", alone_epochs=3)
        train(fold, reporter)
        losses = [row.train_loss for row, _ in reporter.rows]
        assert losses[-1] < losses[0]
        assert [is_best for _, is_best in reporter.rows] == [True] * 3  # the latest features

    def test_a_run_with_a_teacher_that_knows_a_fold_trains_the_others(self, plain_recipe, clips_dir, tmp_path):
        recipe = changed(plain_recipe, distil={"teacher": str(tmp_path / "b")})
        run = Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path / "run", device="cpu", cache_dir=tmp_path / "c")
        write_teacher(tmp_path / "b")
        train_run(dataclasses.replace(run, folds=(0,), run_dir=tmp_path / "first"))
        with (tmp_path / "first" / "folds.csv").open(newline="") as file:
            folds = {row["filename"]: 2 if row["fold"] == "0" else 0 for row in csv.DictReader(file)}
        write_teacher(tmp_path / "b", folds=folds)  # its fold 0 was trained on what fold 0 validates here
        recorder = Recorder()
        results = train_run(dataclasses.replace(run, folds=(0, 1)), recorder)
        assert "would flatter" in results[0].problem
        assert not results[1].problem


def test_unlabelled_recordings_are_taught_by_the_teacher_alone(plain_recipe, clips_dir, tmp_path):
    """Half of each batch has no label that counts, and a target; windows of a source that is mixed in have one, too."""
    write_teacher(tmp_path / "b")
    (tmp_path / "sounds").mkdir()
    for index in range(3):
        write_sound(tmp_path / "sounds" / f"s{index}.wav", call(LABELS[index], 3.0, 50 + index), RATE)
    sources = (SourceConfig(path=str(tmp_path / "sounds"), kind="unlabelled", share=0.5),)
    augment = {"mixup_probability": 0.0}
    recipe = changed(plain_recipe, data={"sources": sources}, distil={"teacher": str(tmp_path / "b")}, augment=augment)
    data = prepare_data(recipe, clips_dir, tmp_path)
    teacher = choose_teacher(recipe, data.species, data.held_out(0), tmp_path, lambda _: None)
    source = DecodedSource(recipe.input_config)
    opened = open_teacher(teacher, data.clips, recipe, source, tmp_path)
    fold = Fold(
        recipe=recipe, species=data.species, number=0, training=data.training(0), validation=data.held_out(0),
        source=source, sources=data.sources, teacher=opened, data_dir=clips_dir, folder=tmp_path / "fold0",
    )  # fmt: skip
    batch = next(iter(FoldData(fold, Distributed(), pin=False).training))
    is_labelled = (batch.targets.cell_weights > 0).all(dim=1)
    assert is_labelled.sum() == len(is_labelled) / 2
    assert not batch.targets.cell_weights[~is_labelled].any()
    assert batch.targets.teacher.isfinite().all()
    results = train_run(
        Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path / "run", device="cpu", folds=(0,), cache_dir=tmp_path)
    )
    assert not results[0].problem


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"distil": {"loss": "bce"}}, "of embedding it is"),
        ({"distil": {"target": "scores", "loss": "bce", "detach": True}}, "distil.detach"),
        ({"distil": {"target": "scores", "loss": "bce", "centre": True}}, "scores are not centred"),
        ({"distil": {"teacher": "b", "weight": 0}}, "teaches nothing"),
        ({"distil": {"teacher": "b", "alone_epochs": 30}}, "more than 20 epochs"),
        ({"distil": {"teacher": "b", "alone_epochs": 3}, "loop": {"patience": 2}}, "patience"),
        ({"distil": {"teacher": "b"}, "loop": {"fake_quantise": True}}, "rounds no network with a teacher"),
        ({"distil": {"techer": "b"}}, "did you mean teacher"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        check_table(table, "recipe.toml")


def test_an_old_recipe_has_no_teacher(tiny_recipe):
    table = msgspec.to_builtins(tiny_recipe)
    del table["distil"]
    assert check_table(table, "old") == tiny_recipe
