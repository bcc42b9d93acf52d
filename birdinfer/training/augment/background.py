"""Background: a folder of sound files -> random windows of them, float32 [samples], to be mixed into training windows.

A file that cannot be decoded gives silence, which mixes to nothing; chance goes on as if it had been heard.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer.audio import AUDIO_SUFFIXES, probe
from birdinfer.config import Hearing
from birdinfer.errors import AudioError, ConfigError, InputNotFoundError
from birdinfer.windows import read_window

Float32 = npt.NDArray[np.float32]


def find_background(folder: str, data_dir: Path) -> tuple[Path, ...]:
    """The sound files to mix in, sorted; none if ``folder`` is "".

    Args:
        folder: ``augment.background_dir``, relative to the working folder or else to ``data_dir``.
        data_dir: the data's folder.

    Raises:
        ConfigError: there is no such folder, or no sound in it.
    """
    if not folder:
        return ()
    found = next((place for place in (Path(folder), data_dir / folder) if place.is_dir()), None)
    if found is None:
        raise ConfigError(
            "augment.background_dir",
            f"{folder!r} is no folder, neither here nor in {data_dir}",
            'name one with --set augment.background_dir=DIR, or "" for no background',
        )
    files = tuple(path for path in sorted(found.rglob("*")) if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ConfigError("augment.background_dir", f"{found} holds no sound files")
    return files


def random_background(files: Sequence[Path], hearing: Hearing, rng: np.random.Generator) -> Float32:
    """A window of one of the files, from anywhere within it.

    Args:
        files: those of :func:`find_background`, at least one.
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
