"""Build hook: compile the front end's C kernel to ``features/kernels/log_mel.so``, for wheels and editable installs.

Needs a C compiler and nothing else. Without one, if it fails, or with BIRDINFER_PURE_WHEEL=1, the wheel is a
pure one and numpy does the work.
"""

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILERS = ("cc", "gcc", "clang")

# No -march: the wheel may travel to another processor, and the kernel asks at run time what the processor can do.
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-ffp-contract=fast", "-Wno-psabi")


class KernelHook(BuildHookInterface[Any]):
    """Compiles the kernel before files are collected, and names the wheel after the platform it then fits."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the library to the build (``version`` is "standard" or "editable"); and the recipes."""
        if version == "standard":
            recipes = sorted((Path(self.root) / "train").glob("*.toml"))
            build_data["force_include"].update({str(path): f"birdinfer/recipes/{path.name}" for path in recipes})
        if os.environ.get("BIRDINFER_PURE_WHEEL"):
            return
        try:
            library = compile_kernel(Path(self.root) / "birdinfer" / "features" / "kernels")
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"log_mel.c: not compiled, numpy will do its work - {reason(error)}")
            return
        build_data["artifacts"].append(library.relative_to(self.root).as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"


def compile_kernel(folder: Path) -> Path:
    """Compile ``log_mel.c`` in ``folder``.

    Returns:
        The library beside it. It appears whole or not at all: a process may have the old one loaded.

    Raises:
        OSError: there is no compiler.
        subprocess.SubprocessError: the compiler refuses, or hangs.
    """
    library = folder / "log_mel.so"
    library.unlink(missing_ok=True)
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise FileNotFoundError(f"none of {', '.join(COMPILERS)} is there")
    with tempfile.TemporaryDirectory(prefix=".log_mel-", dir=folder) as scratch:
        made = Path(scratch) / library.name
        command = [compiler, *FLAGS, str(folder / "log_mel.c"), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        os.replace(made, library)  # noqa: PTH105
    return library


def reason(error: Exception) -> str:
    """What the compiler or the system said, on one line."""
    said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return next((line for line in said if "error" in line), said[0] if said else type(error).__name__)
