"""What went wrong in one run of a notebook, in words: how it ended and what it left -> lines, empty if all is well.

A line is what would fail on Kaggle, and what to do. What the notebook says of itself (``birdinfer_kaggle.json``) is
heard, but not trusted: the submission is held against the sample here.
"""

import re
from typing import NamedTuple

import msgspec

from birdinfer.errors import BirdinferError, printable
from birdinfer.kaggle.competitions import Competition
from birdinfer.kaggle.fake_kaggle import KaggleTree, Run
from birdinfer.kaggle.isolation import Limits, Ran
from birdinfer.submission_rules import check_submission

RECORD = "birdinfer_kaggle.json"
SUBMISSION = "submission.csv"
_OUT_OF_TIME = 4
_NETWORK = re.compile(
    "Network is unreachable|Temporary failure in name resolution|Name or service not known|NameResolutionError|"
    "Failed to resolve|urlopen error|Max retries exceeded"
)
_LONGEST_LINE = 300


class _Record(msgspec.Struct, frozen=True):
    """What the notebook says of itself."""

    exit_code: int | None = None
    """Of ``birdinfer predict``."""
    budget_seconds: float | None = None
    problems: tuple[str, ...] = ()


class Finished(NamedTuple):
    """A run that is over."""

    run: Run
    tree: KaggleTree
    ran: Ran
    limits: Limits
    changed: list[str]
    """Names below the read-only input that it has touched."""
    forecast_seconds: float | None
    """For all hidden soundscapes; None where it could not be told."""


def run_faults(finished: Finished, competition: Competition) -> list[str]:
    """All that is wrong with a run."""
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
        return [f"memory: more than {limits.memory_gb:g} GB are held - take fewer lanes (--workers) or members"]
    if finished.ran.stopped_for == "time":
        return [f"time: not done within {limits.seconds / 60:.3g} min - Kaggle would stop it"]
    return []


def _ending_faults(finished: Finished, record: _Record) -> list[str]:
    ran, tree = finished.ran, finished.tree
    if ran.stopped_for or ran.exit_code == 0:
        return []
    last = next((line for line in reversed(ran.output.splitlines()) if line.strip()), "it said nothing")
    told = f"the notebook ends with {ran.exit_code}: {printable(last).strip()[:_LONGEST_LINE]}"
    if record.problems:
        return [told]
    if tree.corrupt is None:
        return [f"{told} - its test folder is empty in the public run: does it cope with that?"]
    return [f"{told} - one soundscape is corrupt on purpose, {tree.corrupt.name}: does it cope with that?"]


def _submission_faults(finished: Finished, competition: Competition) -> list[str]:
    path, sample = finished.tree.working / SUBMISSION, finished.tree.sample
    if not path.is_file():
        return [f"{SUBMISSION} is missing - Kaggle takes it from the working folder"]
    try:
        report = check_submission(path, sample, competition.year)
    except BirdinferError as error:
        return [str(error)]
    faults = [f"{SUBMISSION}: {finding}" for finding in report.findings if finding.is_fault]
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
        return [f"{budget}: {hidden} - birdinfer would hear with less; take fewer members, or INT8"]
    return []


def _record(tree: KaggleTree) -> _Record:
    """An empty one if the notebook is somebody else's, or was stopped."""
    try:
        return msgspec.json.decode((tree.working / RECORD).read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return _Record()
