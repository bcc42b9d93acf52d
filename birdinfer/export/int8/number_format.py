"""What 8-bit numbers a graph is written in: whatever the processor that will run it multiplies natively.

ONNX Runtime takes the types as they stand in the graph, so a graph is written for a kind of processor.
"""

import platform
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from birdinfer.errors import ConfigError

Target = Literal["any-x86", "vnni", "arm"]
TARGETS: tuple[Target, ...] = get_args(Target)


class Int8Format(NamedTuple):
    """Types of activations and weights."""

    name: str
    is_activation_signed: bool
    largest_weight: int
    """Weights lie between this and its negative."""

    def activation_of(self, unsigned: np.uint8) -> np.uint8 | np.int8:
        """One of 256 values, counted from the least: in this format's own type."""
        return np.int8(int(unsigned) - 128) if self.is_activation_signed else unsigned


FORMATS: dict[Target, Int8Format] = {
    # Without VNNI an x86 adds two products of 8 bits in 16: 2 x 255 x 127 would saturate, 2 x 255 x 64 does not.
    "any-x86": Int8Format("U8S8, weights of 7 bits", is_activation_signed=False, largest_weight=64),
    "vnni": Int8Format("U8S8", is_activation_signed=False, largest_weight=127),
    # ARM multiplies signed numbers; on x86 S8S8 is twelve times slower in ONNX Runtime.
    "arm": Int8Format("S8S8", is_activation_signed=True, largest_weight=127),
}


def find_format(target: str) -> Int8Format:
    """The format for a kind of processor.

    Args:
        target: a name of :data:`TARGETS`, or ``native`` for this machine's.

    Raises:
        ConfigError: there is no such target.
    """
    if target == "native":
        return FORMATS[native_target()]
    for known in TARGETS:
        if known == target:
            return FORMATS[known]
    raise ConfigError("--target", f"{target!r} is not known", f"choose one of native, {', '.join(TARGETS)}")


def native_target() -> Target:
    """What this machine is."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "any-x86"  # safe on every x86
    return "vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "any-x86"
