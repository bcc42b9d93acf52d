"""How many products one core computes in a second at most, by precision: sums in registers, without memory.

``peak.c`` is compiled where gcc is. A large product of matrices reaches less, and by how much depends on its size and
library: measured against that, a network of many small convolutions can reach more than all.
"""

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from birdinfer.inference.manifest import Precision

SOURCE = Path(__file__).with_name("peak.c")
ROUNDS, SECONDS = 5, 0.02
_STEPS = 200_000


class Kernel(NamedTuple):
    """A function of ``peak.c``."""

    precision: Precision
    needs: frozenset[str]
    """Flags of the processor, as /proc/cpuinfo names them."""
    products: int
    """Of a step."""


KERNELS = {
    "fp32_avx2": Kernel("fp32", frozenset({"avx2", "fma"}), 8),
    "fp32_avx512": Kernel("fp32", frozenset({"avx512f"}), 16),
    "bf16_avx512": Kernel("bf16", frozenset({"avx512_bf16"}), 32),
    "int8_avx2": Kernel("int8", frozenset({"avx2"}), 32),
    "int8_avx512": Kernel("int8", frozenset({"avx512bw"}), 64),
    "int8_vnni256": Kernel("int8", frozenset({"avx_vnni"}), 32),
    "int8_vnni512": Kernel("int8", frozenset({"avx512_vnni"}), 64),
}


@functools.cache
def _library() -> ctypes.CDLL | None:
    """``peak.c``, compiled; None without gcc or on another kind of processor."""
    if shutil.which("gcc") is None or not _flags() & {"avx2"}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peak.so"
        command = ["gcc", "-O3", "-shared", "-fPIC", "-o", str(path), str(SOURCE)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        return ctypes.CDLL(str(path))


@functools.cache
def _flags() -> frozenset[str]:
    """What the processor can; ``.ci/as_avx2.py`` answers, too."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


def measure_peaks() -> dict[Precision, float]:
    """10^9 products a second on this core, by precision; empty where they cannot be measured.

    The best of a few tries: a core that is shared for a moment computes less in a second of its time. Matrix units
    (AMX) have none here: they would be the peak of INT8 and bf16.
    """
    library = _library()
    best: dict[Precision, float] = {}
    for name, kernel in KERNELS.items():
        if library is None or not kernel.needs <= _flags() or ("amx_tile" in _flags() and kernel.precision != "fp32"):
            continue
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_long], ctypes.c_long
        for _ in range(ROUNDS):
            began, done = time.thread_time(), 0
            while time.thread_time() - began < SECONDS:
                done += _STEPS * function(_STEPS)
            rate = done * kernel.products / (time.thread_time() - began) / 1e9
            best[kernel.precision] = max(best.get(kernel.precision, 0.0), rate)
    return best
