"""Waveforms through augmentation, front end and network, on the device and in the precision of the run."""

from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import torch

from birdinfer.config import FrontEndConfig
from birdinfer.training.augment import augment_spectrograms, mix_waveforms
from birdinfer.training.data.dataset import Batch
from birdinfer.training.data.targets import Targets, with_nocall
from birdinfer.training.devices import autocast, precision_for
from birdinfer.training.distillation import Teacher
from birdinfer.training.learner import Taught, phase_of, teacher_loss, teacher_weights
from birdinfer.training.losses import build_loss, build_weight
from birdinfer.training.models.base import Logits
from birdinfer.training.models.log_mel import front_end_on
from birdinfer.training.recipe.schema import Recipe


class Augmented(NamedTuple):
    """Training windows on the device, augmented."""

    inputs: torch.Tensor
    """Log-mels [windows, channels, rows, columns], or waveforms [windows, samples]."""
    targets: Targets


class Forward:
    """Computes a batch's loss and logits; the network is an argument, as training and validation use different ones."""

    def __init__(
        self, recipe: Recipe, clips_per_label: list[int], device: torch.device, teacher: Teacher | None = None
    ) -> None:
        """Put the front end on the device.

        Args:
            recipe: decides all of it.
            clips_per_label: training clips of each column of the logits, [labels]; weighs the classes.
            device: where it happens.
            teacher: gives ``loss.teacher_share`` of the loss.

        Raises:
            ConfigError: loss or precision are unknown, or the device has none such.
        """
        input_config = recipe.input_config
        self._frontend = front_end_on(device, input_config) if isinstance(input_config, FrontEndConfig) else None
        self._augment, self._device, self._learns_nocall = recipe.augment, device, recipe.labels.nocall
        self._loss_of = build_loss(recipe.loss, clips_per_label)
        self._weight_of = build_weight(recipe.loss, clips_per_label)
        self._teacher, self._teacher_share = teacher, recipe.loss.teacher_share
        self._distil, self.phase = recipe.distil, phase_of(recipe.distil, 0)
        self.precision = precision_for(device, recipe.loop.amp)

    def begin(self, epoch: int) -> None:
        """Say which epoch, from 0, the following batches are of."""
        self.phase = phase_of(self._distil, epoch)

    def augment(self, batch: Batch, rng: np.random.Generator) -> Augmented:
        """A batch, or a part of one, as the network's input; ``rng`` decides how it is augmented."""
        waveforms, targets = self._to_device(batch)
        waveforms, targets = mix_waveforms(waveforms, targets, self._augment, rng)
        inputs = waveforms
        if self._frontend is not None:
            with autocast(self._device, self.precision):
                inputs, targets = augment_spectrograms(self._frontend(waveforms), targets, self._augment, rng)
        return Augmented(inputs, with_nocall(targets) if self._learns_nocall else targets)

    def weights(self, part: Augmented) -> torch.Tensor:
        """What a part counts in the mean over its batch: float32 [2], for the loss and for the teacher."""
        has_targets = part.targets.teacher is not None
        taught = teacher_weights(part.targets) if has_targets else part.targets.window_weights
        return torch.stack([self._weight_of(part.targets), taught.sum()])

    def loss(self, model: torch.nn.Module, part: Augmented, shares: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar, or what a part adds to it.

        Args:
            model: the network.
            part: the batch or a part of it.
            shares: float32 [2], 1 for a whole batch: the part's :meth:`weights` of those of the batch.
        """
        with autocast(self._device, self.precision):
            answer: Logits | Taught = model(part.inputs)
            if isinstance(answer, Taught):
                labels = shares[0] * self._loss_of(answer.logits, part.targets)
                distance = shares[1] * teacher_loss(answer, part.targets, self._distil)
                return self.phase.labels * labels + self.phase.teacher * distance
            loss = shares[0] * self._loss_of(answer, part.targets)
            if self._teacher is None:
                return loss
            distance = shares[1] * self._teacher.loss(part.inputs, answer, part.targets.window_weights)
            return (1 - self._teacher_share) * loss + self._teacher_share * distance

    def logits(self, model: torch.nn.Module, waveforms: torch.Tensor) -> Logits:
        """Compute logits of windows [windows, samples], without augmentation."""
        waveforms = waveforms.to(self._device, non_blocking=True)
        with autocast(self._device, self.precision):
            logits: Logits = model(waveforms if self._frontend is None else self._frontend(waveforms))
        return logits

    def _to_device(self, batch: Batch) -> tuple[torch.Tensor, Targets]:
        targets = batch.targets.each(lambda tensor: tensor.to(self._device, non_blocking=True))
        return batch.waveforms.to(self._device, non_blocking=True), targets


def split_batch(batch: Batch, n_parts: int) -> Iterator[Batch]:
    """The batch in equal parts, one after another."""
    size = len(batch.waveforms) // n_parts
    for begin in range(0, size * n_parts, size):
        own = slice(begin, begin + size)
        yield Batch(batch.waveforms[own], batch.targets.each(itemgetter(own)), ())
