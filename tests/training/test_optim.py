import pytest
import torch

from birdinfer.errors import ConfigError
from birdinfer.training.optim import build_optimiser
from birdinfer.training.recipe.schema import OptimConfig


def model():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("rmsprop", torch.optim.RMSprop)],
)
def test_torchs_own(name, kind):
    assert type(build_optimiser(model(), OptimConfig(name=name))) is kind


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_biases_and_norms_are_not_decayed(name):
    decayed, others = build_optimiser(model(), OptimConfig(name=name)).param_groups
    assert [x.ndim for x in decayed["params"]] == [4]
    assert decayed["weight_decay"] > others["weight_decay"] == 0
    assert len(others["params"]) == 3


def test_timms_are_known_by_name():
    assert type(build_optimiser(model(), OptimConfig(name="lion"))).__name__ == "Lion"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"optim\.name: 'adamx' is unknown - did you mean .*adam"):
        build_optimiser(model(), OptimConfig(name="adamx"))
    with pytest.raises(ConfigError, match="known are"):
        build_optimiser(model(), OptimConfig(name="7"))


def test_frozen_parameters_are_left_alone():
    frozen = model()
    for parameter in frozen[1].parameters():
        parameter.requires_grad_(False)
    assert sum(len(group["params"]) for group in build_optimiser(frozen, OptimConfig()).param_groups) == 2
