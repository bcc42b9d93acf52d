"""Where training runs: which processor, in which precision, and what to do when its memory is not enough."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from birdinfer.errors import ConfigError
from birdinfer.training.recipe.schema import LoopConfig

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NO_MEMORY_ON_CPU = "can't allocate memory"


def choose_device(name: str, say: Callable[[str], None], local_rank: int = 0) -> torch.device:
    """``auto`` takes a GPU if there is one; which processor it became is said.

    Args:
        name: ``auto``, ``cpu`` or ``cuda``.
        say: takes a line.
        local_rank: which of the machine's processes this is, and so which of its GPUs it takes.

    Raises:
        ConfigError: a GPU is asked for and there is none, or not one for each process.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise ConfigError("--device", f"is {name!r}, allowed are auto, cpu, cuda")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError(
            "--device", f"is cuda, torch {torch.__version__} finds no GPU", "check nvidia-smi, or use cpu"
        )
    if name == "cpu" or not has_gpu:
        say(f"training on the CPU with {torch.get_num_threads()} threads")
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            "torchrun", f"starts process {local_rank} of a machine with {torch.cuda.device_count()} GPUs",
            "lower --nproc-per-node",
        )  # fmt: skip
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True  # all batches have one shape, so trying algorithms pays
    say(f"training on {torch.cuda.get_device_name(device)}")
    return device


def check_devices(devices: Sequence[str]) -> None:
    """Whether the GPUs that were named are there.

    Raises:
        ConfigError: one is not.
    """
    there = torch.cuda.device_count()
    gone = [name for name in devices if name.isdecimal() and int(name) >= there]
    if gone:
        which = f"GPUs 0 to {there - 1}" if there > 1 else "GPU 0" if there else "no GPU"
        raise ConfigError("--devices", f"names GPU {gone[0]}, torch {torch.__version__} finds {which}", "name others")


def precision_for(device: torch.device, amp: str) -> Precision:
    """What a recipe's ``loop.amp`` means on a device.

    Raises:
        ConfigError: fp16 is asked of a CPU, where the gradients of small numbers would vanish unscaled.
    """
    if amp == "off":
        return "fp32"
    if device.type != "cuda":
        if amp == "fp16":
            raise ConfigError("loop.amp", "is fp16, a CPU has none", "use bf16, auto or off")
        return "bf16" if amp == "bf16" else "fp32"
    if amp == "auto":
        # Emulated, as on V100, T4 and P100, bf16 is slower than float32.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if amp == "bf16" else "fp16"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context that a forward pass runs in."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, _DTYPES[precision])


def peak_gpu_mb(device: torch.device) -> float | None:
    """The most memory that tensors took on a GPU since the last call, in MB; None on a CPU."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 1e6
    torch.cuda.reset_peak_memory_stats(device)
    return round(peak, 1)


def rss_mb() -> float | None:
    """The memory that this process has now (its resident set), in MB; None where the system does not say it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


_NO_ALGORITHM = "deterministic"
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextlib.contextmanager
def deterministic(is_asked: bool) -> Iterator[None]:
    """Within it a GPU computes the same bits each time (``loop.deterministic``).

    Raises:
        ConfigError: torch knows no such algorithm for a step of the training.
    """
    if not is_asked:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault(_CUBLAS, ":4096:8")  # read when cuBLAS starts, at the first product on the GPU
    try:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False  # which algorithm is the fastest is another one each time
        yield
    except RuntimeError as error:
        if _NO_ALGORITHM not in str(error):
            raise
        raise ConfigError("loop.deterministic", f"is true: {_first_line(error)}", "set it to false") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@contextlib.contextmanager
def memory_advice(config: LoopConfig, n_processes: int = 1) -> Iterator[None]:
    """Turns an exhausted memory into one line that says which knob to turn.

    Raises:
        ConfigError: instead of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU's is no more than that
        if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY_ON_CPU not in str(error):
            raise
        own = config.batch_size // n_processes
        parts = next((n for n in range(config.accumulate + 1, own + 1) if not own % n), 0)
        at_once = own // config.accumulate
        split = (
            f"--set loop.accumulate={parts} computes each batch in {parts} parts with the same result but for BatchNorm"
        )
        raise ConfigError(
            "loop.batch_size",
            f"is {config.batch_size}, {at_once} windows at once do not fit into the memory ({_first_line(error)})",
            f"{split}; or lower loop.batch_size" if parts else "take a smaller backbone or window",
        ) from error


def _first_line(error: RuntimeError) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0][:150]
