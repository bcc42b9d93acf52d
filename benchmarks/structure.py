"""Print the size and the shape of birdinfer in one or more checkouts, side by side.

    python benchmarks/structure.py BEFORE AFTER

A unit is a direct child of birdinfer/: a package with all its modules, or a module. Each import between units counts,
also one within a function, but not one for type checkers. A unit's level is 1 more than the highest that it imports;
units that import each other in a circle share a level. An import is upward if it points to a unit that stands further
down in CONTRIBUTING's list of packages.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

SMALL_LINES = 60
"""A module below this, with a single importer, could be part of that one."""
MANY_ARGUMENTS = 5

Edges = dict[str, set[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """One file of birdinfer: its dotted name within the package, its text and what that means."""

    name: str
    is_package: bool
    n_lines: int
    tree: ast.Module

    @property
    def unit(self) -> str:
        """The direct child of birdinfer/ that holds the module."""
        return self.name.partition(".")[0]


def read_modules(checkout: Path) -> dict[str, Module]:
    """Read all modules of a checkout, by name; the package's own ``__init__`` has the name ``""``."""
    package, modules = checkout / "birdinfer", {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        text = path.read_text()
        modules[name] = Module(
            name=name, is_package=is_package, n_lines=len(text.splitlines()), tree=ast.parse(text, str(path))
        )
    return modules


def imports(module: Module, modules: dict[str, Module]) -> set[str]:
    """Find the names of the modules of birdinfer that a module imports."""
    found = set()
    for node in _at_runtime(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, module)
            for alias in node.names:
                within = f"{source}.{alias.name}"
                found.add(within if within.removeprefix("birdinfer.") in modules else source)
    inside = {name.removeprefix("birdinfer.") for name in found if name.startswith("birdinfer.")}
    return {name for name in inside if name in modules and name != module.name}


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    parts = ["birdinfer", *module.name.split(".")]
    base = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*base, node.module] if node.module else base)


def _at_runtime(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _at_runtime(node)


def edges_between_units(modules: dict[str, Module]) -> Edges:
    """Gather for each unit the other units that it imports."""
    edges: Edges = defaultdict(set)
    for module in modules.values():
        if module.name:
            edges[module.unit] |= {modules[name].unit for name in imports(module, modules)} - {module.unit, ""}
    return edges


def circles(edges: Edges) -> list[set[str]]:
    """Find the units that import each other, directly or through others."""
    reach = {unit: _reachable(unit, edges) for unit in edges}
    groups = {frozenset({unit} | {other for other in reach[unit] if unit in reach[other]}) for unit in edges}
    return [set(group) for group in groups if len(group) > 1]


def _reachable(unit: str, edges: Edges) -> set[str]:
    seen, ahead = set(), [unit]
    while ahead:
        for other in edges[ahead.pop()] - seen:
            seen.add(other)
            ahead.append(other)
    return seen


def n_levels(edges: Edges) -> int:
    """Count the import levels of the units."""
    group = {unit: frozenset({unit}) for unit in edges}
    for circle in circles(edges):
        group |= dict.fromkeys(circle, frozenset(circle))

    levels: dict[frozenset[str], int] = {}

    def level(of: frozenset[str]) -> int:
        if of not in levels:
            below = {group[other] for unit in of for other in edges[unit]} - {of}
            levels[of] = 1 + max(map(level, below), default=0)
        return levels[of]

    return max(map(level, group.values()))


def n_upward(edges: Edges, ranks: dict[str, int]) -> int | None:
    """Count imports of a unit that stands further down in the list; None where there is no list."""
    if not ranks:
        return None
    return sum(ranks[one] < ranks[other] for one in edges for other in edges[one] if {one, other} <= ranks.keys())


def listed_packages(checkout: Path) -> dict[str, int]:
    """Read CONTRIBUTING's list of packages: each name and the number of its line."""
    text = (checkout / "CONTRIBUTING.md").read_text()
    block = re.search(r"^## Packages\n.*?^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    heads = [re.match(r"(?:\w+(?:\.py|/) *)*", line) for line in (block[1] if block else "").splitlines()]
    lines = enumerate(head[0].split() if head else [] for head in heads)
    return {name.removesuffix("/").removesuffix(".py"): rank for rank, names in lines for name in names}


def measure(checkout: Path) -> dict[str, str]:
    """Measure one checkout: what is counted, in words, and its figure."""
    modules = read_modules(checkout)
    edges = edges_between_units(modules)
    importers: dict[str, set[str]] = defaultdict(set)
    for module in modules.values():
        for name in imports(module, modules):
            importers[name].add(module.name)
    functions = [
        node
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    small = [one for one in modules.values() if one.n_lines < SMALL_LINES and not one.is_package]
    lines = sorted(module.n_lines for module in modules.values() if not module.is_package)
    upward = n_upward(edges, listed_packages(checkout))
    return {
        "files": f"{len(modules)}",
        "lines": f"{sum(module.n_lines for module in modules.values()):,}",
        "units": f"{len(edges)}",
        "import levels of units": f"{n_levels(edges)}",
        "circles": f"{len(circles(edges))}",
        "upward imports": "-" if upward is None else f"{upward}",
        "median module, lines": f"{median(lines):.0f}",
        "longest module, lines": f"{lines[-1]}",
        f"modules below {SMALL_LINES} lines with one importer": f"{sum(len(importers[m.name]) == 1 for m in small)}",
        "functions": f"{len(functions)}",
        "median function, lines": f"{median(map(_n_lines, functions)):.0f}",
        f"functions with {MANY_ARGUMENTS} or more arguments": f"{sum(map(_has_many_arguments, functions))}",
    }


def _n_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _has_many_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) >= MANY_ARGUMENTS


def main() -> None:
    """Print the table."""
    checkouts = [Path(name) for name in sys.argv[1:]] or [Path(__file__).parents[1]]
    columns = [measure(checkout) for checkout in checkouts]
    width = max(map(len, columns[0]))
    names = [checkout.resolve().name for checkout in checkouts]
    print("".ljust(width), *(name.rjust(12) for name in names))
    for what in columns[0]:
        print(what.ljust(width), *(column[what].rjust(12) for column in columns))


if __name__ == "__main__":
    main()
