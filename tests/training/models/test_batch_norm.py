import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TINY, windows

from birdinfer.training.fake_quantization import FakeQuantized
from birdinfer.training.models.batch_norm import freeze_norms
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.recipe.schema import ModelConfig

WITH_NORMS = {"efficientnet": "test_efficientnet", "resnet": "test_resnet", "sed": "test_efficientnet"}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def network(name="efficientnet", seed=0):
    """A tiny one in training that has measured a batch: its statistics are those of no other batch."""
    torch.manual_seed(seed)
    config = ModelConfig("sed" if name == "sed" else "cnn", WITH_NORMS[name], hidden=16, drop_rate=0.0)
    input_config, batch = windows(config, n=8, seed=seed + 100)
    model = build_model(config, 3, input_config, start=False).train()
    for norm in norms(model):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)  # timm begins some with 0, and all before them would stand still
    with torch.no_grad():
        model(3 * batch + 1)
    return model


def norms(model):
    return [module for module in model.modules() if "BatchNorm" in type(module).__name__]


def measured(model):
    return {name: x.clone() for name, x in model.state_dict().items() if name.endswith(STATISTICS)}


def same(mine, theirs):
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def step(model, learner=None):
    """One step of training on a batch unlike the one that was measured."""
    _, batch = windows(TINY["cnn"], n=6)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    (learner or model)(batch).clip.square().mean().backward()
    optimiser.step()


@pytest.mark.parametrize("name", WITH_NORMS)
class TestFreezeNorms:
    def test_statistics_stay_bit_for_bit(self, name):
        model = network(name)
        before = measured(model)
        freeze_norms(model)
        for _ in range(3):
            step(model)
        assert before
        assert same(measured(model), before)

    def test_without_it_they_move(self, name):
        """What the test above would miss if nothing ever moved."""
        model = network(name)
        before = measured(model)
        step(model)
        assert not any(torch.equal(tensor, before[key]) for key, tensor in measured(model).items())

    def test_weights_and_biases_learn(self, name):
        model = network(name)
        freeze_norms(model)
        learning = [tensor for norm in norms(model) for tensor in (norm.weight, norm.bias)]
        before = [tensor.detach().clone() for tensor in learning]
        step(model)
        assert learning
        assert not any(torch.equal(old, new) for old, new in zip(before, learning, strict=True))

    def test_train_undoes_it(self, name):
        model = network(name)
        before = measured(model)
        freeze_norms(model)
        model.train()
        assert all(module.training for module in model.modules())
        step(model)
        assert not same(measured(model), before)

    def test_every_norm_is_found_and_all_else_continues_training(self, name):
        model = network(name)
        freeze_norms(model)
        inside = {id(module) for norm in norms(model) for module in norm.modules()}
        assert not any(norm.training for norm in norms(model))
        assert all(module.training for module in model.modules() if id(module) not in inside)

    def test_it_is_computed_as_in_prediction(self, name):
        """Without dropout nothing else differs."""
        model = network(name)
        _, batch = windows(TINY["cnn"], n=4)
        freeze_norms(model)
        with torch.no_grad():
            training = model(batch).clip
            torch.testing.assert_close(training, model.eval()(batch).clip, rtol=0, atol=0)


def test_norms_of_timm_that_activate_are_found():
    kinds = {type(norm).__name__ for norm in norms(network())}
    assert kinds == {"BatchNormAct2d"}
    activating = import_timm().layers.BatchNormAct2d(2).train()
    freeze_norms(torch.nn.Sequential(activating))
    assert not activating.training


@pytest.mark.parametrize(
    "norm",
    [torch.nn.BatchNorm1d(2), torch.nn.BatchNorm2d(2), torch.nn.BatchNorm3d(2), torch.nn.SyncBatchNorm(2)],
    ids=lambda norm: type(norm).__name__,
)
def test_norms_of_any_dimension_are_found(norm):
    freeze_norms(torch.nn.Sequential(norm.train()))
    assert not norm.training


@pytest.mark.parametrize("name", ["gru", "vit", "raw"])
def test_a_network_without_batch_norms_stays_as_it_is(name):
    input_config, _ = windows(TINY[name])
    model = build_model(TINY[name], 3, input_config, start=False).train()
    freeze_norms(model)
    assert all(module.training for module in model.modules())


def test_dropout_continues():
    config = ModelConfig("cnn", "test_efficientnet", drop_rate=0.5)
    input_config, batch = windows(config)
    model = build_model(config, 3, input_config, start=False).train()
    freeze_norms(model)
    with torch.no_grad():
        assert not torch.equal(model(batch).clip, model(batch).clip)


def test_a_network_that_is_trained_as_if_in_int8_holds_still_too():
    """It is computed by a stand-in that has the network's own norms."""
    model = network()
    before = measured(model)
    freeze_norms(model)
    step(model, FakeQuantized(model))
    assert same(measured(model), before)


@settings(max_examples=15)
@given(loudness=st.floats(-30, 30), neighbours=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_a_window_hangs_on_no_other_of_its_batch(loudness, neighbours, seed):
    """Which in training is so only while norms hold still."""
    model = network()
    freeze_norms(model)
    window = windows(TINY["cnn"], n=1)[1]
    others = loudness * windows(TINY["cnn"], n=neighbours, seed=seed)[1]
    with torch.no_grad():
        alone, among = model(window).clip[0], model(torch.cat([window, others])).clip[0]
    torch.testing.assert_close(alone, among, rtol=1e-4, atol=1e-5)
