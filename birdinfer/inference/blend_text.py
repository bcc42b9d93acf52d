"""Read a blend as it is written on a command line or in a file, and describe one in lines.

::

    mean
    gate:by=fold0,threshold=0.2
    rank                                                    # groups are the families of the members
    rank:perch.weight=2,perch.gate.by=cnn,perch.gate.share=0.9,frogs.species=frogs.csv
    blend.toml                                              # how = "rank", [groups.perch] weight = 2 ...

``/`` separates members and labels of a group. ``GROUP.taxon_weights.CLASS=NUMBER`` and
``GROUP.species_weights.LABEL=NUMBER`` give weights by species. In place of labels a list of them may be named, in place
of weights a table of ``label`` and ``weight``.
"""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.external.label_lists import read_label_list
from birdinfer.inference.rank_blend import RankGate, RankGroup
from birdinfer.system.text import read_text
from birdinfer.tables.cells import number
from birdinfer.tables.csv import rows

_WHERE = "--blend"
_HINT = "write it as mean, gate:by=MEMBER,threshold=0.2, rank, or rank:GROUP.weight=2"
_FILES, _TABLES = (".toml", ".json"), (".csv", ".txt")
_LISTS, _TABLE_KEYS = ("members", "species"), ("taxon_weights", "species_weights", "gate")

Table = dict[str, Any]


def parse_blend(text: str) -> Blend:
    """Read a blend; the groups of ranks are completed when it meets a bundle.

    Raises:
        ConfigError: there is no such blend, key or value.
        InputNotFoundError, MetadataError, LabelError: a file or table is not there, or is none.

    >>> parse_blend("rank:perch.weight=2,perch.taxon_weights.Amphibia=0.5").groups["perch"].taxon_weights
    {'Amphibia': 0.5}
    """
    table = _read_file(Path(text)) if text.lower().endswith(_FILES) else _read_text(text)
    for name, group in table.get("groups", {}).items() if isinstance(table.get("groups", {}), dict) else ():
        if isinstance(group, dict):
            _check_keys(name, group)
            _read_tables(group)
    try:
        return msgspec.convert(table, Blend, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(_WHERE, f"{text!r}: {error}", _HINT) from error


def describe_blend(blend: Blend) -> list[tuple[str, str]]:
    """List what a blend does as names and values: itself, then each group of ranks."""
    if blend.how == "gate":
        return [("blend", f"gate by {blend.by} from {blend.threshold:g}")]
    if blend.how != "rank":
        return [("blend", blend.how)]
    groups = [(f"  {name}", group.text()) for name, group in blend.groups.items()]
    return [("blend", "mean of the groups' ranks over all rows of a run"), *groups]


def _read_text(text: str) -> Table:
    how, _, parameters = text.partition(":")
    table: Table = {"how": how}
    for part in filter(None, parameters.split(",")):
        key, sign, value = part.partition("=")
        if not sign:
            raise ConfigError(_WHERE, f"{part!r} is not KEY=VALUE", _HINT)
        if how == "rank":
            _put(table.setdefault("groups", {}), key, value)
        else:
            table[key] = value
    return table


def _put(groups: Table, key: str, value: str) -> None:
    """Put ``GROUP.KEY=VALUE`` or ``GROUP.KEY.ENTRY=VALUE`` into the table of groups."""
    name, _, rest = key.partition(".")
    field, _, entry = rest.partition(".")
    if not field:
        raise ConfigError(_WHERE, f"{key!r} names no group and key", "write it as GROUP.weight=2")
    group = groups.setdefault(name, {})
    _check_keys(name, {field: None})
    if bool(entry) and field not in _TABLE_KEYS:
        raise ConfigError(_WHERE, f"{key!r}: {field} has no entries", f"write it as {name}.{field}=VALUE")
    is_table = value.lower().endswith(_TABLES)
    if entry:
        group.setdefault(field, {})[entry] = value
    else:
        group[field] = value.split("/") if field in _LISTS and not is_table else value


def _check_keys(group: str, table: Mapping[str, object]) -> None:
    """Refuse keys that a group and its gate do not have."""
    gate = table.get("gate")
    for keys, kind, where in ((table, RankGroup, group), (gate, RankGate, f"{group}.gate")):
        known = [field.encode_name for field in msgspec.structs.fields(kind)]
        for key in keys if isinstance(keys, Mapping) else ():
            if key not in known:
                near = get_close_matches(str(key), known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}?" if near else f"its keys are {', '.join(known)}"
                raise ConfigError(_WHERE, f"group {where!r} has no key {key!r}", hint)


def _read_tables(group: Table) -> None:
    """Replace names of tables by what they hold."""
    for key in ("species", "species_weights"):
        if isinstance(name := group.get(key), str) and name.lower().endswith(_TABLES):
            path = Path(name)
            group[key] = [each.label for each in read_label_list(path)] if key == "species" else _read_weights(path)


def _read_weights(path: Path) -> dict[str, float]:
    return {row["label"]: number(path, line, row, "weight") for line, row in rows(path, ("label", "weight"))}


def _read_file(path: Path) -> Table:
    try:
        text = read_text(path)
        table = tomllib.loads(text) if path.suffix.lower() == ".toml" else msgspec.json.decode(text)
    except FileNotFoundError as error:
        raise InputNotFoundError(path, "no such file of a blend") from error
    except (OSError, ValueError, RecursionError, msgspec.DecodeError) as error:
        raise ConfigError(path, f"cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(table, dict):
        raise ConfigError(path, "holds no blend", 'as how = "rank"')
    return table
