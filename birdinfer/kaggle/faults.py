"""What would fail on Kaggle: a run of a notebook, or a packed folder -> a line per fault, with what to do.

The notebook's own record (``birdinfer_kaggle.json``) is read but not trusted: the submission is checked against the
sample here.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from birdinfer.errors import BirdinferError, ConfigError, InputNotFoundError, printable
from birdinfer.inference.bundle import Bundle
from birdinfer.kaggle.competitions import Competition, competition, kaggle_image
from birdinfer.kaggle.fake_kaggle import KaggleTree, Run
from birdinfer.kaggle.pack import KERNEL_METADATA, not_uploaded
from birdinfer.kaggle.sandbox import Limits, Ran
from birdinfer.kaggle.wheels import unusable_wheels
from birdinfer.submission.check import check_submission

RECORD = "birdinfer_kaggle.json"
SUBMISSION = "submission.csv"
_OUT_OF_TIME = 4
_NETWORK = re.compile(
    "Network is unreachable|Temporary failure in name resolution|Name or service not known|NameResolutionError|"
    "Failed to resolve|urlopen error|Max retries exceeded"
)
_LONGEST_LINE = 300


class _Record(msgspec.Struct, frozen=True):
    exit_code: int | None = None  # of ``birdinfer predict``
    budget_seconds: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A finished run."""

    run: Run
    tree: KaggleTree
    ran: Ran
    limits: Limits
    changed: list[str]  # names below the read-only input that it has changed
    forecast_seconds: float | None  # for all hidden soundscapes; None if unknown


def run_faults(finished: Finished, competition: Competition) -> list[str]:
    """List all that is wrong with a run."""
    record = _record(finished.tree)
    faults = [*_limit_faults(finished), *_ending_faults(finished, record)]
    faults += record.problems if finished.ran.exit_code == 0 else ()
    faults += _submission_faults(finished, competition)
    if faults and (asked := _NETWORK.search(finished.ran.output)):
        faults.insert(0, f"the network: the notebook asks for it ({asked.group()}) - the internet is off on Kaggle")
    if finished.changed:
        faults.append(f"the input: {', '.join(finished.changed[:3])} was written to - it is read-only on Kaggle")
    return faults + _time_faults(finished, competition, record)


def _limit_faults(finished: Finished) -> list[str]:
    limits = finished.limits
    if finished.ran.stopped_for == "memory":
        return [f"memory: more than {limits.memory_gb:g} GB are held - use fewer workers (--workers) or members"]
    if finished.ran.stopped_for == "time":
        return [f"time: not done within {limits.seconds / 60:.3g} min - Kaggle would stop it"]
    return []


def _ending_faults(finished: Finished, record: _Record) -> list[str]:
    ran, tree = finished.ran, finished.tree
    if ran.stopped_for or ran.exit_code == 0:
        return []
    last = next((line for line in reversed(ran.output.splitlines()) if line.strip()), "it printed nothing")
    ending = f"the notebook ends with {ran.exit_code}: {printable(last).strip()[:_LONGEST_LINE]}"
    if record.problems:
        return [ending]
    if tree.corrupt is None:
        return [f"{ending} - its test folder is empty in the public run: does it cope with that?"]
    return [f"{ending} - one soundscape is corrupt on purpose, {tree.corrupt.name}: does it cope with that?"]


def _submission_faults(finished: Finished, competition: Competition) -> list[str]:
    path, sample = finished.tree.working / SUBMISSION, finished.tree.sample
    if not path.is_file():
        return [f"{SUBMISSION} is missing - Kaggle takes it from the working folder"]
    try:
        report = check_submission(path, sample, competition.year)
    except BirdinferError as error:
        return [str(error)]
    faults = [f"{SUBMISSION}: {problem}" for problem in report.problems if problem.is_error]
    if finished.run is Run.hidden and path.read_bytes() == sample.read_bytes():
        faults.append(f"{SUBMISSION} is the sample itself: nothing was predicted")
    return faults


def _time_faults(finished: Finished, competition: Competition, record: _Record) -> list[str]:
    budget_seconds = record.budget_seconds or finished.limits.seconds
    budget = f"the time budget of {budget_seconds / 60:.3g} min is too small"
    if record.exit_code == _OUT_OF_TIME:
        return [f"{budget}: some of {finished.tree.n_files} soundscapes were left out - fewer members, or INT8"]
    if finished.forecast_seconds is not None and finished.forecast_seconds > budget_seconds:
        hidden = f"{competition.n_hidden_files} soundscapes take {finished.forecast_seconds / 60:.3g} min here"
        return [f"{budget}: {hidden} - birdinfer would predict with fewer; use fewer members, or INT8"]
    return []


def _record(tree: KaggleTree) -> _Record:
    """An empty one if the notebook is not ours, or was stopped."""
    try:
        return msgspec.json.decode((tree.working / RECORD).read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Record()


# ---- A packed folder

_REPACK = "birdinfer kaggle pack makes it"


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedSubmission:
    """The parts of a packed folder."""

    dataset: Path
    notebook: Path
    competition: Competition
    has_internet: bool  # whether the notebook requests it


def read_packed(folder: Path) -> PackedSubmission:
    """Find the parts of a packed submission; InputNotFoundError or ConfigError if the folder is none, or damaged."""
    dataset, metadata = folder / "dataset", folder / "kernel" / KERNEL_METADATA
    if not dataset.is_dir() or not metadata.is_file():
        lacks = f"is no packed submission (it lacks dataset/ or kernel/{KERNEL_METADATA})"
        raise InputNotFoundError(folder, lacks, _REPACK)
    try:
        facts = json.loads(metadata.read_text(encoding="utf-8"))
        slug, code_file = facts["competition_sources"][0], facts["code_file"]
        has_internet = bool(facts.get("enable_internet"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(metadata, f"is damaged ({type(error).__name__}: {error})", "pack again") from error
    return PackedSubmission(
        dataset=dataset,
        notebook=metadata.parent / str(code_file),
        competition=competition(str(slug)),
        has_internet=has_internet,
    )


def packed_faults(packed: PackedSubmission) -> list[str]:
    """List all that would fail on Kaggle with this folder."""
    faults = []
    for name, why in not_uploaded(packed.dataset):
        if (packed.dataset / name).is_dir():
            faults.append(f"nested: dataset/{name} {why} - put its files beside the others")
        else:
            faults.append(f"a name: dataset/{name} {why} - pack again, or leave it out")
    try:
        unusable = unusable_wheels(packed.dataset, kaggle_image())
        faults += [f"a wheel: {path.name} {reason} - pack again, or replace it" for path, reason in unusable]
    except ConfigError as error:
        faults.append(f"a wheel: {error}")
    try:
        Bundle.load(packed.dataset)
    except BirdinferError as error:
        faults.append(f"the bundle: {error}")
    if packed.has_internet:
        what = f"the internet: {KERNEL_METADATA} asks for it, and such a notebook cannot be submitted"
        faults.append(f"{what} - set enable_internet to false")
    return faults
