"""Augmentation: what is done to training windows, and to nothing else.

Three steps, in the order of the sound's way: :class:`WaveformAugment` for one window float32 [samples] where it is
decoded, :func:`mix_waveforms` for a batch [windows, samples] on the device, :func:`augment_spectrograms` for its
spectrograms [windows, 1, rows, frames]. Shapes stay as they are; the last two change targets along with inputs. The
settings are :class:`birdinfer.training.recipe.schema.AugmentConfig`.

All randomness comes from numpy generators passed as arguments: a window is augmented in the same way whichever process
decodes it, whichever device computes it, and after a resume.
"""

from birdinfer.training.augment.background import find_background
from birdinfer.training.augment.mixing import mix_waveforms
from birdinfer.training.augment.spectrogram import augment_spectrograms
from birdinfer.training.augment.waveform import WaveformAugment

__all__ = ["WaveformAugment", "augment_spectrograms", "find_background", "mix_waveforms"]
