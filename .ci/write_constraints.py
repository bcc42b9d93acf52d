"""Write constraints.txt: the version of every package that pyproject.toml names, as it is installed where this runs.

Usage: .venv/bin/python .ci/write_constraints.py > constraints.txt
"""

import importlib.metadata
import re
import tomllib
from pathlib import Path


def named_packages(pyproject: Path) -> list[str]:
    """List the packages of the core and of all extras but those of developers and documents."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"]
    users = sorted(extras.keys() - {"dev", "docs"})
    lines = [*project["dependencies"], *(line for name in users for line in extras[name])]
    names = {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for line in lines}
    return sorted(names - {"birdinfer"})


def main() -> None:
    """Print ``name==version`` lines; packages that are not installed here are left out."""
    print("# The versions that birdinfer's tests ran with: pip install birdinfer[cpu] -c constraints.txt")
    for name in named_packages(Path(__file__).parents[1] / "pyproject.toml"):
        try:
            print(f"{name}=={importlib.metadata.version(name).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
