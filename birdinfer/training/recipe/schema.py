"""A recipe: all that decides a training run, as one frozen value; read from TOML, travelling inside each checkpoint.

Front end and post-processing are those of :mod:`birdinfer.config` and :mod:`birdinfer.postprocess.config`. ``toml.py``
reads and writes it, and names the file, the key, the value and what is allowed where something is wrong.
"""

from typing import Annotated, Literal

import msgspec

from birdinfer.config import FrontEndConfig, InputConfig, WaveformConfig
from birdinfer.postprocess.config import PostConfig
from birdinfer.training.recipe.data_config import Count, DataConfig, LabelConfig, Share

# ---- Section ``augment``

Masks = Annotated[int, msgspec.Meta(ge=0, le=10)]
Alpha = Annotated[float, msgspec.Meta(gt=0, le=20)]
Range = tuple[float, float]
"""From and to; drawn evenly between."""


class AugmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Waveforms first, one by one, then mixed with one another, then as spectrograms. A probability is per window."""

    gain_probability: Share = 0.5
    """Change a window's level, by ``gain_db`` at most."""
    gain_db: Annotated[float, msgspec.Meta(ge=0, le=40)] = 6.0
    """Louder or quieter by at most this."""

    roll_probability: Share = 0.0
    """Shift a window in time, in a circle: for clips that hardly exceed a window."""

    pitch_probability: Share = 0.0
    """Shift the pitch, by ``pitch_semitones`` at most."""
    pitch_semitones: Annotated[float, msgspec.Meta(ge=0, le=12)] = 1.0
    """Higher or lower by at most this, as long as before."""

    stretch_probability: Share = 0.0
    """Stretch or shorten time, by a factor of ``stretch_rate``."""
    stretch_rate: Range = (0.9, 1.1)
    """Faster (above 1) or slower, as high as before."""

    reverb_probability: Share = 0.0
    """Add an echo."""
    reverb_seconds: Range = (0.1, 0.8)
    """Time in which the echo falls by 60 dB."""
    reverb_wet: Range = (0.1, 0.5)
    """Share of the echo in the result's power."""

    white_noise_probability: Share = 0.0
    """Add noise that is alike in all frequencies."""
    pink_noise_probability: Share = 0.0
    """Add noise that falls by 3 dB in each octave."""
    noise_snr_db: Range = (5.0, 30.0)
    """Signal over white or pink noise."""

    background_dir: str = ""
    """Folder of sound files to mix in, relative to the working folder or to the data folder; "" mixes nothing."""
    background_probability: Share = 0.5
    """Mix in a part of a file of ``background_dir``."""
    background_snr_db: Range = (3.0, 30.0)
    """Signal over background."""

    overlay_probability: Share = 0.0
    """Add a quieter window of another clip, as background."""
    overlay_snr_db: Range = (3.0, 20.0)
    """Signal over the other clip."""
    overlay_target: Share = 0.5
    """The quieter clip's targets count by this share."""

    mixup_probability: Share = 0.5
    """Mix a window with another one, and their labels."""
    mixup_on: Literal["waveform", "spectrogram"] = "waveform"
    """What is mixed: the sound, or its spectrogram."""
    mixup_alpha: Alpha = 0.4
    """Beta(alpha, alpha) gives the share of the second window."""
    mixup_lambda: Share = 0.0
    """A fixed share of the second window instead; 0 draws it from Beta."""
    mixup_labels: Literal["max", "mixed"] = "max"
    """``max``: both species are there, whatever their share; ``mixed``: as much as their share. Cutmix goes by it,
    too."""

    cutmix_probability: Share = 0.0
    """Replace a stretch of time of the spectrogram by another window's."""
    cutmix_alpha: Alpha = 1.0
    """Beta(alpha, alpha) gives the share of time that is replaced."""

    mask_probability: Share = 0.5
    """Blank out stretches of time and bands of frequency (SpecAugment)."""
    time_masks: Masks = 2
    """Number of stretches of time."""
    time_mask_share: Share = 0.1
    """Widest time mask, as a share of the frames."""
    frequency_masks: Masks = 2
    """Number of bands of frequency."""
    frequency_mask_share: Share = 0.1
    """Widest frequency mask, as a share of the mel bands."""

    brightness_probability: Share = 0.0
    """Brightness and contrast of the spectrogram, taken as a picture."""
    brightness: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.2
    """Added, at most, in standard deviations of the window."""
    contrast: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.2
    """The spread about the mean is scaled by 1 - contrast to 1 + contrast."""

    power_probability: Share = 0.0
    """Raise the spectrogram to a power."""
    power_exponent: Range = (0.5, 3.0)
    """The spectrogram, as a picture from 0 to 1, raised to this: quiet sound is drowned or lifted."""

    filter_probability: Share = 0.0
    """FilterAugment (Nam 2022): bands of frequency louder or quieter."""
    filter_bands: tuple[int, int] = (3, 6)
    """Fewest and most bands."""
    filter_db: Annotated[float, msgspec.Meta(ge=0, le=40)] = 6.0
    """Each band becomes louder or quieter by at most this."""

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("background_snr_db", -30, 80),
            ("noise_snr_db", -30, 80),
            ("overlay_snr_db", -30, 80),
            ("stretch_rate", 0.5, 2),
            ("reverb_seconds", 0.01, 5),
            ("reverb_wet", 0, 1),
            ("power_exponent", 0.1, 10),
            ("filter_bands", 1, 32),
        ):
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(f"{name} is {[low, high]}, needed is {lowest} <= from <= to <= {highest}")


# ---- Sections ``model``, ``loss``, ``optim`` and ``loop``

Some = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Rate = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network: input -> logits."""

    family: str = "cnn"
    """``cnn``, ``sed``, ``rnn``, ``vit`` (these take log-mels) or ``raw`` (takes the waveform)."""
    backbone: str = "efficientnet_b0"
    """A model of timm for cnn, sed and vit; ``gru`` or ``lstm`` for rnn; ``small`` or ``wav2vec2_base`` for raw, which
    takes the safetensors of Hugging Face's checkpoints of that form as ``weights`` (they want 16 kHz)."""
    pretrained: bool = False
    """Start from timm's weights, fetched from its hub."""
    weights: str = ""
    """Start from this local file instead (.safetensors, .pth, .ckpt), or from a trained fold, as runs/NAME/fold0, whose
    species may be others; "" for none. ``{fold}`` in it stands for the fold's number: with runs/NAME/fold{fold} each
    fold continues its own, and what it held out stays held out."""
    in_channels: Literal[1, 3] = 1
    """3 gives a network the same spectrogram three times, as its pictures had three colours; 1 sums its first layer.
    With mel.compression = "log_pcen" a network has two, and in_channels stays 1."""
    channels: Literal["same", "delta"] = "same"
    """``delta``: the second and third channel are the slope over time and the slope's slope (in_channels = 3); with
    log_pcen the slope of the log-mel and PCEN."""
    pooling: Literal["native", "avg", "max", "avgmax", "gem", "meanfreq"] = "native"
    """How a cnn's feature map becomes one vector: as timm has it; mean, maximum, their sum; generalised mean
    (Radenovic 2018); or the mean over frequency, then mean plus maximum over time. Of sed, how frequency is pooled:
    native is the mean, or ``gem``."""
    feature_stages: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    """How many of a backbone's last stages the head of cnn and sed gets, each pooled by itself, side by side: 2 adds
    the stage of half the stride, which is finer in time and frequency. cnn needs a pooling other than native."""
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
    """Dropout before the last layer."""
    drop_path_rate: Rate = 0.0
    """Share of a backbone's blocks that training skips at random, where it knows that (stochastic depth)."""

    def __post_init__(self) -> None:
        if self.channels == "delta" and self.in_channels != 3:
            raise ValueError("channels is delta, it needs in_channels = 3")
        if self.feature_stages > 1 and self.family == "cnn" and self.pooling == "native":
            raise ValueError(f"feature_stages is {self.feature_stages}, it needs a pooling other than native, as gem")


class LossConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is minimised."""

    name: str = "bce"
    """``bce``, ``ce`` (scores are then a softmax), ``focal``, ``focal_bce``, ``asymmetric`` or ``soft_auc``."""
    focal_gamma: Annotated[float, msgspec.Meta(ge=0, le=10)] = 2.0
    """How strongly a focal loss turns to what is hard; 0 not at all."""
    focal_alpha: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.25
    """Weight of present species against absent ones in a focal loss; -1 weighs none."""
    asymmetric_gamma_negative: Annotated[float, msgspec.Meta(ge=0, le=10)] = 4.0
    """The same of the asymmetric loss, for absent species."""
    asymmetric_gamma_positive: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    """For present species."""
    asymmetric_clip: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    """Absent species below this probability cost nothing."""
    bce_share: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.25
    """Weight of the BCE that ``soft_auc`` and ``focal_bce`` add."""
    class_weight_power: Annotated[float, msgspec.Meta(ge=-1, le=0)] = 0.0
    """A species' cells weigh (its clips)^power, scaled to a mean of 1; 0 weighs all alike."""
    frame_share: Share = 0.5
    """Of sed: share of the loss on the loudest frame's logits; the rest is on the clip's."""
    teacher_share: Share = 0.0
    """Share of the loss that is the distance to the probabilities of the network in ``model.weights``, a checkpoint of
    the same fold (distillation): what a fine-tune would forget is kept; 0 for no teacher."""

    @property
    def activation(self) -> Literal["sigmoid", "softmax"]:
        """What makes logits that were trained with this loss into probabilities."""
        return "softmax" if self.name == "ce" else "sigmoid"


class DistilConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A teacher whose embeddings or scores of the training windows are learned, beside the labels or before them."""

    teacher: str = ""
    """Folder of a bundle, or an ONNX graph that takes waveforms and gives an embedding; "" for none. It processes every
    window once, as it was before augmentation, and its answers are kept in the cache for all folds and runs."""
    target: Literal["embedding", "scores"] = "embedding"
    """What of the teacher is learned."""
    member: str = ""
    """The member whose embedding it is; "" for the only one that has one. Scores are those of the whole bundle."""
    loss: Literal["cosine", "mse", "bce", "kl"] = "cosine"
    """Of an embedding ``cosine`` (1 - cosine) or ``mse``; of scores ``bce`` or, between softmaxes, ``kl``."""
    temperature: Annotated[float, msgspec.Meta(ge=0.1, le=100)] = 1.0
    """Of scores: both logits are divided by it, and the loss is multiplied by its square (Hinton et al. 2015)."""
    weight: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    """Of the teacher's loss, which is added to that of the labels."""
    alone_epochs: Count = 0
    """In the first this many epochs the teacher's loss is the only one; then ``weight`` of it, which may be 0."""
    detach: bool = False
    """The loss of the labels trains what follows the features, and the features learn from the embedding alone (a
    stop-gradient head); not in epochs whose teacher has no weight."""
    centre: bool = False
    """Subtract the mean embedding of all windows first, which a model's embeddings may have in common: BirdNET 2.4's
    have a cosine of 0.76 with it, so that a network that says nothing of a window is at a distance of 0.24 already."""
    grid_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    """Random windows begin at most so far apart, where the teacher has processed them; 0 for half a window."""
    same_family: bool = False
    """Let a network be taught by one of its own family and backbone."""

    def __post_init__(self) -> None:
        if self.loss not in {"embedding": ("cosine", "mse"), "scores": ("bce", "kl")}[self.target]:
            raise ValueError(f"distil.loss is {self.loss}, of {self.target} it is one of the other two")
        if self.detach and self.target != "embedding":
            raise ValueError("distil.detach is true, only an embedding trains the features without the labels")
        if self.centre and self.target != "embedding":
            raise ValueError("distil.centre is true, scores are not centred")
        if self.teacher and not (self.weight or self.alone_epochs):
            raise ValueError("distil.weight is 0 in all epochs, so its teacher teaches nothing")


class OptimConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optimiser, its schedule, and which weights are kept."""

    name: str = "adamw"
    """``adamw``, ``adam``, ``rmsprop``, or any that timm's create_optimizer_v2 knows."""
    lr: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-3
    """The highest learning rate, after the warm-up."""
    weight_decay: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    """Decay of the weights, as the optimiser defines it."""
    schedule: Literal["cosine", "restarts", "exponential", "polynomial", "plateau", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_epochs: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    """In which the learning rate rises from 0."""
    final_lr_share: Share = 0.01
    """The schedule ends at this share of lr; plateau never falls below it."""
    restart_epochs: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 5.0
    """Length of restarts' cosines (SGDR, Loshchilov 2017)."""
    decay_power: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    """Of the polynomial: (1 - way)^power."""
    plateau_factor: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    """By which plateau multiplies the learning rate."""
    plateau_epochs: Some = 2
    """Epochs without a better score (loop.monitor) after which plateau multiplies lr by its factor."""
    clip_norm: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 5.0
    """Gradients are scaled down to this norm."""
    ema_decay: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Decay per step of the averaged weights that are validated and kept; 0 keeps the weights themselves."""
    backbone_lr_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """The backbone learns at this share of lr, its head at all of it: for weights that are good already."""
    layer_decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Each layer of a backbone of timm learns at this share of the rate of the layer after it (layer-wise decay)."""
    frozen_backbone_epochs: Count = 0
    """In the first this many epochs the head learns alone; norms keep measuring."""
    frozen_norm_epochs: Count = 0
    """In the last this many epochs BatchNorm computes with its running statistics, as in prediction (see
    ``models/batch_norm.py``): the network that is trained is then the one that is exported, and the best of these
    epochs is kept. For INT8. All epochs, if the network starts from weights."""
    soup_epochs: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """The weights of the best this many epochs are averaged at the end and kept if they validate better; 0 for none."""


MonitorName = Literal["macro_auc", "padded_cmap", "val_loss", "top1", "f1"]


class LoopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long, how many at once, how often saved."""

    epochs: Some = 20
    """How often the clips are gone through."""
    batch_size: Some = 32
    """Windows behind each step, over all processes and parts."""
    accumulate: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Parts that a batch is computed in, one after another: more need less memory."""
    monitor: MonitorName = "macro_auc"
    """What epochs are compared by: the best one that is kept, patience, plateau, soup and a search go by it. All of the
    fold's validation clips: ``macro_auc``; ``padded_cmap``; ``val_loss``, where lower is better; ``top1``; ``f1``."""
    f1_threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    """A clip has a species from this probability on: F1, its mean over the species that occur."""
    patience: Count = 0
    """Stop after this many epochs without a better score (monitor); 0 never does."""
    val_windows: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    """Windows of a validation clip, evenly spaced; its probability is their mean."""
    num_workers: Annotated[int, msgspec.Meta(ge=0, le=128)] = 0
    """Processes that decode, at most one a core; 0 decodes between the steps. Changes no result."""
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """Mixed precision. ``auto``: on a GPU bf16, or fp16 with a scaler where bf16 is missing; on a CPU float32."""
    fake_quantise: bool = False
    """Round weights and feature maps of cnn and sed in training as INT8 will (see ``fake_quantization.py``), so that
    the network learns to live with it; what is validated and kept is plain. A step takes half as long again."""
    checkpoint_every_steps: Count = 500
    """Save within an epoch, too; 0 saves at its end only. Changes no result."""
    keep_epochs: Count = 0
    """Keep the weights of every this many epochs beside the best ones, for ``export --epoch N``; 0 keeps none. Changes
    no result."""
    deterministic: bool = False
    """On a GPU, too, the same bits each time: slower, refused where torch has no such algorithm. A CPU always is."""

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size}, it cannot be cut into accumulate = {self.accumulate} parts"
            )


# ---- Section ``tracking``: changes no result

TrackerName = Literal["tensorboard", "wandb", "mlflow", "neptune"]


class TrackingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which trackers, and what they are given."""

    trackers: tuple[TrackerName, ...] = ()
    """Each needs the extra of its name: ``pip install "birdinfer[wandb]"``."""
    mode: Literal["offline", "online"] = "offline"
    """``offline`` writes below ``folder`` and asks no network; ``online`` sends to the service of W&B and Neptune and
    to the server that MLFLOW_TRACKING_URI names. TensorBoard always writes files."""
    project: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "birdinfer"
    """W&B's project, MLflow's experiment; Neptune's project online, as ``workspace/project``."""
    folder: str = ""
    """Where the records lie; several runs may share one. "" for ``tracking`` in the run's own folder (of a search's
    trial: in the search's)."""
    pictures: bool = True
    """Give them the pictures of a finished fold: its curves, its scores per species."""
    histograms: bool = False
    """Give TensorBoard a histogram of each layer's weights after each epoch."""
    checkpoint: bool = True
    """Give them best.safetensors of a finished fold, which is large."""
    wait_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 120.0
    """The longest that the training waits for a tracker: at its start, after an epoch, and at its end, where a
    checkpoint may have to be sent. One that takes longer is given up."""

    def __post_init__(self) -> None:
        if self.histograms and "tensorboard" not in self.trackers:
            raise ValueError("tracking.histograms is true, only tensorboard shows them (tracking.trackers)")
        twice = next((name for name in self.trackers if self.trackers.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"tracking.trackers names {twice} twice")


WAVEFORM_FAMILIES = frozenset({"raw"})
"""Model families that take the waveform itself."""
FEATURE_MAPS = frozenset({"cnn", "sed"})
"""Model families whose convolutions INT8 makes faster."""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides a run."""

    name: str = "default"
    """Of the run: its folder is ``runs/NAME``."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    """Of everything that is random: the same seed, the same run."""
    data: DataConfig = DataConfig()
    labels: LabelConfig = LabelConfig()
    frontend: FrontEndConfig = FrontEndConfig()
    """Of a model that takes waveforms, only ``audio`` and ``window`` count."""
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    distil: DistilConfig = DistilConfig()
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    post: PostConfig = PostConfig()
    """Not of the training: what the exported bundle does to its scores."""
    tracking: TrackingConfig = TrackingConfig()
    """Not of the training: who else keeps a record of it."""

    def __post_init__(self) -> None:
        if not self.name or any(sign in self.name for sign in "/\\\0") or self.name in {".", ".."}:
            raise ValueError(f"name is {self.name!r}, needed is one that a folder can have")
        if self.loss.teacher_share and not self.model.weights:
            raise ValueError(f"loss.teacher_share is {self.loss.teacher_share:g}, it needs a teacher, model.weights")
        if self.loop.fake_quantise and self.model.family not in FEATURE_MAPS:
            raise ValueError(f"loop.fake_quantise is true, {self.model.family} has no convolutions to round")
        if self.distil.teacher and self.loop.fake_quantise:
            raise ValueError("loop.fake_quantise is true, it rounds no network with a teacher (distil.teacher)")
        if not self.distil.teacher and any(source.kind == "unlabelled" for source in self.data.sources):
            raise ValueError("a source is unlabelled, only a teacher says something about it (distil.teacher)")
        if self.distil.teacher and self.loss.teacher_share:
            raise ValueError("loss.teacher_share and distil.teacher name a teacher each, only one can be")
        if self.loss.activation == "softmax" and (self.labels.nocall or self.labels.taxon):
            raise ValueError(
                "loss.name is ce, a softmax over species; labels.nocall and labels.taxon need another loss"
            )
        if self.distil.alone_epochs > self.loop.epochs:
            raise ValueError(f"distil.alone_epochs is {self.distil.alone_epochs}, more than {self.loop.epochs} epochs")
        if self.distil.alone_epochs and self.loop.patience:
            raise ValueError("loop.patience may end the run while distil.alone_epochs last, set one of them to 0")
        if (
            self.frontend.mel.compression == "log_pcen"
            and self.model.in_channels == 3
            and self.model.channels == "same"
        ):
            raise ValueError(
                "model.in_channels is 3, log_pcen gives two: set it to 1, or model.channels to delta for a third"
            )
        self._check_frozen_norms()

    @property
    def input_config(self) -> InputConfig:
        """The model's input, in training as in the exported bundle."""
        if self.model.family in WAVEFORM_FAMILIES:
            return WaveformConfig(self.frontend.audio, self.frontend.window)
        return self.frontend

    @property
    def first_frozen_epoch(self) -> int:
        """From which epoch on, counted from 1, norms hold still; one beyond the last where they never do."""
        return self.loop.epochs - self.optim.frozen_norm_epochs + 1

    def _check_frozen_norms(self) -> None:
        n_frozen, epochs = self.optim.frozen_norm_epochs, self.loop.epochs
        if n_frozen > epochs:
            raise ValueError(f"optim.frozen_norm_epochs is {n_frozen}, more than loop.epochs = {epochs}")
        if n_frozen == epochs and not (self.model.weights or self.model.pretrained):
            what = f"optim.frozen_norm_epochs is {n_frozen}, all of loop.epochs: norms would never measure anything"
            raise ValueError(f"{what}, make it less or start from model.weights")
        if 0 < n_frozen < epochs and self.loop.patience:
            raise ValueError(
                "loop.patience may end the run before optim.frozen_norm_epochs begin, set one of them to 0"
            )


NOT_DECISIVE = frozenset(
    {
        "name",
        "loop.num_workers",
        "loop.checkpoint_every_steps",
        "loop.keep_epochs",
        "post.smoothing_kernel",
        "post.steps",
    }
    | {f"tracking.{field}" for field in TrackingConfig.__struct_fields__}
)
"""Keys that change no result: a run may be resumed with other values."""


def flatten(recipe: Recipe) -> dict[str, object]:
    """A recipe as ``{"optim.lr": 0.001, ...}``."""

    def walk(prefix: str, table: dict[str, object]) -> dict[str, object]:
        flat: dict[str, object] = {}
        for key, value in table.items():
            flat |= walk(f"{prefix}{key}.", value) if isinstance(value, dict) else {prefix + key: value}
        return flat

    return walk("", msgspec.to_builtins(recipe))
