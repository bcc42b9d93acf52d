"""Weight averaging: all folds of a run -> one network with their mean weights, at the cost of one fold.

Averaging ("model soup", Wortsman et al. 2022) works for networks that were trained from the same weights and so lie in
one valley of the loss. Folds that began from different random weights lie in different valleys, and their mean is
useless. Which is the case is measured (:func:`soup_scores`) and checked (:func:`check_soup`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.evaluation.metrics import macro_roc_auc
from birdinfer.inference.activation import activate
from birdinfer.training.checkpoint import EMA, MODEL, Checkpoint, Tensors
from birdinfer.training.recipe.schema import ModelConfig
from birdinfer.typing import Float32

BATCH_SIZE = 32  # windows per batch: enough for BatchNorm's statistics, few enough for memory
LARGEST_DROP = 0.01  # of macro AUC below the folds' mean; a sound average is as good as one fold or better

_BatchNorm = torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d | torch.nn.SyncBatchNorm


def soup_of_folds(checkpoints: Sequence[Checkpoint], inputs: Float32) -> torch.nn.Module:
    """Average the weights of two folds or more into one network in evaluation mode on the CPU.

    The weights that a fold was validated with are used: the moving averages (EMA) if it has them. The statistics of a
    BatchNorm are not averaged but computed again, because its inputs are the new network's own activations: from
    ``inputs``, real windows of the training clips [windows, ...], at least two, better hundreds; not used without.
    Raises ConfigError for fewer folds or windows, CheckpointError if folds have different networks, inputs, activations
    or labels.
    """
    if len(checkpoints) < 2:
        raise ConfigError("soup", f"needs two folds or more, {len(checkpoints)} given", "train more folds")
    first, *others = checkpoints
    for other in others:
        _refuse_other_recipe(first, other)
    soup = first.build_model()
    soup.load_state_dict(_mean([_weights(checkpoint) for checkpoint in checkpoints]))
    compute_statistics(soup, inputs)
    return soup.eval()


def compute_statistics(model: torch.nn.Module, inputs: Float32) -> None:
    """Compute the running statistics of every BatchNorm again, in place; all other modules stay in evaluation mode.

    Not ``torch.optim.swa_utils.update_bn``: it sets the whole network to training mode, so that dropout changes the
    statistics at random, and in NFNets, which normalise their weights, it has nothing to compute. Raises ConfigError if
    there is a BatchNorm, and fewer than two windows or values that are not finite.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    if len(inputs) < 2 or not np.isfinite(inputs).all():
        what = f"{len(inputs)} windows, or values that are not finite, are no sample for BatchNorm's statistics"
        raise ConfigError("soup", what, "give training windows, some hundreds")
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches, whose sizes differ by one at most
        norm.train()
    with torch.no_grad():
        n_batches = -(-len(inputs) // BATCH_SIZE)
        for begin in range(n_batches):
            # Every n-th window: clips are sorted by species, and a batch of one species varies less than all do.
            model(torch.from_numpy(np.ascontiguousarray(inputs[begin::n_batches])))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@dataclass(frozen=True)
class SoupScores:
    """Macro ROC-AUC on the same windows; nan where no label can be scored."""

    soup: float
    folds: tuple[float, ...]  # of each fold alone
    ensemble: float  # of the folds' mean probabilities, which the average replaces


def soup_scores(
    soup: torch.nn.Module,
    folds: Sequence[torch.nn.Module],
    inputs: Float32,
    truth: npt.ArrayLike,
    *,
    activation: str = "sigmoid",
) -> SoupScores:
    """Compare the averaged network with its folds on labelled windows; truth is 0 or 1 [windows, labels].

    The other folds were trained on most of the windows that one held out, so these scores can be compared with each
    other, but say nothing about new recordings.
    """
    each = [_probabilities(fold, inputs, activation) for fold in folds]
    return SoupScores(
        soup=macro_roc_auc(truth, _probabilities(soup, inputs, activation)),
        folds=tuple(macro_roc_auc(truth, probabilities) for probabilities in each),
        ensemble=macro_roc_auc(truth, np.mean(each, axis=0)),
    )


def check_soup(scores: SoupScores, largest_drop: float = LARGEST_DROP) -> str:
    """Return why an averaged network must not be exported; "" if its macro AUC is near the mean of the folds.

    >>> check_soup(SoupScores(soup=0.95, folds=(0.94, 0.96), ensemble=0.97))
    ''
    """
    if np.isnan([scores.soup, *scores.folds]).any():
        return "no label occurs in some of the labelled windows and not in others: the soup cannot be evaluated"
    drop = float(np.mean(scores.folds)) - scores.soup
    if drop <= largest_drop:
        return ""
    low, high = min(scores.folds), max(scores.folds)
    return (
        f"the soup has macro AUC {scores.soup:.3f}, its folds {low:.3f} to {high:.3f}, together {scores.ensemble:.3f}: "
        f"{drop:.3f} below their mean, allowed is {largest_drop:g}; were they trained from common weights?"
    )


def _weights(checkpoint: Checkpoint) -> Tensors:
    return checkpoint.weights(EMA) or checkpoint.weights(MODEL)


def _refuse_other_recipe(first: Checkpoint, other: Checkpoint) -> None:
    labels = [[species.label for species in checkpoint.species] for checkpoint in (first, other)]
    shapes = [{name: x.shape for name, x in _weights(checkpoint).items()} for checkpoint in (first, other)]
    differ = {
        "other labels": labels[0] != labels[1],
        "another front end": first.recipe.input_config != other.recipe.input_config,
        "another network": _network(first) != _network(other) or shapes[0] != shapes[1],
        "another activation": first.recipe.loss.activation != other.recipe.loss.activation,
    }
    for what, is_so in differ.items():
        if is_so:
            raise CheckpointError(other.path, f"has {what} than {first.path}", "a soup needs folds of one recipe")


def _network(checkpoint: Checkpoint) -> ModelConfig:
    model = checkpoint.recipe.model
    return msgspec.structs.replace(model, pretrained=False, weights="", drop_rate=0.0, drop_path_rate=0.0)


def _mean(folds: Sequence[Tensors]) -> Tensors:
    """The mean of each tensor, summed in float64; integer counters are those of the first fold."""
    mean = dict(folds[0])
    for name, first in folds[0].items():
        if first.is_floating_point():
            mean[name] = torch.stack([fold[name].double() for fold in folds]).mean(dim=0).to(first.dtype)
    return mean


def _probabilities(model: torch.nn.Module, inputs: Float32, activation: str) -> Float32:
    model.eval()
    batches = np.array_split(inputs, max(1, -(-len(inputs) // BATCH_SIZE)))
    with torch.no_grad():
        logits = np.concatenate([model(torch.from_numpy(batch)).clip.numpy() for batch in batches])
    return activate(logits, activation)
