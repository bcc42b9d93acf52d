"""A tiny network that has all that is awkward to quantise; and what ONNX Runtime says of its graphs."""

import numpy as np
import onnxruntime
import torch

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.export.onnx.torch_export import INPUT_NAME, OUTPUT_NAME
from birdinfer.training.models.base import Logits

SHAPE = (32, 53)
"""Bands and frames of a window."""
INPUT_CONFIG = FrontEndConfig(mel=MelConfig(resize=SHAPE))


class AwkwardNetwork(torch.nn.Module):
    """SiLU, squeeze-excite, ECA, scalars, odd sizes, an add."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.expand = torch.nn.Conv2d(16, 32, 1, bias=False)
        self.depthwise = torch.nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.squeeze = torch.nn.Conv2d(32, 8, 1)
        self.excite = torch.nn.Conv2d(8, 32, 1)
        self.project = torch.nn.Conv2d(32, 16, 1)
        self.shortcut = torch.nn.Conv2d(16, 32, 1)
        self.grouped = torch.nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=2, bias=False)
        self.eca = torch.nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.pool = torch.nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.last = torch.nn.Conv2d(32, 32, 1)
        self.head = torch.nn.Linear(32, 12)

    def forward(self, log_mel):
        silu = torch.nn.functional.silu
        stem = silu(self.stem(log_mel))
        hidden = silu(self.depthwise(silu(self.expand(stem))))
        gate = torch.sigmoid(self.excite(silu(self.squeeze(hidden.mean((2, 3), keepdim=True)))))
        block = silu(self.project(hidden * gate) + stem) * 0.8
        hidden = self.grouped(block)
        gate = torch.sigmoid(self.eca(hidden.mean((2, 3)).view(hidden.shape[0], 1, -1))).view(hidden.shape[0], -1, 1, 1)
        hidden = 0.7 * (2.0 * (hidden * gate.expand_as(hidden))) + self.shortcut(self.pool(block))
        return self.head(silu(self.last(silu(hidden))).mean((2, 3)))


class LogitsOf(torch.nn.Module):
    """A network that answers as birdinfer's own do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, log_mel):
        return Logits(self.model(log_mel))


def graph_logits(path, windows):
    """Logits [windows, 12] of a graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(windows)})[0]
