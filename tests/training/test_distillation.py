import msgspec
import pytest
import torch
from tiny_models import TINY, windows

from birdinfer.errors import InputNotFoundError
from birdinfer.species import Species
from birdinfer.training.checkpoint import Header, Progress, save_checkpoint
from birdinfer.training.distillation import Teacher, build_teacher
from birdinfer.training.models.base import Logits
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import LossConfig

CPU, N_LABELS = torch.device("cpu"), 4
ALL = torch.ones(3)


def teacher(recipe, tmp_path, name="cnn", loss="bce"):
    """A teacher with random weights, the network in it, and three windows."""
    recipe = msgspec.structs.replace(recipe, model=TINY[name], loss=LossConfig(loss))
    torch.manual_seed(0)
    model = build_model(
        recipe.model, N_LABELS, recipe.input_config, start=False, activation=recipe.loss.activation
    ).eval()
    species = tuple(Species(str(index), str(index), "", "Aves") for index in range(N_LABELS))
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_checkpoint(tmp_path / "best.safetensors", Header(recipe, species, 0, Progress(), "data", {}), tensors)
    return Teacher(tmp_path / "best.safetensors", recipe.loss, CPU), model, windows(TINY[name])[1]


@pytest.mark.parametrize("loss", ["bce", "ce"])
@pytest.mark.parametrize("name", ["cnn", "sed"])
def test_nothing_is_nearer_than_its_own_answer(plain_recipe, tmp_path, name, loss):
    """And there the gradient is 0: a learner that has arrived is left alone."""
    member_group, model, inputs = teacher(plain_recipe, tmp_path, name, loss)
    with torch.no_grad():
        own = model(inputs)
    clip = own.clip.clone().requires_grad_()
    frames = None if own.frames is None else own.frames.clone().requires_grad_()
    least = member_group.loss(inputs, Logits(clip, frames), ALL)
    least.backward()
    assert clip.grad.abs().max() < 1e-6
    moved = Logits(own.clip + torch.tensor([0.5, -0.5, 0.5, -0.5]), own.frames)
    assert member_group.loss(inputs, moved, ALL) > least
    if frames is not None:
        assert frames.grad.abs().max() < 1e-6
        moved = Logits(own.clip, own.frames + torch.tensor([0.5, -0.5, 0.5, -0.5]))
        assert member_group.loss(inputs, moved, ALL) > least


def test_what_it_costs_is_the_cross_entropy_with_its_probabilities(plain_recipe, tmp_path):
    member_group, model, inputs = teacher(plain_recipe, tmp_path)
    answer = torch.randn(3, N_LABELS)
    with torch.no_grad():
        wanted = model(inputs).clip.sigmoid()
    p = answer.sigmoid()
    expected = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean()
    torch.testing.assert_close(member_group.loss(inputs, Logits(answer), ALL), expected)


@pytest.mark.parametrize("name", ["cnn", "sed"])
def test_a_window_without_weight_teaches_nothing(plain_recipe, tmp_path, name):
    member_group, model, inputs = teacher(plain_recipe, tmp_path, name)
    with torch.no_grad():
        answer = Logits(*(None if x is None else x + 1.0 for x in model(inputs)))
    weights = torch.tensor([1.0, 0.0, 1.0])
    first = member_group.loss(inputs, answer, weights)
    answer.clip[1] += 100
    if answer.frames is not None:
        answer.frames[1] += 100
    assert member_group.loss(inputs, answer, weights) == first


def test_distillation_changes_neither_the_teacher_nor_chance(plain_recipe, tmp_path):
    """Dropout and BatchNorm stand still; a resumed run loads the same teacher from its file."""
    member_group, _, inputs = teacher(plain_recipe, tmp_path)
    before = {name: tensor.clone() for name, tensor in member_group._model.state_dict().items()}
    chance = torch.get_rng_state()
    answer = Logits(torch.zeros(3, N_LABELS, requires_grad=True))
    member_group.loss(inputs, answer, ALL).backward()
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(tensor, before[name]) for name, tensor in member_group._model.state_dict().items())
    assert all(parameter.grad is None for parameter in member_group._model.parameters())


def test_a_recipe_without_one_has_none(plain_recipe):
    assert build_teacher(plain_recipe, 0, CPU) is None


def test_a_teacher_that_is_not_there(plain_recipe, tmp_path):
    recipe = msgspec.structs.replace(
        plain_recipe,
        model=msgspec.structs.replace(plain_recipe.model, weights=str(tmp_path / "fold{fold}.safetensors")),
        loss=LossConfig(teacher_share=0.5),
    )
    with pytest.raises(InputNotFoundError, match=r"fold1\.safetensors: no such weights"):
        build_teacher(recipe, 1, CPU)
