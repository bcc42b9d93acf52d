"""constraints.txt: the versions that were tested lie within what pyproject.toml allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
TESTED = dict(line.split("==") for line in LINES if not line.startswith("#"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_constraints_hold_every_package_of_the_core():
    core = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cpu"]]
    assert {Requirement(line).name for line in core} <= set(TESTED)


def test_constraints_are_versions_that_are_allowed():
    extras = PROJECT["optional-dependencies"].values()
    for needed in map(Requirement, [*PROJECT["dependencies"], *(line for lines in extras for line in lines)]):
        if needed.name in TESTED:
            assert needed.specifier.contains(TESTED[needed.name], prereleases=True), needed
