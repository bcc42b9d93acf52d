"""All folds of a run -> one network whose weights are the mean of theirs: the cost of one fold instead of all.

A soup (Wortsman et al. 2022, "Model soups") works for networks that were trained from the same weights and so lie in
one valley of the loss. Folds that began from random weights of their own lie in different ones, and their mean is worth
nothing: whether it is worth something is measured (:func:`soup_scores`) and said (:func:`check_soup`), never assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.metrics import macro_roc_auc
from birdinfer.scores import activate
from birdinfer.training.checkpoint import EMA, MODEL, Checkpoint, Tensors
from birdinfer.training.recipe.learning import ModelConfig

Float32 = npt.NDArray[np.float32]

BATCH_SIZE = 32
"""Windows a batch: BatchNorm's statistics want many, memory few."""

LARGEST_FALL = 0.01
"""Of macro AUC below the mean of the folds. A soup of folds that belong together is as good as one or better."""

_BatchNorm = torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d | torch.nn.SyncBatchNorm


def soup_of_folds(checkpoints: Sequence[Checkpoint], heard: Float32) -> torch.nn.Module:
    """The mean of all folds' weights, as one network in evaluation mode on the CPU.

    Of each fold those weights are taken that it was validated with: the averaged ones (EMA) where it has them. The
    statistics of a BatchNorm are not averaged but counted anew, for what reaches it are the soup's own activations.

    Args:
        checkpoints: two folds or more, of one network.
        heard: real windows of the training clips [windows, ...], what the network takes; a network with BatchNorm needs
            two, and is the better for hundreds; one without does not look at them.

    Raises:
        ConfigError: fewer than two folds, or too few windows for a BatchNorm.
        CheckpointError: folds are of different networks, hear differently, or know other labels.
    """
    if len(checkpoints) < 2:
        raise ConfigError("soup", f"needs two folds or more, {len(checkpoints)} given", "train more folds")
    first, *others = checkpoints
    for other in others:
        _refuse_stranger(first, other)
    soup = first.build_model()
    soup.load_state_dict(_mean([_weights(checkpoint) for checkpoint in checkpoints]))
    count_statistics(soup, heard)
    return soup.eval()


def count_statistics(model: torch.nn.Module, heard: Float32) -> None:
    """Count the running statistics of every BatchNorm anew; all else stays as it is in evaluation mode.

    Not ``torch.optim.swa_utils.update_bn``: that one sets the whole network into training mode, so that dropout takes
    part in the statistics by chance, and NFNets, which normalise their weights, have nothing that it could count.

    Args:
        model: changed in place, in evaluation mode afterwards; without a BatchNorm nothing is changed.
        heard: real windows [windows, ...].

    Raises:
        ConfigError: there is a BatchNorm, and fewer than two windows or values that are not finite.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    if len(heard) < 2 or not np.isfinite(heard).all():
        what = f"{len(heard)} windows, or values that are not finite, are no sample for BatchNorm's statistics"
        raise ConfigError("soup", what, "give training windows, some hundreds")
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches, which are of one size but for a window
        norm.train()
    with torch.no_grad():
        n_batches = -(-len(heard) // BATCH_SIZE)
        for begin in range(n_batches):
            # Every n-th window: clips lie sorted by species, and a batch of one species varies less than all do.
            model(torch.from_numpy(np.ascontiguousarray(heard[begin::n_batches])))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@dataclass(frozen=True)
class SoupScores:
    """Macro ROC-AUC on the same windows; nan where no label can be scored."""

    soup: float
    folds: tuple[float, ...]
    """Of each fold alone."""
    ensemble: float
    """Of the folds' mean probabilities: what the soup replaces."""


def soup_scores(
    soup: torch.nn.Module,
    folds: Sequence[torch.nn.Module],
    heard: Float32,
    truth: npt.ArrayLike,
    activation: str = "sigmoid",
) -> SoupScores:
    """How good the soup is beside its folds.

    The windows may be clips that folds were trained on: every one of them, and so the soup, knows most of them. The
    numbers are there to be compared with each other, not to be reported.

    Args:
        soup: from :func:`soup_of_folds`.
        folds: what it was made of.
        heard: labelled windows [windows, ...].
        truth: 0 or 1, [windows, labels].
        activation: what makes logits into probabilities, ``sigmoid`` or ``softmax``.

    Raises:
        MetadataError: truth does not fit, or a network answers with values that are not finite.
    """
    each = [_probabilities(fold, heard, activation) for fold in folds]
    return SoupScores(
        soup=macro_roc_auc(truth, _probabilities(soup, heard, activation)),
        folds=tuple(macro_roc_auc(truth, probabilities) for probabilities in each),
        ensemble=macro_roc_auc(truth, np.mean(each, axis=0)),
    )


def check_soup(scores: SoupScores, largest_fall: float = LARGEST_FALL) -> str:
    """Why a soup is not to be exported; "" where it may be.

    Args:
        scores: from :func:`soup_scores`.
        largest_fall: of macro AUC, from the mean of the folds to the soup.
    """
    if np.isnan([scores.soup, *scores.folds]).any():
        return "no label occurs in some of the labelled windows and not in others: the soup's worth cannot be told"
    fall = float(np.mean(scores.folds)) - scores.soup
    if fall <= largest_fall:
        return ""
    low, high = min(scores.folds), max(scores.folds)
    return (
        f"the soup has macro AUC {scores.soup:.3f}, its folds {low:.3f} to {high:.3f}, together {scores.ensemble:.3f}: "
        f"{fall:.3f} below their mean, allowed is {largest_fall:g}; were they trained from common weights?"
    )


def _weights(checkpoint: Checkpoint) -> Tensors:
    """Those that :meth:`~birdinfer.training.checkpoint.Checkpoint.build_model` takes."""
    return checkpoint.weights(EMA) or checkpoint.weights(MODEL)


def _refuse_stranger(first: Checkpoint, other: Checkpoint) -> None:
    labels = [[species.label for species in checkpoint.species] for checkpoint in (first, other)]
    shapes = [{name: x.shape for name, x in _weights(checkpoint).items()} for checkpoint in (first, other)]
    differ = {
        "other labels": labels[0] != labels[1],
        "another front end": first.recipe.hearing != other.recipe.hearing,
        "another network": _network(first) != _network(other) or shapes[0] != shapes[1],
        "another activation": first.recipe.loss.activation != other.recipe.loss.activation,
    }
    for what, is_so in differ.items():
        if is_so:
            raise CheckpointError(other.path, f"has {what} than {first.path}", "a soup needs folds of one recipe")


def _network(checkpoint: Checkpoint) -> ModelConfig:
    """What it is, without what it was trained from and with."""
    model = checkpoint.recipe.model
    return msgspec.structs.replace(model, pretrained=False, weights="", drop_rate=0.0, drop_path_rate=0.0)


def _mean(folds: Sequence[Tensors]) -> Tensors:
    """The mean of each tensor, by its name, added up in float64; counters are those of the first fold."""
    return {name: _mean_tensor([fold[name] for fold in folds]) for name in folds[0]}


def _mean_tensor(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(first.dtype)


def _probabilities(model: torch.nn.Module, heard: Float32, activation: str) -> Float32:
    """Of the clip [windows, labels], batch by batch."""
    model.eval()
    batches = np.array_split(heard, max(1, -(-len(heard) // BATCH_SIZE)))
    with torch.no_grad():
        logits = np.concatenate([model(torch.from_numpy(batch)).clip.numpy() for batch in batches])
    return activate(logits, activation)
