"""What Kaggle's client wants to know of a data set and a notebook: ``dataset-metadata.json``, ``kernel-metadata.json``.

Comes in: an owner, a title, a competition. Goes out: two JSON files as version 2 of the official client reads them, and
what stands in them, read back before anything is sent. A page's address is its title in lower case with hyphens for all
else than letters and digits; if a notebook's does not match its title, Kaggle makes another page of it.
"""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.files import write_atomic
from birdinfer.kaggle.competitions import Competition

DATASET_METADATA = "dataset-metadata.json"
KERNEL_METADATA = "kernel-metadata.json"
NOTEBOOK = "birdinfer.ipynb"
SCRIPT = "birdinfer.py"
UNKNOWN_OWNER = "YOUR_NAME"
"""Stands for the account where none was named; nothing can be pushed so."""
_LENGTHS = range(6, 51)
"""Characters that Kaggle allows a data set's title and address."""
_NOTEBOOK_SUFFIX = " submission"
_OWNER = re.compile(r"[a-z0-9][a-z0-9-]*")
_REPACK = "pack again"


class Pages(NamedTuple):
    """Where a submission lies on Kaggle."""

    dataset: str
    """``OWNER/SLUG``."""
    kernel: str
    """``OWNER/SLUG`` of the notebook."""
    competition: str
    """Its slug."""


def slug(title: str) -> str:
    """A title as Kaggle spells it in an address: ``Bäume 2`` -> ``baume-2``."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def usual_title(name: str) -> str:
    """The title of a bundle's data set, from the bundle's name: short enough for the notebook's as well."""
    longest = _LENGTHS[-1] - len(_NOTEBOOK_SUFFIX)
    return slug(f"birdinfer {name}").replace("-", " ")[:longest].strip()


def check_page(owner: str, title: str) -> None:
    """Refuse what Kaggle would.

    Raises:
        ConfigError: no such account can be, or title or address are too short or too long.
    """
    if owner != UNKNOWN_OWNER and not _OWNER.fullmatch(owner):
        raise ConfigError("--owner", f"{owner!r} is no account's name", "give it as in kaggle.com/NAME, in lower case")
    limits = f"{_LENGTHS[0]} to {_LENGTHS[-1]} characters"
    for what, text in (("title", title), ("address", slug(title)), ("notebook's title", title + _NOTEBOOK_SUFFIX)):
        if len(text) not in _LENGTHS:
            raise ConfigError("--title", f"the {what} {text!r} has {len(text)} characters", f"Kaggle allows {limits}")


def write_dataset_metadata(folder: Path, owner: str, title: str) -> None:
    """Write the data set's metadata; its licence hands on no right that the training data might not give.

    Raises:
        OutputError: it cannot be written.
    """
    facts = {"id": f"{owner}/{slug(title)}", "title": title, "licenses": [{"name": "other"}]}
    _write(folder / DATASET_METADATA, facts)


def write_kernel_metadata(folder: Path, owner: str, title: str, competition: Competition) -> None:
    """Write the notebook's metadata: private, no internet, no accelerator, the data set and the competition mounted.

    Raises:
        OutputError: it cannot be written.
    """
    name = title + _NOTEBOOK_SUFFIX
    facts = {
        "id": f"{owner}/{slug(name)}",
        "title": name,
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": False,
        "enable_tpu": False,
        "enable_internet": False,
        "keywords": [],
        "dataset_sources": [f"{owner}/{slug(title)}"],
        "competition_sources": [competition.slug],
        "kernel_sources": [],
        "model_sources": [],
    }
    _write(folder / KERNEL_METADATA, facts)


def read_pages(dataset: Path, kernel: Path) -> Pages:
    """Where a packed submission goes, from its metadata.

    Raises:
        InputNotFoundError: a file of metadata is not there.
        ConfigError: it is damaged, names no account, or the notebook does not mount this data set.
    """
    data, notebook = _read(dataset / DATASET_METADATA), _read(kernel / KERNEL_METADATA)
    try:
        page = Pages(data["id"], notebook["id"], notebook["competition_sources"][0])
        mounted = notebook["dataset_sources"]
    except (KeyError, IndexError, TypeError) as error:
        raise ConfigError(kernel.parent, f"its metadata lack {error}", _REPACK) from error
    if any(each.partition("/")[0] == UNKNOWN_OWNER for each in page[:2]):
        raise ConfigError(kernel.parent, "was packed without an account", f"{_REPACK} with --owner NAME")
    if page.dataset not in mounted:
        raise ConfigError(kernel / KERNEL_METADATA, f"does not mount {page.dataset}", _REPACK)
    return page


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputNotFoundError(path, "is missing", "birdinfer kaggle pack makes it")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(path, f"is no JSON ({error})", _REPACK) from error
    if not isinstance(facts, dict):
        raise ConfigError(path, "holds no names and values", _REPACK)
    return facts


def _write(path: Path, facts: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(facts, indent=2) + "\n")
