"""Background: a folder of sound files -> random windows of them, float32 [samples], to be mixed into training windows.

A file whose header cannot be read is told and left out. One that breaks within gives silence, which mixes to nothing;
chance goes on as if it had been heard.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.audio import AUDIO_SUFFIXES, probe
from birdinfer.config import Hearing
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError
from birdinfer.windows import read_window

Float32 = npt.NDArray[np.float32]


class Background(NamedTuple):
    """What there is to mix in."""

    files: tuple[Path, ...] = ()
    """Sorted; those whose header can be read."""
    failed: tuple[str, ...] = ()
    """The others, and why, a line each."""


def find_background(folder: str, data_dir: Path) -> Background:
    """The sound files to mix in; none if ``folder`` is "".

    Args:
        folder: ``augment.background_dir``, relative to the working folder or else to ``data_dir``.
        data_dir: the data's folder.

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
    files = tuple(path for path in sorted(found.rglob("*")) if path.suffix.lower() in AUDIO_SUFFIXES)
    reasons = {path: _unreadable(path) for path in files}
    failed = tuple(f"{path} ({reason})" for path, reason in reasons.items() if reason)
    if len(failed) == len(files):
        what = f"{found} holds no sound files" + (f" that can be decoded: {failed[0]}" if failed else "")
        raise ConfigError("augment.background_dir", what)
    return Background(tuple(path for path, reason in reasons.items() if not reason), failed)


def _unreadable(path: Path) -> str:
    """Why a file's header cannot be read, "" if it can."""
    try:
        probe(path)
    except (AudioError, InputNotFoundError) as error:
        return error.what
    return ""


def random_background(files: Sequence[Path], hearing: Hearing, rng: np.random.Generator) -> Float32:
    """A window of one of the files, from anywhere within it.

    Args:
        files: of :func:`find_background`, at least one.
        hearing: how long a window is, at which rate, with which margins.
        rng: decides which file and where.

    Returns:
        Float32 [margin + window + margin]; zeros where the file cannot be decoded.
    """
    path = files[int(rng.integers(len(files)))]
    place = rng.random()
    try:
        spare_seconds = max(0.0, probe(path).duration_seconds - hearing.window.window_seconds)
        return read_window(path, place * spare_seconds, hearing)
    except (AudioError, InputNotFoundError):
        return np.zeros(hearing.window_samples + 2 * hearing.margin_samples, np.float32)
