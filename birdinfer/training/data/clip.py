"""One labelled recording, or a part of one, and all of them that there are to train on."""

import math
from pathlib import Path
from typing import NamedTuple

from birdinfer.species import Species
from birdinfer.training.outputs import shared_taxa


class Clip(NamedTuple):
    """One labelled recording."""

    filename: str
    """Its name in the run's tables: that of its file below the folder of clips, with ``#t=5,10`` for a part of it."""
    path: Path
    primary_label: str
    """"" if it is known to have no species; or a taxon of several, where these are learned, too."""
    secondary_labels: tuple[str, ...] = ()
    author: str = ""
    group: str = ""
    """The table's column: rows of one group belong together."""
    duration_seconds: float = 0.0
    given_fold: str = ""
    """What ``data.fold_column`` says of it: a whole number, or a word; "" for nothing."""
    rating: float | None = None
    """0.5 to 5 stars; None for unrated."""
    url: str = ""
    collection: str = ""
    """Where it comes from, as the table calls it: XC, iNat, CSA."""
    site: str = ""
    """"latitude,longitude" in degrees, rounded to 0.01; "" where unknown."""
    recording: str = ""
    """What it was cut from: ``group``, else ``url``, else its file if parts of files are listed; "" if unknown."""
    begin_seconds: float = 0.0
    """Where it begins in its file."""
    end_seconds: float = math.inf
    """Where it ends in its file, at the latest."""
    source: int = 0
    """Which of ``data.sources`` it belongs to, from 1; 0 for the data folder."""
    row: int = -1
    """Its labels' row in the table of its source; -1 where the labels above are all."""

    @property
    def is_part(self) -> bool:
        """Whether it is a part of its file."""
        return self.begin_seconds > 0 or self.end_seconds < math.inf

    def seconds_of(self, file_seconds: float) -> float:
        """How long it is if its file is so long."""
        return max(0.0, min(self.end_seconds, file_seconds) - self.begin_seconds)


class Metadata(NamedTuple):
    """What there is to train on."""

    clips: tuple[Clip, ...]
    """Those that have sound, in the table's order."""
    species: tuple[Species, ...]
    """In the order of taxonomy.csv: the order of the scores' columns."""
    notes: tuple[str, ...]
    """What was left out, one line each."""
    taxa: tuple[str, ...] = ()
    """Of each species, "" where unknown; empty unless they are learned (``labels.taxon``)."""
    has_nocall: bool = False
    """Whether clips without a species are learned from as such (``labels.nocall``)."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the scores."""
        return tuple(species.label for species in self.species)

    @property
    def also(self) -> frozenset[str]:
        """Primary labels that are no column of the scores: taxa, and "" for no species."""
        return frozenset((*shared_taxa(self.taxa), *([""] if self.has_nocall else []))).difference(self.labels)
