"""Where wheels come from: folders, the package index through pip, and birdinfer's own from its checkout.

Goes out: wheel files. pip runs as a process of its own and keeps what it has downloaded in its cache, so that a second
packing downloads nothing. It fetches what it is told to, and not what that needs: needs it would judge by the Python it
runs in, not by Kaggle's, and it would bring what Kaggle has.
"""

import importlib.util
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import birdinfer
from birdinfer.errors import ConfigError, InputNotFoundError, OutputError
from birdinfer.kaggle.image import Image
from birdinfer.kaggle.wheels import Wheel, read_wheel

_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
"""What projects publish for; pip counts manylinux2010 and manylinux1 to manylinux2014."""
_MINUTES = 15
_SOURCES = ("birdinfer", "exports/demo", "train/slurm")
_SOURCE_FILES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
_KERNEL_SOURCE = "birdinfer/kernels/log_mel.c"


def wheels_in(folders: Sequence[Path]) -> list[Wheel]:
    """All wheels of some folders, their sub-folders left out.

    Raises:
        InputNotFoundError: a folder is not there.
        ConfigError: a wheel is damaged.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputNotFoundError(folder, "no such folder of wheels", "name one, or let --download fetch them")
    return [read_wheel(path) for folder in folders for path in sorted(folder.glob("*.whl"))]


def download_command(requirements: Sequence[str], into: Path, image: Image) -> list[str]:
    """The command that gets wheels for Kaggle's Python, whatever Python this is, and all that they need."""
    platforms = [f"--platform={name}_{image.machine}" for name in _PLATFORMS]
    return [
        *(sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--implementation=cp"),
        *(f"--python-version={image.python_minor}", *platforms, f"--dest={into}", *requirements),
    ]


def download(requirements: Sequence[str], into: Path, image: Image) -> str:
    """Have pip fetch these wheels alone into a folder.

    Returns:
        What pip said where it failed; "" where all is there. What came before the failure stays.
    """
    alone = ("--no-deps", "--quiet", "--disable-pip-version-check")
    return _failure(_run([*download_command(requirements, into, image), *alone]))


def checkout() -> Path | None:
    """The checkout that this birdinfer runs from; None if it was installed from a wheel."""
    root = Path(birdinfer.__file__).parents[1]
    return root if all((root / name).is_file() for name in ("pyproject.toml", "hatch_build.py")) else None


def build(root: Path, into: Path, image: Image) -> Wheel:
    """Build birdinfer's own wheel from a copy of its checkout, which is left as it is.

    Elsewhere than on Kaggle's kind of machine the front end's kernel would not load there: without its source the wheel
    becomes a pure one, and numpy does the kernel's work.

    Args:
        root: the checkout.
        into: an empty folder; the wheel and what it is built of are put there.
        image: Kaggle's Python.

    Raises:
        OutputError: the build fails.
    """
    copy = _copied(root, into / "source")
    if (platform.system(), platform.machine()) != ("Linux", image.machine):
        (copy / _KERNEL_SOURCE).unlink()
    # Without isolation nothing is downloaded; hatchling has to be there for that.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    problem = _failure(_run([*command, *isolation, f"--wheel-dir={into}", str(copy)]))
    built = sorted(into.glob("birdinfer-*.whl"))
    if problem or not built:
        raise OutputError(
            "birdinfer's wheel", problem or "pip made none", f"try it yourself: pip wheel --no-deps {root}"
        )
    return read_wheel(built[0])


def _copied(root: Path, copy: Path) -> Path:
    """What a wheel is made of, in another place: the build compiles into the package's folder."""
    for name in _SOURCES:
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in _SOURCE_FILES:
        shutil.copy(root / name, copy / name)
    return copy


def shown(command: Sequence[str]) -> str:
    """A command as a user types it: with ``python`` for this very interpreter."""
    return shlex.join(["python" if word == sys.executable else word for word in command])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60 * _MINUTES, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            "pip", f"was not done after {_MINUTES} minutes", "see whether its index can be reached"
        ) from error


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    """The last word of pip of an error, on one line; "" where it did not fail."""
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [f"pip ended with {done.returncode}"])[-1]
