"""The settings of a run, what it reports while it continues, and what it has written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from birdinfer.audio.channels import MEAN
from birdinfer.audio.status import FINE, Status
from birdinfer.callbacks import Callback
from birdinfer.inference.results import SoundscapeResult
from birdinfer.inference.voice import VoiceMode
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import MissingSpecies, Written

if TYPE_CHECKING:
    from birdinfer.inference.autotune import AutotuneResult, Measurement


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How a run treats an earlier one, how much time it has, and what it runs on."""

    resume: bool = False  # continue a run that was killed or stopped, repeat the files that were not well
    force: bool = False
    """Start again and discard what a stopped run has finished; replace what birdinfer has not written."""
    keeps_progress: bool = True  # whether ``resume`` can find the run again: not if the output is temporary
    budget_seconds: float | None = None  # from ``started`` to the finished tables
    started: float = field(default_factory=perf_counter)  # by :func:`time.perf_counter`
    engine: str | None = None
    """``onnxruntime``, ``openvino:bf16`` ...; ``auto`` measures; None: the default engine in fp32."""
    workers: int | None = None  # threads; one per core if None
    batch_size: int | None = None  # windows in one call of a graph
    channel: str = MEAN  # of files with several: their mean, the number of one from 1, ``loudest`` or ``each``
    voice: VoiceMode | None = None
    """Look for human speech: ``skip`` its windows, or ``mute`` it before anything is scored."""
    embeddings: Path | None = None
    """A folder for the embeddings of all windows (:mod:`birdinfer.inference.embeddings`); None: they are not kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionSettings(RunSettings):
    """What a prediction writes, how much time it has, and what it runs on."""

    output: Path = Path("submission.csv")
    """The table. Beside it: ``NAME.files.csv``, and ``NAME.csv.progress/`` while files are not done, or not well."""
    sample_submission: Path | None = None  # write exactly its rows and columns, in its order
    missing_species: MissingSpecies = "error"
    """Species of the sample that the bundle lacks: refuse, or fill with ``"prior"`` (its mean fallback) or a number."""
    year: int = 2026  # the BirdCLEF year whose format is written, 2021 to 2026
    threshold: float = 0.5  # 2021 and 2022 only: a species counts as present from this probability on
    group_tables: Path | None = None
    """A folder for a table of each group of a blend by rank, as it is before it is ranked; None: none are written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionOutcome:
    """What a prediction has written."""

    results: list[SoundscapeResult]  # one for each file, in the order of the inputs, without probabilities
    names: Mapping[Path, str]  # of the recordings, as row ids hold them without a sample
    written: Written
    output: Path
    side_table: Path
    n_windows: int  # rows that were scored, of all files
    sound_seconds: float  # processed by this run, without that of an earlier run that it continues
    seconds: float  # wall time of this run
    engine: str
    """``onnxruntime:int8, 2 workers, batch 3; 4 of 5 members in int8, the others in fp32``."""

    @property
    def n_left_out(self) -> int:
        """Files for which there was no time."""
        return sum(result.status is Status.skipped_by_budget for result in self.results)

    @property
    def n_damaged(self) -> int:
        """Files that failed or are damaged."""
        fine = FINE | {Status.skipped_by_budget}
        return sum(result.status not in fine for result in self.results)

    @property
    def n_unanswered(self) -> int:
        """Rows of the sample that hold the fallback though nothing is wrong with a file: they fit to none."""
        return self.written.rows_without_file + self.written.rows_past_end

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left for ``resume`` to repeat."""
        return all(result.status in FINE for result in self.results)


class PredictionCallback(Callback):
    """Receive what a prediction reports, in the thread that started the run; :meth:`on_sound` in any worker.

    :meth:`on_engine_trial` comes from another thread, too.
    """

    def on_engine_trial(self, trial: "Measurement") -> None:
        """Report one measurement of ``engine="auto"``."""

    def on_engine_choice(self, choice: "AutotuneResult") -> None:
        """Report what ``engine="auto"`` has chosen."""

    def on_start(self, n_files: int) -> None:
        """Report how many files are still to be processed; the first of them is about to be opened."""

    def on_sound(self, share: float, seconds: float) -> None:
        """Report that a share of all sound (0 to 1, by the size of the files) was scored, and how many seconds."""

    def on_file(self, result: SoundscapeResult) -> None:
        """Report a finished file."""

    def on_tables(self, outcome: PredictionOutcome) -> None:
        """Report that the tables are written."""

    def on_end(self, outcome: PredictionOutcome, scores: ScoreStore) -> None:
        """Use the scores of all files before they are removed; the tables are safe whatever is raised here."""
