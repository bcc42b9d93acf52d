"""timm's networks on spectrograms: [windows, channels, rows, columns] -> whatever the network makes of it.

Here is all that the families on timm share: the network by its name, one to three input channels, and, for heads of
our own, its feature map [windows, features, rows / stride, columns / stride].
"""

import difflib
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch.nn import functional

from birdinfer.errors import ConfigError
from birdinfer.training.models.base import Blueprint, Logits, Maps, Network
from birdinfer.training.models.pooling import POOLINGS, side_by_side
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
                config.backbone, pretrained=blueprint.pretrained, in_chans=blueprint.n_channels(), **settings
            )
    except TypeError as error:
        raise ConfigError("model", f"{config.backbone} takes no such setting ({error})", "set it to 0") from error
    except AssertionError:  # of timm, about settings
        raise
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


def coloured(inputs: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """[windows, channels, rows, columns] -> [windows, in_channels, rows, columns], as ``model.channels`` says."""
    if config.channels == "delta":
        slope = slopes(inputs[:, :1])
        # Of two channels, log-mel and PCEN, there is place for the slope of the first.
        more = slopes(slope) if inputs.shape[1] == 1 else inputs[:, 1:]
        return torch.cat([inputs[:, :1], slope, more], dim=1)
    return inputs if config.in_channels == 1 else inputs.expand(-1, config.in_channels, -1, -1)


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


class Stages(NamedTuple):
    """A timm network without pooling and classifier."""

    backbone: torch.nn.Module
    """[windows, channels, rows, columns] -> [windows, features, h, w], h being frequency and w time."""
    n_features: tuple[int, ...]
    """Of each map that :func:`stage_maps` gives, the last one being the backbone's own."""


def create_stages(blueprint: Blueprint) -> Stages:
    """A timm network that ends in its feature map, and how many features its last stages have.

    What it does to its features before it classifies them (mobilenetv3's last 1 x 1 convolution, convnext's last norm)
    is done at every place of the map, so that no layer lies idle.

    Raises:
        ConfigError: it cannot be built, has no such map, or fewer stages.
    """
    config = blueprint.config
    backbone = _without_classifier(blueprint)
    probe = torch.zeros(1, blueprint.n_channels(), _PROBE_SIZE, _PROBE_SIZE)
    n_last = _count_features(backbone, config, probe)
    if config.feature_stages == 1:
        return Stages(backbone, (n_last,))
    channels = getattr(backbone, "feature_info", None)
    n_stages = len(channels) if channels is not None else 0
    if not hasattr(backbone, "forward_intermediates") or not n_stages:
        raise ConfigError("model.feature_stages", f"{config.backbone} gives one map only", "set it to 1")
    if config.feature_stages > n_stages:
        what = f"is {config.feature_stages}, {config.backbone} has {n_stages}"
        raise ConfigError("model.feature_stages", what, f"set it to at most {n_stages}")
    was_training = backbone.training
    with torch.no_grad():
        maps = stage_maps(backbone.eval(), probe, config.feature_stages)
    backbone.train(was_training)
    return Stages(backbone, tuple(each.shape[1] for each in maps))


def _without_classifier(blueprint: Blueprint) -> torch.nn.Module:
    """A network that ends in its map; one whose head cannot be without pooling (EfficientViT) ends before its head."""
    settings = dropouts(blueprint.config, "drop_path_rate")
    try:
        return create_backbone(blueprint, num_classes=0, global_pool="", **settings)
    except AssertionError:
        backbone: Any = create_backbone(blueprint, num_classes=0, **settings)
        backbone.head, backbone.head_hidden_size = torch.nn.Identity(), backbone.num_features
        return cast(torch.nn.Module, backbone)


def stage_maps(backbone: torch.nn.Module, pictures: torch.Tensor, n_stages: int) -> Maps:
    """The feature maps of a backbone's last stages, each [windows, features, h, w], the finest first.

    The last one is what the backbone ends in, with all that it does after its last stage.
    """
    if n_stages == 1:
        return (backbone(pictures),)
    network: Any = backbone
    last, stages = network.forward_intermediates(pictures, indices=n_stages, output_fmt="NCHW")
    return (*stages[:-1], network.forward_head(last))


def _count_features(backbone: torch.nn.Module, config: ModelConfig, probe: torch.Tensor) -> int:
    """Channels of the feature map.

    Raises:
        ConfigError: there is no feature map.
    """
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            features = backbone(probe)
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


# ---- Family ``cnn``: log-mel [windows, channels, rows, columns] -> clip logits, by a timm network


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

    def features(self, inputs: torch.Tensor) -> Maps:
        """[windows, channels, rows, columns] -> the feature map, as timm has it."""
        return (self.backbone.forward_features(coloured(inputs, self._config)),)  # type: ignore[operator]

    def classify(self, features: Maps) -> Logits:
        """The feature map -> clip logits [windows, labels]."""
        return Logits(self.backbone.forward_head(*features))  # type: ignore[operator]


class Pooled(Network):
    """Feature maps -> pooling -> their vectors side by side -> dropout -> one linear layer."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Build it.

        Raises:
            ConfigError: the backbone cannot be built, or has no feature map.
        """
        super().__init__()
        self._config = blueprint.config
        self.backbone, n_features = create_stages(blueprint)
        make = POOLINGS[blueprint.config.pooling]
        self.pooling, self.earlier_poolings = make(), torch.nn.ModuleList(make() for _ in n_features[:-1])
        self.dropout = torch.nn.Dropout(blueprint.config.drop_rate)
        self.head = torch.nn.Linear(sum(n_features), blueprint.n_labels)

    def features(self, inputs: torch.Tensor) -> Maps:
        """[windows, channels, rows, columns] -> [windows, features, h, w] of each stage."""
        return stage_maps(self.backbone, coloured(inputs, self._config), self._config.feature_stages)

    def classify(self, features: Maps) -> Logits:
        """[windows, features, h, w] of each stage -> clip logits [windows, labels]."""
        poolings = (*self.earlier_poolings, self.pooling)
        vectors = [pool(each) for pool, each in zip(poolings, features, strict=True)]
        return Logits(self.head(self.dropout(side_by_side(vectors))))


# ---- Family ``vit``: log-mel [windows, channels, rows, columns] -> clip logits, by a vision transformer of timm


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

    def features(self, inputs: torch.Tensor) -> Maps:
        """[windows, channels, rows, columns] -> tokens [windows, tokens, features]."""
        whole = functional.pad(inputs, (0, self._more_columns, 0, self._more_rows))
        return (self.backbone.forward_features(coloured(whole, self._config)),)  # type: ignore[operator]

    def classify(self, features: Maps) -> Logits:
        """Tokens -> clip logits [windows, labels]."""
        return Logits(self.backbone.forward_head(*features))  # type: ignore[operator]


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
