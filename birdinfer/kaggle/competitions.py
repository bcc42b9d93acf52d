"""The BirdCLEF competitions: what Kaggle gives a notebook of each year, and how long it may take.

Comes in: a slug, the last part of a competition's address. Goes out: facts; the shape of a year's submission is no part
of them. The hidden test's size is a round number, from the competitions' pages and winners' write-ups: it is there to
forecast with.
"""

import difflib

import msgspec

from birdinfer.errors import ConfigError


class Competition(msgspec.Struct, frozen=True):
    """One year's competition."""

    slug: str
    year: int
    minutes_limit: int
    """For the whole notebook, on a CPU, internet off."""
    n_hidden_files: int
    """About so many soundscapes in the hidden test."""
    hidden_file_seconds: int
    """Length of each."""
    train_folder: str
    """Sound that is there in the public run, too: soundscapes where the year has any, else clips by species."""
    test_folder: str = "test_soundscapes"
    """Filled in the hidden run; in the public run empty, or with one file."""
    sample_name: str = "sample_submission.csv"

    @property
    def hidden_seconds(self) -> int:
        """Sound in the hidden test, in seconds."""
        return self.n_hidden_files * self.hidden_file_seconds


COMPETITIONS: dict[str, Competition] = {
    each.slug: each
    for each in (
        Competition("birdclef-2021", 2021, 540, 80, 600, "train_soundscapes"),
        Competition("birdclef-2022", 2022, 540, 5_500, 60, "train_audio"),
        Competition("birdclef-2023", 2023, 120, 200, 600, "train_audio"),
        Competition("birdclef-2024", 2024, 120, 1_100, 240, "unlabeled_soundscapes"),
        Competition("birdclef-2025", 2025, 90, 700, 60, "train_soundscapes"),
        Competition("birdclef-2026", 2026, 90, 600, 60, "train_soundscapes"),
    )
}
"""By slug, oldest first."""


def competition(slug: str) -> Competition:
    """A competition by its slug.

    Raises:
        ConfigError: no such competition is known; the message names the nearest.
    """
    if slug in COMPETITIONS:
        return COMPETITIONS[slug]
    near = difflib.get_close_matches(slug, COMPETITIONS, n=1, cutoff=0)
    raise ConfigError("--competition", f"{slug!r} is not known", f"did you mean {near[0]}?")
