"""What became of a sound file, in one word of a fixed vocabulary: for the table beside a result, and its readers."""

from enum import StrEnum


class Status(StrEnum):
    """From good to bad."""

    ok = "ok"
    silent = "silent"
    """Scored, but all its samples are one value: a dead microphone."""
    too_short = "too short"
    """Scored, though it holds less sound than makes a row."""
    non_finite = "non-finite"
    """Scored with its NaN and infinite samples taken as 0; or not scored, for a model answered NaN."""
    truncated = "truncated"
    """Scored as far as it goes: less sound than its header claims, or it breaks off."""
    damaged = "damaged"
    """Scored, with sound missing or broken within."""
    unreadable = "unreadable"
    """Nothing of it could be scored."""
    skipped_by_budget = "skipped by budget"
    """Not scored, or only in part: the time was used up."""
    stopped = "stopped"
    """Not scored, or only in part: the run was told to stop."""
