"""Augmentation: what is done to training windows, and to nothing else.

Three stations, in the order of the sound's way: :class:`WaveformAugment` for one window float32 [samples] where it is
decoded, :func:`mix_waveforms` for a batch [windows, samples] on the device, :func:`augment_spectrograms` for its
pictures [windows, 1, rows, frames]. Shapes stay as they are; the last two change what is asked for along with what is
heard. What may be set stands in :mod:`birdinfer.training.recipe.augment`.

All chance comes from numpy generators that are handed in: a window is augmented alike whichever process decodes it,
whichever device computes it, and alike after a resume.
"""

from birdinfer.training.augment.background import find_background
from birdinfer.training.augment.mixing import mix_waveforms
from birdinfer.training.augment.spectrogram import augment_spectrograms
from birdinfer.training.augment.waveform import WaveformAugment

__all__ = ["WaveformAugment", "augment_spectrograms", "find_background", "mix_waveforms"]
