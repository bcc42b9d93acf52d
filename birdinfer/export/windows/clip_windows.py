"""Windows of clips, cut where they are needed: a place in a clip -> its sound, and what a model takes of it.

In: clips of a run's folder, of which only name and label are known. Out: mono float32 [samples] with margins, as
training hears them, and log-mel [1, 1, rows, columns] or waveforms [1, samples], float32, as a graph takes them.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer import mel
from birdinfer.audio import probe
from birdinfer.config import FrontEndConfig, Hearing
from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.clips.sources import DecodedSource
from birdinfer.training.recipe import Recipe

Float32 = npt.NDArray[np.float32]


class Place(NamedTuple):
    """Where a window lies."""

    clip: Clip
    start_seconds: float


class ClipWindows:
    """Cuts windows out of clips' files; holds nothing."""

    def __init__(self, recipe: Recipe) -> None:
        """Hear clips as the recipe's model does, and of each no more than ``data.max_seconds``."""
        self.hearing: Hearing = recipe.hearing
        self._source = DecodedSource(recipe.hearing, recipe.data.max_seconds)

    def measured(self, clip: Clip) -> Clip:
        """The clip with the duration that its header claims, as far as it may be heard.

        Raises:
            InputNotFoundError: the file is gone.
            AudioError: it is not sound.
        """
        return clip._replace(duration_seconds=probe(clip.path).duration_seconds)

    def heard_seconds(self, clip: Clip) -> float:
        """How much of a measured clip may be heard."""
        return self._source.duration_seconds(clip)

    def spare_seconds(self, clip: Clip) -> float:
        """By how much a measured clip exceeds a window."""
        return max(0.0, self.heard_seconds(clip) - self.hearing.window.window_seconds)

    def samples(self, place: Place) -> Float32:
        """A window with its margins [samples].

        Raises:
            InputNotFoundError: the file is gone.
            AudioError: it cannot be decoded, or holds no sound there.
        """
        return self._source.window(place.clip, place.start_seconds)

    def heard(self, place: Place) -> Float32:
        """What a model takes of a window [1, ...].

        Raises:
            InputNotFoundError: the file is gone.
            AudioError: it cannot be decoded, or holds no sound there.
        """
        return model_input(self.samples(place), self.hearing)


def model_input(samples: Float32, hearing: Hearing) -> Float32:
    """One window with its margins [samples] -> log-mel [1, 1, rows, columns], or the waveform itself [1, samples]."""
    if isinstance(hearing, FrontEndConfig):
        return mel.windows_to_input(samples, 1, hearing)
    return samples[np.newaxis]


def measured_clips(windows: ClipWindows, clips: Iterable[Clip]) -> tuple[list[Clip], list[str]]:
    """The clips whose header can be read, with their durations, and a line on each of the others."""
    there, failed = [], []
    for clip in clips:
        try:
            there.append(windows.measured(clip))
        except (AudioError, InputNotFoundError) as error:
            failed.append(f"{clip.filename} ({error.what})")
    return there, failed
