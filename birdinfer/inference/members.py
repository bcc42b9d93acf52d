"""Change what a bundle's members weigh, and take one out of it. A member is added by birdinfer.inference.external."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from birdinfer.errors import ConfigError
from birdinfer.inference.bundle import Bundle, save_manifest
from birdinfer.inference.ensemble import check_blend
from birdinfer.inference.manifest import Manifest
from birdinfer.system.locks import locked


def with_weights(bundle: Bundle, weights: Mapping[str, float]) -> Bundle:
    """Change what members weigh in the mean, by name; ConfigError for a name or a weight that cannot be."""
    for name in weights:
        _check_name(bundle.manifest, name)
    try:
        members = tuple(
            msgspec.structs.replace(member, weight=weights.get(member.name, member.weight))
            for member in bundle.manifest.members
        )
    except ValueError as error:
        raise ConfigError("--weight", str(error)) from error
    if not sum(member.weight for member in members):
        raise ConfigError("--weight", "no member would weigh anything", "give one a number above 0")
    return Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, members=members))


def remove_member(folder: Path, name: str, on_wait: Callable[[str], None] = lambda line: None) -> Bundle:
    """Take a member out of a bundle, with the graphs that no other member uses; return the bundle as it is now.

    Its calibration goes, too, which was of other scores. A kill leaves the old bundle or the new one.

    Raises:
        InputNotFoundError: there is no such bundle.
        ConfigError: there is no such member, it is the only one, or the blend needs it.
    """
    Bundle.load(folder)  # a lock beside a folder that does not exist would make its parents
    with locked(folder, on_wait):
        old = Bundle.load(folder).manifest
        _check_name(old, name)
        members = tuple(member for member in old.members if member.name != name)
        if not members or not sum(member.weight for member in members):
            raise ConfigError(name, "is the only member that weighs anything", "remove the folder, or add another one")
        blend = old.blend.without(name)
        check_blend(blend, [member.name for member in members], [member.weight for member in members])
        save_manifest(folder, msgspec.structs.replace(old, members=members, blend=blend, calibration=None))
        left = Bundle.load(folder)
        used = {graph.file for member in members for graph in member.every_graph}
        (gone,) = (member for member in old.members if member.name == name)
        for graph in gone.every_graph:
            if graph.file not in used:
                with contextlib.suppress(OSError):  # one that stays does no harm
                    (folder / graph.file).unlink()
        return left


def _check_name(manifest: Manifest, name: str) -> None:
    names = [member.name for member in manifest.members]
    if name not in names:
        raise ConfigError("member", f"there is no {name!r} in {manifest.name}", f"it has {', '.join(names)}")
