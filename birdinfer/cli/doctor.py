"""``birdinfer doctor``: this machine and installation -> what is there, what is missing, and what installs it."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

import birdinfer
from birdinfer.version import __version__

Status = Literal["ok", "absent", "warning", "broken"]
"""absent: optional and not there; warning: works, but not as it should; broken: birdinfer cannot be used."""

EXIT_UNUSABLE = 3

CORE = ("numpy", "soundfile", "soxr", "msgspec", "filelock", "threadpoolctl", "typer", "rich")
EXTRAS = {
    "cpu": ("onnxruntime",),
    "gpu": ("onnxruntime-gpu",),
    "openvino": ("openvino",),
    "train": ("torch", "timm", "safetensors"),
    "export": ("onnx", "onnxscript", "onnxslim", "onnx-ir"),
    "tflite": ("tflite", "onnx", "onnx-ir"),
    "nncf": ("nncf",),
    "kaggle": ("kaggle",),
    "report": ("matplotlib",),
    "detect": ("pyarrow",),
    "scale": ("fsspec", "s3fs"),
    "ray": ("ray",),
    "pandas": ("pandas",),
    "tune": ("optuna",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow-skinny", "sqlalchemy", "alembic"),
    "neptune": ("neptune",),
}
"""The distributions of pyproject.toml; a test holds both together."""

ENGINES = ("onnxruntime", "onnxruntime-gpu", "openvino")
AUDIO_FORMATS = ("OGG", "FLAC", "WAV", "MP3")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# What the fast paths of ONNX Runtime and OpenVINO ask for: float, INT8 and bfloat16 products, on x86 and on ARM.
CPU_FEATURES = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 bf16", "amx_tile": "AMX",
    "asimd": "NEON", "asimddp": "dot product", "i8mm": "INT8 matrix product", "bf16": "bf16",
}  # fmt: skip

_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_INFO = Path("/proc/meminfo")
_CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
_COLOURS = {"ok": "green", "absent": "dim", "warning": "yellow", "broken": "red"}


class Check(NamedTuple):
    """One thing that was looked at."""

    group: str
    name: str
    status: Status
    found: str
    hint: str = ""  # the command or step that helps, "" if nothing needs help


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False) -> None:
    """Show what this machine and installation can do, and the command that installs what is missing.

    Exit code 0, or 3 if birdinfer cannot be used as it is.
    """
    checks = list(diagnose())
    usable = not any(check.status == "broken" for check in checks)
    if json:
        typer.echo(dumps({"usable": usable, "checks": [check._asdict() for check in checks]}))
    else:
        _print_checks(checks)
    if not usable:
        raise typer.Exit(EXIT_UNUSABLE)


def diagnose() -> Iterator[Check]:
    """Look at everything, group by group. Torch and its like are asked for their version, never imported."""
    for look in (check_packages, check_engines, check_machine, check_audio, check_demo_bundle, check_threads):
        try:
            yield from look()
        except ImportError as error:  # the missing package has its own line; what stands on it cannot be looked at
            group = look.__name__.removeprefix("check_").replace("_", " ")
            yield Check(group, "all", "broken", f"not looked at ({_line(error)})", "install the missing package first")


def check_packages() -> Iterator[Check]:
    """Python, birdinfer, what it needs and what it can use."""
    yield Check("packages", "python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Check("packages", "birdinfer", "ok", f"{__version__} ({Path(birdinfer.__file__).parent})")
    for name in CORE:
        yield _check_package(name, "broken", f"pip install {name}")
    # The two builds of ONNX Runtime share a folder: with one of them there, the other must not be advised.
    runtimes = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    for extra, names in EXTRAS.items():
        for name in names:
            unwanted = name.startswith("onnxruntime") and runtimes
            yield _check_package(name, "absent", "" if unwanted else f'pip install "birdinfer[{extra}]"')


def _check_package(name: str, if_missing: Status, hint: str) -> Check:
    version = _version(name)
    if version:
        return Check("packages", name, "ok", version)
    return Check("packages", name, if_missing, "not installed", hint)


def check_engines() -> Iterator[Check]:
    """Whether anything here can run a graph, and on what."""
    installed = [name for name in ENGINES if _version(name)]
    if not installed:
        yield Check("engines", "any", "warning", "no engine: nothing can be predicted", 'pip install "birdinfer[cpu]"')
    if {"onnxruntime", "onnxruntime-gpu"} <= set(installed):
        yield Check(
            "engines",
            "onnxruntime",
            "warning",
            "onnxruntime and onnxruntime-gpu are both installed: they overwrite each other's files",
            'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "birdinfer[gpu]" (or [cpu])',
        )
    if any(name.startswith("onnxruntime") for name in installed):
        yield _check_engine("ONNX Runtime", "onnxruntime", _onnxruntime)
    if "openvino" in installed:
        yield _check_engine("OpenVINO", "openvino", _openvino)
    from birdinfer.features.log_mel import front_end_name

    name = front_end_name()
    if name == "compiled":
        yield Check("engines", "log-mel", "ok", "compiled")
    else:
        hint = "install a C compiler (gcc or clang), then birdinfer again"
        yield Check("engines", "log-mel", "absent", f"{name}: works, but several times slower", hint)


def _check_engine(name: str, package: str, describe: Callable[[], str]) -> Check:
    try:
        return Check("engines", name, "ok", describe())
    except Exception as error:  # a broken binary wheel fails in many ways; a doctor reports, whatever it is
        hint = f"pip install --force-reinstall {package}"
        return Check("engines", name, "warning", f"cannot be used ({_line(error)})", hint)


def _onnxruntime() -> str:
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return f"runs on {', '.join(providers)}"


def _openvino() -> str:
    from birdinfer.inference.engines.openvino import has_bf16

    return f"computes in {'fp32, bf16, int8' if has_bf16() else 'fp32, int8 (this processor has no bf16)'}"


def check_machine() -> Iterator[Check]:
    """Cores, memory, processor and graphics card."""
    from birdinfer.system.cpu import available_cores

    cores, all_cores = available_cores(), os.cpu_count() or 1
    limited = f" of {all_cores} (affinity or container limit)" if cores < all_cores else ""
    yield Check("machine", "cores", "ok", f"{cores}{limited}")
    yield Check("machine", "memory", "ok", _memory())
    yield Check("machine", "processor", "ok", _processor_name())
    yield Check("machine", "fast paths", "ok", ", ".join(cpu_features()) or "none known")
    yield _check_gpu()
    yield from _check_torch_build()


def _check_gpu() -> Check:
    names = _gpu_names()
    if not names:
        return Check("machine", "GPU", "absent", "none found by nvidia-smi")
    if _version("onnxruntime-gpu"):
        return Check("machine", "GPU", "ok", names)
    hint = 'pip uninstall -y onnxruntime && pip install "birdinfer[gpu]"'
    return Check("machine", "GPU", "warning", f"{names}, not used for prediction", hint)


def _check_torch_build() -> Iterator[Check]:
    """Whether torch, where it is installed beside a graphics card, was built for it and for its driver."""
    built = _torch_cuda() if _gpu_names() else None
    if built is None:
        return
    driver = _driver_cuda()
    if not built:
        hint = "install the build of torch for CUDA: https://pytorch.org/get-started"
        yield Check("machine", "training", "warning", "torch is built for the CPU: it cannot use the GPU", hint)
    elif driver and int(built.partition(".")[0]) > int(driver.partition(".")[0]):
        what = f"torch is built for CUDA {built}, the driver knows up to {driver}"
        hint = f"update the driver, or install a build of torch for CUDA {driver.partition('.')[0]}"
        yield Check("machine", "training", "warning", what, hint)
    else:
        yield Check("machine", "training", "ok", f"torch is built for CUDA {built}, the driver knows {driver or '?'}")


def _torch_cuda() -> str | None:
    """The version of CUDA that torch is built for, "" for none; None without torch. Torch is not imported."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    cuda = re.search(r"^cuda\b.*= *'([\d.]+)'", _read(Path(found.origin).with_name("version.py")), re.MULTILINE)
    return cuda[1] if cuda else ""


def check_audio() -> Iterator[Check]:
    """Whether the sound library loads, and which formats it reads."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # soundfile raises OSError where its libsndfile is not found
        yield Check("audio", "libsndfile", "broken", _line(error), "pip install --force-reinstall soundfile")
        return
    yield Check("audio", "libsndfile", "ok", soundfile.__libsndfile_version__)
    known = soundfile.available_formats()
    missing = [name for name in AUDIO_FORMATS if name not in known]
    yield Check("audio", "reads", "ok", ", ".join(name for name in AUDIO_FORMATS if name in known))
    if missing:
        yield Check("audio", "cannot read", "warning", ", ".join(missing), "pip install --upgrade soundfile")


def check_demo_bundle() -> Iterator[Check]:
    """Whether the demo bundle is there and unharmed."""
    from birdinfer.errors import BirdinferError
    from birdinfer.inference.bundle import Bundle, demo_bundle_path

    try:
        bundle = Bundle.load(demo_bundle_path())
    except BirdinferError as error:
        yield Check("demo bundle", "demo", "warning", f"{error.where}: {error.what}", error.hint)
        return
    found = f"{len(bundle.manifest.members)} models, {len(bundle.labels)} species ({bundle.folder})"
    yield Check("demo bundle", "demo", "ok", found)


def check_threads() -> Iterator[Check]:
    """Environment variables that set thread pools: birdinfer runs one thread per worker and needs none of them."""
    for name in THREAD_VARIABLES:
        if (value := os.environ.get(name)) is None:
            continue
        if not value.isdecimal() or int(value) < 1:
            yield Check("threads", name, "warning", f"{value!r} is not a number of threads", f"unset {name}")
        elif int(value) > (os.cpu_count() or 1):
            yield Check("threads", name, "warning", f"{value}, more than there are cores", f"unset {name}")
        else:
            yield Check("threads", name, "ok", value)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _memory() -> str:
    """Memory in GB (10^9 bytes): all there is, a container's limit, what is free."""
    parts = []
    if hasattr(os, "sysconf"):
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.1f} GB")
    limit = _read(_CGROUP_MEMORY).strip()
    if limit.isdecimal():
        parts.append(f"container limit {int(limit) / 1e9:.1f} GB")
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _read(_MEMORY_INFO), re.MULTILINE)
    if available:
        parts.append(f"{int(available[1]) * 1024 / 1e9:.1f} GB available")
    return ", ".join(parts) or "unknown"


def _processor_name() -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", _read(_CPU_INFO), re.MULTILINE)
    return f"{named[1] if named else platform.processor() or 'unknown'} ({platform.machine()}, {platform.system()})"


def cpu_features() -> list[str]:
    """The features of CPU_FEATURES that this processor has, by the kernel's word; empty where it gives none."""
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read(_CPU_INFO), re.MULTILINE)
    flags = set(listed[1].split()) if listed else set()
    return [name for flag, name in CPU_FEATURES.items() if flag in flags]


def _gpu_names() -> str:
    found = _nvidia_smi("--query-gpu=name,memory.total", "--format=csv,noheader")
    return "; ".join(line.strip() for line in found.splitlines() if line.strip())


def _driver_cuda() -> str:
    """The newest version of CUDA that the graphics card's driver knows; "" if it does not say."""
    version = re.search(r"CUDA Version: *([\d.]+)", _nvidia_smi())
    return version[1] if version else ""


def _nvidia_smi(*options: str) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        return subprocess.run([program, *options], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _line(error: object) -> str:
    return " ".join(str(error).split())


def _print_checks(checks: list[Check]) -> None:
    from rich.markup import escape

    from birdinfer.cli.console import stdout

    console, width, group = stdout(), max(len(check.name) for check in checks), ""
    for check in checks:
        if check.group != group:
            group = check.group
            console.print(f"[bold]{group}[/]")
        hint = f"  [cyan]{escape(check.hint)}[/]" if check.hint else ""
        mark = f"[{_COLOURS[check.status]}]{check.status:<7}[/]"
        console.print(f"  {mark}  {escape(check.name):<{width}}  {escape(check.found)}{hint}")
    n = Counter(check.status for check in checks)
    if n["broken"]:
        console.print(f"[bold red]birdinfer cannot be used as it is: {n['broken']} broken[/]")
    elif n["warning"]:
        console.print(f"[bold yellow]birdinfer works, {n['warning']} warnings[/]")
    else:
        console.print("[bold green]all is well[/]")
