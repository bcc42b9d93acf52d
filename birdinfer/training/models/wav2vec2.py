"""wav2vec 2.0 (Baevski et al. 2020), base form: waveforms [windows, samples] -> steps of 20 ms [windows, steps, width].

Layers have the names of Hugging Face's checkpoints (``facebook/wav2vec2-base`` and what was fine-tuned from it), so
that their safetensors load by name. What pre-training adds (quantiser, projections, the embedding of masked steps) is
left out, and the weight normalisation of the position convolution is multiplied out (``weights.py``): the network
computes the same. Released models were trained on 16 kHz, each window with mean 0 and standard deviation 1.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

_DROPOUT = 0.1
"""In training, as in the paper's fine-tuning and in both public implementations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wav2Vec2Size:
    """How large a network is; the defaults are those of base, 94 million parameters."""

    convolutions: tuple[tuple[int, int, int], ...] = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
    """Channels, kernel, stride."""
    width: int = 768
    layers: int = 12
    heads: int = 12
    inner: int = 3072
    position_kernel: int = 128
    position_groups: int = 16


class Wav2Vec2(torch.nn.Module):
    """The encoder without a head."""

    def __init__(self, size: Wav2Vec2Size, layer_drop: float) -> None:
        """Build it, with random weights.

        Args:
            size: of its layers.
            layer_drop: how often a layer of the transformer is left out in training.
        """
        super().__init__()
        self.feature_extractor = _Extractor(size)
        self.feature_projection = _Projection(size.convolutions[-1][0], size.width)
        self.encoder = _Encoder(size, layer_drop)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """[windows, samples] -> [windows, steps, width]."""
        steps: torch.Tensor = self.feature_extractor(waveforms[:, None]).transpose(1, 2)
        encoded: torch.Tensor = self.encoder(self.feature_projection(steps))
        return encoded


class _Extractor(torch.nn.Module):
    def __init__(self, size: Wav2Vec2Size) -> None:
        super().__init__()
        before = [1, *(channels for channels, _, _ in size.convolutions)]
        self.conv_layers = torch.nn.ModuleList(
            _Convolution(n_before, *layer, has_norm=not index)
            for index, (n_before, layer) in enumerate(zip(before, size.convolutions, strict=False))
        )

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        for layer in self.conv_layers:
            sound = layer(sound)
        return sound


class _Convolution(torch.nn.Module):
    """Only the first one has a norm, of each channel over the whole window."""

    def __init__(self, n_before: int, channels: int, kernel: int, stride: int, *, has_norm: bool) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(n_before, channels, kernel, stride, bias=False)
        self.layer_norm = torch.nn.GroupNorm(channels, channels) if has_norm else torch.nn.Identity()

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return functional.gelu(self.layer_norm(self.conv(sound)))


class _Projection(torch.nn.Module):
    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.layer_norm = torch.nn.LayerNorm(n_features)
        self.projection = torch.nn.Linear(n_features, width)
        self.dropout = torch.nn.Dropout(_DROPOUT)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.dropout(self.projection(self.layer_norm(steps)))
        return projected


class _Encoder(torch.nn.Module):
    def __init__(self, size: Wav2Vec2Size, layer_drop: float) -> None:
        super().__init__()
        self.pos_conv_embed = _Position(size)
        self.layer_norm = torch.nn.LayerNorm(size.width)
        self.dropout = torch.nn.Dropout(_DROPOUT)
        self.layers = torch.nn.ModuleList(_Layer(size) for _ in range(size.layers))
        self._layer_drop = layer_drop

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        steps = self.dropout(self.layer_norm(steps + self.pos_conv_embed(steps)))
        for layer in self.layers:
            if not (self.training and self._layer_drop and torch.rand(()).item() < self._layer_drop):
                steps = layer(steps)
        return steps


class _Position(torch.nn.Module):
    """A wide convolution gives steps their place among neighbours."""

    def __init__(self, size: Wav2Vec2Size) -> None:
        super().__init__()
        kernel, groups = size.position_kernel, size.position_groups
        self.conv = torch.nn.Conv1d(size.width, size.width, kernel, padding=kernel // 2, groups=groups)
        self._n_surplus = 1 - kernel % 2  # an even kernel makes one step too many

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        placed = self.conv(steps.transpose(1, 2))
        return functional.gelu(placed[..., : placed.shape[-1] - self._n_surplus]).transpose(1, 2)


class _Layer(torch.nn.Module):
    """A block of the transformer, norms behind the sums."""

    def __init__(self, size: Wav2Vec2Size) -> None:
        super().__init__()
        self.attention = _Attention(size.width, size.heads)
        self.dropout = torch.nn.Dropout(_DROPOUT)
        self.layer_norm = torch.nn.LayerNorm(size.width)
        self.feed_forward = _FeedForward(size.width, size.inner)
        self.final_layer_norm = torch.nn.LayerNorm(size.width)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        steps = self.layer_norm(steps + self.dropout(self.attention(steps)))
        normed: torch.Tensor = self.final_layer_norm(steps + self.feed_forward(steps))
        return normed


class _Attention(torch.nn.Module):
    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (torch.nn.Linear(width, width) for _ in range(4))
        self._n_heads = n_heads

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        n_windows, n_steps, width = steps.shape
        by_head = (n_windows, n_steps, self._n_heads, width // self._n_heads)
        query, key, value = (
            projection(steps).view(by_head).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = _DROPOUT if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        out: torch.Tensor = self.out_proj(mixed.transpose(1, 2).reshape(n_windows, n_steps, width))
        return out


class _FeedForward(torch.nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.intermediate_dense = torch.nn.Linear(width, inner)
        self.output_dense = torch.nn.Linear(inner, width)
        self.dropout = torch.nn.Dropout(_DROPOUT)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        inner = self.dropout(functional.gelu(self.intermediate_dense(steps)))
        out: torch.Tensor = self.dropout(self.output_dense(inner))
        return out
