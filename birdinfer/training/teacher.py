"""Distillation (Hinton et al. 2015): a batch and a network's answer to it -> how far that is from the teacher's answer.

The teacher is the checkpoint that a fold starts from, with the activations it was trained with. It hears the very
inputs of the learner, augmented as they are, and never changes, so that a resumed run needs nothing but its file.
"""

from pathlib import Path

import torch

from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.logits import Logits
from birdinfer.training.losses import bce, ce
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.learning import LossConfig
from birdinfer.training.start import of_fold
from birdinfer.training.targets import Targets


class Teacher:
    """A network that is listened to and not trained."""

    def __init__(self, path: Path, config: LossConfig, device: torch.device) -> None:
        """Load it.

        Args:
            path: a checkpoint of birdinfer.
            config: the learner's loss: whether answers are sigmoids or a softmax, and what frames count.
            device: where it listens.

        Raises:
            InputNotFoundError, CheckpointError: there is none, or it is damaged.
        """
        model = load_checkpoint(path).build_model().requires_grad_(False)
        self._model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._config = config

    def loss(self, inputs: torch.Tensor, answer: Logits, window_weights: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the learner's probabilities with the teacher's, a scalar.

        Args:
            inputs: what both hear: log-mels [windows, 1, rows, columns] or waveforms [windows, samples].
            answer: the learner's.
            window_weights: [windows], 0 for a window that could not be decoded.
        """
        with torch.no_grad():
            wanted: Logits = self._model(inputs)
        clip = self._distance(answer.clip, wanted.clip, window_weights)
        if answer.frames is None or wanted.frames is None:
            return clip
        per_frame = window_weights.repeat_interleave(answer.frames.shape[1])
        frames = self._distance(answer.frames.flatten(0, 1), wanted.frames.flatten(0, 1), per_frame)
        return (1 - self._config.frame_share) * clip + self._config.frame_share * frames

    def _distance(self, logits: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Logits of both, [rows, labels]; weights [rows]. Masked cells count, too: the teacher knows of them."""
        logits, wanted = logits.float(), wanted.float()
        soft = torch.softmax(wanted, dim=1) if self._config.activation == "softmax" else torch.sigmoid(wanted)
        targets = Targets(soft, torch.ones_like(soft), weights)
        compare = ce if self._config.activation == "softmax" else bce
        return compare(logits, targets, torch.ones(soft.shape[1], device=soft.device), self._config)


def teacher_of(recipe: Recipe, fold: int, device: torch.device) -> Teacher | None:
    """The teacher of a fold, if the recipe asks for one.

    Raises:
        InputNotFoundError, CheckpointError: there is none, or it is damaged.
    """
    if not recipe.loss.teacher_share:
        return None
    return Teacher(Path(of_fold(recipe.model, fold).weights), recipe.loss, device)
