"""Benchmarks run seldom: mypy checks what they call and import, and this what they name in strings."""

import re
from pathlib import Path
from pkgutil import resolve_name

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PATCHED = re.compile(r"""setattr\(\s*["'](birdinfer\.[\w.]+)["']""")


def test_benchmarks_patch_only_what_is_there():
    names = {name for path in BENCHMARKS.glob("*.py") for name in PATCHED.findall(path.read_text())}
    assert names  # the pattern still finds them
    for name in names:
        resolve_name(name)


def test_benchmarks_readme_names_every_benchmark():
    text = (BENCHMARKS / "README.md").read_text()
    missing = [path.stem for path in sorted(BENCHMARKS.glob("test_*.py")) if f"`{path.stem}`" not in text]
    assert missing == []
