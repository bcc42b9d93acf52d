"""The rules of the code base, checked by reading every module: who may import what, and what no module may call."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "birdinfer"
TESTS = ROOT / "tests"
HEAVY = {"torch", "torchaudio", "timm", "librosa", "matplotlib", "sklearn", "scipy", "pandas", "optuna", "onnx"}
MAY_LOAD_HEAVY = {"training", "tuning", "export", "rounds", "heads", "plots"}
WHEN_CALLED = {("birdinfer.result", "pandas")}
"""What a function loads that its caller asks for by name."""
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
EVALUATORS = {"eval", "exec", "compile", "torch.load", "torch.jit.load", "yaml.load", "yaml.unsafe_load"}
READS_TENSORS = {"birdinfer.training.models.weight_files": {"torch.load"}}
"""Modules that may read files of torch: with ``weights_only=True``, tensors and plain containers."""
CATCH_ALLS = {"utils", "util", "helpers", "helper", "common", "misc"}


class Import(NamedTuple):
    """One imported module, as the source spells it."""

    target: str
    in_function: bool
    for_types: bool
    """Under ``if TYPE_CHECKING``: never run."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[str, ast.Module]:
    """All modules of birdinfer; not when this file is loaded, which each process of the tests does."""
    return {module_name(path): ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> list[Import]:
    """All imports of a module; ``from birdinfer.features import pcen`` is one of birdinfer.features.pcen."""
    return list(_imports(trees()[module], module, False, False))


def _imports(node: ast.AST, module: str, in_function: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, in_function, for_types) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, f"{module}: relative import"
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield Import(full if full in trees() else child.module or "", in_function, for_types)
        else:
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typed = for_types or (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"))
            yield from _imports(child, module, inside, typed)


def calls(module: str) -> set[str]:
    """The names of all that a module calls, as it spells them: ``torch.load``, ``eval``."""
    return {ast.unparse(node.func) for node in ast.walk(trees()[module]) if isinstance(node, ast.Call)}


def package(module: str) -> str:
    """``birdinfer.audio.stream`` -> audio; "" for birdinfer itself."""
    return f"{module}..".split(".")[1]


def package_order() -> list[set[str]]:
    """The list of CONTRIBUTING, from the top: each line names what may import the lines above it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"^## Packages\n.*?^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    heads = [re.match(r"(?:\w+(?:\.py|/) *)*", line)[0].split() for line in block.splitlines()]
    return [{name.removesuffix(".py").removesuffix("/") for name in head} for head in heads if head]


RANKS = {name: rank for rank, names in enumerate(package_order()) for name in names}


def test_every_package_stands_in_the_list():
    assert {package(module) for module in trees()} - {"", "__main__"} == set(RANKS)


def test_imports_point_to_packages_above_in_the_list():
    against = [
        f"{module} -> {each.target}"
        for module in trees()
        if package(module) in RANKS
        for each in imports(module)
        if each.target.split(".")[0] == "birdinfer"
        and each.target != "birdinfer"
        and RANKS[package(each.target)] > RANKS[package(module)]
    ]
    assert against == []


def test_no_module_imports_itself_by_a_detour():
    graph = {
        module: {each.target for each in imports(module) if each.target in trees() and not each.for_types} - {module}
        for module in trees()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_inference_loads_nothing_heavy():
    loaded = [
        f"{module} -> {each.target}"
        for module in trees()
        if package(module) not in MAY_LOAD_HEAVY
        for each in imports(module)
        if each.target.split(".")[0] in HEAVY
        and not each.for_types
        and not (each.in_function and (module, each.target) in WHEN_CALLED)
    ]
    assert loaded == []


def test_no_module_unpickles_evaluates_or_prints():
    for module, tree in trees().items():
        assert not calls(module) & {*EVALUATORS, "print"} - READS_TENSORS.get(module, set()), module
        assert not {each.target for each in imports(module)} & UNPICKLERS, module
        keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]
        assert all(ast.unparse(node.value) == "False" for node in keywords if node.arg == "allow_pickle"), module
        assert all(ast.unparse(node.value) == "True" for node in keywords if node.arg == "weights_only"), module


def test_what_reads_files_of_torch_reads_tensors_alone():
    for module, readers in READS_TENSORS.items():
        found = [node for node in ast.walk(trees()[module]) if isinstance(node, ast.Call)]
        for call in (call for call in found if ast.unparse(call.func) in readers):
            assert "weights_only" in {keyword.arg for keyword in call.keywords}, module


def test_only_its_door_imports_timm():
    """Which module comes first decides whether timm can be imported beside a CPU torch: tests go by the door, too."""
    texts = {str(path.relative_to(TESTS)): path.read_text() for path in TESTS.rglob("*.py")}
    tests = {name: ast.parse(text) for name, text in texts.items() if re.search("timm|torchvision", text)}
    statements = [
        (name, node.module if isinstance(node, ast.ImportFrom) else alias.name)
        for name, tree in {**trees(), **tests}.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert [each for each in statements if (each[1] or "").partition(".")[0] in {"timm", "torchvision"}] == []


def test_every_module_has_a_name_and_a_docstring_of_its_own():
    for module, tree in trees().items():
        assert not set(module.split(".")) & CATCH_ALLS, module
        assert ast.get_docstring(tree), module


def test_all_public_names_resolve():
    import birdinfer

    assert sorted(birdinfer.__all__) == birdinfer.__all__
    for name in birdinfer.__all__:
        assert getattr(birdinfer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        birdinfer.nothing  # noqa: B018


@pytest.mark.parametrize(
    "code",
    ["import birdinfer", "import birdinfer.cli.app", "from birdinfer.cli.app import main; main(['--help'])"],
)
def test_help_imports_nothing_heavy(code):
    listed = ("torch", "pandas", "onnxruntime", "openvino", "numpy", "soundfile", "timm", "sklearn", "matplotlib")
    program = f"import sys\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code\n"
    program += f"print('loaded:', *[name for name in {listed!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_the_reader_sees_imports_and_calls_wherever_they_stand(monkeypatch):
    """A rule that sees nothing would always hold."""
    source = (
        "import torch\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from birdinfer.inference.bundle import Bundle\n"
        "def run():\n    from birdinfer.features import log_mel\n    eval('1')\n"
    )
    monkeypatch.setitem(trees(), "birdinfer.training.made_up", ast.parse(source))
    assert imports("birdinfer.training.made_up") == [
        Import("torch", False, False),
        Import("typing", False, False),
        Import("birdinfer.inference.bundle", False, True),
        Import("birdinfer.features.log_mel", True, False),
    ]
    assert "eval" in calls("birdinfer.training.made_up")
