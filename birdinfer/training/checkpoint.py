"""Checkpoints: weights and all that is known about them, in one safetensors file; nothing is pickled.

The JSON state lies in the safetensors header, so that one rename replaces tensors and state together: killed at any
moment, a run leaves the old checkpoint or the new one. A file may come from anyone: what is read is checked
(``models/weights.py``) before memory is taken for it, and whatever is wrong with it is reported in one line.
"""

import contextlib
import hashlib
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from birdinfer.errors import CheckpointError, InputNotFoundError
from birdinfer.species import Species, check_labels
from birdinfer.system.files import write_atomic
from birdinfer.training.models.merge import attach
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.models.weights import check_fits, check_values, summary
from birdinfer.training.outputs import Outputs, outputs_of
from birdinfer.training.recipe.data_config import Share
from birdinfer.training.recipe.schema import Recipe
from birdinfer.version import __version__

FORMAT_VERSION = 2
_KEY, _DIGESTS = "birdinfer", "sha256"
"""Entries of the safetensors header: the JSON state; SHA-256 of the state, and of the tensors, with a space between."""
MODEL, EMA = "model.", "ema."
"""Prefixes of the tensors: the weights themselves and their running average."""

_RETRAIN = "train it again, or copy it again from where it is whole"

Tensors = dict[str, torch.Tensor]


class EpochRow(msgspec.Struct, frozen=True):
    """One row of history.csv."""

    epoch: int
    """From 1."""
    train_loss: float
    val_loss: float | None
    """Binary cross-entropy of the clips' probabilities; None if no clip could be decoded."""
    val_macro_auc: Share | None
    """None if no species of the fold can be scored."""
    val_padded_cmap: float | None
    """The metric of BirdCLEF 2023."""
    val_top1: float | None
    """Share of clips whose most probable species is their primary label."""
    lr: float
    """At the epoch's end."""
    seconds: float
    wait_share: float
    """Share of the epoch's training time that was spent waiting for data."""
    peak_gpu_mb: float | None
    """The most memory that tensors took on the GPU; None on a CPU."""
    val_f1: float | None = None
    """Mean over the species that occur, at ``loop.f1_threshold``; None in runs of older versions, too."""
    rss_mb: float | None = None
    """Memory of the process at the epoch's end, without those that decode; None where the system does not say it."""
    n_parameters: int | None = None
    """Numbers that the network learns."""


class Progress(msgspec.Struct):
    """How far a run is: with the tensors, all that a resume needs."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps done in the epoch after them."""
    loss_sum: float = 0.0
    """Of these steps."""
    seconds: float = 0.0
    """Spent on the epoch so far."""
    waited_seconds: float = 0.0
    """Of these, waiting for data."""
    best_epoch: int = 0
    """From 1; 0 before the first validation."""
    best_auc: Share | None = None
    """Macro AUC of the weights that are kept."""
    best_score: float | None = None
    """Their score, by which they were chosen (``training/monitor.py``)."""
    history: list[EpochRow] = msgspec.field(default_factory=list)
    soup: list[int] = msgspec.field(default_factory=list)
    """The epochs whose weights were averaged into these; empty where they are of one epoch."""
    extended_after: int = 0
    """The epochs that the run had when it was finished and was given more; 0 for one that was not."""
    is_finished: bool = False
    """Whether the last epoch is over; what is left is the soup and the test clips."""
    is_complete: bool = False
    """Whether nothing is left."""
    test_macro_auc: float | None = None
    test_padded_cmap: float | None = None
    """Of the kept weights on the clips that no fold saw; None without such clips."""
    numbers: dict[str, int | float] = msgspec.field(default_factory=dict)
    """What the optimiser and the scaler keep besides tensors."""

    def __post_init__(self) -> None:
        # What older versions have saved knows one score only.
        if self.best_score is None:
            self.best_score = self.best_auc

    def next_epoch(self) -> "Progress":
        """The same progress with one more epoch finished and nothing done in the one after it."""
        return msgspec.structs.replace(
            self,
            epoch=self.epoch + 1,
            step=0,
            loss_sum=0.0,
            seconds=0.0,
            waited_seconds=0.0,
            history=list(self.history),
        )


class Header(msgspec.Struct, frozen=True):
    """The JSON in a checkpoint."""

    recipe: Recipe
    species: tuple[Species, ...]
    fold: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    progress: Progress
    data_dir: str
    """Where the clips were, as an absolute path."""
    versions: dict[str, str]
    format_version: int = FORMAT_VERSION
    taxa: tuple[str, ...] = ()
    """Of each species, "" where unknown; empty without ``labels.taxon``."""

    @property
    def outputs(self) -> Outputs:
        """Columns of the network's logits in training."""
        return outputs_of(self.species, self.taxa, self.recipe.labels)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    path: Path
    header: Header
    tensors: Tensors

    @property
    def recipe(self) -> Recipe:
        """What it was trained with."""
        return self.header.recipe

    @property
    def species(self) -> tuple[Species, ...]:
        """Columns of its answers."""
        return self.header.species

    @property
    def fold(self) -> int:
        """The fold it was validated on."""
        return self.header.fold

    @property
    def epoch(self) -> int:
        """Epochs it was trained for."""
        return self.header.progress.epoch

    @property
    def val_macro_auc(self) -> float:
        """Macro ROC-AUC of its weights on the fold's validation clips; nan if never validated or not scorable."""
        rows = [row for row in self.header.progress.history if row.epoch == self.epoch]
        auc = self.header.progress.best_auc if self.header.progress.soup else rows[0].val_macro_auc if rows else None
        return math.nan if auc is None else auc

    @property
    def data_dir(self) -> str:
        """Where its clips were when it was trained."""
        return self.header.data_dir

    @property
    def versions(self) -> dict[str, str]:
        """Packages it was made with."""
        return self.header.versions

    def build_model(self) -> torch.nn.Module:
        """The network with the weights that were validated (averaged ones if there are), in eval mode, on the CPU.

        Raises:
            CheckpointError: no network can be built of the recipe, the tensors are not exactly its tensors, or they
                hold something else than finite numbers.
            LabelError: a label breaks the law of :func:`birdinfer.species.label_problem`, or stands twice.
        """
        check_labels((one.label for one in self.species), str(self.path), "rename the species and train it again")
        weights = self.weights(EMA) or self.weights(MODEL)
        # A sketch first, which takes no memory: a recipe can name a network that is larger than the machine.
        with torch.device("meta"):
            own = self._network().state_dict()
        check_fits(self.path, weights, own)
        check_values(self.path, weights, own)
        model = self._network()
        model.load_state_dict(weights)
        return model.eval()

    def _network(self) -> torch.nn.Module:
        recipe = self.recipe
        try:
            outputs = self.header.outputs
            model = build_model(
                recipe.model, len(outputs.names), recipe.input_config, start=False, activation=recipe.loss.activation
            )
            return attach(model, outputs, recipe.labels)
        except Exception as error:  # what a recipe from elsewhere makes timm and torch raise has no common type
            what = f"holds a recipe that no network can be built of ({summary(error)})"
            raise CheckpointError(self.path, what, "train it again") from error

    def weights(self, prefix: str) -> Tensors:
        """The tensors under a prefix, by their names in the model; empty if there are none."""
        return {name.removeprefix(prefix): x for name, x in self.tensors.items() if name.startswith(prefix)}


def save_checkpoint(path: Path, header: Header, tensors: Tensors) -> None:
    """Write a checkpoint atomically; tensors may lie on any device.

    Raises:
        OutputError: it cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    state = msgspec.json.encode(header).decode()
    write_atomic(path, save(plain, {_KEY: state, _DIGESTS: f"{_digest(state)} {_digest_of_tensors(plain)}"}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputNotFoundError: there is no such file.
        CheckpointError: it is damaged, or not birdinfer's; of an older one without digests, damage may go unnoticed.
    """
    # State and tensors by one handle: a running training may replace the file at any moment.
    with _opened(path) as file:
        header = _read_header(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digests = file.metadata().get(_DIGESTS)
        if digests is not None and digests.partition(" ")[2] != _digest_of_tensors(tensors):
            raise CheckpointError(path, "is damaged: its tensors have changed since it was written", _RETRAIN)
        return Checkpoint(path, header, tensors)


def load_header(path: Path) -> Header:
    """Read what a checkpoint says of itself, without its tensors.

    Raises:
        InputNotFoundError: there is no such file.
        CheckpointError: it is damaged, or not birdinfer's.
    """
    with _opened(path) as file:
        return _read_header(path, file)


def versions() -> dict[str, str]:
    """What trains here."""
    return {
        "birdinfer": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": str(import_timm().__version__),
        "numpy": np.__version__,
    }


def _digest(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()


def _digest_of_tensors(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file's handle; errors while it is read name the file."""
    if not path.is_file():
        raise InputNotFoundError(path, "no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"is damaged or no checkpoint ({summary(error)})", "train it again") from error


def _read_header(path: Path, file: Any) -> Header:
    found = file.metadata() or {}
    state = found.get(_KEY)
    if state is None:
        raise CheckpointError(path, "holds tensors but no birdinfer state", "name a best.safetensors of a run")
    if found.keys() - {_KEY} and found.get(_DIGESTS, "").partition(" ")[0] != _digest(state):
        raise CheckpointError(path, "is damaged: its state has changed since it was written", _RETRAIN)
    try:
        _check_version(path, msgspec.json.decode(state).get("format_version"))
        return msgspec.json.decode(state, type=Header)
    except (msgspec.DecodeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            path, f"holds a state that cannot be read ({summary(error)})", "train it again"
        ) from error


def _check_version(path: Path, version: object) -> None:
    if version != FORMAT_VERSION:
        is_newer = isinstance(version, int) and version > FORMAT_VERSION
        hint = "update birdinfer" if is_newer else "train it again"
        raise CheckpointError(path, f"has format {summary(version)}, this birdinfer reads {FORMAT_VERSION}", hint)


# ---- Weight averaging ("model soup", Wortsman et al. 2022)


def average_weights(checkpoints: Sequence[Checkpoint]) -> Tensors:
    """The mean of each tensor, by its name in the model, computed in float64.

    BatchNorm's running statistics are averaged like weights: of epochs of one run they lie close together. (Measuring
    them again over the clips gives NaN for networks that have no BatchNorm to count, as NFNets.) Counters are those of
    the last checkpoint.

    Args:
        checkpoints: at least one, all of one network.
    """
    every = [checkpoint.weights(MODEL) for checkpoint in checkpoints]
    return {name: _mean([weights[name] for weights in every]) for name in every[-1]}


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    last = tensors[-1]
    if not last.is_floating_point():
        return last
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(last.dtype)
