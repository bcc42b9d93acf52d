"""One fold: its clips, loaders of their windows, the state that its training starts from, and the files it writes.

``loop.py`` trains it. In: :class:`Fold`, the recipe and clips. Out: best.safetensors, last.safetensors, history.csv,
oof.csv (out-of-fold probabilities), classes.csv, taxa.csv and test.csv in the fold's folder, written in an order in
which a kill at any moment loses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.utils.data import DataLoader

from birdinfer.config import FrontEndConfig
from birdinfer.errors import CheckpointError
from birdinfer.runs.layout import BEST, LAST, SOUP_DIR, epoch_file, weights_file
from birdinfer.species import Species
from birdinfer.system.files import write_atomic
from birdinfer.system.signals import StopRequest
from birdinfer.tables.csv import csv_text
from birdinfer.training.augment import WaveformAugment
from birdinfer.training.callbacks import SILENT, TrainingCallback
from birdinfer.training.checkpoint import (
    MODEL,
    Checkpoint,
    EpochRow,
    Header,
    Progress,
    load_checkpoint,
    load_header,
    save_checkpoint,
    versions,
)
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.dataset import (
    EpochBatches,
    TrainingWindows,
    ValidationWindows,
    training_loader,
    validation_loader,
)
from birdinfer.training.data.folds_file import FOLDS_FILE, LEFT_OUT, TEST, VALIDATION, folds_by_name
from birdinfer.training.data.source_draw import build_sampler
from birdinfer.training.data.source_tables import TrainingSource
from birdinfer.training.data.sources import ClipSource
from birdinfer.training.data.targets import TargetMaker
from birdinfer.training.data.teacher import TeacherTargets
from birdinfer.training.devices import Precision
from birdinfer.training.distributed import Distributed
from birdinfer.training.evaluate import Validation, classes_table, oof_table, taxa_table
from birdinfer.training.fake_quantization import FakeQuantized
from birdinfer.training.learner import Learner
from birdinfer.training.models.base import Network
from birdinfer.training.models.merge import attach
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.weight_files import weight_path
from birdinfer.training.models.weights import check_weights
from birdinfer.training.monitor import best_epochs, monitor_of
from birdinfer.training.outputs import Outputs, outputs_of
from birdinfer.training.recipe.schema import NOT_DECISIVE, ModelConfig, Recipe, flatten
from birdinfer.training.state import TrainingState

OUT_OF_FOLD, TEST_SCORES = "oof.csv", "test.csv"
HISTORY, CLASSES, TAXA = "history.csv", "classes.csv", "taxa.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """A fold to train."""

    recipe: Recipe
    species: tuple[Species, ...]
    number: int
    training: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    """Empty where everything trains (``data.all_data``)."""
    test: tuple[Clip, ...] = ()
    """Clips that no fold sees; empty unless ``data.test_share`` is set."""
    source: ClipSource
    """Where the clips' sound comes from."""
    teacher: TeacherTargets | None = None
    """What is learned besides the labels (``distil``)."""
    sources: tuple[TrainingSource, ...] = ()
    """The recipe's ``data.sources``, to which some of the clips belong."""
    background: tuple[Path, ...] = ()
    """Files to mix in (``augment.background_dir``)."""
    taxa: tuple[str, ...] = ()
    """Of each species, "" where unknown; empty without ``labels.taxon``."""
    data_dir: Path
    folder: Path
    """Where everything of the fold is written."""

    @property
    def labels(self) -> list[str]:
        """Columns of the scores."""
        return [species.label for species in self.species]

    @property
    def outputs(self) -> Outputs:
        """Columns of the logits in training."""
        return outputs_of(self.species, self.taxa, self.recipe.labels)

    def clips_per_output(self) -> list[int]:
        """How many training clips have the label of each column of the logits as their primary one."""
        return self.outputs.clips_per_output(clip.primary_label for clip in self.training)


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What all folds of a run share."""

    device: torch.device
    processes: Distributed
    """The processes that train the same network."""
    stop: StopRequest
    callback: TrainingCallback = SILENT


# ---- Loaders


class FoldData:
    """This process's share of the windows to train on, in batches, and of the clips to validate on."""

    def __init__(self, fold: Fold, processes: Distributed, pin: bool) -> None:
        """Build everything but the worker processes, which start with the first batch.

        Args:
            fold: the fold.
            processes: that train together.
            pin: whether to put batches into memory that a GPU copies from fastest.
        """
        recipe = fold.recipe
        augment = WaveformAugment(recipe.augment, recipe.input_config, fold.background)
        targets = TargetMaker(fold.outputs, recipe.labels, fold.training, fold.sources)
        windows = TrainingWindows(
            fold.training, recipe, fold.source, targets, augment, teacher=fold.teacher, sources=fold.sources
        )
        sampler = build_sampler(windows.item_clips, fold.sources, recipe)
        self.batches = EpochBatches(sampler, recipe, processes.rank, processes.n)
        self.training: DataLoader[Any] = training_loader(windows, self.batches, recipe, pin)
        self.validation = clips_loader(fold, fold.validation, range(processes.rank, len(fold.validation), processes.n))

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self.batches)


def clips_loader(fold: Fold, clips: Sequence[Clip], indices: Sequence[int]) -> DataLoader[Any]:
    """A loader of the windows of ``clips[index]`` for each of ``indices``."""
    return validation_loader(ValidationWindows(clips, fold.recipe, fold.source), indices, fold.recipe)


# ---- Files


class FoldFiles:
    """Writes checkpoints and tables of one fold; of several processes only the first one writes."""

    def __init__(self, fold: Fold, state: TrainingState, processes: Distributed) -> None:
        self._fold, self._state, self._writes = fold, state, processes.is_first
        self._header = Header(
            fold.recipe,
            fold.species,
            fold.number,
            Progress(),
            str(fold.data_dir.resolve()),
            versions(),
            taxa=fold.taxa,
        )

    def save_last(self, progress: Progress) -> None:
        """Write last.safetensors: everything that a resume needs."""
        if self._writes:
            progress.numbers = self._state.numbers()
            self._save(self._fold.folder / LAST, progress, self._state.tensors())

    def save_epoch(self, progress: Progress, validation: Validation, is_best: bool) -> None:
        """Write a validated epoch: weights to average later, the best weights, history, and then the state."""
        if not self._writes:
            return
        self._keep_for_averaging(progress)
        every = self._fold.recipe.loop.keep_epochs
        if every and progress.epoch % every == 0:
            self._save(weights_file(self._fold.folder, progress.epoch), progress, _weights(self._state.validated))
        if is_best:
            self.save_best(progress, self._state.validated, validation)
        write_atomic(self._fold.folder / HISTORY, history_table(progress.history))
        # Last: once it names the epoch as finished, everything of the epoch is on disk.
        self.save_last(progress)

    def save_best(self, progress: Progress, model: torch.nn.Module, validation: Validation) -> None:
        """Write best.safetensors, and how it scores the validation clips."""
        fold = self._fold
        self._save(fold.folder / BEST, progress, _weights(model))
        if fold.validation:
            write_atomic(fold.folder / OUT_OF_FOLD, oof_table(validation, fold.labels))
            write_atomic(fold.folder / CLASSES, classes_table(validation, fold.species))
            write_atomic(fold.folder / TAXA, taxa_table(validation, fold.species))

    def best_epochs(self, progress: Progress) -> list[Checkpoint]:
        """Read the weights of the ``optim.soup_epochs`` best epochs."""
        return [load_checkpoint(self._epoch_path(epoch)) for epoch in self._epochs_to_average(progress)]

    def _keep_for_averaging(self, progress: Progress) -> None:
        wanted = self._epochs_to_average(progress)
        if progress.epoch in wanted:
            self._save(self._epoch_path(progress.epoch), progress, _weights(self._state.validated))
        keep = {self._epoch_path(epoch) for epoch in wanted}
        for path in (self._fold.folder / SOUP_DIR).glob("*.safetensors"):
            if path not in keep:
                path.unlink()

    def _epochs_to_average(self, progress: Progress) -> list[int]:
        recipe = self._fold.recipe
        first = recipe.first_frozen_epoch if recipe.optim.frozen_norm_epochs else recipe.distil.alone_epochs + 1
        # The weights of a finished run's epochs are gone: a run that was given more averages the later ones.
        rows = [row for row in progress.history if row.epoch >= first and row.epoch > progress.extended_after]
        return best_epochs(rows, recipe.optim.soup_epochs, monitor_of(recipe.loop))

    def _epoch_path(self, epoch: int) -> Path:
        return self._fold.folder / SOUP_DIR / epoch_file(epoch)

    def _save(self, path: Path, progress: Progress, tensors: dict[str, torch.Tensor]) -> None:
        save_checkpoint(path, msgspec.structs.replace(self._header, progress=progress), tensors)


def history_table(history: Sequence[EpochRow]) -> str:
    """history.csv: one row per epoch; an empty cell is a value that could not be computed."""
    return csv_text(EpochRow.__struct_fields__, (msgspec.structs.astuple(row) for row in history))


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {MODEL + name: tensor for name, tensor in model.state_dict().items()}


# ---- Weights to start from (``model.weights``)

FOLD = "{fold}"
"""Stands in ``model.weights`` for the fold's number."""


def model_of_fold(config: ModelConfig, fold: int) -> ModelConfig:
    """The network of a fold: its weights, if there are any to start from, are the fold's own."""
    return msgspec.structs.replace(config, weights=config.weights.replace(FOLD, str(fold)))


def check_start_weights(recipe: Recipe, folds: Sequence[int]) -> None:
    """Check that each fold has the weights that the recipe starts it from.

    Raises:
        InputNotFoundError: there are no such weights.
        CheckpointError: what should be a checkpoint of the fold is none, or of another fold.
    """
    for fold in folds:
        path = Path(model_of_fold(recipe.model, fold).weights)
        if recipe.model.weights:
            check_weights(path)
        if _continues(recipe):
            header = load_header(weight_path(path))
            _check_fold(header, path, fold)
            _check_learned(header, path, recipe)


def check_species(recipe: Recipe, fold: int, species: Sequence[Species]) -> None:
    """Check that a fold which continues an earlier run's has that run's columns.

    Raises:
        CheckpointError: it has others.
    """
    if not _continues(recipe):
        return
    path = Path(model_of_fold(recipe.model, fold).weights)
    if load_header(weight_path(path)).species != tuple(species):
        what = f"was trained for other species than the {len(species)} of the data"
        raise CheckpointError(path, what, "name its own data with --data")


def _continues(recipe: Recipe) -> bool:
    """Whether a fold continues the same fold of an earlier run, instead of starting from any weights."""
    return FOLD in recipe.model.weights or recipe.loss.teacher_share > 0


def seen_before(fold: Fold) -> list[str]:
    """Find the clips that a fold holds out, and that the network has seen from whose weights it starts."""
    path = weight_path(Path(model_of_fold(fold.recipe.model, fold.number).weights))
    table = path.parent.parent / FOLDS_FILE
    if path.name != BEST or not table.is_file():
        return []
    unseen = {load_header(path).fold, TEST, LEFT_OUT, VALIDATION}
    seen = {name for name, (_, its) in folds_by_name(table).items() if its not in unseen}
    return [clip.filename for clip in (*fold.validation, *fold.test) if clip.filename in seen]


def _check_fold(header: Header, path: Path, fold: int) -> None:
    if header.fold != fold:
        what = f"is of fold {header.fold}: it was trained on clips that fold {fold} holds out"
        raise CheckpointError(path, what, f"write model.weights with {FOLD} for the fold's number")


def _check_learned(header: Header, path: Path, recipe: Recipe) -> None:
    """A teacher's logits are compared column by column: it must have learned what is learned now."""
    its, own = (each.labels for each in (header.recipe, recipe))
    if recipe.loss.teacher_share and (its.taxon, its.nocall) != (own.taxon, own.nocall):
        what = f"was trained with labels.taxon = {its.taxon!r} and labels.nocall = {str(its.nocall).lower()}"
        raise CheckpointError(path, what, "set the same, or loss.teacher_share=0")


# ---- The state that training starts from: a new one, or the one that an interrupted run has saved

_INIT = 10
"""First element of the seed of a network's first weights."""


def init_state(fold: Fold, precision: Precision, session: Session) -> tuple[TrainingState, Progress]:
    """Build the network and its optimizer, and restore what an interrupted run has saved of them.

    Raises:
        CheckpointError: the saved state is damaged, or of another recipe or other species.
        ConfigError: the recipe's network cannot be built.
    """
    recipe, path = fold.recipe, fold.folder / LAST
    saved = load_checkpoint(path) if path.exists() else None
    if saved is not None:
        check_same_recipe(saved.recipe, recipe, path, saved.epoch)
        if saved.species != fold.species or saved.header.taxa != fold.taxa:
            raise CheckpointError(path, "was trained for other species", "train into another run with --run")
    else:
        check_species(recipe, fold.number, fold.species)
        seen = seen_before(fold) if recipe.model.weights else []
        if seen:
            what = f"its weights were trained on {len(seen)} of the clips that are held out, first {seen[0]}"
            session.callback.on_warning(f"fold {fold.number}: {what}: scores flatter")
    session.processes.check_batch(recipe.loop)
    torch.manual_seed(int(np.random.default_rng((_INIT, recipe.seed, fold.number)).integers(2**62)))
    model = build_model(
        model_of_fold(recipe.model, fold.number),
        len(fold.outputs.names),
        recipe.input_config,
        start=saved is None,
        activation=recipe.loss.activation,
        note=session.callback.on_message,
        labels=fold.outputs.names,
    )
    attach(model, fold.outputs, recipe.labels)
    # channels_last: the memory layout in which convolutions are fastest on CPU and GPU.
    model = model.to(session.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = torch.amp.GradScaler(session.device.type, enabled=precision == "fp16")
    state = TrainingState(model, recipe.optim, scaler, session.processes, **learner_of(model, fold, session.device))
    if saved is None:
        return state, Progress()
    state.restore(saved)
    # No process may still be reading when the first one writes.
    session.processes.wait()
    progress, before = saved.header.progress, saved.recipe.loop.epochs
    if before != recipe.loop.epochs:
        extend(progress)
        what = f"{before} epochs were asked for, now {recipe.loop.epochs}, of which {progress.epoch} are trained"
        session.callback.on_message(f"fold {fold.number}: {what}; the learning rate is that of the whole length")
    return state, progress


def extend(progress: Progress) -> None:
    """Let a run continue that has another number of epochs now: what its end has come to no longer counts."""
    if progress.is_finished:
        progress.extended_after = progress.epoch
    progress.is_finished = progress.is_complete = False
    progress.test_macro_auc = progress.test_padded_cmap = None


def learner_of(model: torch.nn.Module, fold: Fold, device: torch.device) -> dict[str, torch.nn.Module]:
    """Other ways to compute the model for its gradients, as :class:`TrainingState` takes them."""
    if fold.recipe.loop.fake_quantise:
        return {"learner": FakeQuantized(model)}
    if fold.teacher is None:
        return {}
    assert isinstance(model, Network)  # all families are
    config = fold.recipe.input_config
    shape = config.sample_shape if isinstance(config, FrontEndConfig) else (config.window_samples,)
    n_numbers = fold.teacher.n_numbers if fold.recipe.distil.target == "embedding" else 0
    learner = Learner(model, n_numbers, torch.zeros(1, *shape, device=device))
    return {"learner": learner, "beside": learner.projection}


def check_same_recipe(saved: Recipe, asked: Recipe, path: Path, epochs_done: int | None = None) -> None:
    """Refuse to resume a run with another recipe than it was started with.

    Args:
        saved: the recipe so far.
        asked: the recipe now.
        path: what an error names.
        epochs_done: of the run: it may have another number of epochs now, as long as it is more than these. None: it
            may not.

    Raises:
        CheckpointError: a key that decides the result differs; it says which.
    """
    before, after = flatten(saved), flatten(asked)
    n_asked, is_longer = asked.loop.epochs, saved.loop.epochs != asked.loop.epochs
    # Norms are frozen in the last epochs: with others the epochs so far would have been trained in another way.
    if epochs_done is not None and is_longer and not asked.optim.frozen_norm_epochs:
        before["loop.epochs"] = n_asked
    differing = sorted(key for key in before if key not in NOT_DECISIVE and before[key] != after[key])
    if differing:
        key = differing[0]
        more = f" and {len(differing) - 1} more keys differ" if len(differing) > 1 else ""
        raise CheckpointError(
            path,
            f"was trained with {key} = {before[key]!r}, asked is {after[key]!r}{more}",
            "resume with the same recipe, or train into another run with --run",
        )
    if epochs_done is not None and is_longer and n_asked <= epochs_done:
        what = f"has trained {epochs_done} epochs, asked is loop.epochs = {n_asked}"
        raise CheckpointError(path, what, f"ask for {saved.loop.epochs}, as before, or for more than {epochs_done}")
