"""Wheels for tests: a METADATA in a zip, under a name that says what they are for."""

import zipfile
from pathlib import Path


def write_wheel(folder: Path, name: str, tag: str = "py3-none-any", needs=(), python: str = "", library: bytes = b""):
    """``write_wheel(folder, "soxr-1.0", "cp312-abi3-manylinux_2_28_x86_64", ["numpy"])`` -> its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{tag}.whl"
    distribution, version = name.split("-")
    lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}"] if python else []
    lines += [f"Requires-Dist: {need}" for need in needs]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.dist-info/METADATA", "\n".join(lines) + "\n\nA description.\n")
        if library:
            archive.writestr(f"{distribution}/lib.so", library)
    return path
