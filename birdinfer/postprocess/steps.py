"""Parse and write steps as text: ``smooth:kernel=0.2/0.6/0.2`` -> a checked step, and back.

A step is written as its name, then ``:key=value`` and ``,key=value`` for what differs from its default. ``/`` separates
the elements of lists, ``+`` those of lists within lists, and a table's entries are keys of their own
(``taxon_kernels:kernels.Aves=0.2/0.6/0.2,otherwise=1``). JSON as in a manifest (``{"step": "smooth", ...}``) is
accepted, too, and a file that ends in ``.json`` or ``.toml`` holds a list ``steps`` of such tables.
"""

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import msgspec.inspect

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.postprocess.base import Step, TableStep
from birdinfer.postprocess.calibration import HistogramMatch, Temperature
from birdinfer.postprocess.file_level import CutOff, FileBoost, FileContrast, FileMax, FileTopMean, LowRankPower
from birdinfer.postprocess.priors import PriorShift
from birdinfer.postprocess.smoothing import AdaptiveSmooth, FatTail, GaussianSmooth, LocalMax, Smooth, TaxonKernels
from birdinfer.postprocess.taxonomy import ClassSmooth, GenusSmooth, MirrorGroups
from birdinfer.system.text import read_text

AnyStep = (
    Smooth
    | GaussianSmooth
    | FatTail
    | AdaptiveSmooth
    | LocalMax
    | TaxonKernels
    | FileMax
    | FileTopMean
    | FileBoost
    | FileContrast
    | CutOff
    | LowRankPower
    | GenusSmooth
    | ClassSmooth
    | MirrorGroups
    | Temperature
    | PriorShift
    | HistogramMatch
)
"""All kinds of steps that a recipe, a manifest or a command line may name."""

_FILE_SUFFIXES = (".json", ".toml")
_SEPARATORS = ("/", "+")
"""Of lists, and of lists within lists."""

Table = dict[str, Any]


def catalogue() -> dict[str, type[Step]]:
    """List all kinds of steps by name."""
    kinds: tuple[type[Step], ...] = get_args(AnyStep)
    return {str(kind.__struct_config__.tag): kind for kind in kinds}


def summaries() -> list[str]:
    """Describe each kind of step in a line: how it is written with its defaults, and what it does."""
    lines = []
    for name, kind in catalogue().items():
        fields = msgspec.structs.fields(kind)
        keys = [f"{field.encode_name}=..." for field in fields if field.required]
        for field in fields:
            if not field.required:
                keys += _short_value(field.encode_name, _default(field), _rounded)
        first_line = (kind.__doc__ or "").strip().partition("\n")[0]
        lines.append(f"{name}:{','.join(keys)}  {first_line}")
    return lines


def parse_steps(texts: Sequence[str], where: str = "--post") -> tuple[AnyStep, ...]:
    """Parse steps, each as for :func:`parse_step` or a file with several; relative paths of tables become absolute."""
    steps: list[AnyStep] = []
    for text in texts:
        steps += _read_file(Path(text)) if text.lower().endswith(_FILE_SUFFIXES) else [parse_step(text, where)]
    return tuple(_seen_from_here(step) for step in steps)


def parse_step(text: str, where: str = "--post") -> AnyStep:
    """Parse one step (see the top of this module); ConfigError if there is no such step or key, or a value is wrong.

    >>> parse_step("file_max:power=0.5")
    FileMax(power=0.5)
    """
    if text.lstrip().startswith("{"):
        return _convert(_decoded(text, where), where)
    name, colon, rest = text.strip().partition(":")
    if colon and not rest:
        raise ConfigError(where, f"{text!r} names no key behind the colon", _known_keys(_kind(name, where)))
    table: Table = {}
    for part in rest.split(",") if rest else []:
        _put(table, part, _kind(name, where), where)
    return _convert({"step": name} | table, where, strict=False)


def write_step(step: AnyStep) -> str:
    """Write a step as text that :func:`parse_step` reads back equal: in the short form if possible, else as JSON.

    >>> write_step(Smooth((0.25, 0.5, 0.25)))
    'smooth:kernel=0.25/0.5/0.25'
    """
    parts = []
    for field in msgspec.structs.fields(step):
        value = getattr(step, field.name)
        if field.required or value != _default(field):
            parts += _short_value(field.encode_name, value)
    name = str(type(step).__struct_config__.tag)
    short = f"{name}:{','.join(parts)}" if parts else name
    try:
        if parse_step(short) == step:
            return short
    except ConfigError:
        pass
    return msgspec.json.encode(step).decode()


def _seen_from_here(step: AnyStep) -> AnyStep:
    if not isinstance(step, TableStep):
        return step
    return msgspec.structs.replace(step, table=str(Path(step.table).absolute()))


def _read_file(path: Path) -> list[AnyStep]:
    try:
        text = read_text(path)
        table = tomllib.loads(text) if path.suffix.lower() == ".toml" else msgspec.json.decode(text)
    except FileNotFoundError as error:
        raise InputNotFoundError(path, "no such file of steps") from error
    except (OSError, ValueError, RecursionError, msgspec.DecodeError) as error:
        kind = path.suffix[1:].upper()
        raise ConfigError(path, f"cannot be read as {kind} ({type(error).__name__}: {error})") from error
    listed = table.get("steps") if isinstance(table, dict) else None
    if not isinstance(listed, list) or len(table) != 1:
        raise ConfigError(path, "needed is a list called steps, and nothing else", 'as {"steps": [{"step": "smooth"}]}')
    return [_convert(entry, f"{path}: steps[{index}]") for index, entry in enumerate(listed)]


def _decoded(text: str, where: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(where, f"{text!r} is not JSON ({error})") from error


def _kind(name: str, where: str) -> type[Step]:
    kinds = catalogue()
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(where, f"there is no step {name!r}", f"{meant}there are {', '.join(kinds)}")
    return kinds[name]


def _put(table: Table, part: str, kind: type[Step], where: str) -> None:
    """Put one ``key=value`` into the table, its value nested as deep as the field's type."""
    key, sign, text = (each.strip() for each in part.partition("="))
    if not sign or not key:
        raise ConfigError(where, f"{part!r} is not KEY=VALUE", _known_keys(kind))
    shapes = {field.encode_name: msgspec.inspect.type_info(field.type) for field in msgspec.structs.fields(kind)}
    name, _, entry = key.partition(".")
    shape = shapes.get(name)
    if isinstance(shape, msgspec.inspect.DictType):
        if not entry:
            raise ConfigError(where, f"{key!r} is a table", f"name its entry, as {name}.NAME=VALUE")
        table, name, shape = table.setdefault(name, {}), entry, shape.value_type
    elif key not in shapes:
        raise _no_key(key, kind, where)
    if name in table:
        raise ConfigError(where, f"{key!r} stands twice", "leave one of them out")
    table[name] = _split(text, shape)


def _split(text: str, shape: object, depth: int = 0) -> object:
    """Text -> nested lists of text, as deep as the type."""
    if not isinstance(shape, msgspec.inspect.VarTupleType) or depth == len(_SEPARATORS):
        return text
    return [_split(part, shape.item_type, depth + 1) for part in text.split(_SEPARATORS[depth])]


def _convert(table: object, where: str, *, strict: bool = True) -> AnyStep:
    if not isinstance(table, dict) or not isinstance(table.get("step"), str):
        raise ConfigError(where, "a step is a table with its name as step", 'as {"step": "smooth"}')
    kind = _kind(table["step"], where)
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    for key in table:
        if key not in known and key != "step":
            raise _no_key(str(key), kind, where)
    try:
        return msgspec.convert(table, AnyStep, strict=strict)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        what, _, place = str(error).replace("`", "").partition(" - at $")
        at = f" ({place.lstrip('.')})" if place else ""
        raise ConfigError(f"{where}: {table['step']}", f"{what}{at}") from error


def _no_key(key: str, kind: type[Step], where: str) -> ConfigError:
    return ConfigError(f"{where}: {kind.__struct_config__.tag}", f"there is no key {key!r}", _known_keys(kind, key))


def _known_keys(kind: type[Step], unknown: str = "") -> str:
    """A step's keys as a hint, with the one nearest to an unknown key."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}its keys are {', '.join(known)}" if known else "it has no keys"


def _short_value(key: str, value: object, plain: Callable[[object], str] = str) -> list[str]:
    """``key=value`` in the short form; one for each entry of a table."""
    if isinstance(value, Mapping):
        return [text for name, entry in value.items() for text in _short_value(f"{key}.{name}", entry, plain)]
    return [f"{key}={_joined(value, plain)}"]


def _joined(value: object, plain: Callable[[object], str], depth: int = 0) -> str:
    if isinstance(value, tuple | list) and depth < len(_SEPARATORS):
        return _SEPARATORS[depth].join(_joined(part, plain, depth + 1) for part in value)
    return plain(value)


def _rounded(value: object) -> str:
    # Seven digits: thirds still sum to 1 within what a kernel is allowed.
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
