import pytest
import torch
from tiny_clips import TINY_FRONTEND

from birdinfer.errors import ConfigError
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig


@pytest.mark.parametrize(("backbone", "kind"), [("gru", torch.nn.GRU), ("lstm", torch.nn.LSTM)])
def test_layers_and_width_are_the_recipes(backbone, kind):
    config = ModelConfig("rnn", backbone, hidden=24, layers=3, drop_rate=0.3)
    recurrent = build_model(config, 5, TINY_FRONTEND, start=False).recurrent
    assert type(recurrent) is kind
    assert (recurrent.hidden_size, recurrent.num_layers, recurrent.dropout) == (24, 3, 0.3)
    assert recurrent.bidirectional


def test_two_frames_make_a_step():
    model = build_model(ModelConfig("rnn", "gru", hidden=8), 5, TINY_FRONTEND, start=False)
    assert model.stem(torch.zeros(1, 16, 320)).shape[2] == 160


def test_one_layer_has_no_dropout_between_layers():
    """Torch warns of one, and a warning is an error here."""
    model = build_model(ModelConfig("rnn", "gru", hidden=8, layers=1, drop_rate=0.5), 5, TINY_FRONTEND, start=False)
    assert model.dropout.p == 0.5


def test_the_order_of_frames_matters():
    torch.manual_seed(0)
    model = build_model(ModelConfig("rnn", "gru", hidden=8), 5, TINY_FRONTEND, start=False).eval()
    log_mel = torch.randn(2, 1, 16, 64)
    assert (model(log_mel).clip - model(log_mel.flip(3)).clip).abs().max() > 1e-4


def test_another_backbone_is_refused():
    with pytest.raises(ConfigError, match=r"'efficientnet_b0' is no recurrent network - choose gru or lstm"):
        build_model(ModelConfig("rnn"), 5, TINY_FRONTEND, start=False)
