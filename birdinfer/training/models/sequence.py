"""Family ``sed``: log-mel [windows, channels, rows, columns] -> frame logits and clip logits.

Sound event detection with attention over time (Kong et al. 2020, "PANNs: Large-Scale Pretrained Audio Neural
Networks", section III): a timm network's feature map, its mean over frequency (or GeM, ``model.pooling``), the maximum
and mean of neighbouring steps, a hidden layer, and for each label two convolutions, what sounds (``classes``) and where
to attend (``attention``). A network of stride 32 makes 10 frames of 320 columns; frame j of T stands for the window
from j / T to (j + 1) / T (of columns that the stride does not divide, the last frame covers a few less). Where
``model.feature_stages`` asks for earlier, finer stages, the mean of the steps that lie in a frame stands beside it.
"""

import torch

from birdinfer.errors import ConfigError
from birdinfer.training.models.base import Blueprint, Logits, Maps, Network
from birdinfer.training.models.image import coloured, create_stages, stage_maps
from birdinfer.training.models.pooling import (
    Average,
    GeneralisedMean,
    in_steps,
    mean_and_maximum,
    side_by_side,
    smooth_in_time,
)


def build_sed(blueprint: Blueprint) -> torch.nn.Module:
    """The detector of a blueprint.

    Raises:
        ConfigError: the backbone cannot be built, or has no feature map.
    """
    blueprint.input_shape()  # refuses waveforms
    pooling = blueprint.config.pooling
    if pooling not in {"native", "gem"}:
        what = f"is {pooling!r}, sed pools frequency alone"
        raise ConfigError("model.pooling", what, "choose native (the mean) or gem")
    return Detector(blueprint)


class Detector(Network):
    """Feature map -> steps in time -> logits of frames, and their attention-weighted mean."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it.

        Raises:
            ConfigError: the backbone cannot be built, or has no feature map.
        """
        super().__init__()
        config = blueprint.config
        self._config = config
        self.backbone, n_features = create_stages(blueprint)
        # The mean over frequency keeps what is common, a generalised one what is loud in few bands.
        make = GeneralisedMean if config.pooling == "gem" else Average
        self.pooling = make(over=(2,))
        self.earlier_poolings = torch.nn.ModuleList(make(over=(2,)) for _ in n_features[:-1])
        self.dropout = torch.nn.Dropout(config.drop_rate)
        self.hidden = torch.nn.Linear(sum(n_features), config.hidden)
        self.attention = torch.nn.Linear(config.hidden, blueprint.n_labels)
        self.classes = torch.nn.Linear(config.hidden, blueprint.n_labels)
        self._pool = pool_probabilities if blueprint.activation == "sigmoid" else pool_logits

    def features(self, inputs: torch.Tensor) -> Maps:
        """[windows, channels, rows, columns] -> [windows, features, h, w] of each stage."""
        return stage_maps(self.backbone, coloured(inputs, self._config), self._config.feature_stages)

    def classify(self, features: Maps) -> Logits:
        """[windows, features, h, w] of each stage -> clip [windows, labels] and frames [windows, frames, labels]."""
        *earlier, last = features
        in_time = [
            in_steps(pool(each), int(last.shape[3])) for pool, each in zip(self.earlier_poolings, earlier, strict=True)
        ]
        steps = smooth_in_time(side_by_side([*in_time, self.pooling(last)])).transpose(1, 2)
        hidden = self.dropout(torch.relu(self.hidden(self.dropout(steps))))
        attention, frames = self.attention(hidden).float(), self.classes(hidden).float()
        return Logits(self._pool(attention, frames), frames)


def pool_probabilities(attention: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """The logit of p = sum_t w_t sigmoid(frames_t), where w = softmax over time of tanh(attention).

    As the weights sum to 1, so do p and 1 - p = sum_t w_t sigmoid(-frames_t): both are summed as logarithms, and
    their difference is the logit, finite and exact also where p would be rounded to 0 or 1.

    Args:
        attention: [windows, frames, labels].
        frames: logits, of the same shape.

    Returns:
        [windows, labels].
    """
    weights = _log_weights(attention)
    present, absent = _log_sigmoid(frames), _log_sigmoid(-frames)
    return _log_sum_exp(weights + present) - _log_sum_exp(weights + absent)


def pool_logits(attention: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """sum_t w_t frames_t, with the same weights.

    For scores that are a softmax over labels: a label's frame has no probability of its own that could be pooled.

    Args:
        attention: [windows, frames, labels].
        frames: logits, of the same shape.

    Returns:
        [windows, labels].
    """
    return (_log_weights(attention).exp() * frames).sum(dim=1)


def _log_weights(attention: torch.Tensor) -> torch.Tensor:
    """Logarithm of what each frame counts; tanh keeps any one frame from silencing the others."""
    return torch.tanh(attention).log_softmax(dim=1)


def _log_sigmoid(values: torch.Tensor) -> torch.Tensor:
    """log(sigmoid(x)); spelt out, for exporters cut torch's own in two, with the logarithm of a 0 between them."""
    return values.clamp(max=0) - torch.log1p(torch.exp(-values.abs()))


def _log_sum_exp(values: torch.Tensor) -> torch.Tensor:
    """log(sum_t exp(values_t)); spelt out, for OpenVINO's own operator underflows below -87."""
    highest = values.amax(dim=1, keepdim=True)
    return (values - highest).exp().sum(dim=1).log() + highest.squeeze(1)


# ---- Family ``rnn``: log-mel [windows, channels, mels, frames] -> clip logits, by a recurrent network

_CELLS: dict[str, type[torch.nn.GRU] | type[torch.nn.LSTM]] = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
_KERNEL, _STRIDE = 5, 2


def build_rnn(blueprint: Blueprint) -> torch.nn.Module:
    """The recurrent network of a blueprint.

    Raises:
        ConfigError: the backbone is neither gru nor lstm.
    """
    if blueprint.config.backbone not in _CELLS:
        what = f"{blueprint.config.backbone!r} is no recurrent network"
        raise ConfigError("model.backbone", what, f"choose {' or '.join(_CELLS)}")
    return Recurrent(blueprint)


class Recurrent(Network):
    """Strided convolution -> recurrent layers in both directions -> mean and maximum -> linear layer."""

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__()
        config = blueprint.config
        n_rows, _ = blueprint.input_shape()
        n_rows *= blueprint.n_channels()  # above one another
        self.stem = torch.nn.Conv1d(n_rows, config.hidden, _KERNEL, _STRIDE, _KERNEL // 2)
        self.norm = torch.nn.LayerNorm(config.hidden)
        self.recurrent = _CELLS[config.backbone](
            config.hidden,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=True,
            # Between layers; torch warns of a dropout that has nothing behind it.
            dropout=config.drop_rate if config.layers > 1 else 0.0,
        )
        self.dropout = torch.nn.Dropout(config.drop_rate)
        self.head = torch.nn.Linear(4 * config.hidden, blueprint.n_labels)

    def features(self, inputs: torch.Tensor) -> Maps:
        """[windows, channels, mels, frames] -> [windows, steps, features]."""
        steps = torch.nn.functional.gelu(self.norm(self.stem(inputs.flatten(1, 2)).transpose(1, 2)))
        # No initial state is handed in: zeros of the batch's size are then the graph's own, whatever that size.
        return (self.recurrent(steps)[0],)

    def classify(self, features: Maps) -> Logits:
        """[windows, steps, features] -> clip logits [windows, labels]."""
        return Logits(self.head(self.dropout(mean_and_maximum(*features))))
