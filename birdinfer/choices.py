"""What ``--engine auto`` found: trials and choice as data, kept on disk for each machine, bundle and set of versions.

A cache that cannot be read or written costs some seconds of measuring, never a run.
"""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

import msgspec

import birdinfer
from birdinfer.bundle import Bundle
from birdinfer.cores import available_cores
from birdinfer.engines import EnginePlan
from birdinfer.files import write_atomic


class Trial(msgspec.Struct, frozen=True):
    """One candidate, and what came of it."""

    plan: EnginePlan
    rows_per_second: float = 0.0
    """Rows of the whole ensemble, all lanes together, without decoding and front end."""
    max_probability_difference: float = 0.0
    mean_probability_difference: float = 0.0
    refused: str = ""
    """Why it cannot be taken, "" if it can."""


class Choice(msgspec.Struct, frozen=True):
    """The plan taken, and all that were tried."""

    plan: EnginePlan
    reason: str
    trials: tuple[Trial, ...]
    is_from_cache: bool = False


def cache_path() -> Path:
    """Where choices are kept: ``$XDG_CACHE_HOME/birdinfer/engines.json``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "birdinfer" / "engines.json"


def cache_key(bundle: Bundle, lanes: int | None, batch_size: int | None) -> str:
    """Changes with the machine, the versions of what runs, and the bundle."""
    facts = (
        platform.node(), _processor(), available_cores(), birdinfer.__version__,
        *(_version(name) for name in ("onnxruntime", "onnxruntime-gpu", "openvino", "numpy")),
        bundle.sha256(), lanes, batch_size,
    )  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """Model and features, as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def read_cache() -> dict[str, Choice]:
    """All that was chosen before; nothing where it cannot be read, for it can be measured again."""
    try:
        return msgspec.json.decode(cache_path().read_bytes(), type=dict[str, Choice])
    except (OSError, msgspec.DecodeError):
        return {}


def write_cache(choices: dict[str, Choice]) -> None:
    """Keep the last hundred; a cache that cannot be written costs a few seconds next time, not this run."""
    kept = dict(list(choices.items())[-100:])
    try:
        cache_path().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache_path(), msgspec.json.encode(kept))
    except OSError:
        return
