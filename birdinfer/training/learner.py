"""Distillation from the recipe's section ``distil``: a network's answer and a teacher's -> their distance.

The teacher's embeddings or scores of the windows come with the batch (``data/teacher.py``). :class:`Learner` makes an
embedding of the network's features that can be compared with them; its layer is trained and saved along, and left
behind when the training ends: what is validated, kept and exported is the network alone.
"""

from typing import NamedTuple

import torch
from torch.nn import functional

from birdinfer.training.data.targets import Targets
from birdinfer.training.models.base import Logits, Maps, Network
from birdinfer.training.recipe.schema import DistilConfig


class Phase(NamedTuple):
    """What counts in an epoch."""

    labels: float
    """Weight of the loss of the labels."""
    teacher: float
    """Weight of the teacher's."""
    is_detached: bool
    """Whether the features learn from the teacher alone."""


def phase_of(config: DistilConfig, epoch: int) -> Phase:
    """What counts in an epoch, from 0."""
    if epoch < config.alone_epochs:
        return Phase(0.0, 1.0, False)
    return Phase(1.0, config.weight, config.detach and config.weight > 0)


class Taught(NamedTuple):
    """A network's answer, and what is compared with the teacher's embedding."""

    logits: Logits
    embedding: torch.Tensor | None
    """[windows, numbers]; None where scores are compared."""


class Learner(torch.nn.Module):
    """A network and a linear layer from the mean of its features to the size of a teacher's embedding."""

    is_detached = False
    """Whether the loss of the logits stops before the features."""

    def __init__(self, network: Network, n_numbers: int, example: torch.Tensor) -> None:
        """Add the layer.

        Args:
            network: it stays as it is.
            n_numbers: of the teacher's embedding; 0 where its scores are learned, which need no layer.
            example: inputs of the network, [1, ...].
        """
        super().__init__()
        self.network = network
        self.projection: torch.nn.Module = torch.nn.Identity()
        if n_numbers:
            was_training = network.training
            network.eval()
            with torch.no_grad():
                n_features = pooled(network.features(example)).shape[1]
            network.train(was_training)
            self.projection = torch.nn.Linear(n_features, n_numbers).to(example.device)
        self._has_embedding = bool(n_numbers)

    def forward(self, inputs: torch.Tensor) -> Taught:
        """Log-mels or waveforms -> logits, and the embedding."""
        features = self.network.features(inputs)
        own = tuple(each.detach() for each in features) if self.is_detached else features
        logits = self.network.classify(own)
        return Taught(logits, self.projection(pooled(features)) if self._has_embedding else None)


def pooled(features: Maps) -> torch.Tensor:
    """The mean over each map [windows, features, rows, columns], or over steps [windows, steps, features]."""
    return torch.cat([each.mean(dim=(2, 3) if each.ndim == 4 else 1) for each in features], dim=1)


def teacher_loss(taught: Taught, targets: Targets, config: DistilConfig) -> torch.Tensor:
    """The distance from what the teacher said, the mean over the windows of which it said something; a scalar.

    ``cosine``: 1 - cosine; ``mse``: mean over the embedding's numbers. Of scores, with temperature T, T^2 times the
    cross-entropy of sigmoids (mean over the species that the teacher knows), or of softmaxes over these (``kl``, up to
    the teacher's own entropy, which has no gradient).
    """
    assert targets.teacher is not None  # the loader gives it to recipes with a teacher
    # float32 also under mixed precision, as of all losses.
    wanted, is_known = torch.nan_to_num(targets.teacher), targets.teacher.isfinite()
    if taught.embedding is not None:
        given = taught.embedding.float()
        costs = (given - wanted).square().mean(dim=1)
        if config.loss == "cosine":
            costs = 1 - functional.cosine_similarity(given, wanted, dim=1)
    else:
        # The species stand first; a teacher says nothing of what else is learned.
        logits = taught.logits.clip[:, : wanted.shape[1]].float() / config.temperature
        if config.loss == "kl":
            logits = logits.masked_fill(~is_known, torch.finfo(logits.dtype).min)
            cells = torch.where(is_known, -wanted * functional.log_softmax(logits, dim=1), 0.0)
            costs = cells.sum(dim=1)
        else:
            cells = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            costs = (cells * is_known).sum(dim=1) / is_known.sum(dim=1).clamp(min=1)
        costs = costs * config.temperature**2
    weights = teacher_weights(targets)
    return (costs * weights).sum() / weights.sum().clamp(min=1)


def teacher_weights(targets: Targets) -> torch.Tensor:
    """1 for each window of which the teacher said something, [windows]."""
    assert targets.teacher is not None
    return targets.teacher.isfinite().any(dim=1).float()
