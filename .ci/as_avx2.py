"""Run a command as on a processor that has AVX2 and neither AVX-512, VNNI nor bf16, at the speed of this one.

Usage: python .ci/as_avx2.py COMMAND...

An emulator is a hundred times too slow for measurements and for most tests, and ONNX Runtime has no setting for it. So
ONNX Runtime, OpenVINO and numpy run from copies whose instruction CPUID, by which they ask the processor what it can,
is replaced by a breakpoint that as_avx2.c answers; OpenBLAS and torch have settings. What remains is birdinfer's own
front end, compiled: it keeps its 16 lanes. Needs Linux on x86, gcc and objdump.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

CPUID, BREAKPOINT = b"\x0f\xa2", b"\xcc\x90"
WITHOUT = re.compile(r" (avx512\w*|avx_vnni\w*|amx_\w+)\b")
LIBRARIES = {
    "onnxruntime": ("capi/onnxruntime_pybind11_state*.so",),
    "numpy": ("_core/_multiarray_umath*.so", "_core/_simd*.so"),
    "openvino": ("libs/libopenvino.so.*", "libs/libopenvino_intel_cpu_plugin.so", "libs/libtbb.so.*"),
}
"""Those of a package that ask the processor, when it is asked by :data:`CPUID`."""


def main(command: list[str]) -> None:
    """Make what is not made yet and become the command."""
    folder = Path(tempfile.gettempdir()) / f"as_avx2-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    packages = [shadow(name, folder) for name in LIBRARIES if find_spec(name)]
    library, cpuinfo = folder / "as_avx2.so", folder / "cpuinfo"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
    cpuinfo.write_text(WITHOUT.sub("", Path("/proc/cpuinfo").read_text()))
    paths = [*map(str, packages), *filter(None, [os.environ.get("PYTHONPATH")])]
    added = {
        "LD_PRELOAD": str(library),
        "AS_AVX2_CPUINFO": str(cpuinfo),
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    }
    os.execvpe(command[0], command, os.environ | added)


def shadow(name: str, folder: Path) -> Path:
    """Copy a package as links, its libraries with breakpoints; return the folder for PYTHONPATH."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    original = Path(spec.origin).parent
    made = folder / f"{name}-{version(name)}"
    if not made.exists():
        partial = Path(tempfile.mkdtemp(dir=folder))
        shutil.copytree(
            original, partial / name, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__")
        )
        for pattern in LIBRARIES[name]:
            for link in (partial / name).glob(pattern):
                library = link.resolve()
                link.unlink()
                link.write_bytes(with_breakpoints(library))
        if (beside := original.with_name(f"{name}.libs")).is_dir():
            (partial / beside.name).symlink_to(beside)
        partial.rename(made)
    return made


def with_breakpoints(library: Path) -> bytes:
    """Read a library and replace each CPUID: not each two bytes that look like one, so it is disassembled."""
    content = bytearray(library.read_bytes())
    sections = objdump("-h", library)
    text = re.search(r"\.text\s+\w+\s+(\w+)\s+\w+\s+(\w+)", sections)
    assert text is not None
    shift = int(text[2], 16) - int(text[1], 16)
    listing = subprocess.run(
        ["objdump", "-d", "-j", ".text", library], check=True, capture_output=True, text=True
    ).stdout
    for found in re.finditer(r"^\s*(\w+):\t0f a2 +\tcpuid", listing, re.MULTILINE):
        place = int(found[1], 16) + shift
        assert content[place : place + 2] == CPUID
        content[place : place + 2] = BREAKPOINT
    return bytes(content)


def objdump(*arguments: str | Path) -> str:
    """Return what objdump prints."""
    return subprocess.run(["objdump", *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
