"""What an export is to make besides fp32 graphs, and whom it tells what it does."""

from pathlib import Path
from typing import Literal, Protocol, get_args

import msgspec

from birdinfer.errors import ConfigError
from birdinfer.export.judging.gate import Limits

Quantizer = Literal["static", "dynamic", "nncf"]
QUANTIZERS: tuple[Quantizer, ...] = get_args(Quantizer)
"""Ways to INT8: by ONNX Runtime with ranges from real windows; with ranges of every call; by OpenVINO's NNCF."""

Half = Literal["fp16", "bf16"]
HALVES: tuple[Half, ...] = get_args(Half)


class ExportOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Variants of a run's graphs."""

    quantize: tuple[Quantizer, ...] = ()
    """INT8 graphs to try, in this order: the first that passes the gate is kept, the others are measured."""
    halves: tuple[Half, ...] = ()
    """Half the size: fp16 for a GPU, bf16 for OpenVINO on processors that have it."""
    with_frontend: bool = False
    """Graphs that take the waveform, for hosts without birdinfer."""
    fuse: bool = False
    """All members in one file, if that is faster."""
    soup: bool = False
    """One member with the mean of all folds' weights, instead of the folds."""
    measure: bool = False
    """Measure fp32 even where no variant is made: for the table."""
    limits: Limits = Limits()
    """What an INT8 graph must keep."""
    target: str = "any-x86"
    """Which processors the INT8 graph is for; see :mod:`birdinfer.export.int8.number_format`."""
    n_calibration_windows: int = 64
    n_tuning_windows: int = 96
    """Of training clips: ranges come from the first, settings are chosen on the others."""
    soundscapes: Path | None = None
    truth: Path | None = None
    """Labelled soundscapes to judge on, besides the fold's held-out clips."""

    def __post_init__(self) -> None:
        if (self.soundscapes is None) != (self.truth is None):
            raise ConfigError("--judge-on", "needs --truth, and --truth needs it", "name folder and table, or neither")

    @property
    def has_variants(self) -> bool:
        """Whether anything is to be held against fp32."""
        return bool(self.quantize or self.halves or self.measure)

    @property
    def needs_labels(self) -> bool:
        """Whether anything is judged on labelled windows."""
        return self.has_variants or self.soup


class Reporter(Protocol):
    """Is told what an export does."""

    def line(self, text: str) -> None:
        """Something is done, and this is what came of it."""

    def step(self, what: str, done: int, of: int) -> None:
        """How much is done of what is going on, and of how much."""


class Silent:
    """Tells nobody."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def step(self, what: str, done: int, of: int) -> None:
        """Say nothing."""
