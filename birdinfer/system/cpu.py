"""The processor cores that this process may use, and one thread for each worker.

A pool of threads per session, BLAS and OpenMP on the same few cores is slower than none: they take turns waiting for
each other. Here parallelism comes from workers alone, and everything below a worker runs on the worker's thread.
"""

import functools
import os
import platform
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import threadpoolctl

_CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
_CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
_CPU_INFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Count the cores that this process may use: its affinity, limited by a container's quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota_cores() or cores))


def physical_cores() -> int:
    """Count a core once that runs two threads (Kaggle's 4 are 2), else as :func:`available_cores`; at least 1."""
    logical = available_cores()
    if not hasattr(os, "sched_getaffinity"):
        return logical
    siblings = [_CPU_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list" for cpu in os.sched_getaffinity(0)]
    try:
        return max(1, min(logical, len({path.read_text() for path in siblings})))
    except OSError:
        return logical


def processor_name() -> str:
    """Return the processor's kind, as its maker names it."""
    text = _CPU_INFO.read_text(errors="replace") if _CPU_INFO.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def _quota_cores() -> int | None:
    """Whole cores of a cgroup-v2 quota ("200000 100000" is 2), None without one."""
    try:
        quota, period = _CGROUP_CPU_MAX.read_text().split()
        return round(int(quota) / int(period))
    except (OSError, ValueError):
        return None


def one_thread_per_worker() -> AbstractContextManager[object]:
    """Let BLAS and OpenMP use the calling thread only, within a block.

    Without it a matrix product of one worker spreads over all cores: one front end went from 38 to 1,896 ms a minute.
    """
    limits: AbstractContextManager[object] = threadpoolctl.threadpool_limits(limits=1)
    return limits


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable within a block: some libraries can be configured in no other way."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@functools.cache
def has_vnni() -> bool:
    """Whether the processor adds four products of 8 bits in 32, so that none overflows.

    Numpy asks the processor itself, but not for AVX-VNNI, which the system's table has. An emulator shows the table of
    the machine beneath it: where that one has AVX-512 VNNI the table is not believed. One that has AVX-VNNI alone is
    believed, also under an emulator that has none.
    """
    core = "numpy._core" if find_spec("numpy._core") else "numpy.core"  # numpy before 2
    found: dict[str, bool] = import_module(f"{core}._multiarray_umath").__cpu_features__
    try:
        flags = _CPU_INFO.read_text()
    except OSError:
        flags = ""
    return found.get("AVX512VNNI", False) or ("avx_vnni" in flags and "avx512_vnni" not in flags)
