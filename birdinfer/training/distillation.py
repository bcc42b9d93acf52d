"""Distillation (Hinton et al. 2015): a batch and a network's logits for it -> the distance from a teacher's logits.

The teacher is the checkpoint that a fold starts from (``loss.teacher_share``), with the activations it was trained
with. It gets the same augmented inputs as the network in training, and never changes, so that a resumed run needs
nothing but its file. Of a bundle as a teacher (the section ``distil``) see ``learner.py``.
"""

from pathlib import Path

import torch

from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.data.targets import Targets
from birdinfer.training.fold import model_of_fold
from birdinfer.training.losses import bce, ce
from birdinfer.training.models.base import Logits
from birdinfer.training.models.weight_files import weight_path
from birdinfer.training.recipe.schema import LossConfig, Recipe


class Teacher:
    """A network whose answers are learned from, and which is not trained."""

    def __init__(self, path: Path, config: LossConfig, device: torch.device) -> None:
        """Load it.

        Raises:
            InputNotFoundError, CheckpointError: there is none, or it is damaged.
        """
        model = load_checkpoint(path).build_model().requires_grad_(False)
        # All that it has learned, as the network in training gives it.
        model.merge = None  # type: ignore[assignment]
        self._model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._config = config

    def loss(self, inputs: torch.Tensor, answer: Logits, window_weights: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the learner's probabilities with the teacher's, a scalar.

        Args:
            inputs: of both networks: log-mels [windows, channels, rows, columns] or waveforms [windows, samples].
            answer: of the network in training.
            window_weights: [windows], 0 for a window that could not be decoded.
        """
        with torch.no_grad():
            reference: Logits = self._model(inputs)
        clip = self._distance(answer.clip, reference.clip, window_weights)
        if answer.frames is None or reference.frames is None:
            return clip
        per_frame = window_weights.repeat_interleave(answer.frames.shape[1])
        frames = self._distance(answer.frames.flatten(0, 1), reference.frames.flatten(0, 1), per_frame)
        return (1 - self._config.frame_share) * clip + self._config.frame_share * frames

    def _distance(self, logits: torch.Tensor, reference: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Logits of both, [rows, labels]; weights [rows]. Masked cells count, too: the teacher knows of them."""
        logits, reference = logits.float(), reference.float()
        soft = torch.softmax(reference, dim=1) if self._config.activation == "softmax" else torch.sigmoid(reference)
        targets = Targets(soft, torch.ones_like(soft), weights)
        compare = ce if self._config.activation == "softmax" else bce
        return compare(logits, targets, torch.ones(soft.shape[1], device=soft.device), self._config)


def build_teacher(recipe: Recipe, fold: int, device: torch.device) -> Teacher | None:
    """The teacher of a fold, if the recipe asks for one.

    Raises:
        InputNotFoundError, CheckpointError: there is none, or it is damaged.
    """
    if not recipe.loss.teacher_share:
        return None
    return Teacher(weight_path(Path(model_of_fold(recipe.model, fold).weights)), recipe.loss, device)
