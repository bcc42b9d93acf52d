"""Where the windows of training clips begin: a clip, its source and ``data.windows`` -> seconds."""

import numpy as np

from birdinfer.audio.windows import count_windows
from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.sources import ClipSource
from birdinfer.training.recipe.schema import Recipe


class WindowPlan:
    """Where the windows of training clips begin, as ``data.windows`` says; random ones on a grid."""

    def __init__(self, recipe: Recipe, source: ClipSource) -> None:
        self._windows, self._source = recipe.data.windows, source
        self._step = recipe.distil.grid_seconds or source.input_config.window.window_seconds / 2

    def starts(self, clip: Clip) -> list[float]:
        """Seconds; of random windows evenly spaced from the first to the last, at most a step apart."""
        spare = spare_seconds(self._source, clip)
        fixed = fixed_starts(self._windows, self._source, clip)
        if fixed is not None:
            return fixed
        n_windows = int(np.ceil(spare / self._step - 1e-6)) + 1
        return [float(start) for start in np.linspace(0.0, spare, n_windows)]

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal windows of equal clips."""
        return self._windows, self._step, self._source.input_config.window.window_seconds


def fixed_starts(windows: str, source: ClipSource, clip: Clip) -> list[float] | None:
    """Where a clip's windows begin in seconds; None: anywhere, drawn each time."""
    if windows == "random":
        return None
    if windows == "first":
        return [0.0]
    if windows == "centre":
        return [spare_seconds(source, clip) / 2]
    window, rate = source.input_config.window, source.input_config.audio.sample_rate
    n_samples = round((window.window_seconds + spare_seconds(source, clip)) * rate)
    n_windows = count_windows(n_samples, source.input_config.window_samples, round(window.min_tail_seconds * rate))
    return [index * source.input_config.window_samples / rate for index in range(n_windows)]


def spare_seconds(source: ClipSource, clip: Clip) -> float:
    """By how much a clip exceeds a window; 0 if nothing is known of it, and reading it then says why."""
    try:
        return max(0.0, source.duration_seconds(clip) - source.input_config.window.window_seconds)
    except (AudioError, InputNotFoundError):
        return 0.0
