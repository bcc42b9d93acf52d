"""The front end of a graph that takes a spectrogram, as its user declares it: ``bundle adopt --frontend FILE``.

In: a TOML file. Out: :class:`~birdinfer.config.SpectrogramConfig`, with the axes that the graph has. No graph states
how its spectrogram is made.
"""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from birdinfer.config import SpectrogramConfig, WindowConfig
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError

LIBRARIES: dict[str, dict[str, Any]] = {
    "librosa": {},
    "torchaudio": {"scale": "htk", "filter_norm": "none", "padding": "reflect"},
}
"""Defaults of their mel spectrograms."""
_OWN = ("library", "sample_rate", "window_seconds", "min_tail_seconds")
_NEEDED = ("sample_rate", "window_seconds")


def read_front_end(path: Path) -> SpectrogramConfig:
    """Read a declared front end: ``sample_rate``, ``window_seconds``, ``library`` and the keys of the config.

    Raises:
        InputNotFoundError: there is no such file.
        ConfigError: it is no TOML, or a key or value is none that is known.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputNotFoundError(path, f"cannot be read ({error.strerror})", "name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"is no TOML ({error})") from error
    fields = [name for name in SpectrogramConfig.__struct_fields__ if name not in ("audio", "window")]
    for name in table:
        if name not in (*_OWN, *fields):
            near = difflib.get_close_matches(name, [*_OWN, *fields], n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join((*_OWN, *fields))}"
            raise ConfigError(path, f"{name!r} is not known of a front end", hint)
    if missing := [name for name in _NEEDED if name not in table]:
        raise ConfigError(path, f"lacks {' and '.join(missing)}", "these are the graph's input, in Hz and seconds")
    library = table.get("library", "librosa")
    if library not in LIBRARIES:
        raise ConfigError(path, f"library is {library!r}", f"known are {', '.join(LIBRARIES)}")
    own = {name: table.pop(name) for name in _OWN if name in table}
    try:
        window = {name: own[name] for name in ("window_seconds", "min_tail_seconds") if name in own}
        if isinstance(own["window_seconds"], int | float):
            window.setdefault("min_tail_seconds", min(WindowConfig().min_tail_seconds, own["window_seconds"]))
        nested = {"audio": {"sample_rate": own["sample_rate"]}, "window": window, **LIBRARIES[library], **table}
        return msgspec.convert(nested, SpectrogramConfig)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise ConfigError(path, str(error)) from error


def with_axes_of(config: SpectrogramConfig, shape: Sequence[int | None], path: Path) -> SpectrogramConfig:
    """Give a front end the axes of a graph's input [batch, ...]: channels, and which of bands and frames come first.

    BundleError if its picture has another size. ``path``: of the graph, for messages.
    """
    for channels in dict.fromkeys((config.channels, 1, 3, 0)):
        for is_frames_first in (config.is_frames_first, not config.is_frames_first):
            try:
                found = msgspec.structs.replace(config, channels=channels, is_frames_first=is_frames_first)
            except ValueError:  # means of three channels
                continue
            made = found.input_shape
            if len(shape) == len(made) + 1 and all(
                size in (None, own) for size, own in zip(shape[1:], made, strict=True)
            ):
                return found
    takes = f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
    what = f"takes {takes}, the declared front end makes {config.n_mels} bands x {config.n_frames} frames"
    hint = "see n_mels, hop_length, padding, frames and resize"
    raise BundleError(path, what if config.resize == (0, 0) else f"{what}, resized to {list(config.resize)}", hint)
