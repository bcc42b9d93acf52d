"""The rules of the house, held by reading every module's source: who may import what, and what nobody may call."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "birdinfer"
WINGS = {"training", "export", "report", "kaggle"}
HEAVY = {"torch", "torchaudio", "timm", "librosa", "matplotlib", "sklearn", "scipy"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}


class Import(NamedTuple):
    """One imported module, as the source spells it."""

    target: str
    in_function: bool
    for_types: bool
    """Under ``if TYPE_CHECKING``: never run."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """cli, training, export ... or core: the flat modules and the engines."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return name if name in WINGS | {"cli", "__main__"} else "core"


def imports(module: str) -> list[Import]:
    """All imports of a module; ``from birdinfer import mel`` is one of birdinfer.mel."""
    return list(_imports(TREES[module], module, False, False))


def _imports(node: ast.AST, module: str, in_function: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, in_function, for_types) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = absolute_base(child, module)
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in TREES else base, in_function, for_types)
        else:
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typed = for_types or (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"))
            yield from _imports(child, module, inside, typed)


def absolute_base(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    path = PACKAGE.parent.joinpath(*module.split("."))
    parts = module.split(".") + (["__init__"] if path.is_dir() else [])
    return ".".join([*parts[: -node.level], *([node.module] if node.module else [])])


def calls(module: str) -> set[str]:
    """The names of all that a module calls, as it spells them: ``torch.load``, ``eval``."""
    return {ast.unparse(node.func) for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)}


def top(target: str) -> str:
    return target.split(".")[0]


CORE_MODULES = [module for module in TREES if room(module) == "core"]
WING_MODULES = [module for module in TREES if room(module) in WINGS]
CLI_MODULES = [module for module in TREES if room(module) == "cli"]


def test_every_room_is_seen():
    assert {"birdinfer.mel", "birdinfer.engines.onnxruntime", "birdinfer"} <= set(CORE_MODULES)
    assert "birdinfer.cli.app" in CLI_MODULES
    assert {room(module) for module in WING_MODULES} >= {"training", "export"}


@pytest.mark.parametrize("module", CORE_MODULES)
class TestCore:
    def test_imports_neither_torch_nor_its_like(self, module):
        assert not {each.target for each in imports(module) if top(each.target) in HEAVY}

    def test_imports_no_wing_and_no_command(self, module):
        assert not [each.target for each in imports(module) if room(each.target) != "core"]

    def test_reads_tables_with_pandas_only_where_they_are_read(self, module):
        assert not [each.target for each in imports(module) if top(each.target) == "pandas" and not each.in_function]


@pytest.mark.parametrize("module", WING_MODULES)
def test_wings_know_no_commands(module):
    assert not [each.target for each in imports(module) if room(each.target) in {"cli", "__main__"}]


@pytest.mark.parametrize("module", CLI_MODULES)
def test_commands_import_anything_heavy_inside_their_functions(module):
    light = {*sys.stdlib_module_names, "typer"}
    at_once = {each.target for each in imports(module) if not each.in_function and not each.for_types}
    assert not {
        target
        for target in at_once
        if top(target) not in light
        and target not in {"birdinfer", "birdinfer.errors"}
        and not target.startswith("birdinfer.cli")
    }


def test_no_module_imports_itself_by_a_detour():
    graph = {
        module: {each.target for each in imports(module) if each.target in TREES and not each.for_types} - {module}
        for module in TREES
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", TREES)
class TestEveryModule:
    def test_unpickles_and_evaluates_nothing(self, module):
        called = calls(module)
        assert not called & {"eval", "exec", "compile", "torch.load", "torch.jit.load", "yaml.load", "yaml.unsafe_load"}
        assert not {each.target for each in imports(module) if top(each.target) in UNPICKLERS}

    def test_never_allows_pickle_in_arrays(self, module):
        keywords = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.keyword)]
        assert not [node for node in keywords if node.arg == "allow_pickle" and ast.unparse(node.value) != "False"]

    def test_is_named_for_what_it_does(self, module):
        assert not set(module.split(".")) & DRAWERS

    def test_says_what_it_is(self, module):
        assert ast.get_docstring(TREES[module])

    def test_prints_only_through_a_console(self, module):
        assert "print" not in calls(module)


def test_all_names_of_the_face_resolve():
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
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent, timeout=60
    )
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


class TestTheReaderItself:
    """A rule that sees nothing would always hold."""

    SOURCE = (
        "import torch\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from birdinfer.bundle import Bundle\n"
        "def run():\n    from birdinfer import mel\n    from ..cli import app\n    eval('1')\n"
    )

    @pytest.fixture
    def read(self, monkeypatch):
        monkeypatch.setitem(TREES, "birdinfer.training.made_up", ast.parse(self.SOURCE))
        return "birdinfer.training.made_up"

    def test_sees_imports_wherever_they_stand(self, read):
        assert imports(read) == [
            Import("torch", False, False),
            Import("typing", False, False),
            Import("birdinfer.bundle", False, True),
            Import("birdinfer.mel", True, False),
            Import("birdinfer.cli.app", True, False),
        ]

    def test_sees_calls(self, read):
        assert "eval" in calls(read)

    def test_resolves_relative_imports_of_packages(self):
        (node,) = ast.parse("from . import onnxruntime").body
        assert absolute_base(node, "birdinfer.engines") == "birdinfer.engines"
        assert absolute_base(node, "birdinfer.engines.onnxruntime") == "birdinfer.engines"
