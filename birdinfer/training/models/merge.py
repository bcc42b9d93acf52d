"""What a network has learned besides species (``outputs.py``) -> what its species get of it."""

import torch
from torch.nn import functional

from birdinfer.training.models.base import Logits, Network
from birdinfer.training.outputs import Outputs
from birdinfer.training.recipe.data_config import LabelConfig

_LEAST = 1e-7
"""Keeps a logarithm finite; as small as half precision holds."""


class Merge(torch.nn.Module):
    """Logits of species, taxa and no call [..., outputs] -> those of the species [..., species].

    ``z = (1 - share) z_species + share z_taxon`` (``labels.taxon_share``) for species of a taxon; then, with the
    probability q of no call, the probability is multiplied by ``g = (1 - q)^power``: the logit of ``p g`` is
    ``log g - log(1 - g) - softplus(-z - log(1 - g))``, in which nothing overflows and the order of species stays.
    """

    def __init__(self, outputs: Outputs, config: LabelConfig) -> None:
        """Keep the columns; they are no part of a checkpoint."""
        super().__init__()
        n = len(outputs.species)
        of = [n + taxon if taxon >= 0 else own for own, taxon in enumerate(outputs.taxon_of)]
        self.register_buffer("columns", torch.tensor(of, dtype=torch.int64), persistent=False)
        self._n, self._share = n, config.taxon_share if outputs.taxa else 0.0
        self._power = config.nocall_power if outputs.has_nocall else 0.0

    def forward(self, logits: Logits) -> Logits:
        """A network's logits in training -> those of the species."""
        return Logits(self._merged(logits.clip), None if logits.frames is None else self._merged(logits.frames))

    def _merged(self, logits: torch.Tensor) -> torch.Tensor:
        species = logits[..., : self._n]
        if self._share:
            columns: torch.Tensor = self.columns  # type: ignore[assignment]
            species = species * (1 - self._share) + logits.index_select(-1, columns) * self._share
        if not self._power:
            return species
        cost = self._power * functional.softplus(logits[..., -1:])  # -log g
        half = torch.tanh(cost / 2)  # 1 - g = 2 half / (1 + half), without a difference of nearly equal numbers
        absent = torch.log((2 * half / (1 + half)).clamp(min=_LEAST))
        return -cost - absent - functional.softplus(-species - absent)


def attach(model: torch.nn.Module, outputs: Outputs, config: LabelConfig) -> torch.nn.Module:
    """Let a network answer with the logits of its species alone when it is not in training; returns it."""
    if len(outputs.names) > len(outputs.species):
        assert isinstance(model, Network)  # all families are
        model.merge = Merge(outputs, config)
    return model
