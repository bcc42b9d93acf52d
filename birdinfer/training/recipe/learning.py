"""The recipe's sections ``model``, ``loss``, ``optim`` and ``loop``: what learns, from what error, and how."""

from typing import Annotated, Literal

import msgspec

from birdinfer.training.recipe.data import Count, Share

Some = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Rate = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network that turns what is heard into logits."""

    family: str = "cnn"
    """``cnn``, ``sed``, ``rnn``, ``vit`` (these hear log-mels) or ``raw`` (hears the waveform)."""
    backbone: str = "efficientnet_b0"
    """A model of timm for cnn, sed and vit; ``gru`` or ``lstm`` for rnn; ``small`` or ``wav2vec2_base`` for raw."""
    pretrained: bool = False
    """Start from timm's weights, fetched from its hub."""
    weights: str = ""
    """Start from this local .safetensors file instead; "" for none. ``{fold}`` in it stands for the fold's number:
    with runs/NAME/fold{fold}/best.safetensors each fold goes on from its own, and what it held out stays unheard."""
    in_channels: Literal[1, 3] = 1
    """3 gives a network the same spectrogram three times, as its pictures had three colours; 1 sums its first layer."""
    pooling: Literal["native", "avg", "max", "avgmax", "gem", "meanfreq"] = "native"
    """How a cnn's feature map becomes one vector: as timm has it; mean, maximum, their sum; generalised mean
    (Radenovic 2018); or the mean over frequency, then mean plus maximum over time."""
    activation: Literal["native", "relu"] = "native"
    """``relu`` puts it in the place of every SiLU, GELU or hard-swish on a feature map of cnn and sed: what is exported
    is faster, most of all in INT8 (efficientnet_b0: 1.15 times in fp32, 1.5 times in INT8; see
    ``models/activation.py``). Weights that were trained with the native ones need a fine-tune
    (``train --finetune-for-int8``), after which macro AUC on ESC-10 was 0.941 instead of 0.943."""
    hidden: Annotated[int, msgspec.Meta(ge=8, le=4096)] = 256
    """Width of sed's attention and of rnn's layers (each direction)."""
    layers: Annotated[int, msgspec.Meta(ge=1, le=12)] = 2
    """Recurrent layers of rnn."""
    drop_rate: Rate = 0.2
    drop_path_rate: Rate = 0.0


class LossConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is minimised."""

    name: str = "bce"
    """``bce``, ``ce`` (scores are then a softmax), ``focal``, ``focal_bce``, ``asymmetric`` or ``soft_auc``."""
    focal_gamma: Annotated[float, msgspec.Meta(ge=0, le=10)] = 2.0
    focal_alpha: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.25
    """Weight of present species against absent ones in a focal loss; -1 weighs none."""
    asymmetric_gamma_negative: Annotated[float, msgspec.Meta(ge=0, le=10)] = 4.0
    asymmetric_gamma_positive: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    asymmetric_clip: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    """Absent species below this probability cost nothing."""
    bce_share: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.25
    """Weight of the BCE that ``soft_auc`` and ``focal_bce`` add."""
    class_weight_power: Annotated[float, msgspec.Meta(ge=-1, le=0)] = 0.0
    """A species' cells weigh (its clips)^power, scaled to a mean of 1; 0 weighs all alike."""
    frame_share: Share = 0.5
    """Of sed: share of the loss on the loudest frame's logits; the rest is on the clip's."""
    teacher_share: Share = 0.0
    """Share of the loss that is the distance to what the network says that ``model.weights`` holds, a checkpoint of
    this very fold: what a fine-tune would forget is kept; 0 for no teacher."""

    @property
    def activation(self) -> Literal["sigmoid", "softmax"]:
        """What makes logits that were trained with this loss into probabilities."""
        return "softmax" if self.name == "ce" else "sigmoid"


class OptimConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optimiser, its schedule, and which weights are kept."""

    name: str = "adamw"
    """``adamw``, ``adam``, ``rmsprop``, or any that timm's create_optimizer_v2 knows."""
    lr: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-3
    weight_decay: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    schedule: Literal["cosine", "restarts", "exponential", "polynomial", "plateau", "constant"] = "cosine"
    warmup_epochs: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    final_lr_share: Share = 0.01
    """The schedule ends at this share of lr; plateau never falls below it."""
    restart_epochs: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 5.0
    """Length of restarts' cosines (SGDR, Loshchilov 2017)."""
    decay_power: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    """Of the polynomial: (1 - way)^power."""
    plateau_factor: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    plateau_epochs: Some = 2
    """Epochs without a better macro AUC after which plateau multiplies lr by its factor."""
    clip_norm: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 5.0
    """Gradients are scaled down to this norm."""
    ema_decay: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Decay per step of the averaged weights that are validated and kept; 0 keeps the weights themselves."""
    frozen_norm_epochs: Count = 0
    """In the last this many epochs BatchNorm computes with its running statistics, as in prediction (see
    ``models/norms.py``): the network that is trained is then the one that is exported, and the best of these epochs is
    kept. For INT8. All epochs, if the network starts from weights."""
    soup_epochs: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """The weights of the best this many epochs are averaged at the end and kept if they validate better; 0 for none."""


class LoopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long, how many at once, how often saved."""

    epochs: Some = 20
    batch_size: Some = 32
    """Windows behind each step, over all processes and parts."""
    accumulate: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Parts that a batch is computed in, one after another: more need less memory."""
    patience: Count = 0
    """Stop after this many epochs without a better macro AUC; 0 never does."""
    val_windows: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    """Windows of a validation clip, evenly spaced; its probability is their mean."""
    num_workers: Annotated[int, msgspec.Meta(ge=0, le=128)] = 0
    """Processes that decode; 0 decodes between the steps. Changes no result."""
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """Mixed precision. ``auto``: on a GPU bf16, or fp16 with a scaler where bf16 is missing; on a CPU float32."""
    fake_quantise: bool = False
    """Round weights and feature maps of cnn and sed in training as INT8 will (see ``fake_quantise.py``), so that the
    network learns to live with it; what is validated and kept is plain. A step takes half as long again."""
    checkpoint_every_steps: Count = 500
    """Save within an epoch, too; 0 saves at its end only. Changes no result."""

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size}, it cannot be cut into accumulate = {self.accumulate} parts"
            )
