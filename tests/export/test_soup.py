"""One network of all folds: exact means, statistics of its own, and the truth about what it is worth."""

import copy
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from tiny_clips import TINY_FRONTEND

from birdinfer.errors import CheckpointError, ConfigError, MetadataError
from birdinfer.export.soup import SoupScores, check_soup, compute_statistics, soup_of_folds, soup_scores
from birdinfer.species import Species
from birdinfer.training.checkpoint import EMA, MODEL, Checkpoint, Header, Progress, versions
from birdinfer.training.models.base import Logits
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import LossConfig, ModelConfig, Recipe

SPECIES = (Species("0012"), Species("comcuc"), Species("1161364"))
RECIPE = Recipe(frontend=TINY_FRONTEND, model=ModelConfig(backbone="test_efficientnet", drop_rate=0.5))
NFNET = msgspec.structs.replace(RECIPE, model=ModelConfig(backbone="test_nfnet"))
INPUTS = np.random.default_rng(0).normal(1, 2, (70, 1, *TINY_FRONTEND.input_shape)).astype(np.float32)


def fold(number, recipe=RECIPE, seed=None, species=SPECIES, prefixes=(MODEL,)):
    """A checkpoint of random weights; those under each prefix are others."""
    tensors = {}
    for index, prefix in enumerate(prefixes):
        torch.manual_seed(10 * (number if seed is None else seed) + index)
        state = build_model(recipe.model, len(species), recipe.input_config, start=False).state_dict()
        tensors |= {prefix + name: tensor for name, tensor in state.items()}
    header = Header(recipe, species, number, Progress(epoch=1), "/clips", versions())
    return Checkpoint(Path(f"runs/a/fold{number}/best.safetensors"), header, tensors)


def test_weights_are_the_mean_of_all_folds():
    folds = [fold(number) for number in range(3)]
    state = soup_of_folds(folds, INPUTS).state_dict()
    learnt = [name for name, _ in build_model(RECIPE.model, 3, TINY_FRONTEND, start=False).named_parameters()]
    for name in learnt:
        wanted = np.mean([one.tensors[MODEL + name].double().numpy() for one in folds], axis=0)
        np.testing.assert_allclose(state[name].numpy(), wanted, rtol=1e-6, atol=1e-9)


def test_the_averaged_weights_of_a_fold_are_taken_where_it_has_them():
    with_average = fold(1, prefixes=(MODEL, EMA))
    state = soup_of_folds([fold(0), with_average], INPUTS).state_dict()
    name = next(name for name in state if name.endswith("weight"))
    wanted = (fold(0).tensors[MODEL + name] + with_average.tensors[EMA + name]) / 2
    assert torch.allclose(state[name], wanted)
    assert not torch.equal(with_average.tensors[EMA + name], with_average.tensors[MODEL + name])


def test_statistics_are_those_of_the_soups_own_activations():
    soup = soup_of_folds([fold(0), fold(1)], INPUTS[:64])
    norm = next(module for module in soup.modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        soup(torch.from_numpy(INPUTS[:64]))
    handle.remove()
    activations = seen[0].double()
    torch.testing.assert_close(norm.running_mean.double(), activations.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), activations.var(dim=(0, 2, 3)), rtol=0.02, atol=1e-6)


def test_statistics_do_not_hang_on_the_order_of_species():
    """Windows sorted by loudness: a batch of one kind would see a hundredth of the variance."""
    norm = torch.nn.BatchNorm1d(1)
    sorted_windows = np.linspace(-1, 1, 320, dtype=np.float32)[:, None]
    compute_statistics(norm, sorted_windows)
    assert norm.running_var.item() == pytest.approx(sorted_windows.var(), rel=0.05)


def test_dropout_takes_no_part_and_nothing_is_left_in_training_mode():
    one, other = (soup_of_folds([fold(0), fold(1)], INPUTS).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    soup = soup_of_folds([fold(0), fold(1)], INPUTS)
    assert not any(module.training for module in soup.modules())
    assert all(module.momentum == 0.1 for module in soup.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_pitfall_12_a_network_without_batchnorm_is_left_alone():
    folds = [fold(0, NFNET), fold(1, NFNET, seed=0)]
    soup = soup_of_folds(folds, INPUTS[:0])
    with torch.no_grad():
        found, wanted = (model(torch.from_numpy(INPUTS[:4])).clip for model in (soup, folds[0].build_model()))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_folds_are_left_as_they_were():
    folds = [fold(0), fold(1)]
    before = copy.deepcopy([one.tensors for one in folds])
    soup_of_folds(folds, INPUTS)
    for one, tensors in zip(folds, before, strict=True):
        assert all(torch.equal(one.tensors[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("stranger", "message"),
    [
        (fold(1, species=(*SPECIES[:2], Species("other"))), "other labels"),
        (fold(1, species=SPECIES[::-1]), "other labels"),
        (fold(1, NFNET), "another network"),
        (fold(1, msgspec.structs.replace(RECIPE, model=ModelConfig(backbone="test_efficientnet", pooling="max"))),
         "another network"),
        (fold(1, msgspec.structs.replace(RECIPE, loss=LossConfig(name="ce"))), "another activation"),
        (fold(1, msgspec.structs.replace(RECIPE, frontend=msgspec.structs.replace(
            TINY_FRONTEND, mel=msgspec.structs.replace(TINY_FRONTEND.mel, f_min_hz=100.0)))), "another front end"),
    ],
)  # fmt: skip
def test_folds_of_different_networks_are_refused_in_one_line(stranger, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        soup_of_folds([fold(0), stranger], INPUTS)
    assert "fold1/best.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folds_that_started_elsewhere_or_with_another_dropout_are_one_network():
    model = ModelConfig(backbone="test_efficientnet", weights="fold1.safetensors", drop_rate=0.1)
    assert soup_of_folds([fold(0), fold(1, msgspec.structs.replace(RECIPE, model=model))], INPUTS)


@pytest.mark.parametrize("n_folds", [0, 1])
def test_a_soup_of_fewer_than_two_folds_is_refused(n_folds):
    with pytest.raises(ConfigError, match="needs two folds or more"):
        soup_of_folds([fold(0)][:n_folds], INPUTS)


@pytest.mark.parametrize("inputs", [INPUTS[:0], INPUTS[:1], np.full_like(INPUTS[:4], np.nan)])
def test_too_little_for_statistics_is_refused(inputs):
    with pytest.raises(ConfigError, match="no sample for BatchNorm's statistics"):
        soup_of_folds([fold(0), fold(1)], inputs)


class Small(torch.nn.Module):
    """8 inputs -> 16 hidden units -> 2 labels."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = torch.nn.Linear(8, 16), torch.nn.Linear(16, 2)

    def forward(self, inputs):
        return Logits(self.head(torch.relu(self.hidden(inputs))))


def trained_small(inputs, truth):
    torch.manual_seed(0)
    model = Small()
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(200):
        optimiser.zero_grad()
        logits = model(torch.from_numpy(inputs)).clip
        torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth)).backward()
        optimiser.step()
    return model.eval()


def nudged(model, seed):
    """The same network a few steps on."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return other


def shuffled(model, seed):
    """The same function with its hidden units in another order: as good, and in another valley."""
    other = copy.deepcopy(model)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        other.hidden.weight.copy_(model.hidden.weight[order])
        other.hidden.bias.copy_(model.hidden.bias[order])
        other.head.weight.copy_(model.head.weight[:, order])
    return other


def mean_of(models):
    soup = copy.deepcopy(models[0])
    states = [model.state_dict() for model in models]
    soup.load_state_dict({name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]})
    return soup


@pytest.fixture(scope="module")
def task():
    """(windows, truth, a network that has learnt them): which of two products is positive, no linear task."""
    inputs = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    truth = np.stack([inputs[:, 0] * inputs[:, 1] > 0, inputs[:, 2] * inputs[:, 3] > 0], axis=1).astype(np.float32)
    return inputs, truth, trained_small(inputs, truth)


def test_a_soup_of_folds_from_common_weights_passes(task):
    inputs, truth, model = task
    folds = [nudged(model, seed) for seed in range(4)]
    scores = soup_scores(mean_of(folds), folds, inputs, truth)
    assert min(scores.soup, *scores.folds, scores.ensemble) > 0.9
    assert check_soup(scores) == ""


def test_a_soup_of_folds_from_weights_of_their_own_is_refused_with_its_numbers(task):
    inputs, truth, model = task
    folds = [shuffled(model, seed) for seed in range(4)]
    scores = soup_scores(mean_of(folds), folds, inputs, truth)
    np.testing.assert_allclose(scores.folds, scores.folds[0], atol=1e-4)
    refusal = check_soup(scores)
    assert f"the soup has macro AUC {scores.soup:.3f}, its folds {min(scores.folds):.3f}" in refusal
    assert "common weights" in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize(("soup", "passes"), [(0.97, True), (0.941, True), (0.939, False), (0.5, False)])
def test_the_limit_is_held_against_the_mean_of_the_folds(soup, passes):
    assert (check_soup(SoupScores(soup, (0.94, 0.96), 0.97)) == "") == passes


@pytest.mark.parametrize("scores", [SoupScores(math.nan, (0.9,), 0.9), SoupScores(0.9, (0.9, math.nan), 0.9)])
def test_what_cannot_be_evaluated_is_refused(scores):
    assert "cannot be evaluated" in check_soup(scores)


def test_truth_of_another_shape_is_refused(task):
    inputs, truth, model = task
    with pytest.raises(MetadataError, match="shape"):
        soup_scores(model, [model], inputs, truth[:, :1])
