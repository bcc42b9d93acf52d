"""Background: a folder of sound files -> random windows of them, float32 [samples], to be mixed into training windows.

A file whose header cannot be read is reported and left out. One that breaks later gives silence, which changes nothing
in the mix; the random numbers that follow are the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.audio.find import find_recordings
from birdinfer.audio.stream import probe
from birdinfer.audio.windows import read_window
from birdinfer.config import InputConfig
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError
from birdinfer.typing import Float32


class Background(NamedTuple):
    """What there is to mix in."""

    files: tuple[Path, ...] = ()
    """Sorted; those whose header can be read."""
    failed: tuple[str, ...] = ()
    """The others, and why, a line each."""


def find_background(folder: str, data_dir: Path) -> Background:
    """The sound files to mix in; none if ``folder`` is "". It is looked for here, then in ``data_dir``.

    Raises:
        ConfigError: there is no such folder, or no sound in it that can be decoded.
    """
    if not folder:
        return Background()
    found = next((place for place in (Path(folder), data_dir / folder) if place.is_dir()), None)
    if found is None:
        raise ConfigError(
            "augment.background_dir",
            f"{folder!r} is no folder, neither here nor in {data_dir}",
            'name one with --set augment.background_dir=DIR, or "" for no background',
        )
    files = tuple(find_recordings([found]).names)
    reasons = {path: _unreadable(path) for path in files}
    failed = tuple(f"{path} ({reason})" for path, reason in reasons.items() if reason)
    if len(failed) == len(files):
        what = f"{found} holds no sound files" + (f" that can be decoded: {failed[0]}" if failed else "")
        raise ConfigError("augment.background_dir", what)
    return Background(tuple(path for path, reason in reasons.items() if not reason), failed)


def _unreadable(path: Path) -> str:
    try:
        probe(path)
    except (AudioError, InputNotFoundError) as error:
        return error.what
    return ""


def random_background(files: Sequence[Path], input_config: InputConfig, rng: np.random.Generator) -> Float32:
    """A window of one of the files, from anywhere within it; zeros where the file cannot be decoded.

    Returns:
        Float32 [margin + window + margin].
    """
    path = files[int(rng.integers(len(files)))]
    place = rng.random()
    try:
        spare_seconds = max(0.0, probe(path).duration_seconds - input_config.window.window_seconds)
        return read_window(path, place * spare_seconds, input_config)
    except (AudioError, InputNotFoundError):
        return np.zeros(input_config.window_samples + 2 * input_config.margin_samples, np.float32)
