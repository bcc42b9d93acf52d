"""The scripts of jobs: a template of ``train/slurm/`` -> text for sbatch.

A template is a shell script that gets the command to run as its arguments, so nothing has to be quoted into it. It has
two gaps, ``@@{setup}`` for lines of the user's own and ``@@{guard}`` for what stops and requeues the work.
"""

from collections.abc import Sequence
from pathlib import Path
from string import Template

from birdinfer.errors import ConfigError, InputNotFoundError

ARRAY, SEARCH, SEVERAL_PROCESSES = "array.sbatch", "search.sbatch", "several_processes.sbatch"
_GUARD = "guard.sh"


class _Gaps(Template):
    """A shell is full of ``$``, and ``"$@"`` has the other sign once."""

    delimiter = "@@"


def shipped(name: str) -> Path:
    """A template that comes with birdinfer: within the installed package, or in ``train/slurm`` of the checkout.

    Raises:
        InputNotFoundError: this installation has none.
    """
    package = Path(__file__).parents[2]
    for folder in (package / "slurm_templates", package.parent / "train" / "slurm"):
        if (folder / name).is_file():
            return folder / name
    raise InputNotFoundError(package / "slurm_templates", f"this installation has no {name}", "install it again")


def script(template: Path, setup: Sequence[str] = ()) -> str:
    """A job's script.

    Args:
        template: one that comes with birdinfer, or the user's own.
        setup: lines of shell that run before the work.

    Raises:
        InputNotFoundError: there is no such file.
        ConfigError: it is no text, has a gap that nobody fills, or none for the setup that is asked for.
    """
    gaps = _Gaps(_read(template))
    if "setup" not in _names(gaps, template) and setup:
        raise ConfigError(template, "has no line @@{setup}, where --setup would go", "add it, or leave --setup out")
    guard = _read(shipped(_GUARD)).rstrip("\n")
    return gaps.substitute(setup="\n".join(setup) or "# (what --setup asks for)", guard=guard)


def _names(gaps: _Gaps, path: Path) -> set[str]:
    """The gaps of a template.

    Raises:
        ConfigError: one of them is no gap of ours.
    """
    names = set(gaps.get_identifiers()) if gaps.is_valid() else {"@@ and no name"}
    unknown = sorted(names - {"setup", "guard"})
    if unknown:
        raise ConfigError(path, f"has a gap @@{{{unknown[0]}}}, known are @@{{setup}} and @@{{guard}}")
    return names


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputNotFoundError(path, "no such template", "copy one of train/slurm/ and change it") from error
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(path, "cannot be read as a template", "copy one of train/slurm/ and change it") from error
