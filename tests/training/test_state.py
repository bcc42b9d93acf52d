"""What training changes comes back bit for bit, whatever the optimiser keeps."""

import copy

import pytest
import torch
from torch import nn

from birdinfer.config import AudioConfig
from birdinfer.errors import CheckpointError
from birdinfer.training.checkpoint import Checkpoint, Header, Progress, load_checkpoint, save_checkpoint
from birdinfer.training.distributed import Distributed
from birdinfer.training.recipe.schema import OptimConfig, Recipe
from birdinfer.training.state import TrainingState, update_average


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


@pytest.fixture
def model():
    made = network()
    made(torch.zeros(2, 1, 8, 8))
    return made.to(memory_format=torch.channels_last)


def state_of(model, config, scaler=None):
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    return TrainingState(copy.deepcopy(model), config, scaler, Distributed())


def steps(state, numbers):
    for number in numbers:
        torch.manual_seed(number)
        state.model.train()
        state.backward(state.learner(torch.randn(4, 1, 8, 8)).square().mean())
        state.step(1e-2, number)


def saved(state, path):
    header = Header(Recipe(), (), 0, Progress(numbers=state.numbers()), "", {})
    save_checkpoint(path, header, state.tensors())
    return load_checkpoint(path)


@pytest.mark.parametrize("name", ["adamw", "adam", "rmsprop", "lion", "nadamw", "lamb", "sgd", "adan"])
def test_any_optimiser_continues_where_it_was(name, model, tmp_path):
    config = OptimConfig(name=name, ema_decay=0.9)
    whole, first, second = (state_of(model, config) for _ in range(3))
    steps(whole, range(6))
    steps(first, range(3))
    second.restore(saved(first, tmp_path / "last.safetensors"))
    steps(second, range(3, 6))
    mine, theirs = whole.tensors(), second.tensors()
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
    assert whole.numbers() == second.numbers()


def test_a_scaler_comes_back(model, tmp_path):
    """What a GPU without bf16 needs: loss scaling continues where it was, through the JSON of a checkpoint."""

    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)

    whole, first, second = (state_of(model, OptimConfig(), scaler()) for _ in range(3))
    steps(whole, range(6))
    steps(first, range(2))
    second.restore(saved(first, tmp_path / "last.safetensors"))
    steps(second, range(2, 6))
    assert whole.scaler.get_scale() == second.scaler.get_scale() == 32.0
    assert all(torch.equal(tensor, second.tensors()[name]) for name, tensor in whole.tensors().items())


def test_moments_come_back_in_the_layout_of_their_parameter(model, tmp_path):
    first, second = state_of(model, OptimConfig()), state_of(model, OptimConfig())
    steps(first, range(2))
    second.restore(saved(first, tmp_path / "last.safetensors"))
    parameter = second.model[0].weight
    assert second.optimiser.state[parameter]["exp_avg"].stride() == parameter.stride()


def test_tensors_of_another_model_are_refused(model, tmp_path):
    first = state_of(model, OptimConfig())
    steps(first, range(1))
    other = state_of(nn.Linear(2, 2), OptimConfig())
    with pytest.raises(CheckpointError, match="does not fit the model"):
        other.restore(saved(first, tmp_path / "last.safetensors"))


def test_moments_of_another_optimiser_are_refused(model, tmp_path):
    first = state_of(model, OptimConfig())
    steps(first, range(1))
    path = tmp_path / "last.safetensors"
    damaged = {name: x for name, x in first.tensors().items() if not name.startswith("optim.")}
    save_checkpoint(path, Header(Recipe(), (), 0, Progress(), "", {}), damaged | {"optim.99.exp_avg": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        state_of(model, OptimConfig()).restore(load_checkpoint(path))


def test_gradients_of_the_parts_of_a_batch_add_up(model):
    """Accumulation: two halves give the step of the whole, but for BatchNorm, which is left out here."""
    frozen = model.eval()
    whole, halves = state_of(frozen, OptimConfig(name="sgd")), state_of(frozen, OptimConfig(name="sgd"))
    batch = torch.randn(4, 1, 8, 8)
    whole.backward(whole.learner(batch).square().mean())
    for index, half in enumerate(batch.split(2)):
        with halves.part(is_last=index == 1):
            halves.backward(halves.learner(half).square().mean() / 2)
    for state in (whole, halves):
        state.step(1e-2, 0)
    for mine, other in zip(whole.model.parameters(), halves.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_gradients_are_clipped(model):
    config = OptimConfig(name="sgd", clip_norm=1e-3, weight_decay=0.0)
    state = state_of(model, config)
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    state.backward(1e6 * state.learner(torch.randn(4, 1, 8, 8)).square().mean())
    state.step(1.0, 0)
    pairs = zip(state.model.parameters(), before, strict=True)
    moved = sum((new.detach() - old).square().sum() for new, old in pairs).sqrt()
    # timm's sgd has Nesterov momentum of 0.9: 1.9 times the gradient in its first step.
    assert float(moved) <= 1.9 * 1e-3 * 1.01


def test_the_average_follows_slowly_and_copies_buffers(model):
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
        model[1].running_mean.fill_(7.0)
    before = average[0].weight.clone()
    update_average(average, model, 0.75)
    torch.testing.assert_close(average[0].weight, before + 0.25)
    assert torch.equal(average[1].running_mean, model[1].running_mean)


def test_without_an_average_the_weights_themselves_are_validated(model):
    plain, averaged = state_of(model, OptimConfig()), state_of(model, OptimConfig(ema_decay=0.5))
    assert plain.validated is plain.model
    assert averaged.validated is averaged.average


def test_a_checkpoint_is_what_it_is_said_to_be(model, tmp_path):
    state = state_of(model, OptimConfig())
    checkpoint = saved(state, tmp_path / "last.safetensors")
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.recipe.frontend.audio == AudioConfig()
