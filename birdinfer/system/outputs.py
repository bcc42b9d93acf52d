"""The guard of outputs: what a command may write where, decided before any work and before anything is changed.

An output never destroys an input of its command, nor a file that birdinfer has not written. Every command asks here for
each file and folder that it is about to write; links are followed first.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from birdinfer.errors import OutputError
from birdinfer.system.files import check_writable

STDOUT = Path("-")
"""As an output: standard output."""

_SYSTEM_FOLDERS = ("/dev", "/proc", "/sys")
_HEAD_BYTES = 65_536  # the header and the first rows of a table
_MAX_LINKS = 40  # as the kernel follows
_SIDE_ENDING = ".files.csv"
_FILE_ENDINGS = re.compile(
    r"\.(wave?|w64|rf64|og[ga]|opus|flac|mp3|m4a|wma|ai(f|ff|fc)|caf|au|wac|onnx|ort|safetensors|pth?|ckpt|tflite|h5|"
    r"keras|bin|xml|np[yz]|[ct]sv|txt|json|toml|parquet|zip|ipynb|png|jpe?g|pdf|svg|gif|webp|tiff?)",
    re.IGNORECASE,
)
"""A folder of such a name was meant to be a file."""


class Kind(NamedTuple):
    """What a command writes: its name, the endings that it may have, and how birdinfer's own is recognised."""

    name: str
    endings: tuple[str, ...]
    is_own: Callable[[bytes], bool]
    """Whether a file of these bytes, its first and its last ones, was written by birdinfer."""


def _is_score_table(head: bytes) -> bool:
    # Scores have seven digits: the samples of Kaggle, which pandas wrote, have sixteen.
    return head.startswith(b"row_id,") and not re.search(rb"\d\.\d{12}", head)


SCORES = Kind("table of scores", (".csv",), _is_score_table)
SCORE_FILES = Kind(
    SCORES.name, (".csv", ".parquet", ".npz"),
    lambda head: _is_score_table(head) or (head.startswith(b"PAR1") and b"birdinfer.scores" in head)
    or (head.startswith(b"PK\x03\x04") and head[30:41] == b"row_ids.npy"),
)  # fmt: skip
"""A table of scores, or the same in another format."""
FILES = Kind("table of files", (".csv",), lambda head: head.startswith(b"file,status,"))
PRIORS = Kind("table of priors", (".csv",), lambda head: head.startswith((b"site,hour,windows,", b"site,hour,month,")))
RUNS = Kind("table of runs", (".csv",), lambda head: head.startswith(b"run,folds,finished,"))
PAGE = Kind("page", (".html",), lambda head: head.startswith(b"<!doctype html>") and b"birdinfer" in head)
PICTURE = Kind("picture", (".png",), lambda head: head.startswith(b"\x89PNG") and b"Matplotlib" in head[:512])


def side_table(output: Path) -> Path:
    """Return the path of the table of files beside a table of scores: ``NAME.files.csv`` of ``NAME.csv``."""
    ending = output.suffix if output.suffix.lower() == ".csv" else ".csv"
    return output.with_name(f"{output.stem}.files{ending}")


def check_outputs(
    outputs: Sequence[tuple[Path, Kind]], inputs: Iterable[Path] = (), *, force: bool | None = None
) -> None:
    """Check that files can be written, which may be there already if birdinfer has written them.

    Args:
        outputs: all files that one command writes; :data:`STDOUT` is free for tables.
        inputs: files that it reads.
        force: replace a file that is not birdinfer's; None: the command has no such option. An input is never replaced.

    Raises:
        OutputError: one is an input, a folder or a device, has the ending of something else, is not birdinfer's, cannot
            be written, or two are one file.
    """
    inputs = list(inputs)
    for path, kind in outputs:
        if path != STDOUT:
            _check_output(path, kind, inputs, force)
        elif kind is PICTURE:
            raise OutputError("-", "is standard output, which takes tables only", "name a file that ends in .png")
    written = [os.path.realpath(path) for path, _ in outputs if path != STDOUT]
    for index, target in enumerate(written):
        if target in written[:index]:
            others = " and ".join(str(path) for path, _ in outputs if os.path.realpath(path) == target)
            raise OutputError(target, f"would be written twice, as {others}", "remove the link")


def _check_output(path: Path, kind: Kind, inputs: Sequence[Path], force: bool | None) -> None:
    _refuse_system(path, "give -o - for standard output, or name a file" if kind.name == SCORES.name else "name a file")
    target = _target(path, "name another file")
    found = _stat(target)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OutputError(path, "is a folder", "name a file in it")
    if found is not None and _is_one_of(found, inputs):
        raise OutputError(path, "is an input of this command", "name another file as output")
    _check_ending(path, target, kind)
    if found is not None and stat.S_ISREG(found.st_mode) and not force and found.st_size:
        _check_own(path, kind, "remove it first" if force is None else "give --force")
    check_writable(path)


def _check_ending(path: Path, target: Path, kind: Kind) -> None:
    known = " or ".join(kind.endings)
    if path.suffix.lower() not in kind.endings:
        what = f"ends in {path.suffix}" if path.suffix else "has no ending"
        raise OutputError(path, f"{what}, a {kind.name} in {known}", f"name it {path.stem}{kind.endings[0]}")
    if target.suffix.lower() not in (*kind.endings, ""):
        raise OutputError(path, f"is a link to {target}, which is no {kind.name}", "remove the link, or name another")
    if kind is not FILES and path.name.lower().endswith(_SIDE_ENDING):
        what = f"is the name of the table of files beside {path.name[: -len(_SIDE_ENDING)]}.csv"
        raise OutputError(path, what, f"name a {kind.name} otherwise")


def _check_own(path: Path, kind: Kind, hint: str) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(len(head), path.stat().st_size - _HEAD_BYTES))  # Parquet says at its end what it is
            is_own = kind.is_own(head + file.read(_HEAD_BYTES))
    except OSError as error:
        raise OutputError(path, f"is there and cannot be read ({error.strerror})", "name another file") from error
    if not is_own:
        raise OutputError(path, f"is there and no {kind.name} of birdinfer", f"name another file, or {hint}")
    if not os.access(path, os.W_OK):
        raise OutputError(path, "is write-protected", "name another file, or allow it with chmod u+w")


def check_folder(path: Path, inputs: Iterable[Path] = (), *, hint: str = "name another folder") -> None:
    """Check that a folder can be made, or is there and holds no input of the command; OutputError if not.

    Leave ``inputs`` out where a command only adds files that cannot have the names of its inputs.
    """
    _refuse_system(path, hint)
    target = _target(path, hint)
    found = _stat(target)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise OutputError(path, "is a file", hint)
    above = next((parent for parent in target.parents if parent.exists()), target)
    if found is None and not above.is_dir():
        raise OutputError(path, f"lies in {above}, a file", hint)
    if found is None and _FILE_ENDINGS.fullmatch(path.suffix):
        raise OutputError(path, f"ends in {path.suffix} as a file does, a folder is written", hint)
    for given in inputs:
        if Path(os.path.realpath(given)).is_relative_to(target):
            raise OutputError(path, f"holds {given}, an input of this command", hint)


def _target(path: Path, hint: str) -> Path:
    """Follow all links; OutputError if they lead nowhere but to each other."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OutputError(path, "is a link in a circle", hint)
    return target


def _refuse_system(path: Path, hint: str) -> None:
    """Refuse devices, and what a link names in their folders: a rename would put a file in their place."""
    for step in _links(path):
        is_shared_memory = step.is_relative_to("/dev/shm")  # an ordinary folder
        if any(step.is_relative_to(folder) for folder in _SYSTEM_FOLDERS) and not is_shared_memory:
            raise OutputError(path, "belongs to the system", hint)


def _links(path: Path) -> Iterator[Path]:
    """The path itself, then each link's target on the way to the file, absolute."""
    for _ in range(_MAX_LINKS):
        path = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow the link that is looked at
        yield path
        path = Path(os.path.realpath(path.parent)) / path.name
        yield path
        try:
            path = path.parent / path.readlink()
        except OSError:  # no link
            return


def _is_one_of(found: os.stat_result, inputs: Iterable[Path]) -> bool:
    known = filter(None, map(_stat, inputs))
    return any((each.st_dev, each.st_ino) == (found.st_dev, found.st_ino) for each in known)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None
