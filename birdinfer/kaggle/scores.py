"""Submissions of a competition, as Kaggle lists them -> their scores, noted with the runs that they came from.

``push`` ends the message of a submission with where it comes from: run, epoch and a digest of what was packed. So no
record is kept here that could be lost, and any machine with the runs can note their scores.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from birdinfer.errors import BirdinferError, printable
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle
from birdinfer.kaggle.client import Client, Submission
from birdinfer.kaggle.competitions import Competition
from birdinfer.runs.overview import Note, note_score, read_notes

_ORIGIN = re.compile(r"(.*)\[run (.+), pack ([0-9a-f]{8})\]\s*", re.DOTALL)
_EPOCH = re.compile(r", epoch (\d{1,6})$")


class Origin(NamedTuple):
    """Where a submission comes from."""

    run: str
    epoch: int | None
    """None: the best one."""
    pack: str
    """The first 8 digits of a SHA-256 of the packed bundle's manifest and its notebook."""


def origin_of(packed: Path) -> Origin:
    """Where a packed submission comes from; raises BundleError if its bundle is damaged."""
    provenance, digest = Bundle.load(packed / "dataset").manifest.provenance, hashlib.sha256()
    for path in (packed / "dataset" / MANIFEST_NAME, *sorted((packed / "kernel").glob("*.py"))):
        digest.update(path.read_bytes())
    return Origin(printable(provenance.run), provenance.epoch, digest.hexdigest()[:8])


def with_origin(message: str, origin: Origin) -> str:
    """A submission's message as Kaggle gets it.

    >>> with_origin("third try", Origin("strong", 12, "3f2a9c1e"))
    'third try [run strong, epoch 12, pack 3f2a9c1e]'
    """
    epoch = "" if origin.epoch is None else f", epoch {origin.epoch}"
    return f"{message} [run {origin.run}{epoch}, pack {origin.pack}]"


def read_origin(description: str) -> tuple[str, Origin | None]:
    """The message of a submission alone, and where it comes from; None if ``push`` did not write it.

    >>> read_origin("third try [run strong, epoch 12, pack 3f2a9c1e]")
    ('third try', Origin(run='strong', epoch=12, pack='3f2a9c1e'))
    >>> read_origin("by hand")
    ('by hand', None)
    """
    found = _ORIGIN.fullmatch(description)
    if found is None:
        return description.strip(), None
    run, epoch = found[2], _EPOCH.search(found[2])
    origin = Origin(run[: epoch.start()] if epoch else run, int(epoch[1]) if epoch else None, found[3])
    return found[1].strip(), origin


# ---- What became of them


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoresSettings:
    """What :func:`fetch_scores` does."""

    competition: Competition
    runs: Path = Path("runs")  # where the runs are that scores are noted with


class Scored(NamedTuple):
    """A submission on Kaggle, and what was done about its score."""

    submission: Submission
    message: str
    origin: Origin | None
    outcome: str
    """``noted``, ``noted before``, or why it was not; Kaggle's status (``pending``, ``error``) without a score."""


def fetch_scores(settings: ScoresSettings) -> list[Scored]:
    """Ask Kaggle for the latest submissions, and note their scores in the ``leaderboard.csv`` of their runs.

    A score that is noted already is not noted twice; a private score that Kaggle gives later is added to it.

    Returns:
        The submissions, the oldest first.

    Raises:
        MissingExtraError: Kaggle's client is not installed.
        ConfigError: it knows no token.
        OutputError: Kaggle refuses.
    """
    listed = Client().submissions(settings.competition.slug)
    return [_noted(each, settings.runs) for each in sorted(listed, key=lambda each: (each.submitted, each.ref))]


def _noted(submission: Submission, runs: Path) -> Scored:
    message, origin = read_origin(submission.description)
    return Scored(submission, message, origin, _note(submission, message, origin, runs))


def _note(submission: Submission, message: str, origin: Origin | None, runs: Path) -> str:
    if math.isnan(submission.public) and math.isnan(submission.private):
        return submission.status if submission.status != "complete" else "no score"
    if origin is None:
        return "not by kaggle push"
    run_dir = runs / origin.run
    # A name is no path: a message on Kaggle may be anyone's.
    if Path(origin.run).name != origin.run or origin.run == ".." or not run_dir.is_dir():
        return f"no such run in {runs}"
    text = " ".join(printable(f"Kaggle {submission.ref}, pack {origin.pack}: {message}").split())
    note = Note(submission.submitted, origin.epoch, submission.public, submission.private, text)
    try:
        if _is_there(note, read_notes(run_dir)):
            return "noted before"
        note_score(run_dir, note, replaces_same_text=True)
    except BirdinferError as error:
        return str(error)
    return "noted"


def _is_there(note: Note, notes: Sequence[Note]) -> bool:
    """Whether a note of this text has its scores, as far as they are written: six digits."""
    written = [f"{each.public:.6g} {each.private:.6g}" for each in notes if each.text == note.text]
    return f"{note.public:.6g} {note.private:.6g}" in written
