"""timm's networks on spectrograms: [windows, 1, rows, columns] -> whatever the network makes of it.

Here is all that the families on timm share: the network by its name, one or three input channels, and, for heads of
our own, its feature map [windows, features, rows / stride, columns / stride].
"""

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from birdinfer.errors import ConfigError
from birdinfer.training.models.base import Blueprint, Logits, Network
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.models.weights import tensors_only
from birdinfer.training.recipe.schema import ModelConfig

_PROBE_SIZE = 64
"""Rows and columns of the input that shows how many features a network has; strides of 32 leave 2 x 2."""


def create_backbone(blueprint: Blueprint, **settings: Any) -> torch.nn.Module:
    """A network of timm, with its weights if the blueprint wants them.

    Args:
        blueprint: names it, and how many channels it takes.
        settings: further arguments of ``timm.create_model``.

    Raises:
        ConfigError: timm knows no network, or no weights, of this name, it does not take a setting, or its weights
            cannot be fetched.
    """
    timm, config = import_timm(), blueprint.config
    _refuse_unknown(timm, config.backbone)
    try:
        with tensors_only():
            model: torch.nn.Module = timm.create_model(
                config.backbone, pretrained=blueprint.pretrained, in_chans=config.in_channels, **settings
            )
    except TypeError as error:
        raise ConfigError("model", f"{config.backbone} takes no such setting ({error})", "set it to 0") from error
    except Exception as error:
        # Hub, network and cache fail with a dozen types of several packages; without the hub none of them can.
        if not blueprint.pretrained:
            raise
        raise ConfigError(
            "model.pretrained",
            f"weights of {config.backbone} cannot be fetched ({str(error).splitlines()[0][:120]})",
            "set model.pretrained=false, or model.weights to a local file",
        ) from error
    return model


def dropouts(config: ModelConfig, *names: str) -> dict[str, float]:
    """Those of ``drop_rate`` and ``drop_path_rate`` that are not 0: not every backbone has stochastic depth."""
    return {name: getattr(config, name) for name in names if getattr(config, name)}


def coloured(log_mel: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """[windows, 1, rows, columns] -> [windows, in_channels, rows, columns], as ``model.channels`` says."""
    if config.channels == "delta":
        slope = slopes(log_mel)
        return torch.cat([log_mel, slope, slopes(slope)], dim=1)
    return log_mel if config.in_channels == 1 else log_mel.expand(-1, config.in_channels, -1, -1)


_REACH = 4
"""Columns on either side of a slope: nine in all, as librosa.feature.delta has them."""


def slopes(log_mel: torch.Tensor) -> torch.Tensor:
    """The slope of each row at each column, by least squares over nine columns; beyond the ends the last one repeats.

    ``sum_n n (x[t + n] - x[t - n]) / (2 sum_n n^2)``, n from 1 to 4 (Furui 1986, "Speaker-independent isolated word
    recognition using dynamic features of speech spectrum").

    Args:
        log_mel: [windows, channels, rows, columns].

    Returns:
        The same shape, per column.
    """
    n_columns = log_mel.shape[3]
    padded = functional.pad(log_mel, (_REACH, _REACH, 0, 0), mode="replicate")
    steps = range(1, _REACH + 1)

    def moved(by: int) -> torch.Tensor:
        return padded[..., _REACH + by : _REACH + by + n_columns]

    total = sum((n * (moved(n) - moved(-n)) for n in steps), torch.zeros_like(log_mel))
    return total / (2 * sum(n * n for n in steps))


class Features(NamedTuple):
    """A timm network without pooling and classifier."""

    backbone: torch.nn.Module
    """[windows, channels, rows, columns] -> [windows, n_features, h, w], h being frequency and w time."""
    n_features: int


def create_features(blueprint: Blueprint) -> Features:
    """A timm network that ends in its feature map.

    What it does to its features before it classifies them (mobilenetv3's last 1 x 1 convolution, convnext's last norm)
    is done at every place of the map, so that no layer lies idle.

    Raises:
        ConfigError: it cannot be built, or has no such map.
    """
    drops = dropouts(blueprint.config, "drop_path_rate")
    backbone = create_backbone(blueprint, num_classes=0, global_pool="", **drops)
    return Features(backbone, _count_features(backbone, blueprint.config))


def _count_features(backbone: torch.nn.Module, config: ModelConfig) -> int:
    """Channels of the feature map.

    Raises:
        ConfigError: there is no feature map.
    """
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone(torch.zeros(1, config.in_channels, _PROBE_SIZE, _PROBE_SIZE))
    except (AssertionError, RuntimeError) as error:
        raise _no_map(config) from error
    finally:
        backbone.train(was_training)
    if features.ndim != 4 or features.shape[1] != getattr(backbone, "head_hidden_size", features.shape[1]):
        raise _no_map(config)
    return int(features.shape[1])


def _no_map(config: ModelConfig) -> ConfigError:
    what = f"{config.backbone} gives {config.family} no feature map of any picture"
    return ConfigError("model.backbone", what, 'choose a convolutional network, or family = "vit"')


def _refuse_unknown(timm: Any, backbone: str) -> None:
    """Refuse a network that timm does not know, and weights that it does not know of a network that it does.

    Raises:
        ConfigError: it names the most alike.
    """
    if not timm.is_model(backbone):
        raise _unknown(backbone, timm.list_models())
    try:
        timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:  # is_model looks at what stands before the full stop only
        network = backbone.partition(".")[0]
        raise _unknown(backbone, [network, *timm.list_pretrained(f"{network}.*")]) from error


def _unknown(backbone: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(backbone, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them"
    return ConfigError("model.backbone", f"timm knows no {backbone!r}", hint)


# ---- A feature map [windows, features, h, w] -> one vector a window [windows, features]


class Average(torch.nn.Module):
    """The mean over all places."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features]."""
        return features.mean(dim=(2, 3))


class Maximum(torch.nn.Module):
    """The loudest place."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features]."""
        return features.amax(dim=(2, 3))


class AveragePlusMaximum(torch.nn.Module):
    """The sum of both."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features]."""
        return features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))


class GeneralisedMean(torch.nn.Module):
    """(mean of x^p)^(1/p), x at least 1e-6, p learnt: GeM (Radenovic et al. 2018, "Fine-tuning CNN Image Retrieval").

    p = 1 is the mean, a large p the maximum.
    """

    START = 3.0
    """The paper's."""
    SMALLEST = 1e-6

    def __init__(self, over: tuple[int, ...] = (2, 3)) -> None:
        """Start; ``over`` are the dimensions of the mean, which are gone in the answer."""
        super().__init__()
        self._over = over
        self.p = torch.nn.Parameter(torch.tensor(self.START))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> float32 [windows, features], or what else is left."""
        # float32 also under mixed precision: a power of 3 leaves fp16's range at 40.
        powers = features.float().clamp(min=self.SMALLEST).pow(self.p)
        return powers.mean(dim=self._over).pow(1.0 / self.p)


class MeanFrequency(torch.nn.Module):
    """The mean over frequency, then mean plus maximum over time."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[windows, features, h, w] -> [windows, features]."""
        in_time = features.mean(dim=2)
        return in_time.mean(dim=2) + in_time.amax(dim=2)


POOLINGS: dict[str, Callable[[], torch.nn.Module]] = {
    "avg": Average,
    "max": Maximum,
    "avgmax": AveragePlusMaximum,
    "gem": GeneralisedMean,
    "meanfreq": MeanFrequency,
}


def smooth_in_time(sequence: torch.Tensor) -> torch.Tensor:
    """Maximum plus mean of each step and its two neighbours, [windows, features, steps] -> the same shape.

    PANNs (Kong et al. 2020, "PANNs: Large-Scale Pretrained Audio Neural Networks", its decision-level models). Beyond
    the ends there is nothing, not zeros.
    """
    average = functional.avg_pool1d(sequence, 3, stride=1, padding=1, count_include_pad=False)
    return functional.max_pool1d(sequence, 3, stride=1, padding=1) + average


def mean_and_maximum(sequence: torch.Tensor) -> torch.Tensor:
    """[windows, steps, features] -> [windows, 2 x features]: the mean over time, then the maximum."""
    return torch.cat([sequence.mean(dim=1), sequence.amax(dim=1)], dim=1)


# ---- Family ``cnn``: log-mel [windows, 1, rows, columns] -> clip logits, by a timm network


def build_cnn(blueprint: Blueprint) -> torch.nn.Module:
    """The network that ``model.pooling`` asks for.

    Raises:
        ConfigError: the backbone cannot be built, or has no feature map to pool.
    """
    blueprint.input_shape()  # refuses waveforms
    return Native(blueprint) if blueprint.config.pooling == "native" else Pooled(blueprint)


class Native(Network):
    """A network as timm has it, its classifier made for our labels."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it.

        Raises:
            ConfigError: the backbone cannot be built.
        """
        super().__init__()
        config = blueprint.config
        self._config = config
        self.backbone = create_backbone(
            blueprint, num_classes=blueprint.n_labels, **dropouts(config, "drop_rate", "drop_path_rate")
        )

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """[windows, 1, rows, columns] -> the feature map, as timm has it."""
        features: torch.Tensor = self.backbone.forward_features(coloured(inputs, self._config))  # type: ignore[operator]
        return features

    def classify(self, features: torch.Tensor) -> Logits:
        """The feature map -> clip logits [windows, labels]."""
        return Logits(self.backbone.forward_head(features))  # type: ignore[operator]


class Pooled(Network):
    """Feature map -> pooling -> dropout -> one linear layer."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it.

        Raises:
            ConfigError: the backbone cannot be built, or has no feature map.
        """
        super().__init__()
        self._config = blueprint.config
        self.backbone, n_features = create_features(blueprint)
        self.pooling = POOLINGS[blueprint.config.pooling]()
        self.dropout = torch.nn.Dropout(blueprint.config.drop_rate)
        self.head = torch.nn.Linear(n_features, blueprint.n_labels)

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """[windows, 1, rows, columns] -> [windows, features, h, w]."""
        features: torch.Tensor = self.backbone(coloured(inputs, self._config))
        return features

    def classify(self, features: torch.Tensor) -> Logits:
        """[windows, features, h, w] -> clip logits [windows, labels]."""
        return Logits(self.head(self.dropout(self.pooling(features))))


# ---- Family ``vit``: log-mel [windows, 1, rows, columns] -> clip logits, by a vision transformer of timm


def build_vit(blueprint: Blueprint) -> torch.nn.Module:
    """The transformer of a blueprint.

    Raises:
        ConfigError: timm knows none of this name, or it does not take pictures of any size.
    """
    return Transformer(blueprint)


class Transformer(Network):
    """A vision transformer, its classifier made for our labels."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it.

        Raises:
            ConfigError: it cannot be built.
        """
        super().__init__()
        config, (rows, columns) = blueprint.config, blueprint.input_shape()
        patch_rows, patch_columns = _patch_size(blueprint)
        self._config = config
        self._more_rows, self._more_columns = -rows % patch_rows, -columns % patch_columns
        self.backbone = create_backbone(
            blueprint,
            num_classes=blueprint.n_labels,
            img_size=(rows + self._more_rows, columns + self._more_columns),
            **dropouts(config, "drop_rate", "drop_path_rate"),
        )

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        """[windows, 1, rows, columns] -> tokens [windows, tokens, features]."""
        whole = functional.pad(inputs, (0, self._more_columns, 0, self._more_rows))
        tokens: torch.Tensor = self.backbone.forward_features(coloured(whole, self._config))  # type: ignore[operator]
        return tokens

    def classify(self, features: torch.Tensor) -> Logits:
        """Tokens -> clip logits [windows, labels]."""
        return Logits(self.backbone.forward_head(features))  # type: ignore[operator]


def _patch_size(blueprint: Blueprint) -> tuple[int, int]:
    """Rows and columns of a patch, which only the network itself knows."""
    with torch.device("meta"):  # its layers without their memory
        sketch = create_backbone(replace(blueprint, pretrained=False))
    embedding: Any = getattr(sketch, "patch_embed", None)
    if not hasattr(embedding, "patch_size") or not hasattr(embedding, "grid_size"):
        what = f"{blueprint.config.backbone} is no vision transformer"
        raise ConfigError("model.backbone", what, 'choose one like vit_tiny_patch16_224, or family = "cnn"')
    rows, columns = embedding.patch_size
    return int(rows), int(columns)
