"""The status of a sound file, one of a fixed set of words: for the table beside a result, and its readers."""

from enum import StrEnum


class Status(StrEnum):
    """From good to bad."""

    ok = "ok"
    length_unknown = "length unknown"
    """Scored to the end of the file: its header leaves the length open or is wrong, or zeros end it."""
    silent = "silent"
    """Scored, but all its samples are one value: a dead microphone."""
    too_short = "too short"
    """Scored, though it holds less sound than makes a row."""
    non_finite = "non-finite"
    """Scored with its NaN and infinite samples taken as 0."""
    truncated = "truncated"
    """Scored up to its end: less sound than its header claims, or it breaks off."""
    damaged = "damaged"
    """Scored, with sound missing or broken within."""
    unreadable = "unreadable"
    """Nothing of it could be scored."""
    not_opened = "not opened"
    """Not scored: a folder that cannot be searched, a link to nothing, an input without sound."""
    failed = "failed"
    """Not scored, or only in part: a model or a step of the program failed at it, whatever the file holds."""
    crashed = "crashed"
    """Not scored: the process that read it was killed, each time."""
    skipped_by_budget = "skipped by budget"
    """Not scored, or only in part: the time was used up."""
    stopped = "stopped"
    """Not scored, or only in part: the run was stopped."""


FINE = frozenset({Status.ok, Status.length_unknown, Status.silent, Status.too_short})
"""Nothing is wrong with the file: it counts as done for good, and any other is repeated by ``--resume``."""
