"""Benchmarks run seldom: mypy checks what they call and import, and this that they load and patch what is there."""

import ast
import importlib
import warnings
from inspect import isclass, ismodule
from pathlib import Path
from pkgutil import resolve_name

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_benchmarks_load_and_patch_only_what_is_there():
    n_patched = 0
    for path in BENCHMARKS.glob("test_*.py"):
        with warnings.catch_warnings(action="ignore"):  # as the benchmarks themselves do
            module = importlib.import_module(path.stem)
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        for call in calls:
            if ast.unparse(call.func).endswith(".setattr") and call.args:
                name = ast.literal_eval(call.args[1]) if len(call.args) == 3 else ""
                target = ast.unparse(call.args[0])
                if isinstance(call.args[0], ast.Constant):
                    n_patched += target.startswith("'birdinfer.")
                    resolve_name(call.args[0].value)
                elif ismodule(found := vars(module).get(target)) or isclass(found):
                    n_patched += 1
                    assert hasattr(found, name), f"{path.name}: {target}.{name}"
    assert n_patched > 4  # the reader still finds them


def test_benchmarks_readme_names_every_benchmark():
    text = (BENCHMARKS / "README.md").read_text()
    missing = [path.stem for path in sorted(BENCHMARKS.glob("test_*.py")) if f"`{path.stem}`" not in text]
    assert missing == []
