"""Heads over the windows of a file: a recurrent network (GRU) or attention, fitted to labelled soundscapes.

    embedding -> Linear, LayerNorm, GELU, dropout -> + position + site + hour -> GRU or attention
              -> cosine to a point for each species x temperature + bias -> mixed with the encoder's own logit by a gate

In: embeddings of windows in the order of their files, with site and hour (:mod:`birdinfer.inference.sequence`), and
their truth. Out: logits [sequences, windows, species]. The gate is one number for each species that the encoder scores
itself. Of circular shifts of a sequence by 0, 1 and 2 windows the weighted mean counts: the network then depends less
on where a sequence begins. The design is that of several leading teams of BirdCLEF 2026.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, gelu, normalize, softplus

from birdinfer.errors import MetadataError
from birdinfer.heads.fitting import NEVER, descend, seeded
from birdinfer.heads.labels import LabelledWindows
from birdinfer.heads.validation import Predict
from birdinfer.inference.activation import activate
from birdinfer.inference.embeddings import Embeddings
from birdinfer.inference.sequence import UNKNOWN_HOUR, sequence_input, site_and_hours, spans
from birdinfer.tables.recording_names import parse_name
from birdinfer.typing import Bool, Float32, Index

SequenceKind = Literal["gru", "attention"]
WIDTH = 128
_DROPOUT = 0.15
_HEADS = 4
_UNKNOWN_SHARE = 0.25
"""Of the sequences in training whose site and hour are left out, so that those of an unknown site are known."""
_MOST_WEIGHT = 25.0
"""Of a present cell: a species that is in one window of a thousand does not count a thousand times."""
_EPOCHS, _LEAST_STEPS, _BATCH, _RATE, _DECAY = 40, 200, 16, 1e-3, 1e-3
_SHIFTS = (0, 1, -1, 2, -2)
_SHIFT_WEIGHTS = (0.4, 0.2, 0.2, 0.1, 0.1)


class OwnLogits(NamedTuple):
    """What the encoder says itself of the species that it knows: a linear layer of its embedding."""

    weights: Float32
    """[numbers, known species]."""
    offsets: Float32
    columns: Index
    """Of the head's species."""


class SequenceNetwork(nn.Module):
    """The network: [sequences, windows, numbers + 2] -> logits [sequences, windows, species]."""

    mean: torch.Tensor
    scale: torch.Tensor
    own_weights: torch.Tensor
    own_offsets: torch.Tensor
    has_own: torch.Tensor

    def __init__(
        self, kind: SequenceKind, embeddings: Float32, n_windows: int, n_sites: int, n_species: int, own: OwnLogits
    ) -> None:
        """Make one for embeddings [windows, numbers] like these; weights are drawn by torch's generator."""
        super().__init__()
        n_numbers = embeddings.shape[1]
        spread = embeddings.std(axis=0)
        is_dead = spread <= 1e-6 * max(float(spread.max()), 1e-30)
        self.register_buffer("mean", torch.from_numpy(embeddings.mean(axis=0)))
        self.register_buffer("scale", torch.from_numpy(np.where(is_dead, 0, 1 / np.where(is_dead, 1, spread))))
        full = np.zeros((n_numbers + 1, n_species), np.float32)
        full[:-1, own.columns], full[-1, own.columns] = own.weights, own.offsets
        has_own = np.isin(np.arange(n_species), own.columns).astype(np.float32)
        self.register_buffer("own_weights", torch.from_numpy(full[:-1].copy()))
        self.register_buffer("own_offsets", torch.from_numpy(full[-1].copy()))
        self.register_buffer("has_own", torch.from_numpy(has_own))
        self.n_numbers = n_numbers
        self.project = nn.Sequential(nn.Linear(n_numbers, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Dropout(_DROPOUT))
        self.position = nn.Parameter(torch.randn(n_windows, WIDTH) * 0.02)
        self.site = nn.Embedding(n_sites + 1, WIDTH)
        self.hour = nn.Embedding(UNKNOWN_HOUR + 1, WIDTH)
        for table in (self.site, self.hour):
            nn.init.normal_(table.weight, std=0.02)
        self.mix: nn.Module = _Recurrent() if kind == "gru" else _Attention()
        self.points = nn.Parameter(torch.randn(n_species, WIDTH) * 0.1)
        self.temperature = nn.Parameter(torch.tensor(5.0))
        self.bias = nn.Parameter(torch.zeros(n_species))
        self.gate = nn.Parameter(torch.zeros(n_species))
        self.own_scale = nn.Parameter(torch.ones(n_species))
        self.own_shift = nn.Parameter(torch.zeros(n_species))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the logits."""
        embeddings, site, hour = inputs[..., : self.n_numbers], inputs[..., -2], inputs[..., -1]
        if self.training:
            is_known = torch.rand(len(inputs), 1) >= _UNKNOWN_SHARE
            site, hour = site * is_known, torch.where(is_known, hour, UNKNOWN_HOUR)
        hidden = self.project((embeddings - self.mean) * self.scale)
        hidden = hidden + self.position + self.site(site.long()) + self.hour(hour.long())
        hidden = self.mix(hidden)
        cosine = normalize(hidden, dim=-1) @ normalize(self.points, dim=-1).T
        logits = cosine * softplus(self.temperature) + self.bias
        own = (embeddings @ self.own_weights + self.own_offsets) * self.own_scale + self.own_shift
        share = torch.sigmoid(self.gate) * self.has_own
        mixed: torch.Tensor = share * own + (1 - share) * logits
        return mixed


class _Recurrent(nn.Module):
    """A bidirectional GRU beside what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(hidden + self.dropout(self.gru(hidden)[0]))
        return normed


class _Attention(nn.Module):
    """A layer of self-attention and one of a small network, each beside what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.first_norm, self.second_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        per_head = self.queries_keys_values(hidden).unflatten(-1, (3, _HEADS, WIDTH // _HEADS)).permute(2, 0, 3, 1, 4)
        queries, keys, values = per_head[0], per_head[1], per_head[2]
        weights = torch.softmax(queries @ keys.transpose(-1, -2) / math.sqrt(WIDTH // _HEADS), dim=-1)
        seen = (weights @ values).transpose(1, 2).flatten(2)
        hidden = self.first_norm(hidden + self.dropout(self.out(seen)))
        normed: torch.Tensor = self.second_norm(hidden + self.dropout(self.outer(gelu(self.inner(hidden)))))
        return normed


class Shifted(nn.Module):
    """The mean of a network over circular shifts of its sequence: what a bundle holds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute logits [1, windows, species] of one sequence [1, windows, numbers + 2]."""
        found = self.network(torch.cat([inputs.roll(shift, 1) for shift in _SHIFTS]))
        rolled = [
            weight * found[index : index + 1].roll(-shift, 1)
            for index, (shift, weight) in enumerate(zip(_SHIFTS, _SHIFT_WEIGHTS, strict=True))
        ]
        return torch.stack(rolled).sum(dim=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """The labelled windows of a recording, in order."""

    windows: Index
    """Of the labelled ones."""
    inputs: Float32
    """[windows, numbers + 2]: embeddings, site, hour."""


class SequenceLearner:
    """Fits networks over the windows of files."""

    strengths = (1.0,)

    def __init__(
        self, kind: SequenceKind, embeddings: Embeddings, labelled: LabelledWindows, own: OwnLogits | None,
        *, n_windows: int, seed: int,
    ) -> None:  # fmt: skip
        """Sort labelled windows into files; MetadataError if these are not whole recordings."""
        if labelled.unit == "review":
            what = "reviews do not say what is in the windows around them"
            raise MetadataError("the labels", what, "take a table of recordings or soundscapes, or another --kind")
        self.kind, self.n_windows, self._seed = kind, n_windows, seed
        self.labelled, self.embeddings = labelled, embeddings
        n_numbers = embeddings.values.shape[1]
        nothing = OwnLogits(np.zeros((n_numbers, 0), np.float32), np.zeros(0, np.float32), np.zeros(0, np.intp))
        self._own = own or nothing
        names = [embeddings.recordings[window] for window in labelled.windows]
        found = (parse_name(name).site for name in dict.fromkeys(names))
        self.sites = tuple(sorted({site for site in found if site is not None}))
        self.files = _files(embeddings, labelled, names, self.sites)

    def fit(self, windows: Bool) -> list[Predict]:
        """Fit a network to some of the labelled windows [n]."""
        network = self.network(windows)
        return [lambda asked: self._predict(network, asked)]

    def network(self, windows: Bool) -> Shifted:
        """Fit a network to some of the labelled windows [n], and let it average shifts."""
        inputs, truth = self._sequences(windows)
        cells = truth[np.isfinite(truth).all(axis=2)] if np.isnan(truth).any() else truth.reshape(-1, truth.shape[2])
        n_present = (cells == 1).sum(axis=0)
        pull = np.clip((len(cells) - n_present) / np.maximum(n_present, 1), 1, _MOST_WEIGHT).astype(np.float32)
        given, target = torch.from_numpy(inputs), torch.from_numpy(np.nan_to_num(truth))
        known, weight = torch.from_numpy(np.isfinite(truth)), torch.from_numpy(pull)
        with seeded(self._seed):
            flat = inputs[..., :-2].reshape(-1, inputs.shape[2] - 2)
            network = SequenceNetwork(self.kind, flat, self.n_windows, len(self.sites), truth.shape[2], self._own)

            def cost(rows: torch.Tensor) -> torch.Tensor:
                cells = binary_cross_entropy_with_logits(
                    network(given[rows]), target[rows], pos_weight=weight, reduction="none"
                )
                return cells[known[rows]].mean()

            n_steps = max(_LEAST_STEPS, _EPOCHS * -(-len(inputs) // _BATCH))
            descend(network, cost, len(inputs), n_steps=n_steps, batch=_BATCH, rate=_RATE, decay=_DECAY)
        _correct_prior(network, pull, n_present)
        return Shifted(network).eval()

    def _sequences(self, windows: Bool) -> tuple[Float32, Float32]:
        """Cut the files into sequences: inputs [n, windows, numbers + 2] and truth [n, windows, species]."""
        inputs, truth = [], []
        for file in self.files:
            kept = windows[file.windows]
            if not kept.any():
                continue
            own, rows = file.inputs[kept], self.labelled.truth[file.windows[kept]]
            for span in spans(len(own), self.n_windows):
                at = np.arange(span.start, span.start + self.n_windows) % len(own)
                inputs.append(own[at])
                truth.append(rows[at])
        return np.stack(inputs), np.stack(truth)

    def _predict(self, network: Shifted, asked: Bool) -> Float32:
        found = np.zeros((len(asked), self.labelled.truth.shape[1]), np.float32)
        for file in self.files:
            if asked[file.windows].any():
                found[file.windows] = predict_file(network, file.inputs, self.n_windows)
        return found[asked]


def predict_file(network: Shifted, inputs: Float32, n_windows: int) -> Float32:
    """Predict the windows of a file as a bundle does: inputs [windows, numbers + 2] -> probabilities."""
    found = []
    for span in spans(len(inputs), n_windows):
        at = np.arange(span.start, span.start + n_windows) % len(inputs)
        with torch.no_grad():
            logits = network(torch.from_numpy(inputs[at][np.newaxis]))[0].numpy()
        found.append(logits[span.begin - span.start : span.end - span.start])
    return activate(np.concatenate(found), "sigmoid")


def _files(embeddings: Embeddings, labelled: LabelledWindows, names: Sequence[str], sites: Sequence[str]) -> list[File]:
    middles = (embeddings.start_seconds + embeddings.end_seconds)[labelled.windows] / 2
    files = []
    of_name: dict[str, list[int]] = {}
    for window, name in enumerate(names):
        of_name.setdefault(name, []).append(window)
    for name, found in of_name.items():
        windows = np.array(found, np.intp)
        windows = windows[np.argsort(middles[windows], kind="stable")]
        site, hours = site_and_hours(name, sites, middles[windows].tolist())
        values = embeddings.values[labelled.windows[windows]].astype(np.float32)
        inputs = sequence_input(values, np.full(len(values), site), np.array(hours), 0, len(values))
        files.append(File(windows=windows, inputs=inputs))
    return files


def _correct_prior(network: SequenceNetwork, pull: Float32, n_present: Index) -> None:
    """Take the mean weight of present cells off all logits: probabilities of a usable size, in the same order."""
    with torch.no_grad():
        shift = float(np.log(pull[n_present > 0]).mean()) if (n_present > 0).any() else 0.0
        network.bias.sub_(shift)
        network.own_shift.sub_(shift)
        never = torch.from_numpy(n_present == 0)
        network.bias[never] = NEVER
        network.points[never] = 0
        network.gate[never] = NEVER
